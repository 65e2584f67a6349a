"""One score of one model on one task, as a result file has it, and how the parts of a task are told from the whole."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from kanana_jax.observatory import task_names
from kanana_jax.report import evaluation

Json = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Score:
    """A score.

    Attributes:
      models: names of the model, the most telling first: any of them may stand in the table of models.
      value, error: the score and its standard error, in `low`–`high`; None: not given.
      version: all that makes scores comparable: of the task, examples in the prompt, chat format, split.
      date: ISO date or time of the evaluation, "" if unknown; of two scores the later counts.
    """

    models: tuple[str, ...]
    task: str
    value: float
    error: float | None
    items: int | None
    metric: str
    source: str
    language: str = ""
    version: str = ""
    shots: str = ""
    low: float = 0.0
    high: float = 1.0
    better: str = ""
    date: str = ""


def of_result(result: Json) -> tuple[float, float | None, str] | None:
    """Score, standard error and metric of a task's results in the form of `kanana eval`; None: no metric is known."""
    found, metric = evaluation.score(result), evaluation.metric(result)
    return (*found, metric) if found is not None and metric is not None else None


def chosen(tasks: Collection[str], parts: Mapping[str, Collection[str]]) -> set[str]:
    """The tasks that count: of one with parts the whole, if it is in one language, and else its parts.

    Args:
      tasks: all that have a score.
      parts: task → its parts, of any depth.
    """
    wholes = {task for task in tasks if parts.get(task)}
    kept = {whole for whole in wholes if task_names.language(whole)}
    inside = {part for whole in kept for part in parts[whole] if part != whole}
    return {task for task in tasks if task not in inside and (task not in wholes or task in kept)}
