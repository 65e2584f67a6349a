"""The number of components that exceed noise: a parallel analysis for families and missing cells.

Horn's parallel analysis (1965) assumes independent models and complete tables, and compares every component with pure
noise. Here, models of one family resemble each other, missing cells are filled, and the first component leaves less
variance for the second. The first component is therefore compared with noise that is correlated within families as the
scores are; the others with such noise added to the first component, with the variance of its residual. All noise gets
the same missing cells and the same filling. The test is conservative for a third component, since the variance that the
second explains counts as noise.
"""

import numpy as np

from kanana_jax.observatory import filling

Array = np.ndarray
PERCENTILE = 99.0  # of the noise; fewer than one table of pure noise in twenty then shows a component
BLOCK = 250  # tables filled at a time


def parallel_analysis(models: int, tasks: int, draws: int, rng: np.random.Generator, percentile: float = 95) -> Array:
    """Horn's thresholds (1965): a percentile of each eigenvalue of correlation matrices of normal noise, [tasks]."""
    rank = min(models - 1, tasks)
    found = np.zeros((draws, rank))
    for i in range(draws):
        z = rng.standard_normal((models, tasks))
        z = (z - z.mean(axis=0)) / z.std(axis=0)
        found[i] = np.linalg.svd(z, compute_uv=False)[:rank] ** 2 / models
    return np.percentile(found, percentile, axis=0)


def noise_thresholds(
    table: Array, penalty: float, families: Array, draws: int, rng: np.random.Generator, percentile: float = PERCENTILE
) -> Array:
    """The percentile of each eigenvalue under noise, float64 [tasks]; see the module's docstring.

    Args:
      table: float64 [models, tasks], NaN where not measured.
      penalty: for filling missing cells (`filling.shrunk`).
      families: str [models].
    """
    z = filling.standardise(table)[0]
    missing = np.isnan(z)
    filled = filling.shrunk(z, penalty)
    filled = filled - filled.mean(axis=0)
    u, s, vt = np.linalg.svd(filled, full_matrices=False)
    n, tasks = z.shape
    member = np.unique(families, return_inverse=True)[1]
    found = np.zeros(tasks)
    for k in (0, 1):
        signal = (u[:, :k] * s[:k]) @ vt[:k]
        residual = np.where(missing, np.nan, filled - signal)
        lost = n * tasks / ((n - k) * (tasks - k))  # corrects for the degrees of freedom of the first component
        size = np.sqrt(np.nanmean(residual**2, axis=0) * lost)
        alike = within_families(residual, member)
        reached = []
        for start in range(0, draws, BLOCK):
            count = min(BLOCK, draws - start)
            own = rng.standard_normal((count, n, tasks))
            shared = rng.standard_normal((count, member.max() + 1, tasks))[:, member]
            noise = np.sqrt(1 - alike) * own + np.sqrt(alike) * shared
            reached.append(_eigenvalues(signal + size * noise, missing, penalty))
        found[k:] = np.percentile(np.concatenate(reached), percentile, axis=0)[k:]
    return found


def _eigenvalues(tables: Array, missing: Array, penalty: float) -> Array:
    """Eigenvalues, largest first, of the correlations of tables with these cells missing, float64 [draws, tasks]."""
    holes = np.where(missing, np.nan, tables)
    mean, scale = np.nanmean(holes, axis=1, keepdims=True), np.nanstd(holes, axis=1, keepdims=True)
    filled = filling.shrunk((holes - mean) / scale, penalty)
    filled = filled - filled.mean(axis=1, keepdims=True)
    return np.linalg.eigvalsh(np.swapaxes(filled, 1, 2) @ filled)[:, ::-1] / tables.shape[1]


def within_families(residual: Array, member: Array) -> float:
    """The intraclass correlation of families (one-way analysis of variance), averaged over tasks, clipped to [0, 0.95].

    Args:
      residual: float64 [models, tasks], NaN allowed.
      member: int [models], the number of each model's family.
    """
    shares = []
    for column in residual.T:
        known = np.isfinite(column)
        y, family = column[known], member[known]
        names, counts = np.unique(family, return_counts=True)
        if len(names) < 2 or len(y) <= len(names):
            continue
        means = np.array([y[family == name].mean() for name in names])
        between = np.sum(counts * (means - y.mean()) ** 2) / (len(names) - 1)
        within = sum(np.sum((y[family == name] - m) ** 2) for name, m in zip(names, means)) / (len(y) - len(names))
        each = (len(y) - np.sum(counts**2) / len(y)) / (len(names) - 1)
        total = (between - within) / each + within
        shares.append((between - within) / each / total if total > 0 else 0.0)
    return float(np.clip(np.mean(shares), 0.0, 0.95)) if shares else 0.0
