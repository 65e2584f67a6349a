"""Generalised least squares of models in independent blocks, at many covariances and for many measures at once.

Models of different families and lineages are independent, so that what least squares needs is a sum over blocks, and
leaving one family out takes away a part of one block: no fit begins anew. The work grows with the cube of the largest
block and not of the number of models.
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
    """Of n models and T measures; those of independent models add up.

    Attributes:
      xx, xz, zz: XᵀV⁻¹X float64 [R, k, k], XᵀV⁻¹z [R, k, T] and zᵀV⁻¹z [R, T] at each of R covariances V.
      determinant: float64 [R], the logarithm of V's.
    """

    xx: Array
    xz: Array
    zz: Array
    determinant: Array

    def __add__(self, other: "Products") -> "Products":
        return Products(*(getattr(self, key) + getattr(other, key) for key in _KEYS))


_KEYS = tuple(field.name for field in dataclasses.fields(Products))


def products(x: Array, z: Array, among: Array) -> Products:
    """The products of models with these covariances.

    Args:
      x: float64 [n, k]; z: float64 [n, T]; among: float64 [R, n, n].
    """
    lower, k = np.linalg.cholesky(among), x.shape[1]
    white = np.linalg.solve(lower, np.column_stack([x, z]))
    xw = np.swapaxes(white[..., :k], 1, 2)
    determinant = 2 * np.log(np.diagonal(lower, axis1=1, axis2=2)).sum(axis=1)
    return Products(xw @ white[..., :k], xw @ white[..., k:], (white[..., k:] ** 2).sum(axis=1), determinant)


def summed(x: Array, z: Array, blocks: list[Array], among: Among) -> Products:
    """The products of all models.

    Args:
      x: float64 [n, k]; z: float64 [n, T].
      blocks: rows of the models of each; models of different blocks are independent.
    """
    return functools.reduce(Products.__add__, (products(x[rows], z[rows], among(rows)) for rows in blocks))


def left_out(x: Array, z: Array, blocks: list[Array], among: Among, groups: list[Array]) -> list[Products]:
    """The products of the models that remain when each of the groups is left out, with the arguments of `summed`.

    The other blocks are added up rather than subtracted from the sum, which would lose digits where one weighs most.

    Args:
      groups: rows of each, all of one block.
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
    """Coefficients and the restricted log-likelihood, its variance at the maximum, at each covariance.

    Args:
      found: of n models.

    Returns:
      Coefficients [R, k, T], variances [R, T] and log-likelihoods [R, T], these but for a constant.
    """
    k = found.xx.shape[1]
    coefficients = np.linalg.solve(found.xx, found.xz)
    explained = np.einsum("rkt,rkt->rt", found.xz, coefficients)
    variance = np.maximum(found.zz - explained, 1e-300) / (n - k)
    determinants = found.determinant + np.linalg.slogdet(found.xx)[1]
    return coefficients, variance, -0.5 * (determinants[:, None] + (n - k) * np.log(variance))


def weights(likelihood: Array) -> Array:
    """Weights of the covariances by their log-likelihoods [R, …]; they add up to 1."""
    found = np.exp(likelihood - likelihood.max(axis=0))
    return found / found.sum(axis=0)
