"""The user's question to a study (a plan, or a target score, with its price) and its answer in `components.json`."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from kanana_jax.errors import ConfigError, nearest
from kanana_jax.observatory import cells, costs, decision, joint, laws, pairs, planner, verdicts
from kanana_jax.observatory.joint import Joint
from kanana_jax.observatory.options import Options
from kanana_jax.observatory.tables import Tables


@dataclasses.dataclass(frozen=True)
class Question:
    """A plan; the task whose score should reach `value`, if tokens are asked for ("": none); the price of training."""

    plan: planner.Plan
    target: str = ""
    value: float = 0.0
    rate: costs.Rate | None = None


@dataclasses.dataclass(frozen=True)
class Findings:
    """The results of a study that answers are based on.

    Attributes:
      together: the pairs of continual models and bases.
      measures: models × (the components `shown` and tasks).
      by_measure: scaling laws.
      local: the local component, if any.
      judged: task → verdict.
      joint: the mixed models of the measures.
      ends: the same with token budgets at the ends of their intervals.
    """

    together: pairs.Pairs
    measures: pd.DataFrame
    shown: list[str]
    by_measure: laws.Laws
    local: str | None
    judged: Mapping[str, verdicts.Verdict]
    joint: Joint
    ends: Sequence[Joint] = ()


def read(tables: Tables, options: Options, language: str, components: int) -> Question | None:
    """Parses and checks the question before anything is computed; None if nothing is asked.

    Args:
      components: number of components that a target may name.

    Raises:
      ConfigError: the question cannot be answered.
    """
    if not options.plan:
        return None
    if len(tables.scores) > joint.MOST_MODELS:
        raise ConfigError(
            f"--plan: {len(tables.scores)} models are more than predictions support ({joint.MOST_MODELS}): leave out "
            "those least like the base"
        )
    plan = planner.parse(options.plan, tables, language)
    rate = costs.read(options.cost) if options.cost else None
    if not options.target:
        if plan.tokens is None:
            raise ConfigError(f"--plan needs {language}_tokens=N, or --target TASK=VALUE to find them")
        return Question(plan, rate=rate)
    name, _, value = options.target.partition("=")
    names = [*tables.scores.columns, *(f"PC{k + 1}" for k in range(min(components, *tables.scores.shape)))]
    if name not in names:
        raise ConfigError(f"--target: '{name}' is not a task, {nearest(name, names)}")
    if not cells.is_number(value.strip()):
        raise ConfigError(f"--target '{options.target}' must be TASK=VALUE with a finite number, such as NIILC=0.55")
    wanted = float(value)
    if name in tables.tasks.index:
        low, high = tables.tasks.loc[name, ["low", "high"]]
        if not low <= wanted <= high:
            which = "above the highest" if wanted > high else "below the lowest"
            raise ConfigError(f"--target: {wanted:g} is {which} possible '{name}', {high if wanted > high else low:g}")
    return Question(plan, name, wanted, rate)


def answer(asked: Question, tables: Tables, found: Findings, options: Options) -> dict[str, Any]:
    """The plan's section of `components.json`.

    Raises:
      ConfigError: there are too few pairs, or tokens do not predict the target.
    """
    plan, language = asked.plan, asked.plan.language
    result: dict[str, Any] = {"base": plan.base, "params": plan.params, "language": language, "tokens": plan.tokens,
                              "tokens_asked": plan.tokens is not None}  # fmt: skip
    result["warnings"] = planner.warnings(plan, found.together, tables)
    if asked.target:
        result["inverse"] = planner.tokens_for(
            plan, found.together, found.measures, asked.target, asked.value, found.joint
        )
        if plan.tokens is None and result["inverse"]["tokens"]:
            plan = dataclasses.replace(plan, tokens=result["inverse"]["tokens"])
            result["tokens"] = plan.tokens
    if plan.tokens is None:
        return result
    names = [n for n in (*found.shown, *tables.scores.columns) if n in found.joint.models]
    errors = {name: found.joint.left_out_error(name) for name in names}
    rows = planner.predict(plan, found.together, tables, found.measures, found.joint, errors, found.ends)
    if not rows:
        raise ConfigError(
            f"--plan: fewer than {pairs.MIN_PAIRS} continual models with a base in the table and known {language} "
            "tokens to predict from"
        )
    result["measures"] = rows
    measure = asked.target or decision.leading(rows, found.judged, language)
    threshold = asked.value if asked.target else None
    side, clear = decision.side_cost(rows, tables.tasks, measure)
    wanted = decision.Asked(plan, measure, threshold, side["measure"] if side else "", clear, asked.rate, found.joint)
    result["decision"] = decision.decide(wanted, found.together, tables, found.measures)
    if asked.rate:
        result["cost"] = dataclasses.asdict(asked.rate)
    law = found.by_measure[found.local].get(language) if found.local in found.by_measure else None
    if law is not None and found.local is not None:
        level = float(found.measures.loc[plan.base, found.local])
        result["pooled_law"] = _by_law(plan, tables, law, level, found.local)
    return result


def _by_law(plan: planner.Plan, tables: Tables, law: Any, level: float, component: str) -> dict[str, Any]:
    """The component's gain according to the law over all models, as a second kind of evidence."""
    before = tables.models.loc[plan.base, f"{plan.language}_tokens_b_est"]
    tokens = (plan.tokens or 0.0) + (0.0 if np.isnan(before) else before * 1e9)
    x = float(np.log10(6 * plan.params * tokens))
    middle, low, high = (float(v) - level for v in law.predict(x))
    return {
        "component": component,
        "log10_compute": x,
        "gain": middle,
        "gain_ci95": [low, high],
        "base_tokens_known": bool(np.isfinite(before)),
        "extrapolates": law.extrapolates(x),
    }
