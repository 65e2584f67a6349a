"""Converts gathered scores to checked tables, and to .csv files for the user to complete."""

import csv
import hashlib
import io
import math
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from kanana_jax.errors import ConfigError
from kanana_jax.files import read_json, whole_file, write_json
from kanana_jax.observatory import informative, model_table, tables, task_names, task_table
from kanana_jax.observatory.result_files.gather import Gathered
from kanana_jax.observatory.result_files.score import Score


def read(
    gathered: Gathered, models: pathlib.Path | None, tasks: pathlib.Path | None, where: pathlib.Path
) -> tables.Tables:
    """Checks the gathered scores and returns them as tables.

    Args:
      models: models.csv, whose empty cells are filled from the result files; None uses the result files alone.
      tasks: tasks.csv with the tasks to use; None uses all tasks as the result files describe them.
      where: name of the scores in messages.

    Raises:
      ConfigError: see `tables.read`.
    """
    warnings = list(gathered.warnings)
    names = gathered.tasks
    if tasks is None:
        given = task_table.checked(where, _task_rows(gathered))
        unknown = [task for task in names if not given.loc[task, "language"]]
        if unknown:
            warnings.append(
                f"The language of {informative.cut(unknown)} is unknown: --tasks TASKS.csv with task and language "
                "(tables/tasks.csv in the output is a start) would give verdicts and plans of them too."
            )
    else:
        given = task_table.read(tasks, warnings)
        left = [task for task in names if task not in given.index]
        names = [task for task in names if task in given.index]
        if left:
            warnings.append(f"{tasks.name} does not list {informative.cut(left)}: left out.")
        if not names:
            raise ConfigError(f"{tasks} lists none of the tasks of the results ({informative.cut(left)})")

    def frame(cell: Any) -> pd.DataFrame:
        rows = {m: [cell(row[t]) if t in row else "" for t in names] for m, row in gathered.scores.items()}
        return pd.DataFrame.from_dict(rows, orient="index", columns=names).astype(str)

    wide = tables.Wide(
        scores=frame(lambda s: f"{s.value:.9g}"),
        errors=frame(_error),
        counts=frame(lambda s: s.items or ""),
        versions=frame(lambda s: s.version),
        sources=frame(lambda s: s.source),
        about=pd.DataFrame(index=list(gathered.scores)),
    )
    return tables.assemble(where, wide, given, _models(gathered, models, where, warnings), warnings)


def _error(score: Score) -> str:
    """The standard error; of one question there is none."""
    return "" if score.error is None or not math.isfinite(score.error) else f"{score.error:.6g}"


def _models(
    gathered: Gathered, models: pathlib.Path | None, where: pathlib.Path, warnings: list[str]
) -> model_table.Rows | None:
    """The model table, completed from the result files; None if neither contains anything."""
    if models is not None:
        return model_table.text(models, warnings).completed(gathered.about, warnings)
    return model_table.Rows(where, _model_rows(gathered)) if any(gathered.about.values()) else None


def _task_rows(gathered: Gathered) -> pd.DataFrame:
    """The task table according to the result files, as text."""
    rows = {}
    for task in gathered.tasks:
        scores = [row[task] for row in gathered.scores.values() if task in row]
        first, chance = scores[0], task_names.chance(task)
        rows[task] = {
            "language": first.language,
            "metric": first.metric,
            "shots": first.shots,
            "chance": chance if (first.low, first.high) == (0.0, 1.0) else "",
            "low": f"{first.low:g}",
            "high": f"{first.high:g}",
            "better": first.better or "higher",
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("task")


def _model_rows(gathered: Gathered) -> pd.DataFrame:
    """The model table according to the result files, as text."""
    columns = list(dict.fromkeys(column for row in gathered.about.values() for column in row))
    rows = {model: [gathered.about.get(model, {}).get(c, "") for c in columns] for model in gathered.scores}
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("model")


def texts(gathered: Gathered, models: pathlib.Path | None) -> dict[str, str]:
    """`scores.csv` (long), `tasks.csv` and `models.csv` by name, which can be completed and observed again.

    Args:
      models: the models.csv that was given with the result files, if any.
    """
    rows = _models(gathered, models, pathlib.Path("models.csv"), [])
    about = _model_rows(gathered) if rows is None else rows.table.reindex(list(gathered.scores)).fillna("")
    about = about.rename_axis("model").reset_index()
    about = about.assign(**{c: "" for c in ("family", "base") if c not in about})
    long = [
        (
            model,
            s.task,
            f"{s.value:.9g}",
            s.version,
            s.source,
            _error(s),
            s.items or "",
        )
        for model, row in gathered.scores.items()
        for s in row.values()
    ]
    found = {"scores.csv": _csv([("model", "task", "score", "metric_version", "source", "stderr", "n"), *long])}
    for name, frame in (("tasks.csv", _task_rows(gathered).reset_index()), ("models.csv", about)):
        found[name] = _csv([tuple(frame.columns), *frame.itertuples(index=False)])
    return found


def write(folder: pathlib.Path, made: Mapping[str, str], named: pathlib.Path) -> None:
    """Writes tables, and their digests into `written.json`; never over a table that was edited.

    Args:
      made: the tables by name.
      named: the folder's name in messages.

    Raises:
      ConfigError: a table is neither what an earlier run wrote nor what this one would.
    """
    ways = {
        "scores.csv": "observe it in place of the results",
        "tasks.csv": "give it by --tasks",
        "models.csv": "give it by --models",
    }
    written = read_json(folder / "written.json") or {}
    digests = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in made.items()}
    for name, digest in digests.items():
        file = folder / name
        if file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() not in (written.get(name), digest):
            told = "was edited" if name in written else "is not known to be kanana observe's own"
            raise ConfigError(
                f"{named / name} {told}, and this run would overwrite it: {ways[name]}, or move it elsewhere"
            )
    os.makedirs(folder, exist_ok=True)
    for name, text in made.items():
        with whole_file(folder / name) as temporary:
            temporary.write_bytes(text.encode())
    write_json(folder / "written.json", written | digests)


def _csv(rows: Iterable[Iterable[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
