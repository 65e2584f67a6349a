"""Generalised least squares over independent blocks of models, for many covariances and many measures at once.

Models of different families and lineages are independent, so the sufficient statistics are sums over blocks. Leaving
one family out changes only its block's term, without a new fit of the rest. The work grows with the cube of the largest
block, not of the number of models.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable

import numpy as np

Array = np.ndarray
Among = Callable[[Array], Array]  # rows [n] → covariances [R, n, n]


@dataclasses.dataclass(frozen=True)
class Products:
    """Sufficient statistics of GLS for n models and T measures; those of independent models are additive.

    Attributes:
      xx, xz, zz: XᵀV⁻¹X float64 [R, k, k], XᵀV⁻¹z [R, k, T] and zᵀV⁻¹z [R, T] for each of R covariances V.
      determinant: float64 [R], log det V.
    """

    xx: Array
    xz: Array
    zz: Array
    determinant: Array

    def __add__(self, other: "Products") -> "Products":
        return Products(*(getattr(self, key) + getattr(other, key) for key in _KEYS))


_KEYS = tuple(field.name for field in dataclasses.fields(Products))


def products(x: Array, z: Array, among: Array) -> Products:
    """Computes the products of one block.

    Args:
      x: float64 [n, k], the design.
      z: float64 [n, T], the measures.
      among: float64 [R, n, n], covariances of the models.
    """
    lower, k = np.linalg.cholesky(among), x.shape[1]
    white = np.linalg.solve(lower, np.column_stack([x, z]))
    xw = np.swapaxes(white[..., :k], 1, 2)
    determinant = 2 * np.log(np.diagonal(lower, axis1=1, axis2=2)).sum(axis=1)
    return Products(xw @ white[..., :k], xw @ white[..., k:], (white[..., k:] ** 2).sum(axis=1), determinant)


def summed(x: Array, z: Array, blocks: list[Array], among: Among) -> Products:
    """The products of all models, summed over blocks.

    Args:
      x: float64 [n, k], the design.
      z: float64 [n, T], the measures.
      blocks: the rows of each block; models of different blocks are independent.
      among: rows → their covariances.
    """
    return functools.reduce(Products.__add__, (products(x[rows], z[rows], among(rows)) for rows in blocks))


def left_out(x: Array, z: Array, blocks: list[Array], among: Among, groups: list[Array]) -> list[Products]:
    """For each group, the products of all other models; other arguments as for `summed`.

    The remaining blocks are added rather than one subtracted from the total, which would lose digits where one block
    dominates.

    Args:
      groups: the rows of each group, which all lie in one block.
    """
    parts = [products(x[rows], z[rows], among(rows)) for rows in blocks]
    zero = Products(*(np.zeros_like(getattr(parts[0], key)) for key in _KEYS))
    before = list(itertools.accumulate(parts, Products.__add__, initial=zero))
    after = list(itertools.accumulate(reversed(parts), Products.__add__, initial=zero))[::-1]
    home = {int(row): i for i, rows in enumerate(blocks) for row in rows}
    found = []
    for group in groups:
        at = home[int(group[0])]
        rest = np.setdiff1d(blocks[at], group)
        others = before[at] + after[at + 1]
        found.append(others + products(x[rest], z[rest], among(rest)) if len(rest) else others)
    return found


def restricted(found: Products, n: int) -> tuple[Array, Array, Array]:
    """Restricted maximum likelihood (REML) at each covariance, with the variance profiled out.

    Args:
      found: the products of the models.
      n: number of models.

    Returns:
      Coefficients [R, k, T], variances [R, T] and log-likelihoods [R, T] up to a constant.
    """
    k = found.xx.shape[1]
    coefficients = np.linalg.solve(found.xx, found.xz)
    explained = np.einsum("rkt,rkt->rt", found.xz, coefficients)
    variance = np.maximum(found.zz - explained, 1e-300) / (n - k)
    determinants = found.determinant + np.linalg.slogdet(found.xx)[1]
    return coefficients, variance, -0.5 * (determinants[:, None] + (n - k) * np.log(variance))


def weights(likelihood: Array) -> Array:
    """Weights of the covariances, proportional to their likelihoods; `likelihood` [R, …] is in logs."""
    found = np.exp(likelihood - likelihood.max(axis=0))
    return found / found.sum(axis=0)
