"""How far one more measurement would narrow the interval of a plan, before it is made.

The model is that of `mixed`. Given the shares of the variance, the error of predicting a score from scores seen is that
of universal kriging (Cressie 1993, Statistics for Spatial Data, §3.4), which depends on which models are measured and
not on what they show. So a measurement can be weighed beforehand; over the shares it is averaged as in `mixed`.
"""

import dataclasses
import functools
from typing import TypedDict

import numpy as np
import pandas as pd

from kanana_jax.observatory import gls
from kanana_jax.observatory.joint import Joint
from kanana_jax.observatory.mixed import SHARES, Kin, Mixed, Mixture
from kanana_jax.observatory.tables import Tables

Array = np.ndarray
HALVED = 0.5
NEARLY = 1.05  # times the narrowest interval that a pilot can give
PILOTS = 40  # sizes of a pilot that are tried
QUESTIONS = (1.5, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 50.0, 70.0, 100.0)


@dataclasses.dataclass(frozen=True)
class Target:
    """The score that is asked about: `base`, at `params` parameters, once `tokens_b` (1e9) are added."""

    joint: Joint
    measure: str
    base: str
    params: float
    tokens_b: float

    @property
    def model(self) -> Mixed:
        """Of the measure."""
        return self.joint.models[self.measure]

    @functools.cached_property
    def blocks(self) -> list[tuple[Array, Array]]:
        """Of each block of independent models its rows, and XᵀV⁻¹X at each point of the shares [R, k, k]."""
        x, kin = self.model.design, self.model.kin
        nothing = np.zeros((len(x), 0))
        return [(rows, gls.products(x[rows], nothing[rows], kin.among(rows)).xx) for rows in kin.blocks()]

    def row(self, tokens_b: float) -> tuple[Array, Kin]:
        """The design's row [1, k] of such a plan, and its kin."""
        return self.joint.planned(self.base, self.params, np.array([tokens_b]))


class Pilot(TypedDict):
    """A first part of the planned run, measured: same base, text and recipe, fewer tokens.

    Attributes:
      tokens: the fewest that halve the interval; None: none does.
      untried: `fewest` where no pair has added fewer tokens than the plan, `questions` where their number, and with it
        the error of scores, is unknown; "" where pilots are tried.
      half, half_after: half the width of the 95% interval as the plan has it, and after the pilot.
      nearly: the fewest tokens that narrow it to within 5% of what any pilot can, where none halves it; None elsewhere.
      questions: by how many times as many questions the pilot and the final model would have to be measured for
        `nearly` to halve it, where none does; None elsewhere, or where a hundred times as many would not do.
    """

    measure: str
    tokens: float | None
    untried: str
    half: float
    half_after: float
    nearly: float | None
    questions: float | None


class Next(TypedDict):
    """A measurement that does not exist yet, and how it narrows the interval.

    Attributes:
      kind: `score` (a cell of the table), `budget` (tokens of a model) or `pair` (one more continual model of `model`).
      narrows: share of the interval's width that it takes away.
    """

    kind: str
    model: str
    family: str
    narrows: float


def pilot(target: Target, tokens_seen: tuple[float, float], items: float) -> Pilot:
    """The smallest pilot that halves the interval of the plan.

    It takes for granted that what makes a model's score another one than the line's, its base, text and recipe, is the
    same in the pilot, and that the score follows log10 of the tokens as in the table. Pilots are not tried below the
    fewest tokens of a pair, where nothing is known of that.

    Args:
      tokens_seen: the fewest and the most that pairs added, in 1e9.
      items: questions of the measure; NaN: unknown.
    """
    plain = _variances(target, [])
    half = _half(target, plain, plain)
    low = min(tokens_seen[0], target.tokens_b)
    counted = np.isfinite(items) and target.model.limits is not None
    untried = "fewest" if low >= target.tokens_b else "" if counted else "questions"
    found = Pilot(
        measure=target.measure, tokens=None, untried=untried, half=half, half_after=half, nearly=None, questions=None
    )
    if untried:
        return found
    error = 0.5 / np.sqrt(items)
    sizes = np.geomspace(low, target.tokens_b, PILOTS)
    after = np.array([_piloted(target, plain, tokens, error, 1.0) for tokens in sizes])
    narrow = after <= HALVED * half
    if narrow.any():
        first = int(np.argmax(narrow))
        found["tokens"], found["half_after"] = float(sizes[first]) * 1e9, float(after[first])
        return found
    first = int(np.argmax(after <= NEARLY * after.min()))
    enough = [times for times in QUESTIONS if _piloted(target, plain, sizes[first], error, times) <= HALVED * half]
    found["nearly"], found["half_after"] = float(sizes[first]) * 1e9, float(after[first])
    found["questions"] = enough[0] if enough else None
    return found


def candidates(target: Target, tables: Tables, scores: pd.Series, tokens_b: dict[str, float]) -> list[Next]:
    """Measurements that can be made, the most telling first.

    Args:
      scores: of the measure by model, NaN where there is none.
      tokens_b: continual model → local tokens (1e9) that were added to its base, NaN where unknown.
    """
    found: list[Next] = []
    joint, bases, families = target.joint, tables.models["base"], tables.models["family"]
    typical = float(np.exp(np.nanmean(np.log([t for t in tokens_b.values() if t > 0] or [target.tokens_b]))))

    plain = _variances(target, [])
    half = _half(target, plain, plain)

    def add(kind: str, name: str, row: tuple[Array, Kin]) -> None:
        if np.isfinite(row[0]).all():
            after = _half(target, plain, _variances(target, [_Extra(*row)]))
            found.append(Next(kind=kind, model=name, family=families[name], narrows=1 - after / half))

    for at, name in enumerate(scores.index):
        as_it_is = joint.design[[at]], joint.kin.take(np.array([at]))
        if not bases[name]:
            if np.isfinite(scores[name]):
                size = float(tables.models.loc[name, "params"])
                add("pair", name, joint.planned(name, size, np.array([target.tokens_b])))
            elif name in set(bases):
                add("score", name, as_it_is)
        elif name in tokens_b:
            if not np.isfinite(scores[name]):
                add("score", name, as_it_is)
            elif not np.isfinite(tokens_b[name]) and bases[name] in scores.index:
                size = float(tables.models.loc[name, "params"])
                add("budget", name, joint.planned(bases[name], size, np.array([typical])))
    return sorted(found, key=lambda n: -n["narrows"])


@dataclasses.dataclass(frozen=True)
class _Extra:
    """A score that is not measured yet.

    Attributes:
      row, kin: float64 [1, k] and of one model.
      shared: the part of the target's own error that it shows, at each point of the shares [R].
      more: its variance beyond that of a score, likewise.
    """

    row: Array
    kin: Kin
    shared: Array | float = 0.0
    more: Array | float = 0.0


def _piloted(target: Target, plain: Array, tokens_b: float, sampling: float, times: float) -> float:
    """Half the width of the interval after a pilot; both scores of `times` as many questions; plain: variances without.

    The own parts of pilot and target are equal but for the errors of their scores; the others are as they are.
    """
    of_family, of_lineage, of_recipe = SHARES.T
    own = (1 - of_family) * (1 - of_lineage) * (1 - of_recipe)
    noise = np.minimum(sampling**2 / target.model.variance, own)
    fewer = noise * (1 / times - 1)
    extra = _Extra(*target.row(tokens_b), own - noise, fewer)
    return _half(target, plain, np.maximum(_variances(target, [extra]) + fewer, 1e-12))


def _half(target: Target, before: Array, after: Array) -> float:
    """Half the interval's width in the measure's units, where the variances `before` have come to be `after`, both [R].

    The predictions at the points of the shares come as much nearer to each other as the interval at each narrows.
    """
    model = target.model
    now = model.foretell(*target.row(target.tokens_b))
    middle = now.mean[:, None] + (now.middle - now.mean[:, None]) * np.sqrt(after / before)
    _, low, high = model.interval(Mixture(now.weight, middle, np.sqrt(model.variance * after)[None], now.df))
    return float(high[0] - low[0]) / 2


def _variances(target: Target, extra: list[_Extra]) -> Array:
    """Variance of the error of prediction in units of a model's variance, float64 [R]."""
    model, (row, own) = target.model, target.row(target.tokens_b)
    related = functools.reduce(Kin.plus, (e.kin for e in extra), own)
    near = model.kin.near(related)
    design = np.vstack([model.design[near], *(e.row for e in extra)])
    kin = functools.reduce(Kin.plus, (e.kin for e in extra), model.kin.take(near))
    among, with_target = kin.covariance(), kin.covariance(own)[..., 0]
    for j, e in enumerate(extra, len(near)):
        with_target[:, j] += e.shared
        among[:, j, j] += e.more
    both = np.concatenate([with_target[..., None], np.broadcast_to(design, (len(among), *design.shape))], axis=2)
    solved = np.linalg.solve(among, both)
    rest = row[0] - solved[..., 0] @ design
    inner = np.swapaxes(solved[..., 1:], 1, 2) @ design
    inner = inner + sum(xx for rows, xx in target.blocks if rows[0] not in near)  # the others tell of the line only
    drift = np.einsum("ri,ri->r", rest, np.linalg.solve(inner, rest[..., None])[..., 0])
    return np.maximum(1 - np.einsum("rn,rn->r", with_target, solved[..., 0]) + drift, 1e-12)
