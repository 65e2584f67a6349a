"""Strict reading of score, model and task tables: every fault is one sentence, every cell keeps its source.

`scores.csv`: `model` and one column a task (0–1 unless `tasks.csv` says otherwise; empty: not measured); optional
columns `source` and `metric_version` hold for a row. Or long: `model, task, score[, metric_version, source]`.

`tasks.csv`: `task, language` and optionally `name, ability, metric, metric_version, shots, items, chance, low, high`
(range of possible scores, default 0–1), `better` (`higher`, the default, or `lower`), `pair` (the same ability in
another language), `anchor` (`PC2`: the task whose
loading on that component is positive), `source`.

`models.csv`: `model` and optionally `label, family, base, params, active_params, tokens_b` (all text, 1e9),
for each language `LANG_tokens_b_low, _est, _high` (1e9 tokens that the model has seen in all, its base's included)
and `LANG_status` (reported, derived, assumed, undisclosed), `note`.
"""

import dataclasses
import importlib.resources
import pathlib
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from kanana_jax.errors import ConfigError, nearest
from kanana_jax.languages import tag
from kanana_jax.observatory import cells, informative, model_table

MIN_MODELS = 5
_TASK_COLUMNS = ("task", "language", "name", "ability", "metric", "metric_version", "shots", "items", "chance", "low",
                 "high", "better", "pair", "anchor", "source")  # fmt: skip
_ERRORS = re.compile(r"error|loss|perplexity|bits.per|\b[cw]er\b", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Tables:
    """The tables as read.

    Attributes:
      scores: float64, models × tasks; NaN where not measured.
      tasks: one row per task, indexed by it, in the order of the columns of `scores`.
      models: one row per model, indexed by it, in the order of `scores`; `family` is filled.
      sources: str, models × tasks: where each cell comes from.
      languages: codes that have token budgets.
      warnings: sentences for the report.
    """

    scores: pd.DataFrame
    tasks: pd.DataFrame
    models: pd.DataFrame
    sources: pd.DataFrame
    languages: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def labels(self) -> dict[str, str]:
        """model → short name."""
        return dict(self.models["label"])


def shipped(name: str = "japanese35") -> pathlib.Path:
    """Folder of a table set that comes with the package: `japanese35`, `korean_template`."""
    return pathlib.Path(str(importlib.resources.files("kanana_jax.observatory") / "tables" / name))


def read(
    scores: pathlib.Path,
    models: pathlib.Path | None = None,
    tasks: pathlib.Path | None = None,
    ignore: Sequence[str] = (),
) -> Tables:
    """Reads and checks the three tables.

    Args:
      models, tasks: default `models.csv` and `tasks.csv` beside the scores; without `models` there is no scaling.
      ignore: columns of the score table that are no tasks.

    Raises:
      ConfigError: anything that would make the result wrong, with file, column or model and the way out.
    """
    warnings: list[str] = []
    raw = cells.read_csv(scores)
    models = models or _beside(scores, "models.csv")
    tasks = tasks or _beside(scores, "tasks.csv")
    if tasks is None:
        raise ConfigError(
            f"{scores} has no tasks.csv beside it: give --tasks TASKS.csv (columns: {', '.join(_TASK_COLUMNS)})"
        )
    task_table = _tasks(tasks)
    table, versions, sources = _scores(scores, raw, task_table, tasks, ignore)
    _one_version(scores, versions)
    _range(scores, table, task_table)
    table = _turned(table, task_table, warnings)
    _enough(scores, int(table.notna().any(axis=1).sum()))
    table = informative.useful(scores, table, task_table, warnings)
    task_table = task_table.loc[table.columns]
    missing = int(table.isna().to_numpy().sum())
    if missing:
        words = f"{missing} of {table.size} cells are missing"
        warnings.append(f"{words} and filled by PCA with shrunk singular values for the components.")
    if models is None:
        warnings.append("There is no model table: families, bases and budgets are unknown.")
        about, languages = model_table.unknown(table.index), ()
    else:
        about, languages = model_table.read(models, table.index, warnings)
    if not languages:
        warnings.append("No token budgets are known: components and correlations only, nothing about what tokens buy.")
    return Tables(table, task_table, about, sources.loc[table.index, table.columns], languages, tuple(warnings))


def _enough(path: pathlib.Path, models: int) -> None:
    if models < MIN_MODELS:
        many = "1 model" if models == 1 else f"{models} models"
        raise ConfigError(
            f"{path} has {many} with scores: components need at least {MIN_MODELS}, and about twenty to be meaningful"
        )


def _beside(scores: pathlib.Path, name: str) -> pathlib.Path | None:
    file = scores.parent / name
    return file if file.is_file() else None


def _tasks(path: pathlib.Path) -> pd.DataFrame:
    table = cells.unique(path, cells.read_csv(path), "task")
    for column in table.columns:
        if column not in _TASK_COLUMNS:
            raise ConfigError(f"{path}: unknown column '{column}', {nearest(column, _TASK_COLUMNS)}")
    if "language" not in table.columns:
        raise ConfigError(f"{path} has no column 'language': add a code like ko or en for every task")
    for column in _TASK_COLUMNS[1:]:
        if column not in table.columns:
            table[column] = ""
    anchors = table["anchor"][table["anchor"] != ""]
    for task in anchors.index[anchors.duplicated()]:
        raise ConfigError(f"{path}, task '{task}': anchor '{anchors[task]}' is also that of another task; keep one")
    table["language"] = [tag(code) for code in table["language"]]
    for task, row in table.iterrows():
        if not re.fullmatch("[a-z]{2,3}", row["language"]):
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
        if not row["better"] and _ERRORS.search(named):
            raise ConfigError(
                f"{path}, task '{task}' looks like an error (see '{named.strip()}'): say better=lower in tasks.csv, or "
                "better=higher if a high value is good"
            )


def _turned(scores: pd.DataFrame, tasks: pd.DataFrame, warnings: list[str]) -> pd.DataFrame:
    """Scores of which a high one is good: where lower is better, low + high − score; the chance level likewise."""
    scores = scores.copy()
    for task in scores.columns:
        low, high, chance = tasks.loc[task, ["low", "high", "chance"]]
        if tasks.loc[task, "better"] == "lower":
            scores[task] = low + high - scores[task]
            tasks.loc[task, "chance"] = low + high - chance
            warnings.append(
                f"'{task}' is better when lower: it is turned ({low + high:g} minus the score) everywhere, so that a "
                "rise is an improvement; --target takes the turned value."
            )
    return scores


def _scores(
    path: pathlib.Path, raw: pd.DataFrame, tasks: pd.DataFrame, tasks_path: pathlib.Path, ignore: Sequence[str]
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Scores, metric versions and sources, models × tasks."""
    for column in ignore:
        if column not in raw.columns:
            raise ConfigError(f"--ignore: {path} has no column '{column}', {nearest(column, list(raw.columns))}")
    if {"model", "task", "score"} <= set(raw.columns):
        raw = _from_long(path, raw)
    elif {"model", "task"} <= set(raw.columns) and "task" not in tasks.index:
        raise ConfigError(f"{path} has the columns 'model' and 'task' of a long table, but no 'score'")
    else:
        raw = cells.unique(path, raw, "model")
    columns = [c for c in raw.columns if c not in ("source", "metric_version") and c not in ignore]
    versions_of, sources_of = raw.attrs.get("versions", {}), raw.attrs.get("sources", {})
    for column in columns:
        if column not in tasks.index:
            raise ConfigError(
                f"{path}: the column '{column}' is no task of {tasks_path}: add it there, or leave it out with "
                f"--ignore; {nearest(column, list(tasks.index))}"
            )
    scores = pd.DataFrame(
        {c: [cells.number(path, f"model '{m}'", c, v) for m, v in raw[c].items()] for c in columns},
        index=raw.index,
        dtype=float,
    )
    versions, sources = pd.DataFrame("", scores.index, columns), pd.DataFrame("", scores.index, columns)
    for column in columns:
        for table, kind, own in ((versions, "metric_version", versions_of), (sources, "source", sources_of)):
            rows = raw[kind] if kind in raw.columns else pd.Series("", raw.index)
            default = tasks[kind][column] or (path.name if kind == "source" else "")
            table[column] = [own.get((m, column)) or rows[m] or default for m in raw.index]
    return scores, versions.where(scores.notna(), ""), sources.where(scores.notna(), "")


def _from_long(path: pathlib.Path, raw: pd.DataFrame) -> pd.DataFrame:
    for column in raw.columns:
        if column not in ("model", "task", "score", "metric_version", "source"):
            raise ConfigError(
                f"{path}: unknown column '{column}' of a long table (model, task, score, metric_version, source)"
            )
    for key in ("model", "task"):
        cells.refuse_empty(path, raw, key)
    double = raw[raw.duplicated(["model", "task"])]
    if len(double):
        first = double.iloc[0]
        raise ConfigError(
            f"{path}, line {double.index[0]}: '{first['model']}' has '{first['task']}' twice; keep one row of it"
        )
    order = list(dict.fromkeys(raw["task"]))
    wide = raw.pivot(index="model", columns="task", values="score").fillna("")
    wide = wide.reindex(index=list(dict.fromkeys(raw["model"])), columns=order)
    for kind, name in (("metric_version", "versions"), ("source", "sources")):
        given = zip(raw["model"], raw["task"], raw[kind]) if kind in raw.columns else ()
        wide.attrs[name] = {(m, t): v for m, t, v in given}
    return wide


def _one_version(path: pathlib.Path, versions: pd.DataFrame) -> None:
    for task in versions.columns:
        found = sorted(set(versions[task]) - {""})
        if len(found) > 1:
            example = {v: versions.index[versions[task] == v][0] for v in found[:2]}
            raise ConfigError(
                f"{path}: the column '{task}' mixes the metric versions "
                + " and ".join(f"'{v}' ({m})" for v, m in example.items())
                + ", which cannot be compared: keep one version of it, or make them two tasks"
            )


def _range(path: pathlib.Path, scores: pd.DataFrame, tasks: pd.DataFrame) -> None:
    for task in scores.columns:
        low, high = tasks.loc[task, ["low", "high"]]
        bad = scores[task][(scores[task] < low) | (scores[task] > high)]
        if len(bad):
            raise ConfigError(
                f"{path}: '{bad.index[0]}' has {bad.iloc[0]:g} for '{task}', outside {low:g}–{high:g}: divide "
                "percentages by 100, or give the task its low and high in tasks.csv"
            )
