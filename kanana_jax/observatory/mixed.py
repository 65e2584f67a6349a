"""A mixed model that joins pooled and paired evidence: a score by compute in two languages, family, base and recipe.

    arcsin √score = intercept + slopes · log10 compute by language + family effect + lineage effect + own term

A continual model shares its base's lineage effect, so that differences within pairs and the line through all models
enter one likelihood. The prediction for a continual model is the line plus the inherited part of its base's distance
from the line (a best linear unbiased prediction; Henderson 1975, Biometrics 31:423). The own terms of a family's
continual models may be correlated, since gains of one developer are similar.

A few families hardly determine the variance components. As in `unseen`, they are integrated out instead of estimated:
each point of a grid is weighted by its restricted likelihood (Patterson and Thompson 1971), with a flat prior. At a
grid point, coefficients and predictions follow Student's t with n − k degrees of freedom; intervals are those of the
mixture. No random sampling is involved. The arcsine gives a share the sampling variance 1/(4·items) whatever its value
(Bartlett 1947, Biometrics 3:39), which bounds the own term from below, and keeps predictions within the range.
"""

import dataclasses
import itertools
import types
from collections.abc import Mapping

import numpy as np
from scipy import special

from kanana_jax.observatory import gls, sampling, undisclosed
from kanana_jax.observatory.tables import Tables

Array = np.ndarray
MIN_MODELS = 6
GRID = (0.1, 0.3, 0.5, 0.7, 0.9)  # grid points of each of the three variance shares
SHARES = np.array(list(itertools.product(GRID, GRID, GRID)))
# Assumed share of the reference language in all text, if undisclosed; the true share is between a half and nearly all.
REFERENCE_SHARE = 0.7
NO_ENDS: Mapping[str, str] = types.MappingProxyType({})


@dataclasses.dataclass(frozen=True)
class Kin:
    """Relations between n models.

    Attributes:
      families: str [n].
      roots: str [n], the model trained from scratch that each descends from (itself, if trained from scratch).
      continual: bool [n], whether a model was trained from another.
    """

    families: Array
    roots: Array
    continual: Array

    def take(self, rows: Array) -> "Kin":
        """The relations of some of the models; `rows` are int, or bool [n]."""
        return Kin(self.families[rows], self.roots[rows], self.continual[rows])

    def plus(self, other: "Kin") -> "Kin":
        """The relations of these models followed by those of `other`."""
        join = lambda key: np.concatenate([getattr(self, key), getattr(other, key)])  # noqa: E731
        return Kin(join("families"), join("roots"), join("continual"))

    def blocks(self) -> list[Array]:
        """Rows of each block of models that are related by family or lineage, directly or through other models."""
        firsts = np.arange(len(self.roots))
        while True:
            joined = firsts
            for names in (self.families, self.roots):
                _, which = np.unique(names, return_inverse=True)
                least = np.full(which.max(initial=-1) + 1, len(names))
                np.minimum.at(least, which, joined)
                joined = least[which]
            if np.array_equal(joined, firsts):
                return [np.flatnonzero(firsts == first) for first in np.unique(firsts)]
            firsts = joined

    def near(self, other: "Kin") -> Array:
        """Rows of the blocks to which models of `other` are related, int [near]."""
        related = np.isin(self.families, other.families) | np.isin(self.roots, other.roots)
        return np.concatenate([rows for rows in self.blocks() if related[rows].any()] or [np.zeros(0, int)])

    def among(self, rows: Array) -> Array:
        """The covariance of some of the models, float64 [R, rows, rows]."""
        return self.take(rows).covariance()

    def covariance(self, other: "Kin | None" = None) -> Array:
        """Covariance with other models (default: these), at each point of `SHARES`, float64 [R, n, m].

        A model's variance is 1. The shares are the family's share of the variance; the lineage's share of the rest;
        and, of a continual model's remainder, the share that is common to its family's continual models.
        """
        own = np.eye(len(self.roots)) if other is None else np.zeros((len(self.roots), len(other.roots)))
        other = other or self
        family = (self.families[:, None] == other.families).astype(float)
        lineage = (self.roots[:, None] == other.roots).astype(float)
        recipe = np.outer(self.continual, other.continual) * family * (1 - own)
        of_family, of_lineage, of_recipe = SHARES.T[:, :, None, None]
        rest = of_lineage * lineage + (1 - of_lineage) * (own + of_recipe * recipe)
        return of_family * family + (1 - of_family) * rest


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Mixtures of R Student's t distributions with common degrees of freedom, for m quantities at once.

    Attributes:
      weight: float64 [R], weights of the parts.
      middle, scale: float64 [m, R], location and scale of the parts.
    """

    weight: Array
    middle: Array
    scale: Array
    df: int

    @property
    def mean(self) -> Array:
        """Means, float64 [m]."""
        return self.middle @ self.weight

    def above(self, value: float | Array) -> Array:
        """Probability of exceeding `value` (a number or float64 [m]), float64 [m]."""
        return special.stdtr(self.df, (self.middle - np.asarray(value)[..., None]) / self.scale) @ self.weight

    def quantile(self, level: float) -> Array:
        """Quantiles at `level`, float64 [m], by bisection between the parts' quantiles and Newton's method."""
        few = self.weight > 1e-9
        parts = Mixture(self.weight[few], self.middle[:, few], self.scale[:, few], self.df)
        ends = parts.middle + parts.scale * special.stdtrit(self.df, level)
        low, high = ends.min(axis=1), ends.max(axis=1)
        at = (low + high) / 2
        for step in range(24):
            lacking = level - 1 + parts.above(at)
            low, high = np.where(lacking > 0, at, low), np.where(lacking > 0, high, at)
            at = (low + high) / 2 if step < 8 else np.clip(at + lacking / parts.density(at), low, high)
            if np.all(np.abs(lacking) < 1e-12):
                break
        return at

    def density(self, value: Array) -> Array:
        """Probability densities at `value` float64 [m], float64 [m]."""
        x, df = (value[:, None] - self.middle) / self.scale, self.df
        height = np.exp(special.gammaln((df + 1) / 2) - special.gammaln(df / 2)) / np.sqrt(np.pi * df)
        return (height * (1 + x**2 / df) ** (-(df + 1) / 2) / self.scale) @ self.weight


@dataclasses.dataclass(frozen=True)
class Mixed:
    """The fitted mixed model of one measure; R is the number of grid points of the variance shares.

    Attributes:
      design: float64 [n, k].
      y: float64 [n], on the model's scale (`stabilised`).
      kin: relations between the n models.
      limits: lowest and highest score; None for a component, which is not transformed.
      coefficients: float64 [R, k].
      variance: float64 [R], of a model about the line.
      weight: float64 [R], weights of the grid points.
      spread: float64 [R, k, k], covariance of the coefficients per unit of `variance`.
    """

    design: Array
    y: Array
    kin: Kin
    limits: tuple[float, float] | None
    coefficients: Array
    variance: Array
    weight: Array
    spread: Array

    @property
    def df(self) -> int:
        """n − k."""
        return self.design.shape[0] - self.design.shape[1]

    @property
    def shares(self) -> tuple[float, float, float]:
        """Mean shares of the variance of family, lineage and own term; they sum to 1."""
        family, lineage, _ = SHARES.T
        of = lambda part: float(self.weight @ part)  # noqa: E731
        return of(family), of((1 - family) * lineage), of((1 - family) * (1 - lineage))

    def effect(self, contrast: Array) -> Mixture:
        """The distribution of a linear combination of the coefficients, on the model's scale.

        Args:
          contrast: float64 [k].
        """
        scale = np.sqrt(self.variance * np.einsum("i,rij,j->r", contrast, self.spread, contrast))
        return Mixture(self.weight, (self.coefficients @ contrast)[None], scale[None], self.df)

    def foretell(self, design: Array, kin: Kin) -> Mixture:
        """Marginal predictive distributions of m new models, on the model's scale.

        Args:
          design: float64 [m, k].
          kin: relations of the m models; families and roots are matched to the known models by name.
        """
        near = self.kin.near(kin)  # unrelated models matter only through the line
        related = self.kin.take(near)
        between = related.covariance(kin)
        pull = np.linalg.solve(related.covariance(), between)  # [R, near, m]
        residual = self.y[near] - self.coefficients @ self.design[near].T
        middle = design @ self.coefficients.swapaxes(0, 1) + np.einsum("rnm,rn->mr", pull, residual)
        drift = design[None] - np.einsum("rnm,nk->rmk", pull, self.design[near])
        unknown = 1 - np.einsum("rnm,rnm->mr", between, pull) + np.einsum("rmi,rij,rmj->mr", drift, self.spread, drift)
        return Mixture(self.weight, middle, np.sqrt(self.variance * np.maximum(unknown, 1e-12)), self.df)

    def interval(self, found: Mixture, level: float = 0.95) -> tuple[Array, Array, Array]:
        """Median and ends of the interval of the predicted scores, float64 [m] each, in the measure's units."""
        low, high = (back(found.quantile((1 + sign * level) / 2), self.limits) for sign in (-1, 1))
        return back(found.mean, self.limits), low, high


def stabilised(y: Array, limits: tuple[float, float] | None) -> Array:
    """arcsin √share of the range `limits`; unchanged without limits."""
    if limits is None:
        return np.asarray(y, float)
    low, high = limits
    return np.arcsin(np.sqrt(np.clip((np.asarray(y, float) - low) / (high - low), 0, 1)))


def back(z: Array, limits: tuple[float, float] | None) -> Array:
    """The inverse of `stabilised`; values beyond the range map to its ends."""
    if limits is None:
        return z
    low, high = limits
    return low + (high - low) * np.sin(np.clip(z, 0, np.pi / 2)) ** 2


def fit(
    design: Array,
    y: Array,
    kin: Kin,
    limits: tuple[float, float] | None = None,
    items: float = np.nan,
    of_all: gls.Products | None = None,
) -> Mixed | None:
    """Fits the model on the rows without NaN.

    Args:
      design: float64 [n, k].
      y: float64 [n], in the measure's units, NaN where unknown.
      kin: relations between the n models.
      limits: lowest and highest score; None for a component.
      items: number of questions whose answers are right or wrong; NaN if unknown or not of this kind.
      of_all: the products of the rows without NaN, if already computed.

    Returns:
      None with fewer than `MIN_MODELS` models, or if the slopes are not identified.
    """
    known = np.isfinite(y) & np.isfinite(design).all(axis=1)
    x, z, kin = design[known], stabilised(y[known], limits), kin.take(known)
    if not enough(x) or np.ptp(z) < 1e-12:
        return None
    of_all = of_all or gls.summed(x, z[:, None], kin.blocks(), kin.among)
    coefficients, variance, likelihood = (found[..., 0] for found in gls.restricted(of_all, len(x)))
    own = (1 - SHARES[:, 0]) * (1 - SHARES[:, 1]) * variance
    possible = own >= 1 / (4 * items) if np.isfinite(items) and limits is not None else np.ones(len(own), bool)
    if possible.any():
        likelihood = np.where(possible, likelihood, -np.inf)
    return Mixed(x, z, kin, limits, coefficients, variance, gls.weights(likelihood), np.linalg.inv(of_all.xx))


def enough(x: Array) -> bool:
    """Whether the design x, float64 [n, k], has enough models and identifies all slopes."""
    n, k = x.shape
    return n >= max(MIN_MODELS, k + 2) and np.linalg.matrix_rank(x) == k


def kin(tables: Tables) -> Kin:
    """The relations in a model table; a base that is not in the table counts as a root."""
    base = tables.models["base"]

    def root(model: str) -> str:
        while base.get(model, ""):
            model = base[model]
        return model

    return Kin(
        tables.models["family"].to_numpy(str), np.array([root(m) for m in base.index], str), (base != "").to_numpy()
    )


def design(tables: Tables, language: str, reference: str, ends: Mapping[str, str] = NO_ENDS) -> Array:
    """The design: 1, log10 compute in the reference language, log10 compute in the local language, float64 [n, 2 or 3].

    Undisclosed or zero tokens are replaced by an assumption: for the local language as in `undisclosed`, for the
    reference language `REFERENCE_SHARE` of all text. A continual model of such a base has the base's assumed tokens
    plus those added; if its reference tokens are undisclosed, it has the base's. The error of an assumed budget is
    common to a family and is absorbed by the family's random effect. NaN where the parameters, or the local tokens of a
    continual model, are unknown. A language without any known budget has no column.

    Args:
      ends: language → `low` or `high`, the end of the budgets' intervals to use instead of the estimates.
    """
    columns = [np.ones(len(tables.models))]
    for lang in dict.fromkeys((reference, language)):
        if lang in tables.languages:
            tokens = tokens_b(tables, lang, lang == reference, ends.get(lang, "est"))
            columns.append(np.log10(6 * tables.models["params"].to_numpy(float) * tokens * 1e9))
    return np.column_stack(columns)


def tokens_b(tables: Tables, language: str, mostly: bool, end: str = "est") -> Array:
    """Tokens (1e9) of a language, including assumed budgets, float64 [n].

    Args:
      mostly: whether most text is in this language (the reference language).
      end: which end of the intervals to use: `low`, `est` or `high`. A low end of 0 is replaced by a tenth of the
        estimate, as in `budgets`.
    """
    models = tables.models
    best, base = models[f"{language}_tokens_b_est"], models["base"]
    given = models[f"{language}_tokens_b_{end}"].where(models[f"{language}_tokens_b_{end}"] > 0, best / 10)
    given = best if end == "est" else given
    share = REFERENCE_SHARE if mostly else undisclosed.SHARES[end]
    assumed = models["tokens_b"].fillna(undisclosed.TYPICAL_TOKENS_B) * share

    def seen(model: str) -> float:
        own, start = given[model], base[model]
        if start not in models.index:
            return own if own > 0 else assumed[model]
        if not own > 0:
            return seen(start)
        counted = given[start] if given[start] > 0 else 0.0  # the base's tokens, which the model's own number includes
        return seen(start) + own - counted

    found = np.array([seen(model) for model in models.index], float)
    unknown = (base != "") & given.isna() & (not mostly)
    return np.where(unknown, np.nan, found)


def questions(tables: Tables, task: str) -> float:
    """The number of questions of a task whose answers are right or wrong; NaN for other tasks and where unknown."""
    row = tables.tasks.loc[task]
    return float(row["items"]) if sampling.BINARY.search(str(row["metric"])) else float("nan")
