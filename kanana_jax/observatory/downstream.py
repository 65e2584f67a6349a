"""Observational scaling laws (Ruan et al. 2024, arXiv:2405.10938): a task is y = (1 − h)·σ(w·PC + b) + h."""

import dataclasses
from typing import TypedDict

import numpy as np
import pandas as pd
from scipy.optimize import least_squares
from scipy.special import expit
from sklearn.decomposition import PCA

from kanana_jax.observatory import filling

Array = np.ndarray
MAX_FLOOR = 0.2


@dataclasses.dataclass(frozen=True)
class Sigmoid:
    """y = low + (high − low) · ((1 − floor)·σ(weights · PC + bias) + floor), with PCs that are not standardised."""

    weights: Array
    bias: float
    floor: float
    low: float = 0.0
    high: float = 1.0

    def __call__(self, pcs: Array) -> Array:
        """Predicted scores [n] from components float64 [n, k]."""
        return self.low + (self.high - self.low) * (
            (1 - self.floor) * expit(pcs @ self.weights + self.bias) + self.floor
        )


class HeldOut(TypedDict):
    """A task's law, fitted on models below a cut-off in compute, and its error above the cut-off.

    Attributes:
      components: number of components that the law uses.
      baseline_rmse: the error above the cut-off of predicting the mean of the models below it.
    """

    task: str
    components: int
    weights: list[float]
    bias: float
    floor: float
    train_models: int
    test_models: int
    train_rmse: float
    test_rmse: float
    baseline_rmse: float


def fit(pcs: Array, y: Array, low: float = 0.0, high: float = 1.0) -> Sigmoid:
    """Fits a `Sigmoid` by least squares with 0 ≤ floor ≤ 0.2, from two starting points.

    Args:
      pcs: float64 [n, k]; y: float64 [n] within [low, high].
    """
    scale = np.maximum(pcs.std(axis=0), 1e-12)
    x, target = pcs / scale, (y - low) / (high - low)
    middle = np.clip(target.mean(), 0.02, 0.98)
    correlation = [np.corrcoef(column, target)[0, 1] if np.ptp(column) else 0.0 for column in x.T]

    def residual(p: Array) -> Array:
        return (1 - p[-1]) * expit(x @ p[:-2] + p[-2]) + p[-1] - target

    bounds = ([-np.inf] * (x.shape[1] + 1) + [0.0], [np.inf] * (x.shape[1] + 1) + [MAX_FLOOR])
    tried = []
    for floor in (0.01, 0.15):
        start = [*np.nan_to_num(correlation), np.log(middle / (1 - middle)), floor]
        tried.append(least_squares(residual, start, bounds=bounds))
    found = min(tried, key=lambda t: t.cost).x
    return Sigmoid(found[:-2] / scale, float(found[-2]), float(found[-1]), low, high)


def principal(scores: pd.DataFrame, rank: int = 1) -> tuple[Array, Array, Array, Array]:
    """Components as in ObsScaling (arXiv:2405.10938): iterative PCA fills missing z-scores, then PCA in score units.

    Returns:
      Explained variance ratio [k], loadings [k, tasks], mean [tasks], filled table [models, tasks].
    """
    z, mean, scale = filling.standardise(scores.to_numpy(float))
    filled = filling.by_rank(z, rank) * scale + mean
    pca = PCA(svd_solver="full").fit(filled)
    return pca.explained_variance_ratio_, pca.components_, pca.mean_, filled


def held_out(
    scores: pd.DataFrame, task: str, flops: Array, cutoff: float, count: int = 3, low: float = 0.0, high: float = 1.0
) -> HeldOut | None:
    """Fits `task` from the components of the *other* tasks on models up to a cut-off, and tests the law above it.

    Args:
      scores: models × tasks.
      flops: log10 of each model's total training compute; models with NaN (unknown) are left out.
      cutoff: log10 FLOPs.
      count: number of components, reduced to an eighth of the number of training models.
      low, high: the range of the task's scores.

    Returns:
      None if fewer than eight models lie below the cut-off or fewer than two above.
    """
    known = scores[task].notna().to_numpy() & np.isfinite(flops)
    table, y, flops = scores[known], scores[task].to_numpy(float)[known], flops[known]
    below = flops <= cutoff
    if below.sum() < 8 or (~below).sum() < 2:
        return None
    others = table.drop(columns=task)
    usable = (others[below].notna().sum() >= 2) & (others[below].nunique() > 1)
    others = others.loc[:, usable]
    count = min(count, int(below.sum()) // 8, others.shape[1])
    z = others.to_numpy(float)
    mean, scale = np.nanmean(z[below], axis=0), np.nanstd(z[below], axis=0)
    filled = filling.by_rank((z - mean) / scale, 1) * scale + mean
    pca = PCA(count, svd_solver="full").fit(filled[below])
    pcs = pca.transform(filled)
    law = fit(pcs[below], y[below], low, high)
    error = law(pcs) - y
    return {
        "task": task,
        "components": count,
        "weights": law.weights.tolist(),
        "bias": law.bias,
        "floor": law.floor,
        "train_models": int(below.sum()),
        "test_models": int((~below).sum()),
        "train_rmse": _root_mean_square(error[below]),
        "test_rmse": _root_mean_square(error[~below]),
        "baseline_rmse": _root_mean_square(y[below].mean() - y[~below]),
    }


def _root_mean_square(errors: Array) -> float:
    return float(np.sqrt(np.mean(errors**2)))
