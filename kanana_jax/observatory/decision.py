"""The decision that a plan supports: its leading measure, losses in other tasks, alternatives, next measurements."""

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
SAME_SIZE = 1.5  # models within this factor count as the same size
BIGGER = 1.5  # a base counts as bigger from this factor on
SHOWN_NEXT = 3
CURVE = 25  # points of the curve of gain against tokens


class Choice(TypedDict):
    """One way to obtain the ability: the plan itself or an alternative.

    Attributes:
      kind: `asked` (the plan), `half` (half its tokens), `bigger` (a bigger base of the family), `other` (another
        family's base of about the same size); or, without training, `bigger as it is` and `there already` (the best
        model in the table of at most about its size).
      tokens: training tokens; 0 without training.
      before, after: the leading measure's score before and after training.
      after_ci95: None for a model without training, whose score is measured.
      probability: that `after` reaches the threshold; None for a measured score.
      side, side_ci95: the score of the task that loses most under the plan; None if there is no such task, or no
        interval.
      days, money: [with perfect overlap, with none]; None if unknown.
      extrapolates: the respects in which the choice lies outside the range of the observed pairs.
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
    """A plan and the criteria by which it is judged.

    Attributes:
      measure: the leading measure.
      threshold: the value to reach; None if any rise counts.
      side: the task that loses the largest part of its range, or "".
      side_clear: whether that loss is statistically clear (`side_cost`).
      rate: the cost of training; None if unknown.
      joint: the models that predict scores.
    """

    plan: Plan
    measure: str
    threshold: float | None
    side: str
    side_clear: bool
    rate: Rate | None
    joint: Joint


def leading(rows: list[Prediction], verdicts: Mapping[str, Any], language: str) -> str:
    """The leading measure of a plan: the clearest gain among tasks that need local data, else among all local tasks."""
    local = [r for r in rows if r["language"] == language] or rows
    needing = [r for r in local if r["measure"] in verdicts and verdicts[r["measure"]].verdict == LOCAL]
    return max(needing or local, key=_clearness)["measure"]


def side_cost(rows: list[Prediction], tasks: pd.DataFrame, measure: str) -> tuple[Prediction | None, bool]:
    """The task predicted to lose the largest part of its range, and whether that loss is clear.

    A loss is clear if its interval lies below zero and the p-value of a rise stays small after correction for all
    tasks, since the largest of many losses is picked. Clear losses take precedence. None if no task loses.

    Args:
      rows: predictions of the plan.
      tasks: with the columns `low` and `high`, since scores may be shares or percentages.
      measure: the leading measure, which is not a candidate.
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
    """The decision, JSON-ready, as stored in `components.json`; empty if the plan cannot be predicted.

    Raises:
      ValueError: the plan has no tokens.
    """
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
    names = dict.fromkeys([asked.measure, asked.side] if asked.side else [asked.measure])  # no errors are reported here
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
    """Parameters of the other models that were trained from scratch and have a score of `measure`."""
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
    """The best choice among other families' bases of about the same size that saw fewer tokens of the language."""
    params = _bases(plan, asked.measure, tables, measures)
    near = params[(params <= SAME_SIZE * plan.params) & (params >= plan.params / SAME_SIZE)]
    seen = tables.models[f"{plan.language}_tokens_b_est"] * 1e9  # NaN (undisclosed) compares as false: left out
    family = tables.models["family"]
    names = [m for m in near.index if family[m] != family[plan.base] and seen[m] < (plan.tokens or 0.0)]
    tried = (_trained("other", _with_base(plan, m, tables), asked, pairs, tables, measures) for m in names)
    return max((c for c in tried if c), key=lambda c: c["after"], default=None)


def _there(plan: Plan, measure: str, tables: Tables, measures: pd.DataFrame) -> str | None:
    """The best model in the table of at most about the planned size."""
    params = tables.models["params"]
    near = params[(params <= SAME_SIZE * plan.params) & (params.index != plan.base)].index
    scores = measures.loc[near, measure].dropna()
    return str(scores.idxmax()) if len(scores) else None


def _with_base(plan: Plan, base: str, tables: Tables) -> Plan:
    return dataclasses.replace(plan, base=base, params=float(tables.models.loc[base, "params"]))


def _seen(asked: Asked, pairs: Pairs, measures: pd.DataFrame) -> dict[str, Any]:
    """The predicted curve of gain against tokens, and the observed pairs."""
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
    """The suggested pilot run, and the most informative next measurements."""
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
