"""Sensitivity of verdicts and plans to the token budgets: the same analysis at both ends of their intervals.

All budgets of a language are moved to the low ends of their intervals together, or to the high ends, since most causes
of error are shared: a method of counting, the assumed share of a language in web text. The error of a single model's
budget is part of that model's own term in the mixed model. If the budgets of both languages are intervals, all
combinations of ends are used.
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
    """The same models refitted at each combination of ends; empty if all budgets are exact or there are no models.

    Args:
      models: the models at the best estimates.
    """
    tables = models.tables
    moved = [lang for lang in models.languages if models.models and _is_open(tables, lang, lang == reference)]
    if not moved:
        return []
    corners = itertools.product(("low", "high"), repeat=len(moved))
    return [joint.every(tables, models.scores, models.language, reference, dict(zip(moved, ends))) for ends in corners]


def _is_open(tables: Tables, language: str, mostly: bool) -> bool:
    """Whether any budget of a language, including assumed budgets, is an interval."""
    low, high = (mixed.tokens_b(tables, language, mostly, end) for end in ("low", "high"))
    return not np.allclose(low, high, equal_nan=True)


def named(models: Joint) -> str:
    """Describes the ends that `models` uses: 'the low ends of the en and the high ends of the ja budgets'."""
    return f"{' and '.join(f'the {end} ends of the {lang}' for lang, end in models.ends.items())} budgets"


def judged(
    found: Mapping[str, verdicts.Verdict],
    evidence: Mapping[str, verdicts.Evidence],
    ends: Sequence[Joint],
    reference: str,
) -> dict[str, verdicts.Verdict]:
    """The verdicts, each extended by the verdicts that the task would get at the ends of the intervals.

    At some ends the two languages' budgets are collinear, or too few models remain, so that the task's model has
    another form or cannot be fitted. No verdict is given for those ends.

    Args:
      found, evidence: task → verdict and task → evidence at the best estimates.
      ends: the models at each combination of ends, from `every`.
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
    """The planned gain with its 95% prediction interval, at each combination of ends.

    Args:
      best: the models at the best estimates.
      measures: models × (components and tasks).
      base, params, tokens_b: the plan's base model, parameters and tokens (1e9).

    Returns:
      [gain, low, high] for each combination, and the names of the combinations at which no model of the same form could
      be fitted.
    """
    level, found, without = float(measures.loc[base, measure]), [], []
    for models in ends:
        if measure in models.models and models.languages == best.languages:
            after = models.after(measure, base, params, np.array([tokens_b]))
            found.append([float(value[0]) - level for value in (after.middle, after.low, after.high)])
        else:
            without.append(named(models))
    return found, without
