"""The error of predicting a new model of a new family: a random effect of the family, integrated over its share.

y = Xβ + family + own error. Which share ρ of the variance the families have is hardly known from four or eight of them,
so that it is not estimated but integrated out: its weight at each point of a grid is the restricted likelihood
(Patterson and Thompson 1971), flat prior. Given ρ, the error of a prediction by least squares is Student's t with
n − k degrees of freedom, and the interval is that of their mixture. Nothing is drawn at random.
"""

import dataclasses

import numpy as np
from scipy import special

Array = np.ndarray
SHARES = (np.arange(40) + 0.5) / 40


@dataclasses.dataclass(frozen=True)
class Unseen:
    """The mixture.

    Attributes:
      weight: float64 [R], of each share ρ; they add up to 1.
      variance: float64 [R], of y about its line, family and own error together.
      spread: float64 [R, k, k], covariance of the coefficients per unit of that variance.
      df: n − k.
    """

    weight: Array
    variance: Array
    spread: Array
    df: int

    @property
    def share(self) -> float:
        """The mean share of the variance that lies between families."""
        return float(self.weight @ SHARES[: len(self.weight)]) if len(self.weight) > 1 else 0.0

    def half(self, rows: Array, level: float = 0.95) -> Array:
        """Half the width of the prediction interval.

        Args:
          rows: float64 [m, k], of the design.

        Returns:
          float64 [m].
        """
        return self.half_of(1 + np.einsum("mi,rij,mj->mr", rows, self.spread, rows), level)

    def half_of(self, inflated: Array, level: float = 0.95) -> Array:
        """As `half`, of errors whose variance is told.

        Args:
          inflated: float64 [m, R], in units of the variance at each share.
        """
        scale = np.sqrt(self.variance * inflated)
        half = scale.min(axis=1) * special.stdtrit(self.df, (1 + level) / 2)
        height = np.exp(special.gammaln((self.df + 1) / 2) - special.gammaln(self.df / 2)) / np.sqrt(np.pi * self.df)
        for _ in range(30):  # Newton's steps from below never overshoot, since the distribution is concave
            x = half[:, None] / scale
            lacking = level - (2 * special.stdtr(self.df, x) - 1) @ self.weight
            density = height * (1 + x**2 / self.df) ** (-(self.df + 1) / 2)
            step = lacking / ((2 * density / scale) @ self.weight)
            half = half + step
            if np.all(np.abs(step) < 1e-9 * half):
                break
        return half


def unseen(design: Array, y: Array, groups: list[Array]) -> Unseen:
    """The error of least squares of y on `design` for a family that is not among `groups`.

    With one family nothing is known of others: the share is then 0, and the interval one for further models of it.

    Args:
      design: float64 [n, k], n > k, of full rank; y: float64 [n]; groups: the rows of each family.
    """
    n, k = design.shape
    share = SHARES if len(groups) > 1 else np.zeros(1)
    sizes = np.array([len(g) for g in groups])
    both = np.column_stack([design, y])
    sums = np.stack([both[g].sum(axis=0) for g in groups])  # [G, k + 1]
    between = np.einsum("gi,gj->gij", sums, sums)
    factor = share[:, None] / (1 - share[:, None] + sizes * share[:, None])  # of V⁻¹ = (I − factor · J) / (1 − ρ)
    inner = (both.T @ both - np.einsum("rg,gij->rij", factor, between)) / (1 - share)[:, None, None]
    xx, xy, yy = inner[:, :k, :k], inner[:, :k, k], inner[:, k, k]
    squares = yy - np.einsum("ri,ri->r", xy, np.linalg.solve(xx, xy[..., None])[..., 0])
    variance = np.maximum(squares, 1e-300) / (n - k)
    own, family = np.log(1 - share), np.log(1 - share[:, None] + sizes * share[:, None])
    determinant = (n - len(groups)) * own + family.sum(axis=1)
    likelihood = -0.5 * (determinant + np.linalg.slogdet(xx)[1] + (n - k) * np.log(variance))
    weight = np.exp(likelihood - likelihood.max())
    plain = np.linalg.inv(design.T @ design)
    middle = (1 - share)[:, None, None] * (design.T @ design) + share[:, None, None] * between[:, :k, :k].sum(axis=0)
    return Unseen(weight / weight.sum(), variance, plain @ middle @ plain, n - k)
