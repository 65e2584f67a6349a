"""The value of a further measurement: how far it would narrow a plan's prediction interval, before it is made.

The model is that of `mixed`. Given the variance shares, the prediction error is that of universal kriging (Cressie
1993, Statistics for Spatial Data, §3.4). It depends on which models are measured but not on their scores, so that the
value of a measurement is known beforehand. The result is averaged over the shares as in `mixed`.
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
NEARLY = 1.05  # a pilot is nearly as good as possible within this factor of the narrowest interval
PILOTS = 40  # number of pilot sizes tried
QUESTIONS = (1.5, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 50.0, 70.0, 100.0)


@dataclasses.dataclass(frozen=True)
class Target:
    """The score to predict: `measure` of `base`, at `params` parameters, after `tokens_b` (1e9) local tokens more."""

    joint: Joint
    measure: str
    base: str
    params: float
    tokens_b: float

    @property
    def model(self) -> Mixed:
        """The mixed model of the measure."""
        return self.joint.models[self.measure]

    @functools.cached_property
    def blocks(self) -> list[tuple[Array, Array]]:
        """For each independent block of models, its rows and XᵀV⁻¹X at each grid point of the shares [R, k, k]."""
        x, kin = self.model.design, self.model.kin
        nothing = np.zeros((len(x), 0))
        return [(rows, gls.products(x[rows], nothing[rows], kin.among(rows)).xx) for rows in kin.blocks()]

    def row(self, tokens_b: float) -> tuple[Array, Kin]:
        """The design row [1, k] and the kin of the target with `tokens_b` (1e9) added tokens."""
        return self.joint.planned(self.base, self.params, np.array([tokens_b]))


class Pilot(TypedDict):
    """A pilot run: the plan's base, text and recipe on fewer tokens, then measured.

    Attributes:
      tokens: the fewest tokens with which a pilot halves the interval; None if no pilot does.
      untried: why no pilot was evaluated: `fewest` if no pair added fewer tokens than the plan, `questions` if the
        number of questions, and so the error of scores, is unknown; "" if pilots were evaluated.
      half, half_after: half the width of the 95% interval of the plan, before and after the pilot.
      nearly: if no pilot halves the interval, the fewest tokens that narrow it to within 5% of the best pilot; else
        None.
      questions: if no pilot halves the interval, the factor by which the number of questions would have to grow, for
        pilot and final model, so that a pilot of `nearly` tokens does; None otherwise, or if a factor of a hundred is
        not enough.
    """

    measure: str
    tokens: float | None
    untried: str
    half: float
    half_after: float
    nearly: float | None
    questions: float | None


class Next(TypedDict):
    """A possible measurement, and how much it narrows the interval.

    Attributes:
      kind: `score` (a missing score of `model`), `budget` (its unknown tokens) or `pair` (one more continual model
        trained from `model`).
      narrows: the share of the interval's width that it removes.
    """

    kind: str
    model: str
    family: str
    narrows: float


def pilot(target: Target, tokens_seen: tuple[float, float], items: float) -> Pilot:
    """Finds the smallest pilot that halves the plan's interval.

    Assumes that the causes of a model's distance from the line (base, text and recipe) are the same in the pilot, and
    that the score follows log10 of the tokens as in the table. Pilots with fewer tokens than any pair are not tried,
    since nothing is known about that range.

    Args:
      tokens_seen: the fewest and the most tokens (1e9) that pairs added.
      items: number of questions of the measure; NaN if unknown.
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
    """The possible measurements, the most informative first.

    Args:
      scores: the measure's score by model, NaN where missing.
      tokens_b: continual model → local tokens (1e9) added to its base, NaN where unknown.
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
      row: float64 [1, k], its design row.
      kin: the relations of its model.
      shared: covariance with the target's own term, at each grid point of the shares [R].
      more: variance in addition to that of an ordinary score, at each grid point of the shares [R].
    """

    row: Array
    kin: Kin
    shared: Array | float = 0.0
    more: Array | float = 0.0


def _piloted(target: Target, plain: Array, tokens_b: float, sampling: float, times: float) -> float:
    """Half the width of the interval after a pilot of `tokens_b` (1e9) tokens.

    The own terms of pilot and target are equal except for the sampling errors of their scores.

    Args:
      plain: prediction variances without the pilot [R].
      sampling: standard error of a score on the model's scale.
      times: factor on the number of questions of both scores.
    """
    of_family, of_lineage, of_recipe = SHARES.T
    own = (1 - of_family) * (1 - of_lineage) * (1 - of_recipe)
    noise = np.minimum(sampling**2 / target.model.variance, own)
    fewer = noise * (1 / times - 1)
    extra = _Extra(*target.row(tokens_b), own - noise, fewer)
    return _half(target, plain, np.maximum(_variances(target, [extra]) + fewer, 1e-12))


def _half(target: Target, before: Array, after: Array) -> float:
    """Half the interval's width, in the measure's units, when prediction variances [R] go from `before` to `after`.

    The predictions at the grid points of the shares approach each other in the same proportion.
    """
    model = target.model
    now = model.foretell(*target.row(target.tokens_b))
    middle = now.mean[:, None] + (now.middle - now.mean[:, None]) * np.sqrt(after / before)
    _, low, high = model.interval(Mixture(now.weight, middle, np.sqrt(model.variance * after)[None], now.df))
    return float(high[0] - low[0]) / 2


def _variances(target: Target, extra: list[_Extra]) -> Array:
    """Prediction variances of the target given `extra` scores, in units of a model's variance, float64 [R]."""
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
    inner = inner + sum(xx for rows, xx in target.blocks if rows[0] not in near)  # unrelated blocks inform the line
    drift = np.einsum("ri,ri->r", rest, np.linalg.solve(inner, rest[..., None])[..., 0])
    return np.maximum(1 - np.einsum("rn,rn->r", with_target, solved[..., 0]) + drift, 1e-12)
