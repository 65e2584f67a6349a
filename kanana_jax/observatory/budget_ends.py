"""Verdicts and plans at the ends of the token budgets' intervals, beside those of the best estimates.

All budgets of a language lie at the low ends of their intervals together, or at the high ends, since what makes
estimates wrong is mostly common to them: a way of counting, the share of a language in the text of the web. The error
of a single model's budget is in its own part of the mixed model. Where budgets of both languages are intervals, all
combinations of ends are taken.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from kanana_jax.observatory import effects, joint, mixed, verdicts
from kanana_jax.observatory.joint import Joint
from kanana_jax.observatory.tables import Tables


def every(models: Joint, reference: str) -> list[Joint]:
    """The same models at each combination of ends; none where all budgets are exact, or there are no models.

    Args:
      models: at the best estimates.
    """
    tables = models.tables
    moved = [lang for lang in models.languages if models.models and _is_open(tables, lang, lang == reference)]
    if not moved:
        return []
    corners = itertools.product(("low", "high"), repeat=len(moved))
    return [joint.every(tables, models.scores, models.language, reference, dict(zip(moved, ends))) for ends in corners]


def _is_open(tables: Tables, language: str, mostly: bool) -> bool:
    """Whether the budgets of a language, assumed ones among them, are intervals."""
    low, high = (mixed.tokens_b(tables, language, mostly, end) for end in ("low", "high"))
    return not np.allclose(low, high, equal_nan=True)


def named(models: Joint) -> str:
    """The ends at which the budgets are: 'the low ends of the en and the high ends of the ja budgets'."""
    return f"{' and '.join(f'the {end} ends of the {lang}' for lang, end in models.ends.items())} budgets"


def judged(
    found: Mapping[str, verdicts.Verdict],
    evidence: Mapping[str, verdicts.Evidence],
    ends: Sequence[Joint],
    reference: str,
) -> dict[str, verdicts.Verdict]:
    """The verdicts, each with those that the task would have at the ends.

    Where the budgets at an end do not tell the two languages apart, or leave too little for a task's model, another
    model or none would judge: no verdict is given for that end.

    Args:
      found, evidence: of the best estimates.
    """
    others: dict[str, list[str]] = {task: [] for task in found}
    without: dict[str, list[str]] = {task: [] for task in found}
    for models in ends:
        by_joint = effects.every(models)
        moved = {}
        for task, known in evidence.items():
            if known.effects.keys() == by_joint.get(task, {}).keys():
                moved[task] = dataclasses.replace(known, effects=by_joint.get(task, {}))
            else:
                without[task].append(named(models))
        for task, verdict in verdicts.judge_all(moved, models.language, reference).items():
            if verdict.verdict not in (found[task].verdict, *others[task]):
                others[task].append(verdict.verdict)
    told = {}
    for task, verdict in found.items():
        reasons = (*verdict.reasons, *_words(others[task], without[task]))
        told[task] = dataclasses.replace(
            verdict, reasons=reasons, at_budget_ends=tuple(others[task]), unjudged_budget_ends=tuple(without[task])
        )
    return told


def _words(others: list[str], without: list[str]) -> list[str]:
    found = []
    if others:
        found.append(f"With token budgets at an end of their intervals it would be '{' or '.join(others)}'.")
    if without:
        found.append(f"Not judged at {' or '.join(without)}: there its model cannot be fitted as with the estimates.")
    return found


def gains(
    ends: Sequence[Joint], best: Joint, measures: pd.DataFrame, measure: str, base: str, params: float, tokens_b: float
) -> tuple[list[list[float]], list[str]]:
    """Gain, and the ends of its 95% interval for one new model, with budgets at each combination of ends.

    Args:
      best: the models at the best estimates.
      measures: models × (components and tasks); base, params, tokens_b (1e9): of the plan.

    Returns:
      The gains, and the names of the ends at which there is no model of the same form to predict them.
    """
    level, found, without = float(measures.loc[base, measure]), [], []
    for models in ends:
        if measure in models.models and models.languages == best.languages:
            after = models.after(measure, base, params, np.array([tokens_b]))
            found.append([float(value[0]) - level for value in (after.middle, after.low, after.high)])
        else:
            without.append(named(models))
    return found, without
