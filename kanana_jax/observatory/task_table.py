"""The task table: checked as given, or inferred from the names and values of the score columns."""

import pathlib
import re
from collections.abc import Mapping

import numpy as np
import pandas as pd

from kanana_jax.errors import ConfigError, nearest
from kanana_jax.languages import tag
from kanana_jax.observatory import cells, task_names

COLUMNS = ("task", "language", "name", "ability", "metric", "metric_version", "shots", "items", "chance", "low",
           "high", "better", "pair", "anchor", "source")  # fmt: skip
ERRORS = re.compile(r"error|loss|perplexity|bits.per|\b[cw]er\b", re.IGNORECASE)
_INFERRED = ("language", "name", "ability", "metric", "shots", "items", "chance", "pair", "anchor")


def read(path: pathlib.Path, warnings: list[str] | None = None) -> pd.DataFrame:
    """Reads and checks a task table, indexed by task.

    Args:
      warnings: as in `cells.read_csv`.

    Raises:
      ConfigError: an unknown column, language, pair, anchor or direction, or numbers that contradict each other.
    """
    table = cells.unique(path, cells.read_csv(path, warnings), "task")
    for column in table.columns:
        if column not in COLUMNS:
            raise ConfigError(f"{path}: unknown column '{column}', {nearest(column, COLUMNS)}")
    if "language" not in table.columns:
        raise ConfigError(f"{path} has no column 'language': add a code like ko or en for every task")
    for task in table.index[table["language"] == ""]:
        raise ConfigError(f"{path}, task '{task}': language '' is not a code such as ko or en")
    return checked(path, table)


def checked(path: pathlib.Path, table: pd.DataFrame) -> pd.DataFrame:
    """The table with all columns, numbers as float64; a language may be unknown ("").

    Raises:
      ConfigError: see `read`.
    """
    table = table.copy()
    for column in COLUMNS[1:]:
        if column not in table.columns:
            table[column] = ""
    anchors = table["anchor"][table["anchor"] != ""]
    for task in anchors.index[anchors.duplicated()]:
        raise ConfigError(f"{path}, task '{task}': anchor '{anchors[task]}' is also that of another task; keep one")
    table["language"] = [tag(code) for code in table["language"]]
    for task, row in table.iterrows():
        if row["language"] and not re.fullmatch("[a-z]{2,3}", row["language"]):
            raise ConfigError(f"{path}, task '{task}': language '{row['language']}' is not a code such as ko or en")
        if row["pair"] and row["pair"] not in table.index:
            raise ConfigError(
                f"{path}, task '{task}': its pair '{row['pair']}' is not a task; "
                f"{nearest(row['pair'], list(table.index))}"
            )
        if row["anchor"] and not re.fullmatch(r"PC\d+", row["anchor"]):
            raise ConfigError(f"{path}, task '{task}': anchor '{row['anchor']}' is not a component such as PC2")
    _directions(path, table)
    for column, default in (("low", 0.0), ("high", 1.0), ("chance", float("nan")), ("items", float("nan"))):
        values = [cells.number(path, f"task '{t}'", column, v) for t, v in table[column].items()]
        table[column] = [default if np.isnan(v) else v for v in values]
    for task, row in table.iterrows():
        if not row["low"] < row["high"]:
            raise ConfigError(f"{path}, task '{task}': low {row['low']:g} is not below high {row['high']:g}")
        if not np.isnan(row["chance"]) and not row["low"] <= row["chance"] <= row["high"]:
            words = f"chance {row['chance']:g} is outside {row['low']:g}–{row['high']:g}"
            raise ConfigError(f"{path}, task '{task}': {words}")
        if row["items"] < 1:
            raise ConfigError(f"{path}, task '{task}': items {row['items']:g} is not a number of questions")
    return table


def _directions(path: pathlib.Path, table: pd.DataFrame) -> None:
    """Refuses unknown values of `better`, and tasks that look like error rates without a value."""
    for task, row in table.iterrows():
        if row["better"] not in ("", "higher", "lower"):
            raise ConfigError(f"{path}, task '{task}': better '{row['better']}' is neither higher nor lower")
        named = f"{task} {row['name']} {row['metric']}"
        if not row["better"] and ERRORS.search(named):
            raise ConfigError(
                f"{path}, task '{task}' looks like an error (see '{named.strip()}'): say better=lower in tasks.csv, or "
                "better=higher if a high value is good"
            )


def inferred(
    path: pathlib.Path, columns: Mapping[str, pd.Series], shipped: Mapping[str, pd.DataFrame], warnings: list[str]
) -> pd.DataFrame:
    """Infers a task table from the score columns alone.

    Languages and chance levels come from a shipped set if at least half of its tasks are present, or else from the
    tasks' names. The range is that of a task known by name, 0–100 if scores are above 1, and otherwise 0–1.

    Args:
      columns: task → its cells as text, by model.
      shipped: name → task table, as text, of a set that comes with the package.
      warnings: receives sentences about the inferences and about what a task table would add.

    Raises:
      ConfigError: shares and percentages in one column.
    """
    known = pd.DataFrame(columns=list(_INFERRED))
    for name, tasks in shipped.items():
        if 2 * sum(task in columns for task in tasks.index) >= len(tasks):
            known = tasks
            warnings.append(f"There is no table of tasks: language and chance are those of the shipped set '{name}'.")
    rows = {}
    numbers = {task: [float(v) for v in cells_ if cells.is_number(v)] for task, cells_ in columns.items()}
    highs = _highs(path, numbers, warnings)
    for task in columns:
        high = highs[task]
        if task in known.index:
            rows[task] = {c: known.loc[task, c] for c in _INFERRED}
        else:
            chance = task_names.chance(task)
            rows[task] = {"language": task_names.language(task), "chance": chance}
        share = rows[task]["chance"]
        rows[task] |= {"high": f"{high:g}", "chance": f"{float(share) * high:g}" if share else ""}
    table = pd.DataFrame.from_dict(rows, orient="index").fillna("").astype(str).rename_axis("task")
    if "pair" in table:
        table["pair"] = [pair if pair in table.index else "" for pair in table["pair"]]
    if known.empty:
        _tell(table, warnings)
    return table


def _highs(path: pathlib.Path, numbers: Mapping[str, list[float]], warnings: list[str]) -> dict[str, float]:
    """The highest possible score of each task: 1, 100, or the maximum known by name.

    Columns whose scores are mostly above 1 are percentages. A column with few or no such scores may be a hard task in
    percent; it counts as one if most of the unambiguous columns are percentages and guessing would not score more.
    """
    highs = {task: 10.0 for task, values in numbers.items() if _of_ten(task, values)}
    if highs:
        warnings.append(f"The scores of {', '.join(highs)} are taken as points of 0–10, as their names suggest.")
    left = {task: values for task, values in numbers.items() if task not in highs}
    above = {task: [v for v in values if v > 1] for task, values in left.items()}
    percent = [task for task, values in left.items() if above[task] and 2 * len(above[task]) >= len(values)]
    shares = [task for task, values in left.items() if values and not above[task]]
    by_others = []
    for task, values in left.items():
        if task in percent:
            highs[task] = 100.0
        elif values and len(percent) > len(shares) and _may_be_hard(task):
            highs[task] = 100.0
            by_others.append(task)
        elif above[task]:
            raise ConfigError(
                f"{path}: '{task}' has {above[task][0]:g} among shares of 0–1: divide percentages by 100, or give the "
                "task its low and high in tasks.csv"
            )
        else:
            highs[task] = 1.0
    if by_others:
        warnings.append(
            f"{', '.join(by_others)} hardly exceed 1 and are taken as percentages, as most columns are: if they are "
            "shares, multiply them by 100, or give them low and high in a tasks.csv."
        )
    return highs


def _of_ten(task: str, values: list[float]) -> bool:
    """Whether a task is known to be scored out of ten and its scores were not converted to shares or percentages."""
    return task_names.high(task) == 10 and bool(values) and 1 < max(values) <= 10


def _may_be_hard(task: str) -> bool:
    """Whether scores that are mostly at most 1 can be percentages: guessing is not known to score more."""
    return float(task_names.chance(task) or 0) == 0


def _tell(table: pd.DataFrame, warnings: list[str]) -> None:
    """Adds warnings about languages inferred from names and about what a task table would add."""
    by_language = {lang: list(table.index[table["language"] == lang]) for lang in sorted(set(table["language"]) - {""})}
    words = "; ".join(f"{lang}: {', '.join(tasks)}" for lang, tasks in by_language.items())
    unknown = list(table.index[table["language"] == ""])
    if words:
        warnings.append(f"There is no table of tasks: their languages are taken from their names ({words}).")
    if unknown:
        warnings.append(
            f"The language of {', '.join(unknown[:5])}{f' and {len(unknown) - 5} more' if len(unknown) > 5 else ''} is "
            "unknown: a tasks.csv with the columns task and language (and chance, items, metric) beside the scores "
            "would identify the local tasks, and so allow verdicts and plans."
        )
    percent = list(table.index[table["high"] == "100"])
    if percent:
        warnings.append(f"{', '.join(percent[:5])}{' …' if len(percent) > 5 else ''} are taken as percentages (0–100).")
