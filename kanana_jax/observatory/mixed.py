"""One model of pooled and paired evidence: a score by compute in two languages, its family, its base and its recipe.

arcsine √score = intercept + slopes · log10 compute by language + family + lineage + own part. A continual model has its
base's lineage effect, so that a pair's difference and the line through all models are one likelihood: the prediction of
a continual model is the line, plus the part of its base's distance from it that is inherited (a best linear unbiased
prediction; Henderson 1975, Biometrics 31:423). The own parts of a family's continual models may be alike, since gains
of one house are.

Variance components are hardly known from a few families. As in `unseen` they are not estimated but integrated out: the
weight of each point of a grid is the restricted likelihood (Patterson and Thompson 1971), flat prior. Given a point,
coefficients and predictions are Student's t with n − k degrees of freedom; an interval is that of their mixture.
Nothing is drawn at random. The arcsine makes a share's sampling variance 1/(4·items) whatever the share (Bartlett 1947,
Biometrics 3:39), which bounds the own part from below, and keeps predictions within the range.
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
GRID = (0.1, 0.3, 0.5, 0.7, 0.9)  # of each of the three shares
SHARES = np.array(list(itertools.product(GRID, GRID, GRID)))
# Of all text, where a model does not say how much of it is in the reference language: between a half and nearly all.
REFERENCE_SHARE = 0.7
NO_ENDS: Mapping[str, str] = types.MappingProxyType({})


@dataclasses.dataclass(frozen=True)
class Kin:
    """How models are related.

    Attributes:
      families, roots: str [n], the family, and the model from scratch that it descends from (itself, if that is it).
      continual: bool [n].
    """

    families: Array
    roots: Array
    continual: Array

    def take(self, rows: Array) -> "Kin":
        """Args: rows: int or bool [n]."""
        return Kin(self.families[rows], self.roots[rows], self.continual[rows])

    def plus(self, other: "Kin") -> "Kin":
        """Both, one after the other."""
        join = lambda key: np.concatenate([getattr(self, key), getattr(other, key)])  # noqa: E731
        return Kin(join("families"), join("roots"), join("continual"))

    def blocks(self) -> list[Array]:
        """Rows of the models that are related, by a family or a lineage or through others; blocks are independent."""
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
        """Rows of the blocks that models of `other` are related to, int [near]."""
        related = np.isin(self.families, other.families) | np.isin(self.roots, other.roots)
        return np.concatenate([rows for rows in self.blocks() if related[rows].any()] or [np.zeros(0, int)])

    def among(self, rows: Array) -> Array:
        """The covariance of some of them, float64 [R, rows, rows]."""
        return self.take(rows).covariance()

    def covariance(self, other: "Kin | None" = None) -> Array:
        """float64 [R, n, m], at each point of `SHARES`, of models whose variance is 1, with others (None: themselves).

        The shares are the family's of all; the lineage's of the rest; and of what is left to a continual model, the
        part that is common to its family's continual models.
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
    """Student's t distributions of one number of degrees of freedom, m quantities at once.

    Attributes:
      weight: float64 [R]; middle, scale: float64 [m, R].
    """

    weight: Array
    middle: Array
    scale: Array
    df: int

    @property
    def mean(self) -> Array:
        """float64 [m]."""
        return self.middle @ self.weight

    def above(self, value: float | Array) -> Array:
        """Probability of more than `value` (one, or float64 [m]), float64 [m]."""
        return special.stdtr(self.df, (self.middle - np.asarray(value)[..., None]) / self.scale) @ self.weight

    def quantile(self, level: float) -> Array:
        """float64 [m], by bisection between the smallest and the largest quantile of the parts, and Newton's steps."""
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
        """Args: value: float64 [m]."""
        x, df = (value[:, None] - self.middle) / self.scale, self.df
        height = np.exp(special.gammaln((df + 1) / 2) - special.gammaln(df / 2)) / np.sqrt(np.pi * df)
        return (height * (1 + x**2 / df) ** (-(df + 1) / 2) / self.scale) @ self.weight


@dataclasses.dataclass(frozen=True)
class Mixed:
    """The model of one measure.

    Attributes:
      design: float64 [n, k]; y: float64 [n], on the scale of the model; kin: of the n models.
      limits: lowest and highest score, or None of a component, which is taken as it is.
      coefficients: float64 [R, k]; variance: float64 [R], of a model about the line; weight: float64 [R].
      spread: float64 [R, k, k], covariance of the coefficients per unit of that variance.
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
        """Mean shares of the variance: of the family, of the lineage beside it, and of the own part."""
        family, lineage, _ = SHARES.T
        of = lambda part: float(self.weight @ part)  # noqa: E731
        return of(family), of((1 - family) * lineage), of((1 - family) * (1 - lineage))

    def effect(self, contrast: Array) -> Mixture:
        """A linear function of the coefficients, on the scale of the model.

        Args:
          contrast: float64 [k].
        """
        scale = np.sqrt(self.variance * np.einsum("i,rij,j->r", contrast, self.spread, contrast))
        return Mixture(self.weight, (self.coefficients @ contrast)[None], scale[None], self.df)

    def foretell(self, design: Array, kin: Kin) -> Mixture:
        """New models, each apart, on the scale of the model.

        Args:
          design: float64 [m, k]; kin: of the m models, whose names of families and roots are those of the known ones.
        """
        near = self.kin.near(kin)  # the others tell nothing beside the line
        related = self.kin.take(near)
        between = related.covariance(kin)
        pull = np.linalg.solve(related.covariance(), between)  # [R, near, m]
        residual = self.y[near] - self.coefficients @ self.design[near].T
        middle = design @ self.coefficients.swapaxes(0, 1) + np.einsum("rnm,rn->mr", pull, residual)
        drift = design[None] - np.einsum("rnm,nk->rmk", pull, self.design[near])
        unknown = 1 - np.einsum("rnm,rnm->mr", between, pull) + np.einsum("rmi,rij,rmj->mr", drift, self.spread, drift)
        return Mixture(self.weight, middle, np.sqrt(self.variance * np.maximum(unknown, 1e-12)), self.df)

    def interval(self, found: Mixture, level: float = 0.95) -> tuple[Array, Array, Array]:
        """Middle and ends of the predicted scores, float64 [m] each, in the measure's units."""
        low, high = (back(found.quantile((1 + sign * level) / 2), self.limits) for sign in (-1, 1))
        return back(found.mean, self.limits), low, high


def stabilised(y: Array, limits: tuple[float, float] | None) -> Array:
    """arcsine √share; without limits as it is."""
    if limits is None:
        return np.asarray(y, float)
    low, high = limits
    return np.arcsin(np.sqrt(np.clip((np.asarray(y, float) - low) / (high - low), 0, 1)))


def back(z: Array, limits: tuple[float, float] | None) -> Array:
    """The inverse of `stabilised`; beyond the range its end."""
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
    """Fits the models where all is known; None where they are fewer than `MIN_MODELS` or the slopes cannot be told.

    Args:
      design: float64 [n, k]; y: float64 [n], in the measure's units, NaN where unknown.
      items: of answers that are right or wrong; NaN: unknown, or others.
      of_all: the products of the models where all is known, if they are at hand.
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
    """Whether there are models enough for these columns, and slopes can be told; x: float64 [n, k]."""
    n, k = x.shape
    return n >= max(MIN_MODELS, k + 2) and np.linalg.matrix_rank(x) == k


def kin(tables: Tables) -> Kin:
    """The relations in a model table. A base that is not in the table is a root, too."""
    base = tables.models["base"]

    def root(model: str) -> str:
        while base.get(model, ""):
            model = base[model]
        return model

    return Kin(
        tables.models["family"].to_numpy(str), np.array([root(m) for m in base.index], str), (base != "").to_numpy()
    )


def design(tables: Tables, language: str, reference: str, ends: Mapping[str, str] = NO_ENDS) -> Array:
    """1, log10 of compute in the reference language and in the local one, float64 [n, 2 or 3].

    Undisclosed tokens are assumed, and no tokens at all likewise: of the local language as in `undisclosed`, of the
    reference `REFERENCE_SHARE` of all text. A continual model of such a base has what the base is assumed to have seen
    beside what was added; one that does not tell its reference text has seen its base's. The error of an assumed budget
    is common to a family, whose random effect takes it up. NaN where the parameters are unknown, or how much local text
    a continual model has seen. A language of which no budget at all is known has no column.

    Args:
      ends: language → `low` or `high`: the end of their intervals at which its budgets are, instead of the estimates.
    """
    columns = [np.ones(len(tables.models))]
    for lang in dict.fromkeys((reference, language)):
        if lang in tables.languages:
            tokens = tokens_b(tables, lang, lang == reference, ends.get(lang, "est"))
            columns.append(np.log10(6 * tables.models["params"].to_numpy(float) * tokens * 1e9))
    return np.column_stack(columns)


def tokens_b(tables: Tables, language: str, mostly: bool, end: str = "est") -> Array:
    """Tokens (1e9) of a language, assumed ones among them, float64 [n].

    Args:
      mostly: most text is in it.
      end: of the intervals: `low`, `est` or `high`. One from 0 begins a decade below its estimate, as in `budgets`.
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
        counted = given[start] if given[start] > 0 else 0.0  # of the base, in the model's own number
        return seen(start) + own - counted

    found = np.array([seen(model) for model in models.index], float)
    unknown = (base != "") & given.isna() & (not mostly)
    return np.where(unknown, np.nan, found)


def questions(tables: Tables, task: str) -> float:
    """The number of items of a task whose answers are right or wrong; NaN of others, and where it is unknown."""
    row = tables.tasks.loc[task]
    return float(row["items"]) if sampling.BINARY.search(str(row["metric"])) else float("nan")
