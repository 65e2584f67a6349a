"""One score of one model on one task from a result file, and the choice between a task and its subtasks."""

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
      models: names of the model, the most specific first; models.csv may use any of them.
      value, error: the score and its standard error (None if not given), in `low`–`high`.
      items: number of questions, if known.
      version: everything that must agree for scores to be comparable: task version, number of examples, chat format,
        split.
      better: `higher`, `lower`, or "" if not given.
      date: ISO date or time of the evaluation, "" if unknown; the later of two scores counts.
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
    """Score, standard error and metric of a task's results in `kanana eval`'s format; None without a known metric."""
    found, metric = evaluation.score(result), evaluation.metric(result)
    return (*found, metric) if found is not None and metric is not None else None


def chosen(tasks: Collection[str], parts: Mapping[str, Collection[str]]) -> set[str]:
    """The tasks to use: a group as a whole if it is in one language, otherwise its subtasks.

    Args:
      tasks: all tasks with a score.
      parts: task → its subtasks, at any depth.
    """
    wholes = {task for task in tasks if parts.get(task)}
    kept = {whole for whole in wholes if task_names.language(whole)}
    inside = {part for whole in kept for part in parts[whole] if part != whole}
    return {task for task in tasks if task not in inside and (task not in wholes or task in kept)}
