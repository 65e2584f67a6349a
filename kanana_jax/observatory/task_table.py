"""The table of tasks: checked as given, or inferred from the names and values of the score columns."""

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


def read(path: pathlib.Path) -> pd.DataFrame:
    """Reads and checks a table of tasks, indexed by task.

    Raises:
      ConfigError: an unknown column, language, pair, anchor or direction, or numbers that contradict each other.
    """
    table = cells.unique(path, cells.read_csv(path), "task")
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
                f"{path}, task '{task}': its pair '{row['pair']}' is no task; {nearest(row['pair'], list(table.index))}"
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
    """Refuses a direction that is unknown, and an error rate for which none is given."""
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
    """A table of tasks from the score columns alone.

    Languages and chance levels come from a shipped set of which at least half the tasks are there, or else from the
    tasks' names; the range is 0–1, or 0–100 where scores are above 1.

    Args:
      columns: task → its cells as text, by model.
      shipped: name → table of tasks, as text, of a set that comes with the package.
      warnings: gets sentences about what was taken for what, and what a table of tasks would add.

    Raises:
      ConfigError: shares and percentages in one column.
    """
    known = pd.DataFrame(columns=list(_INFERRED))
    for name, tasks in shipped.items():
        if 2 * sum(task in columns for task in tasks.index) >= len(tasks):
            known = tasks
            warnings.append(f"There is no table of tasks: those of the shipped set '{name}' tell language and chance.")
    rows = {}
    for task, cells_ in columns.items():
        high = _high(path, task, [float(v) for v in cells_ if v and cells.is_number(v)])
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


def _high(path: pathlib.Path, task: str, values: list[float]) -> float:
    """The largest possible score: 1, or 100."""
    above = [v for v in values if v > 1]
    if above and 2 * len(above) < len(values):
        raise ConfigError(
            f"{path}: '{task}' has {above[0]:g} among shares of 0–1: divide percentages by 100, or give the task its "
            "low and high in tasks.csv"
        )
    return 100.0 if above else 1.0


def _tell(table: pd.DataFrame, warnings: list[str]) -> None:
    """Says which languages were taken from names, and what a table of tasks would add."""
    by_language = {lang: list(table.index[table["language"] == lang]) for lang in sorted(set(table["language"]) - {""})}
    words = "; ".join(f"{lang}: {', '.join(tasks)}" for lang, tasks in by_language.items())
    unknown = list(table.index[table["language"] == ""])
    if words:
        warnings.append(f"There is no table of tasks: their languages are taken from their names ({words}).")
    if unknown:
        warnings.append(
            f"The language of {', '.join(unknown[:5])}{f' and {len(unknown) - 5} more' if len(unknown) > 5 else ''} is "
            "unknown: a tasks.csv with the columns task and language (and chance, items, metric) beside the scores "
            "would tell local tasks from the others, and so give verdicts and plans."
        )
    percent = list(table.index[table["high"] == "100"])
    if percent:
        warnings.append(f"{', '.join(percent[:5])}{' …' if len(percent) > 5 else ''} are taken as percentages (0–100).")
