"""How far one more measurement would narrow the interval of a plan, before it is made.

The model is that of `unseen`: gain = design · weights + family + own error. Given the share ρ of the variance that
families have, the error of predicting a gain from gains seen is that of universal kriging (Cressie 1993, Statistics
for Spatial Data, §3.4), which depends on where measurements are made and not on what they show. So a measurement can
be weighed beforehand; over ρ it is averaged as in `unseen`.
"""

import dataclasses
from typing import TypedDict

import numpy as np
import pandas as pd

from kanana_jax.observatory.gains import FORMS, GainModel
from kanana_jax.observatory.tables import Tables
from kanana_jax.observatory.unseen import SHARES

Array = np.ndarray
HALVED = 0.5
NEARLY = 1.05  # times the narrowest interval that a pilot can give
PILOTS = 60  # sizes of a pilot that are tried
QUESTIONS = (1.5, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 50.0, 70.0, 100.0)


@dataclasses.dataclass(frozen=True)
class Target:
    """The gain that is asked about.

    Attributes:
      tokens_b, level: tokens (1e9) and the base's score.
      family: of the base.
    """

    tokens_b: float
    level: float
    family: str


class Pilot(TypedDict):
    """A first part of the planned run, measured: same base, text and recipe, fewer tokens.

    Attributes:
      tokens: the fewest that halve the interval; None: none does.
      untried: `fewest` where no pair has added fewer tokens than the plan, `slope` where all pairs have added the same
        number, so that nothing is known of a smaller one; "" where pilots are tried.
      half, half_after: half the width of the 95% interval as the plan has it, a new family's, and after the pilot.
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


def pilot(
    models: dict[str, GainModel], asked: GainModel, measure: str, target: Target, sampling: float | None
) -> Pilot:
    """The smallest pilot that halves the interval of the plan.

    It takes for granted that what makes a model's gain another one than the line's, its base, text and recipe, is the
    same in the pilot, and that the gain grows with log10 of the tokens as in the pairs. Pilots are not tried below the
    fewest tokens of a pair, where nothing is known of that.

    Args:
      models: forms of the measure's model; asked: the one that the plan is predicted with.
      sampling: standard error of a score for its number of questions, or None; it is a pilot's, and the final model's.
    """
    row = asked.rows(np.array([target.tokens_b]), target.level)
    half = float(asked.unseen.half(row)[0])
    model = asked if asked.form != FORMS[0] else models.get(FORMS[1])
    low = min(asked.token_range[0], target.tokens_b)
    untried = "fewest" if low >= target.tokens_b else "slope" if model is None else ""
    found = Pilot(
        measure=measure, tokens=None, untried=untried, half=half, half_after=half, nearly=None, questions=None
    )
    if model is None or untried:
        return found
    sizes = np.geomspace(low, target.tokens_b, PILOTS)
    error = sampling or 0.0
    after = np.array([_piloted(model, t, target, error, 1.0) for t in sizes])
    narrow = after <= HALVED * half
    if narrow.any():
        first = int(np.argmax(narrow))
        found["tokens"], found["half_after"] = float(sizes[first]) * 1e9, float(after[first])
        return found
    first = int(np.argmax(after <= NEARLY * after.min()))
    enough = [times for times in QUESTIONS if _piloted(model, sizes[first], target, error, times) <= HALVED * half]
    found["nearly"], found["half_after"] = float(sizes[first]) * 1e9, float(after[first])
    found["questions"] = enough[0] if error and enough else None
    return found


def candidates(
    model: GainModel, tables: Tables, scores: pd.Series, tokens_b: dict[str, float], target: Target
) -> list[Next]:
    """Measurements that can be made, the most telling first.

    Args:
      scores: of the measure by model, NaN where there is none.
      tokens_b: continual model → local tokens (1e9) that were added to its base, NaN where unknown.
    """
    found: list[Next] = []
    bases, families = tables.models["base"], tables.models["family"]
    for name in scores.index:
        base = bases[name]
        if not base:
            if np.isfinite(scores[name]):
                extra = _Extra(model.rows(np.array([target.tokens_b]), scores[name])[0], families[name])
                found.append(_next("pair", name, families[name], model, target, extra))
        elif name in tokens_b:
            lacking = name if not np.isfinite(scores[name]) else base if not np.isfinite(scores[base]) else ""
            tokens, kind = tokens_b[name], "score"
            if not lacking and not np.isfinite(tokens):
                lacking, kind = name, "budget"
            if lacking:
                level = scores[base] if np.isfinite(scores[base]) else float(np.mean(model.level_range))
                tokens = tokens if np.isfinite(tokens) else float(np.sqrt(np.prod(model.token_range)))
                extra = _Extra(model.rows(np.array([tokens]), level)[0], families[name])
                found.append(_next(kind, lacking, families[name], model, target, extra))
    return sorted(found, key=lambda n: -n["narrows"])


@dataclasses.dataclass(frozen=True)
class _Extra:
    """A gain that is not measured yet.

    Attributes:
      shared: the part of the target's own error that it shows, by share ρ [R].
      more: its variance beyond that of a gain, likewise.
    """

    row: Array
    family: str
    shared: Array | float = 0.0
    more: Array | float = 0.0


def _next(kind: str, name: str, family: str, model: GainModel, target: Target, extra: _Extra) -> Next:
    return {"kind": kind, "model": name, "family": family, "narrows": 1 - _ratio(model, target, [extra])}


def _piloted(model: GainModel, tokens_b: float, target: Target, sampling: float, times: float) -> float:
    """Half the width of the interval after a pilot; both scores of `times` as many questions.

    The own errors of pilot and target are equal but for the errors of their scores; those of the pairs are as they are.
    """
    own = 1 - _shares(model)
    noise = np.minimum(sampling**2 / model.unseen.variance, own)
    fewer = noise * (1 / times - 1)
    extra = _Extra(model.rows(np.array([tokens_b]), target.level)[0], target.family, own - noise, fewer)
    after = np.maximum(_variances(model, target, [extra]) + fewer, 1e-12)
    return float(model.unseen.half_of(after[None])[0])


def _shares(model: GainModel) -> Array:
    return SHARES if len(model.unseen.weight) > 1 else np.zeros(1)


def _ratio(model: GainModel, target: Target, extra: list[_Extra]) -> float:
    """Width of the interval with the extra gains, by that without them."""
    widths = [model.unseen.half_of(_variances(model, target, more)[None])[0] for more in ([], extra)]
    return float(widths[1] / widths[0])


def _variances(model: GainModel, target: Target, extra: list[_Extra]) -> Array:
    """Variance of the error of prediction in units of a gain's variance, float64 [R]."""
    row = model.rows(np.array([target.tokens_b]), target.level)[0]
    design = np.vstack([model.design, *(e.row for e in extra)])
    families = np.array([*model.families, *(e.family for e in extra)])
    same = families[:, None] == families[None, :]
    own = families == target.family
    found = []
    for i, share in enumerate(_shares(model)):
        among = share * same + (1 - share) * np.eye(len(families))
        with_target = share * own.astype(float)
        for j, e in enumerate(extra, len(model.families)):
            with_target[j] += np.broadcast_to(e.shared, len(model.unseen.weight))[i]
            among[j, j] += np.broadcast_to(e.more, len(model.unseen.weight))[i]
        solved = np.linalg.solve(among, np.column_stack([with_target, design]))
        rest = row - design.T @ solved[:, 0]
        drift = rest @ np.linalg.solve(design.T @ solved[:, 1:], rest)
        found.append(1 - with_target @ solved[:, 0] + drift)
    return np.maximum(np.array(found), 1e-12)
