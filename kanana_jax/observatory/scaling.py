"""A measure (a component or a task) against log10 of compute: least squares, with what makes its error honest.

Models of one family share weights or data, so they are no independent draws: intervals come from a bootstrap that draws
whole families, errors from leaving one family out; the naive ones are given for comparison.
"""

import dataclasses

import numpy as np
import statsmodels.api as sm
from scipy import stats

Array = np.ndarray
MIN_POINTS = 4


@dataclasses.dataclass(frozen=True)
class Fit:
    """y = intercept + slope · log10 C.

    Attributes:
      n, families: how many points and families.
      ci95_naive: of the slope, resampling single models.
      ci95_family: resampling whole families; None with fewer than three families.
      ci95_tokens: resampling whole families *and* token budgets from their intervals; None likewise.
      lofo_rmse: root mean square error of each family predicted by a fit to the others; None with a single one.
      sd: standard deviation of y (n − 1), which is what one errs by without a law.
      x_range: of the points; beyond it is extrapolation.
      se: standard error of the residuals; x_mean, sxx: for prediction intervals.
    """

    n: int
    families: int
    r: float
    r2: float
    slope: float
    intercept: float
    ci95_naive: tuple[float, float]
    ci95_family: tuple[float, float] | None
    ci95_tokens: tuple[float, float] | None
    lofo_rmse: float | None
    sd: float
    x_range: tuple[float, float]
    se: float
    x_mean: float
    sxx: float

    def predict(self, x: float | Array) -> tuple[Array, Array, Array]:
        """Prediction and its 95% interval for a *new* model (not for the mean of such models).

        The half width is t(n − 2) · s · √(1 + 1/n + (x − x̄)²/Sxx), with s the larger of the residuals' standard error
        and the leave-one-family-out error: a new model is of a family that the fit has not seen.
        """
        x = np.asarray(x, float)
        s = max(self.se, self.lofo_rmse or 0.0)
        half = stats.t.ppf(0.975, self.n - 2) * s * np.sqrt(1 + 1 / self.n + (x - self.x_mean) ** 2 / self.sxx)
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
    groups = [np.flatnonzero(families == name) for name in dict.fromkeys(families)]
    enough = len(groups) >= 3
    singles = [np.array([i]) for i in range(n)]
    by_tokens = None
    if enough and x_draws is not None:
        by_tokens = _interval(_slopes(x_draws[:, known], y, groups, len(x_draws), rng))
    return Fit(
        n=n,
        families=len(groups),
        r=float(np.corrcoef(x, y)[0, 1]),
        r2=float(found.rsquared),
        slope=slope,
        intercept=intercept,
        ci95_naive=_interval(_slopes(x, y, singles, draws, rng)),
        ci95_family=_interval(_slopes(x, y, groups, draws, rng)) if enough else None,
        ci95_tokens=by_tokens,
        lofo_rmse=left_out_error(np.column_stack([np.ones(n), x]), y, groups),
        sd=float(np.std(y, ddof=1)),
        x_range=(float(x.min()), float(x.max())),
        se=float(np.sqrt(found.scale)),
        x_mean=float(x.mean()),
        sxx=float(np.sum((x - x.mean()) ** 2)),
    )


def _interval(values: Array) -> tuple[float, float]:
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)


def _slopes(x: Array, y: Array, groups: list[Array], draws: int, rng: np.random.Generator) -> Array:
    """Slopes of `draws` samples of whole groups; x is [n], or [draws, n] with an x for each draw.

    A slope is a function of five sums, and a sample's sums are its groups' added up.
    """
    x = np.atleast_2d(x)
    centred = x - x.mean(axis=1, keepdims=True)
    ones = np.ones_like(centred)
    parts = [ones, centred, ones * y, centred * y, centred**2]
    sums = np.stack([np.stack([p[:, g].sum(axis=1) for g in groups], axis=1) for p in parts])  # [5, 1 or draws, groups]
    counts = rng.multinomial(len(groups), np.full(len(groups), 1 / len(groups)), size=draws)
    n, sx, sy, sxy, sxx = (np.sum(s * counts, axis=1) for s in sums)
    spread = sxx - sx**2 / n
    usable = spread > 1e-6 * np.median(spread)  # a draw of one family whose models have one budget has no slope
    return (sxy - sx * sy / n)[usable] / spread[usable]


def left_out_error(design: Array, y: Array, groups: list[Array]) -> float | None:
    """Root mean square error of each group's y predicted by least squares on the other groups."""
    if len(groups) < 2:
        return None
    errors = np.zeros(len(y))
    for group in groups:
        rest = np.setdiff1d(np.arange(len(y)), group)
        weights = np.linalg.lstsq(design[rest], y[rest], rcond=None)[0]
        errors[group] = y[group] - design[group] @ weights
    return float(np.sqrt(np.mean(errors**2)))


def family_mean_interval(
    values: Array, families: Array, draws: int, rng: np.random.Generator
) -> tuple[float, float] | None:
    """95% bootstrap interval of a mean, resampling whole families; None with fewer than three."""
    names = list(dict.fromkeys(families))
    if len(names) < 3:
        return None
    sums = np.array([values[families == name].sum() for name in names])
    sizes = np.array([(families == name).sum() for name in names])
    counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
    return _interval((counts @ sums) / (counts @ sizes))
