"""Components of ability: PCA of standardised scores, with how much of it is more than noise.

The method is that of arXiv:2412.14471 (which does not say how it standardises; here: z-scored columns).
"""

import dataclasses
from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA

Array = np.ndarray
PERCENTILES = (2.5, 97.5)


@dataclasses.dataclass(frozen=True)
class Components:
    """PCA of a table.

    Attributes:
      mean, scale: float64 [tasks], of the measured cells.
      ratio: float64 [k], explained variance ratio; `eigenvalues` of the correlation matrix likewise.
      loadings: float64 [k, tasks], rows of unit length, signs fixed.
      scores: float64 [models, k], in standard deviations of the tasks.
      filled: float64 [models, tasks], the table with missing cells filled.
    """

    names: tuple[str, ...]
    tasks: tuple[str, ...]
    models: tuple[str, ...]
    mean: Array
    scale: Array
    ratio: Array
    eigenvalues: Array
    loadings: Array
    scores: Array
    filled: Array

    def project(self, scores: pd.DataFrame) -> Array:
        """Scores of other models on the same axes: float64 [models, k]; no cell may be missing."""
        z = (scores[list(self.tasks)].to_numpy(float) - self.mean) / self.scale
        return z @ self.loadings.T


def fill(z: Array, rank: int, tolerance: float = 1e-9, steps: int = 2000) -> Array:
    """Fills NaNs by iterative PCA: from the column means on, each pass puts the rank-`rank` reconstruction there.

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


def standardise(table: Array) -> tuple[Array, Array, Array]:
    """z-scores, mean and scale of the measured cells (population standard deviation)."""
    mean, scale = np.nanmean(table, axis=0), np.nanstd(table, axis=0)
    return (table - mean) / scale, mean, scale


def fix_signs(loadings: Array, tasks: tuple[str, ...], anchors: dict[str, str]) -> Array:
    """±1 for each component: its anchor loads positively; without one PC1's sum, others' largest entry is positive.

    Args:
      anchors: component → task.
    """
    signs = np.ones(len(loadings))
    for k, row in enumerate(loadings):
        anchor = anchors.get(f"PC{k + 1}")
        if anchor in tasks:
            value = row[tasks.index(anchor)]
        else:
            value = row.sum() if k == 0 else row[np.argmax(np.abs(row))]
        signs[k] = 1.0 if value >= 0 else -1.0
    return signs


def fit(scores: pd.DataFrame, anchors: dict[str, str], rank: int = 2) -> Components:
    """Args: scores: models × tasks, NaN allowed; rank: of the reconstruction that fills missing cells."""
    z, mean, scale = standardise(scores.to_numpy(float))
    filled = fill(z, rank)
    pca = PCA(svd_solver="full").fit(filled)
    tasks = tuple(scores.columns)
    loadings = pca.components_ * fix_signs(pca.components_, tasks, anchors)[:, None]
    return Components(
        names=tuple(f"PC{k + 1}" for k in range(len(loadings))),
        tasks=tasks,
        models=tuple(scores.index),
        mean=mean,
        scale=scale,
        ratio=pca.explained_variance_ratio_,
        eigenvalues=pca.explained_variance_ * (len(filled) - 1) / len(filled),
        loadings=loadings,
        scores=(filled - filled.mean(axis=0)) @ loadings.T,
        filled=filled * scale + mean,
    )


def turned(components: Components, name: str) -> Components:
    """The same components with the sign of one changed."""
    sign = np.array([-1.0 if n == name else 1.0 for n in components.names])
    return dataclasses.replace(
        components, loadings=components.loadings * sign[:, None], scores=components.scores * sign
    )


class Axis(TypedDict):
    """Uncertainty of one component; the cosine is the 2.5th percentile of |cos| to the full sample's axis."""

    component: str
    ratio_ci95: list[float]
    cosine_p2_5: float


class Filling(TypedDict):
    """The error of filling hidden cells, by rank of the reconstruction and of `column_means`."""

    share: float
    rmse: dict[str, float]


def parallel_analysis(models: int, tasks: int, draws: int, rng: np.random.Generator, percentile: float = 95) -> Array:
    """Horn (1965): the percentile of each eigenvalue of correlation matrices of independent normal scores, [tasks]."""
    rank = min(models - 1, tasks)
    found = np.zeros((draws, rank))
    for i in range(draws):
        z = rng.standard_normal((models, tasks))
        z = (z - z.mean(axis=0)) / z.std(axis=0)
        found[i] = np.linalg.svd(z, compute_uv=False)[:rank] ** 2 / models
    return np.percentile(found, percentile, axis=0)


def bootstrap_axes(components: Components, draws: int, rng: np.random.Generator, count: int = 3) -> list[Axis]:
    """Models resampled with replacement: intervals of the explained variance and how far each axis turns.

    Returns:
      One for each of the first `count` components.
    """
    n = len(components.models)
    z = (components.filled - components.mean) / components.scale
    count = min(count, len(components.loadings))
    ratios, cosines = [], []
    while len(ratios) < draws:
        sample = z[rng.integers(0, n, n)]
        spread = sample.std(axis=0)
        if (spread < 1e-12).any():  # a task that is constant in this draw has no z-score
            continue
        _, s, vt = np.linalg.svd((sample - sample.mean(axis=0)) / spread, full_matrices=False)
        ratios.append((s**2 / np.sum(s**2))[:count])
        cosines.append(np.abs(np.sum(vt[:count] * components.loadings[:count], axis=1)))
    low, high = np.percentile(ratios, PERCENTILES, axis=0)
    turned = np.percentile(cosines, PERCENTILES[0], axis=0)
    return [
        {"component": components.names[k], "ratio_ci95": [low[k], high[k]], "cosine_p2_5": turned[k]}
        for k in range(count)
    ]


def hidden_cells(
    scores: pd.DataFrame, draws: int, rng: np.random.Generator, share: float = 0.1, ranks: Sequence[int] = (1, 2, 3)
) -> Filling:
    """Error of filling cells that are hidden on purpose, in units of the scores.

    Returns:
      Each error is over all hidden cells of all draws.
    """
    table = scores.to_numpy(float)
    known = np.argwhere(~np.isnan(table))
    squares: dict[str, list[float]] = {**{str(r): [] for r in ranks}, "column_means": []}
    for _ in range(draws):
        hidden = known[rng.permutation(len(known))[: max(1, round(share * len(known)))]].T
        rest = table.copy()
        rest[tuple(hidden)] = np.nan
        if (np.sum(~np.isnan(rest), axis=0) < 2).any() or (np.nanstd(rest, axis=0) < 1e-12).any():
            continue
        z, mean, scale = standardise(rest)
        truth = table[tuple(hidden)]
        for rank in ranks:
            found = (fill(z, rank, tolerance=1e-5) * scale + mean)[tuple(hidden)]
            squares[str(rank)] += list((found - truth) ** 2)
        squares["column_means"] += list((mean[hidden[1]] - truth) ** 2)
    return {"share": share, "rmse": {k: float(np.sqrt(np.mean(v))) if v else float("nan") for k, v in squares.items()}}
