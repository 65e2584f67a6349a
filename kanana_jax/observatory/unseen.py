"""Prediction errors for a new model of a new family, from a random effect of the family.

The model is y = Xβ + family effect + own error. Four or eight families hardly determine their share ρ of the variance,
so ρ is integrated out instead of estimated: each point of a grid is weighted by its restricted likelihood (Patterson
and Thompson 1971), with a flat prior. Given ρ, the error of a least squares prediction follows Student's t with n − k
degrees of freedom; intervals are those of the mixture. No random sampling is involved.
"""

import dataclasses

import numpy as np
from scipy import special

Array = np.ndarray
SHARES = (np.arange(40) + 0.5) / 40


@dataclasses.dataclass(frozen=True)
class Unseen:
    """The mixture of error distributions over R grid points of ρ.

    Attributes:
      weight: float64 [R], the weight of each ρ; they sum to 1.
      variance: float64 [R], of y about the line, family effect and own error together.
      spread: float64 [R, k, k], covariance of the coefficients per unit of `variance`.
      df: degrees of freedom, n − k.
    """

    weight: Array
    variance: Array
    spread: Array
    df: int

    @property
    def share(self) -> float:
        """The mean share of the variance between families."""
        return float(self.weight @ SHARES[: len(self.weight)]) if len(self.weight) > 1 else 0.0

    def half(self, rows: Array, level: float = 0.95) -> Array:
        """Half the width of the prediction intervals, float64 [m].

        Args:
          rows: float64 [m, k], design rows.
        """
        return self.half_of(1 + np.einsum("mi,rij,mj->mr", rows, self.spread, rows), level)

    def half_of(self, inflated: Array, level: float = 0.95) -> Array:
        """As `half`, for errors of given variance.

        Args:
          inflated: float64 [m, R], in units of `variance` at each ρ.
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
    """The prediction error of least squares of y on `design` for a family that is not among `groups`.

    A single family says nothing about others: ρ is then 0, and intervals hold for further models of that family.

    Args:
      design: float64 [n, k], n > k, of full rank.
      y: float64 [n].
      groups: the rows of each family.
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
