"""Components of ability: PCA of standardised scores, and the axes' stability under resampling.

The method is that of arXiv:2412.14471, which does not say how it standardises; here columns are z-scored.
"""

import dataclasses
from typing import TypedDict

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA

from kanana_jax.observatory.filling import shrunk, standardise

Array = np.ndarray
PERCENTILES = (2.5, 97.5)


@dataclasses.dataclass(frozen=True)
class Components:
    """PCA of a table.

    Attributes:
      mean, scale: float64 [tasks], mean and standard deviation of the measured cells.
      ratio: float64 [k], explained variance ratio.
      eigenvalues: float64 [k], eigenvalues of the correlation matrix.
      loadings: float64 [k, tasks], rows of unit length with fixed signs.
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
        """Projects other models' scores onto these axes, float64 [models, k]; no cell may be missing."""
        z = (scores[list(self.tasks)].to_numpy(float) - self.mean) / self.scale
        return z @ self.loadings.T


def fix_signs(loadings: Array, tasks: tuple[str, ...], anchors: dict[str, str]) -> Array:
    """±1 for each component, so that its anchor task loads positively.

    Without an anchor, the sum of PC1's loadings, or the largest loading of another component, becomes positive.

    Args:
      loadings: float64 [k, tasks].
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


def fit(scores: pd.DataFrame, anchors: dict[str, str], penalty: float | None = None) -> Components:
    """PCA of z-scored columns.

    Args:
      scores: models × tasks, NaN allowed.
      anchors: component → task that loads positively on it (`fix_signs`).
      penalty: for filling missing cells (`filling.hidden_cells`).

    Raises:
      ValueError: cells are missing, and there is no penalty.
    """
    z, mean, scale = standardise(scores.to_numpy(float))
    if penalty is None and np.isnan(z).any():
        raise ValueError("cells are missing: give the penalty of their filling")
    filled = shrunk(z, penalty or 0.0)
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
    """The same components with the sign of the component `name` flipped."""
    sign = np.array([-1.0 if n == name else 1.0 for n in components.names])
    return dataclasses.replace(
        components, loadings=components.loadings * sign[:, None], scores=components.scores * sign
    )


class Axis(TypedDict):
    """Uncertainty of one component; `cosine_p2_5` is the 2.5th percentile of |cos| to the full sample's axis."""

    component: str
    ratio_ci95: list[float]
    cosine_p2_5: float


def bootstrap_axes(components: Components, draws: int, rng: np.random.Generator, count: int = 3) -> list[Axis]:
    """Bootstrap over models: intervals of the explained variance, and the rotation of each axis.

    Returns:
      One `Axis` for each of the first `count` components.
    """
    n = len(components.models)
    z = (components.filled - components.mean) / components.scale
    count = min(count, len(components.loadings))
    ratios, cosines = [], []
    while len(ratios) < draws:
        sample = z[rng.integers(0, n, n)]
        spread = sample.std(axis=0)
        if (spread < 1e-12).any():  # a task that is constant in this resample has no z-score
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
