"""Other ways to foretell the scores of models that come later, reimplemented from their papers' descriptions.

Each is a function (known, asked) → scores [asked models × tasks]. None sees a score of an asked model; `asked.start`
has the scores of the model that it continues, which are there before it is trained.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy.optimize import least_squares
from scipy.special import expit, logit
from sklearn.decomposition import PCA

from kanana_jax.observatory import downstream, filling

Array = np.ndarray


@dataclasses.dataclass(frozen=True)
class Models:
    """Models with what is known before they are measured.

    Attributes:
      scores: float64, models × tasks; of asked models nothing is read of it.
      start: the scores of the base, likewise; NaN where there is none.
      params, tokens: float64 [n], parameters and all tokens; NaN where unknown.
      families, bases: str [n].
    """

    scores: pd.DataFrame
    start: pd.DataFrame
    params: Array
    tokens: Array
    families: Array
    bases: Array

    def take(self, chosen: Array) -> "Models":
        """Args: chosen: bool [n]."""
        return Models(self.scores[chosen], self.start[chosen], self.params[chosen], self.tokens[chosen],
                      self.families[chosen], self.bases[chosen])  # fmt: skip

    @property
    def compute(self) -> Array:
        """log10 of 6·N·D."""
        return np.log10(6 * self.params * self.tokens)


Baseline = Callable[[Models, Models], Array]


def column_means(known: Models, asked: Models) -> Array:
    """The mean of the known models."""
    return np.tile(known.scores.mean().to_numpy(float), (len(asked.scores), 1))


def copy_the_base(known: Models, asked: Models) -> Array:
    """The base's scores; without one those of the family's model of the nearest size; else the means."""
    found = column_means(known, asked)
    for i, family in enumerate(asked.families):
        if np.isfinite(asked.start.iloc[i]).all():
            found[i] = asked.start.iloc[i]
            continue
        own = np.flatnonzero((known.families == family) & (known.bases == "") & np.isfinite(known.params))
        if len(own) and np.isfinite(asked.params[i]):
            nearest = own[np.argmin(np.abs(np.log(known.params[own] / asked.params[i])))]
            found[i] = known.scores.iloc[nearest]
    return found


def obsscaling(known: Models, asked: Models) -> Array:
    """Ruan et al. (arXiv:2405.10938): y = (1 − h)·σ(w·PC + b) + h, the two PCs a line in log compute.

    In the paper each family has a line of its own; a model of a new family has that of all models.
    """
    usable = np.isfinite(known.compute)
    table = known.scores[usable].to_numpy(float)
    mean, scale = np.nanmean(table, axis=0), np.nanstd(table, axis=0)
    filled = filling.by_rank((table - mean) / scale, 1) * scale + mean
    pcs = PCA(2, svd_solver="full").fit_transform(filled)
    x = np.column_stack([np.ones(usable.sum()), known.compute[usable]])
    lines = np.linalg.lstsq(x, pcs, rcond=None)[0]
    at = np.where(np.isfinite(asked.compute), asked.compute, np.nanmean(known.compute))
    predicted = np.column_stack([np.ones(len(at)), at]) @ lines
    found = np.zeros((len(at), table.shape[1]))
    for j in range(table.shape[1]):
        seen = np.isfinite(table[:, j])
        found[:, j] = downstream.fit(pcs[seen], table[seen, j])(predicted)
    return found


def sloth(known: Models, asked: Models, skills: int = 2, ridge: float = 0.03) -> Array:
    """Sloth (arXiv:2412.06540): logit y = Λ·θ + b, skills θ = α(family) + β·(log N, log D, log N · log D).

    The intercept of a family that is not known is the mean of those that are. A little ridge on Λ, α and β makes the
    solution unique.
    """
    usable = np.isfinite(known.params * known.tokens)
    y = logit(np.clip(known.scores[usable].to_numpy(float), 0.01, 0.99))
    names = list(dict.fromkeys(known.families[usable]))
    member = np.array([names.index(f) for f in known.families[usable]])
    raw = _inputs(known.params, known.tokens)
    middle, spread = np.nanmean(raw[usable], axis=0), np.nanstd(raw[usable], axis=0)
    x = (raw[usable] - middle) / spread
    tasks, families = y.shape[1], len(names)
    sizes = np.cumsum([tasks * skills, tasks, families * skills, 3 * skills])
    shapes = ((skills, tasks), (tasks,), (families, skills), (3, skills))

    def parts(p: Array) -> list[Array]:
        return [v.reshape(s) for v, s in zip(np.split(p, sizes[:-1]), shapes)]

    def residual(p: Array) -> Array:
        loading, bias, alpha, beta = parts(p)
        error = (alpha[member] + x @ beta) @ loading + bias - y
        return np.concatenate(
            [error[np.isfinite(error)], ridge * loading.ravel(), ridge * alpha.ravel(), ridge * beta.ravel()]
        )

    start = 0.3 * np.random.default_rng(0).normal(size=sizes[-1])
    start[sizes[0] : sizes[1]] = np.nanmean(y, axis=0)
    loading, bias, alpha, beta = parts(least_squares(residual, start, max_nfev=60).x)
    given = (_inputs(asked.params, asked.tokens) - middle) / spread
    given = np.where(np.isfinite(given), given, 0.0)
    own = np.array([alpha[names.index(f)] if f in names else alpha.mean(axis=0) for f in asked.families])
    return expit((own + given @ beta) @ loading + bias)


def _inputs(params: Array, tokens: Array) -> Array:
    n, d = np.log(params / 1e9), np.log(tokens / 1e9)
    return np.column_stack([n, d, n * d])


def lineage(known: Models, asked: Models, rank: int = 3, ridge: float = 0.1, bond: float = 3.0) -> Array:
    """A factorisation Z ≈ UVᵀ of z-scores with bond · Σ‖u_child − u_base‖² for the lineage (arXiv:2504.19811).

    Alternating least squares. A base that is measured, but not among the known models, is one more row. Without a base
    nothing is known of a row of U: it is zero, and the prediction the mean.
    """
    starts = {b: asked.start.iloc[i] for i, b in enumerate(asked.bases) if b and np.isfinite(asked.start.iloc[i]).all()}
    more = {b: row for b, row in starts.items() if b not in known.scores.index}
    table = pd.concat([known.scores, pd.DataFrame(more, known.scores.columns).T]) if more else known.scores
    mean, scale = known.scores.mean().to_numpy(float), known.scores.std().to_numpy(float)
    z = np.vstack([(table.to_numpy(float) - mean) / scale, np.full((len(asked.scores), len(mean)), np.nan)])
    index = {m: i for i, m in enumerate(table.index)}  # of the measured ones: a base may be asked about, too
    links = [(index[m], index[b]) for m, b in zip(known.scores.index, known.bases) if b in index]
    links += [(len(table) + i, index[b]) for i, b in enumerate(asked.bases) if b in index]
    neighbours: dict[int, list[int]] = {}
    for a, b in links:
        neighbours.setdefault(a, []).append(b)
        neighbours.setdefault(b, []).append(a)
    rng = np.random.default_rng(0)
    u, v = 0.1 * rng.normal(size=(len(z), rank)), rng.normal(size=(z.shape[1], rank))
    seen = np.isfinite(z)
    for _ in range(60):
        for i in range(len(z)):
            near = neighbours.get(i, [])
            left = v[seen[i]].T @ v[seen[i]] + (ridge + bond * len(near)) * np.eye(rank)
            u[i] = np.linalg.solve(left, v[seen[i]].T @ z[i, seen[i]] + bond * u[near].sum(axis=0))
        for j in range(z.shape[1]):
            rows = u[seen[:, j]]
            v[j] = np.linalg.solve(rows.T @ rows + ridge * np.eye(rank), rows.T @ z[seen[:, j], j])
    return (u @ v.T)[len(table) :] * scale + mean


BASELINES: dict[str, Baseline] = {
    "column means": column_means,
    "copy the base": copy_the_base,
    "ObsScaling's sigmoid on PCs": obsscaling,
    "Sloth": sloth,
    "lineage factorisation": lineage,
}
