"""A measure (a component or a task) against log10 of compute: least squares, with what makes its error honest.

Models of one family share weights or data, so they are no independent draws: intervals of the slope come from leaving
one family out (`jackknife`), predictions from a random effect of the family (`unseen`). The bootstraps of whole
families and of single models are given for comparison.
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
    """y = intercept + slope · log10 C.

    Attributes:
      n, families: how many points and families.
      ci95_naive: of the slope, resampling single models.
      ci95_family: leaving one family out; None with fewer than three families, or where one alone tells the slope.
      ci95_bootstrap: resampling whole families, too narrow where they are few; None with fewer than three.
      ci95_tokens: as `ci95_family`, with token budgets drawn from their intervals; None likewise.
      p_rises: one-sided p-value for a slope above zero, leaving one family out; None likewise.
      lofo_rmse: root mean square error of each family predicted by a fit to the others; None with a single one.
      sd: standard deviation of y (n − 1), which is what one errs by without a law.
      x_range: of the points; beyond it is extrapolation.
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
        """Returns whether x lies outside of the points."""
        return not self.x_range[0] - 1e-9 <= x <= self.x_range[1] + 1e-9


def fit(
    x: Array, y: Array, families: Array, draws: int, rng: np.random.Generator, x_draws: Array | None = None
) -> Fit | None:
    """Fits the points where both are known; None where they are too few or x does not vary.

    Args:
      x, y: float64 [n], NaN where unknown; families: str [n].
      x_draws: float64 [m, n], token budgets sampled from their intervals (`Budget.draw`).
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
    """Slopes of `draws` samples of whole groups.

    A slope is a function of five sums, and a sample's sums are its groups' added up.
    """
    centred = x - x.mean()
    parts = [np.ones_like(centred), centred, y, centred * y, centred**2]
    sums = np.array([[part[g].sum() for g in groups] for part in parts])  # [5, groups]
    counts = rng.multinomial(len(groups), np.full(len(groups), 1 / len(groups)), size=draws)
    n, sx, sy, sxy, sxx = (counts @ s for s in sums)
    spread = sxx - sx**2 / n
    usable = spread > 1e-6 * np.median(spread)  # a draw of one family whose models have one budget has no slope
    return (sxy - sx * sy / n)[usable] / spread[usable]
