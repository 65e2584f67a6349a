"""Inference with few families: the jackknife that leaves one family out, and Student's t with families − 1 degrees.

A bootstrap that draws whole families is too sure of itself where there are few: of four families it covers 80% where
95% is meant. The jackknife's variance, (G − 1)/G · Σ_g (β₍g₎ − β)², is the CV3 estimator of Bell and McCaffrey (2002,
Survey Methodology 28:169) in the form of MacKinnon, Nielsen and Webb (2023, Journal of Applied Econometrics 38:671),
who take t(G − 1) with it.
"""

import dataclasses

import numpy as np
from scipy import stats

Array = np.ndarray
MIN_FAMILIES = 3  # with two there is one degree of freedom: an interval thirteen standard errors wide to either side


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A coefficient with its standard error by family.

    Attributes:
      df: degrees of freedom of its t, families − 1.
    """

    value: float
    se: float
    df: int

    def and_also(self, variance: float) -> "Estimate":
        """The same estimate with another, independent source of error added."""
        return dataclasses.replace(self, se=float(np.sqrt(self.se**2 + variance)))

    @property
    def ci95(self) -> tuple[float, float]:
        """The 95% interval."""
        half = float(stats.t.ppf(0.975, self.df)) * self.se
        return self.value - half, self.value + half

    @property
    def p(self) -> float:
        """Two-sided p-value of the coefficient being zero."""
        return 2 * min(self.p_above, 1 - self.p_above)

    @property
    def p_above(self) -> float:
        """One-sided p-value for a coefficient above zero."""
        if self.se <= 0:
            return 0.5 - 0.5 * float(np.sign(self.value))  # without error a zero tells nothing
        return float(stats.t.sf(self.value / self.se, self.df))


def estimate(design: Array, y: Array, groups: list[Array], column: int) -> Estimate | None:
    """One coefficient of least squares.

    Args:
      design: float64 [n, k]; y: float64 [n]; groups: the rows of each family.
      column: which coefficient.

    Returns:
      None with fewer than three families, or where the coefficient cannot be told once a family is left out.
    """
    if len(groups) < MIN_FAMILIES:
        return None
    value = float(np.linalg.lstsq(design, y, rcond=None)[0][column])
    parts = np.zeros(len(groups))
    for i, group in enumerate(groups):
        rest = np.delete(np.arange(len(y)), group)
        weights, _, rank, _ = np.linalg.lstsq(design[rest], y[rest], rcond=1e-9)
        if rank < design.shape[1]:
            return None
        parts[i] = weights[column]
    spread = float(np.sum((parts - value) ** 2)) * (len(groups) - 1) / len(groups)
    return Estimate(value, float(np.sqrt(spread)), len(groups) - 1)


def rows_of(families: Array) -> list[Array]:
    """The rows of each family, in the order in which families first occur."""
    return [np.flatnonzero(families == name) for name in dict.fromkeys(families)]


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


def bootstrap_mean(
    values: Array, families: Array, draws: int, rng: np.random.Generator
) -> tuple[float, float] | None:
    """95% bootstrap interval of a mean, resampling whole families; None with fewer than three."""
    groups = rows_of(families)
    if len(groups) < MIN_FAMILIES:
        return None
    sums, sizes = np.array([values[g].sum() for g in groups]), np.array([len(g) for g in groups])
    counts = rng.multinomial(len(groups), np.full(len(groups), 1 / len(groups)), size=draws)
    low, high = np.percentile((counts @ sums) / (counts @ sizes), (2.5, 97.5))
    return float(low), float(high)
