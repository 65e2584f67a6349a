"""What a plan decides: its leading measure, its price in other tasks, its rivals, and what to measure first."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypedDict

import numpy as np
import pandas as pd

from kanana_jax.observatory import multiplicity, narrowing, planner
from kanana_jax.observatory.costs import Rate
from kanana_jax.observatory.joint import Joint
from kanana_jax.observatory.pairs import Pairs
from kanana_jax.observatory.planner import Plan, Prediction
from kanana_jax.observatory.tables import Tables
from kanana_jax.observatory.verdicts import LOCAL

Array = np.ndarray
SAME_SIZE = 1.5  # factor within which two models count as of one size
BIGGER = 1.5  # factor from which a base counts as bigger
SHOWN_NEXT = 3
CURVE = 25  # points of the line of gains


class Choice(TypedDict):
    """One way to get the ability, its rivals likewise.

    Attributes:
      kind: `asked`, `half` (the tokens), `bigger` (base of the family), `other` (base of its size), or, with nothing
        trained, `bigger as it is` and `there already` (the best model of its size in the table).
      tokens: that are trained on; 0: none.
      after_ci95: None of a model that is measured.
      probability: that `after` reaches the threshold; None of a model that is measured.
      side, side_ci95: score of the task that the asked plan costs most; None where there is none, or no interval.
      days, money: [with perfect overlap, with none], or None where they are not known.
      extrapolates: in which respects it lies outside what the pairs have seen.
    """

    kind: str
    model: str
    params: float
    tokens: float
    before: float
    after: float
    after_ci95: list[float] | None
    probability: float | None
    side: float | None
    side_ci95: list[float] | None
    days: list[float] | None
    money: list[float] | None
    extrapolates: list[str]


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a plan is judged by.

    Attributes:
      measure: the leading one.
      threshold: the value that is to be reached; None: any rise counts.
      side: the task that loses the largest part of its range, or ""; side_clear: whether that is clear (`side_cost`).
      joint: the models that predict it.
    """

    plan: Plan
    measure: str
    threshold: float | None
    side: str
    side_clear: bool
    rate: Rate | None
    joint: Joint


def leading(rows: list[Prediction], verdicts: Mapping[str, Any], language: str) -> str:
    """The measure that a plan is told by: the clearest gain of tasks that need local data, else of all local ones."""
    local = [r for r in rows if r["language"] == language] or rows
    needing = [r for r in local if r["measure"] in verdicts and verdicts[r["measure"]].verdict == LOCAL]
    return max(needing or local, key=_clearness)["measure"]


def side_cost(rows: list[Prediction], tasks: pd.DataFrame, measure: str) -> tuple[Prediction | None, bool]:
    """The task that is predicted to lose the largest part of its range, and whether that is clear.

    It is clear where the interval lies below zero and the probability of a rise stays small after the correction for
    all tasks, since the largest loss of many is picked. Clear losses come first; None where nothing is lost.

    Args:
      tasks: with columns `low` and `high`, since scores may be shares or percentages.
      measure: the leading one, which is no price.
    """
    asked = [r for r in rows if r["language"] is not None and r["measure"] != measure]
    p = multiplicity.adjusted({r["measure"]: r["rises"] for r in asked})
    span = tasks["high"] - tasks["low"]
    losing = [r for r in asked if r["gain"] < 0]
    clear = [r for r in losing if p[r["measure"]] <= multiplicity.LEVEL and r["gain_ci95"][1] < 0]
    return min(clear or losing, key=lambda r: r["gain"] / span[r["measure"]], default=None), bool(clear)


def _clearness(row: Prediction) -> float:
    low, high = row["gain_ci95"]
    return row["gain"] / max(high - low, 1e-12)


def decide(asked: Asked, pairs: Pairs, tables: Tables, measures: pd.DataFrame) -> dict[str, Any]:
    """The decision, as it stands in `components.json`."""
    plan = asked.plan
    if plan.tokens is None:
        raise ValueError("a plan without tokens decides nothing")
    first = _trained("asked", plan, asked, pairs, tables, measures)
    if first is None:
        return {}
    rivals = [_trained("half", dataclasses.replace(plan, tokens=plan.tokens / 2), asked, pairs, tables, measures)]
    bigger = _bigger(plan, asked.measure, tables, measures)
    if bigger:
        rivals.append(_trained("bigger", _with_base(plan, bigger, tables), asked, pairs, tables, measures))
        rivals.append(_as_it_is("bigger as it is", bigger, asked, tables, measures))
    rivals.append(_other(plan, asked, pairs, tables, measures))
    there = _there(plan, asked.measure, tables, measures)
    if there:
        rivals.append(_as_it_is("there already", there, asked, tables, measures))
    return {
        "measure": asked.measure,
        "side": asked.side or None,
        "side_clear": asked.side_clear,
        "threshold": asked.threshold,
        "choices": [first, *(choice for choice in rivals if choice)],
        **_seen(asked, pairs, measures),
        **_learning(asked, pairs, tables, measures),
    }


def _trained(
    kind: str, plan: Plan, asked: Asked, pairs: Pairs, tables: Tables, measures: pd.DataFrame
) -> Choice | None:
    names = dict.fromkeys([asked.measure, asked.side] if asked.side else [asked.measure])  # errors are not told here
    rows = {r["measure"]: r for r in planner.predict(plan, pairs, tables, measures, asked.joint, names)}
    own, side = rows.get(asked.measure), rows.get(asked.side)
    if own is None or plan.tokens is None:
        return None
    after = asked.joint.after(asked.measure, plan.base, plan.params, np.array([plan.tokens / 1e9]))
    threshold = own["before"] if asked.threshold is None else asked.threshold
    return {
        "kind": kind,
        "model": plan.base,
        "params": plan.params,
        "tokens": plan.tokens,
        "before": own["before"],
        "after": own["after"],
        "after_ci95": own["after_ci95"],
        "probability": after.reaches(threshold),
        "side": side["after"] if side else None,
        "side_ci95": side["after_ci95"] if side else None,
        "days": asked.rate.days(plan.tokens, plan.params) if asked.rate else None,
        "money": asked.rate.money(plan.tokens, plan.params) if asked.rate else None,
        "extrapolates": own["extrapolates"],
    }


def _as_it_is(kind: str, model: str, asked: Asked, tables: Tables, measures: pd.DataFrame) -> Choice:
    score = float(measures.loc[model, asked.measure])
    return {
        "kind": kind,
        "model": model,
        "params": float(tables.models.loc[model, "params"]),
        "tokens": 0.0,
        "before": score,
        "after": score,
        "after_ci95": None,
        "probability": None,
        "side": _finite(measures.loc[model, asked.side]) if asked.side else None,
        "side_ci95": None,
        "days": None,
        "money": None,
        "extrapolates": [],
    }


def _finite(score: Any) -> float | None:
    return float(score) if np.isfinite(score) else None


def _bases(plan: Plan, measure: str, tables: Tables, measures: pd.DataFrame) -> pd.Series:
    """Parameters of the other models that are trained from scratch and measured."""
    models = tables.models
    usable = (models["base"] == "") & models["params"].notna() & measures[measure].notna() & (models.index != plan.base)
    return models.loc[usable, "params"]


def _bigger(plan: Plan, measure: str, tables: Tables, measures: pd.DataFrame) -> str | None:
    """The next larger base of the same family."""
    params = _bases(plan, measure, tables, measures)
    family = tables.models["family"]
    larger = params[(family[params.index] == family[plan.base]) & (params >= BIGGER * plan.params)]
    return str(larger.idxmin()) if len(larger) else None


def _other(plan: Plan, asked: Asked, pairs: Pairs, tables: Tables, measures: pd.DataFrame) -> Choice | None:
    """Of the bases of about its size and another family, known to be hardly trained in the language, the best one."""
    params = _bases(plan, asked.measure, tables, measures)
    near = params[(params <= SAME_SIZE * plan.params) & (params >= plan.params / SAME_SIZE)]
    seen = tables.models[f"{plan.language}_tokens_b_est"] * 1e9  # NaN, undisclosed, is not known to be fewer
    family = tables.models["family"]
    names = [m for m in near.index if family[m] != family[plan.base] and seen[m] < (plan.tokens or 0.0)]
    tried = (_trained("other", _with_base(plan, m, tables), asked, pairs, tables, measures) for m in names)
    return max((c for c in tried if c), key=lambda c: c["after"], default=None)


def _there(plan: Plan, measure: str, tables: Tables, measures: pd.DataFrame) -> str | None:
    """The best model of at most about its size."""
    params = tables.models["params"]
    near = params[(params <= SAME_SIZE * plan.params) & (params.index != plan.base)].index
    scores = measures.loc[near, measure].dropna()
    return str(scores.idxmax()) if len(scores) else None


def _with_base(plan: Plan, base: str, tables: Tables) -> Plan:
    return dataclasses.replace(plan, base=base, params=float(tables.models.loc[base, "params"]))


def _seen(asked: Asked, pairs: Pairs, measures: pd.DataFrame) -> dict[str, Any]:
    """The gain against tokens, and the pairs that it was learnt from."""
    plan, known = asked.plan, planner.with_tokens(pairs, asked.measure)
    if plan.tokens is None:
        return {}
    fewest, most = planner.token_range(pairs, asked.measure)
    at, level = plan.tokens / 1e9, float(measures.loc[plan.base, asked.measure])
    grid = np.geomspace(min(fewest, at / 2), max(most, at), CURVE)
    found = asked.joint.after(asked.measure, plan.base, plan.params, grid)
    points = zip(pairs.models, pairs.tokens_b, pairs.gains[asked.measure])
    return {
        "curve": {"tokens": grid * 1e9, "gain": found.middle - level, "low": found.low - level,
                  "high": found.high - level},
        "pairs": [(name, tokens * 1e9, gain) for (name, tokens, gain), seen in zip(points, known) if seen],
    }  # fmt: skip


def _learning(asked: Asked, pairs: Pairs, tables: Tables, measures: pd.DataFrame) -> dict[str, Any]:
    """The pilot, and the next measurements."""
    plan = asked.plan
    if plan.tokens is None:
        return {}
    target = narrowing.Target(asked.joint, asked.measure, plan.base, plan.params, plan.tokens / 1e9)
    items = float(tables.tasks.loc[asked.measure, "items"]) if asked.measure in tables.tasks.index else np.nan
    tokens = dict(zip(pairs.models, pairs.tokens_b))
    found = narrowing.candidates(target, tables, measures[asked.measure], tokens)
    return {
        "pilot": narrowing.pilot(target, planner.token_range(pairs, asked.measure), items),
        "next": found[:SHOWN_NEXT],
    }
