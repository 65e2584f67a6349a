"""Imputation of missing scores, and its error on cells that were hidden on purpose.

Iterative PCA fills missing cells with the reconstruction from a few components, until nothing changes. It turns noise
into components: any pattern that it finds is written into the missing cells and found again. Shrinking the singular
values (soft-impute: Mazumder, Hastie and Tibshirani 2010, JMLR 11:2287) avoids this if the penalty is the one that
recovers hidden cells best. The largest penalty tried fills with the column means.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd

Array = np.ndarray
PENALTIES = (1.0, 0.8, 0.63, 0.5, 0.4, 0.3, 0.2, 0.12, 0.06)  # of the largest singular value; 1: the column means


@dataclasses.dataclass(frozen=True)
class Filling:
    """Errors of filling cells that were hidden on purpose, in units of the scores.

    Attributes:
      share: the share of cells hidden in each draw.
      rmse: root mean square error by method: each rank of iterative PCA, `column_means`, and `shrunk` singular values
        at the best penalty.
      penalty: the best penalty, in absolute units.
    """

    share: float
    rmse: dict[str, float]
    penalty: float


def standardise(table: Array) -> tuple[Array, Array, Array]:
    """Returns z-scores [models, tasks], means [tasks] and population standard deviations [tasks]; NaNs are ignored."""
    mean, scale = np.nanmean(table, axis=0), np.nanstd(table, axis=0)
    return (table - mean) / scale, mean, scale


def by_rank(z: Array, rank: int, tolerance: float = 1e-9, steps: int = 2000) -> Array:
    """Fills NaNs by iterative PCA: starts from column means and repeatedly inserts the rank-`rank` reconstruction.

    Args:
      z: float64 [models, tasks], standardised.
    """
    missing = np.isnan(z)
    filled = np.where(missing, 0.0, z)
    if not missing.any():
        return filled
    for _ in range(steps):
        mean = filled.mean(axis=0)
        u, s, vt = np.linalg.svd(filled - mean, full_matrices=False)
        new = np.where(missing, (u[:, :rank] * s[:rank]) @ vt[:rank] + mean, z)
        if np.abs(new - filled).max() < tolerance:
            return new
        filled = new
    return filled


def shrunk(z: Array, penalty: float, start: Array | None = None, tolerance: float = 1e-3, steps: int = 100) -> Array:
    """Fills NaNs by soft-impute: repeatedly inserts the reconstruction with singular values reduced by `penalty`.

    A pass is a proximal gradient step, accelerated by Nesterov's momentum (Beck and Teboulle 2009).

    Args:
      z: float64 [..., models, tasks], standardised tables.
      start: initial filling, e.g. from a nearby penalty; default: the column means.
      tolerance: the largest change at which to stop, in standard deviations.
    """
    missing = np.isnan(z)
    filled = np.where(missing, 0.0, z) if start is None else start
    if not missing.any():
        return filled
    ahead = filled
    for step in range(steps):
        values, vectors = np.linalg.eigh(np.swapaxes(ahead, -1, -2) @ ahead)
        size = np.sqrt(np.maximum(values, 1e-12))
        keep = np.maximum(size - penalty, 0.0) / size
        new = np.where(missing, ahead @ ((vectors * keep[..., None, :]) @ np.swapaxes(vectors, -1, -2)), filled)
        change = new - filled
        ahead, filled = new + step / (step + 3) * change, new
        if np.abs(change).max() < tolerance:
            break
    return filled


def hidden_cells(
    scores: pd.DataFrame, draws: int, rng: np.random.Generator, share: float = 0.1, ranks: Sequence[int] = (1, 2, 3)
) -> Filling:
    """Hides a share of the measured cells, fills them by every method, and compares with the truth.

    Args:
      scores: models × tasks, NaN allowed.
      draws: number of repetitions, each hiding other cells.
      ranks: ranks of iterative PCA to try.

    Returns:
      Errors over all hidden cells of all draws.
    """
    table = scores.to_numpy(float)
    known = np.argwhere(~np.isnan(table))
    largest = float(np.linalg.norm(np.nan_to_num(standardise(table)[0]), 2))
    squares: dict[str, list[float]] = {**{str(r): [] for r in ranks}, "column_means": []}
    by_penalty: dict[float, list[float]] = {penalty: [] for penalty in PENALTIES}
    for _ in range(draws):
        hidden = known[rng.permutation(len(known))[: max(1, round(share * len(known)))]].T
        rest = table.copy()
        rest[tuple(hidden)] = np.nan
        if (np.sum(~np.isnan(rest), axis=0) < 2).any() or (np.nanstd(rest, axis=0) < 1e-12).any():
            continue
        z, mean, scale = standardise(rest)
        truth = table[tuple(hidden)]

        def errors(filled: Array) -> list[float]:
            return list(((filled * scale + mean)[tuple(hidden)] - truth) ** 2)  # noqa: B023

        for rank in ranks:
            squares[str(rank)] += errors(by_rank(z, rank, tolerance=1e-5, steps=300))
        filled = None
        for penalty in PENALTIES:
            filled = shrunk(z, penalty * largest, filled)
            by_penalty[penalty] += errors(filled)
        squares["column_means"] += errors(np.zeros_like(z))
    squares["shrunk"], best = min(((v, p) for p, v in by_penalty.items()), key=lambda e: (float(np.sum(e[0])), -e[1]))
    rmse = {k: float(np.sqrt(np.mean(v))) if v else float("nan") for k, v in squares.items()}
    return Filling(share, rmse, best * largest)
