"""Scaling laws: least squares of a measure (component or task) on log10 of compute, with errors that respect families.

Models of one family share weights or data and are not independent samples. Intervals of the slope therefore come from
a jackknife over families (`jackknife`), prediction intervals from a random effect of the family (`unseen`). Bootstraps
over families and over single models are given for comparison.
"""

import dataclasses

import numpy as np
import statsmodels.api as sm

from kanana_jax.observatory import jackknife
from kanana_jax.observatory.unseen import Unseen, unseen

Array = np.ndarray
MIN_POINTS = 4


@dataclasses.dataclass(frozen=True)
class Fit:
    """A fitted law y = intercept + slope · log10 C.

    Attributes:
      n, families: number of points and of families.
      r, r2: correlation and its square.
      ci95_naive: interval of the slope, bootstrap over single models.
      ci95_family: jackknife over families; None with fewer than three families, or if one family alone determines the
        slope.
      ci95_bootstrap: bootstrap over families, too narrow when they are few; None with fewer than three.
      ci95_tokens: as `ci95_family`, with token budgets sampled from their intervals; None as there.
      p_rises: one-sided jackknife p-value for a positive slope; None as there.
      lofo_rmse: leave-one-family-out root mean square error; None with a single family.
      sd: standard deviation of y (n − 1 degrees of freedom), the error without a law.
      x_range: the range of log10 C; beyond it is extrapolation.
      unseen: the error for a new family.
    """

    n: int
    families: int
    r: float
    r2: float
    slope: float
    intercept: float
    ci95_naive: tuple[float, float]
    ci95_family: tuple[float, float] | None
    ci95_bootstrap: tuple[float, float] | None
    ci95_tokens: tuple[float, float] | None
    p_rises: float | None
    lofo_rmse: float | None
    sd: float
    x_range: tuple[float, float]
    unseen: Unseen

    def predict(self, x: float | Array) -> tuple[Array, Array, Array]:
        """Prediction and its 95% interval for a *new* model of a new family (not for the mean of such models)."""
        x = np.asarray(x, float)
        flat = np.atleast_1d(x).ravel()
        half = self.unseen.half(np.column_stack([np.ones(len(flat)), flat])).reshape(x.shape)
        middle = self.intercept + self.slope * x
        return middle, middle - half, middle + half

    def extrapolates(self, x: float) -> bool:
        """Whether x lies outside the range of the points."""
        return not self.x_range[0] - 1e-9 <= x <= self.x_range[1] + 1e-9


def fit(
    x: Array, y: Array, families: Array, draws: int, rng: np.random.Generator, x_draws: Array | None = None
) -> Fit | None:
    """Fits a law to the points with known x and y.

    Args:
      x, y: float64 [n], log10 compute and measure, NaN where unknown.
      families: str [n].
      draws: number of bootstrap samples.
      x_draws: float64 [m, n], x sampled from the token budgets' intervals (`Budget.draw`).

    Returns:
      None if there are too few points or x does not vary.
    """
    known = np.isfinite(x) & np.isfinite(y)
    x, y, families = x[known], y[known], families[known]
    n = len(x)
    if n < MIN_POINTS or np.ptp(x) < 1e-9 or np.ptp(y) < 1e-12:
        return None
    found = sm.OLS(y, sm.add_constant(x)).fit()
    intercept, slope = map(float, found.params)
    groups = jackknife.rows_of(families)
    enough = len(groups) >= jackknife.MIN_FAMILIES
    singles = [np.array([i]) for i in range(n)]
    design = np.column_stack([np.ones(n), x])
    by_family = jackknife.estimate(design, y, groups, 1)
    by_tokens = None
    if by_family is not None and x_draws is not None:
        by_tokens = by_family.and_also(float(np.var(_lines(x_draws[:, known], y)))).ci95
    return Fit(
        n=n,
        families=len(groups),
        r=float(np.corrcoef(x, y)[0, 1]),
        r2=float(found.rsquared),
        slope=slope,
        intercept=intercept,
        ci95_naive=_interval(_slopes(x, y, singles, draws, rng)),
        ci95_family=by_family.ci95 if by_family else None,
        ci95_bootstrap=_interval(_slopes(x, y, groups, draws, rng)) if enough else None,
        ci95_tokens=by_tokens,
        p_rises=by_family.p_above if by_family else None,
        lofo_rmse=jackknife.left_out_error(design, y, groups),
        sd=float(np.std(y, ddof=1)),
        x_range=(float(x.min()), float(x.max())),
        unseen=unseen(design, y, groups),
    )


def _interval(values: Array) -> tuple[float, float]:
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)


def _lines(x: Array, y: Array) -> Array:
    """Slopes of y on each row of x, float64 [draws, n] → [draws]."""
    centred = x - x.mean(axis=1, keepdims=True)
    return centred @ y / np.sum(centred**2, axis=1)


def _slopes(x: Array, y: Array, groups: list[Array], draws: int, rng: np.random.Generator) -> Array:
    """Slopes of `draws` bootstrap samples of whole groups, from sums per group.

    A slope is a function of five sums over points, and a sample's sums are those of its groups added.
    """
    centred = x - x.mean()
    parts = [np.ones_like(centred), centred, y, centred * y, centred**2]
    sums = np.array([[part[g].sum() for g in groups] for part in parts])  # [5, groups]
    counts = rng.multinomial(len(groups), np.full(len(groups), 1 / len(groups)), size=draws)
    n, sx, sy, sxy, sxx = (counts @ s for s in sums)
    spread = sxx - sx**2 / n
    usable = spread > 1e-6 * np.median(spread)  # a sample of one family with a single budget has no slope
    return (sxy - sx * sy / n)[usable] / spread[usable]
