"""Strict reading of score, model and task tables: every fault is one sentence, every cell keeps its source.

`scores.csv` has the column `model` and one column per task (scores in 0–1 unless `tasks.csv` says otherwise; empty: not
measured). The optional columns `source` and `metric_version` apply to a row, `TASK_stderr` and `TASK_n` to a task's
cells; some other columns describe the model (`columns.py`). The long form is
`model, task, score[, metric_version, source, stderr, n, date]`.

`tasks.csv` is optional (`task_table.inferred`). It has the columns `task, language` and optionally `name, ability,
metric, metric_version, shots, items, chance`, `low, high` (range of possible scores, default 0–1), `better` (`higher`,
the default, or `lower`), `pair` (the task of the same ability in another language), `anchor` (`PC2`: the task whose
loading on that component is positive), `source`.

`models.csv` has the column `model` and optionally `label, family, base, params, active_params`, `tokens_b` (1e9 tokens
in all languages), `date`, `note` and, for each language, `LANG_tokens_b_low`, `_est` and `_high` (1e9 tokens that the
model has seen in all, its base's included) and `LANG_status` (reported, derived, assumed, undisclosed).
"""

import dataclasses
import importlib.resources
import pathlib
from collections.abc import Sequence

import numpy as np
import pandas as pd

from kanana_jax.errors import ConfigError, nearest
from kanana_jax.observatory import cells, columns, informative, model_table, task_table

MIN_MODELS = 5
FEW_MODELS = 20
SETS = ("japanese35",)  # shipped table sets whose task names are recognised
INVENTED = "invented for the template"
_LONG = ("model", "task", "score", "metric_version", "source", "stderr", "n", "date")


@dataclasses.dataclass(frozen=True)
class Tables:
    """The checked tables.

    Attributes:
      scores: float64, models × tasks; NaN where not measured.
      tasks: one row per task, indexed by task, in the order of the columns of `scores`.
      models: one row per model, indexed by model, in the order of `scores`; `family` is always filled.
      sources: str, models × tasks: the source of each cell.
      errors: float64, models × tasks: standard errors of the scores; NaN where not given.
      languages: codes of the languages with token budgets.
      warnings: sentences for the report.
    """

    scores: pd.DataFrame
    tasks: pd.DataFrame
    models: pd.DataFrame
    sources: pd.DataFrame
    errors: pd.DataFrame
    languages: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def labels(self) -> dict[str, str]:
        """Model → short name."""
        return dict(self.models["label"])


def shipped(name: str = "japanese35") -> pathlib.Path:
    """Folder of a table set that comes with the package: `japanese35`, `korean_template` (published scores)."""
    return pathlib.Path(str(importlib.resources.files("kanana_jax.observatory") / "tables" / name))


@dataclasses.dataclass(frozen=True)
class Wide:
    """A score table before it is checked; all cells are text.

    Attributes:
      scores, versions, sources: models × tasks.
      errors, counts: standard errors and numbers of questions, models × the tasks that have them.
      about: facts about models, models × columns of models.csv.
    """

    scores: pd.DataFrame
    errors: pd.DataFrame
    counts: pd.DataFrame
    versions: pd.DataFrame
    sources: pd.DataFrame
    about: pd.DataFrame


def read(
    scores: pathlib.Path,
    models: pathlib.Path | None = None,
    tasks: pathlib.Path | None = None,
    ignore: Sequence[str] = (),
) -> Tables:
    """Reads and checks the three tables.

    Args:
      models, tasks: default: `models.csv` and `tasks.csv` next to the scores. Without models there are no scaling laws;
        without tasks they are inferred.
      ignore: columns of the score table that are not tasks.

    Raises:
      ConfigError: any fault that would make the result wrong; the message names the file, the column or model, and the
        way out.
    """
    warnings: list[str] = []
    models = models or _beside(scores, "models.csv")
    tasks = tasks or _beside(scores, "tasks.csv")
    given = task_table.read(tasks, warnings) if tasks else None
    wide = _wide(scores, cells.read_csv(scores, warnings), given, [cells.composed(name) for name in ignore], warnings)
    for column in wide.scores.columns:
        if given is not None and column not in given.index:
            raise ConfigError(
                f"{scores}: the column '{column}' is not a task of {tasks}: add it there, or leave it out with "
                f"--ignore; {nearest(column, list(given.index))}"
            )
    return assemble(scores, wide, given, model_table.text(models, warnings) if models else None, warnings)


def assemble(
    path: pathlib.Path,
    wide: Wide,
    given: pd.DataFrame | None,
    models: model_table.Rows | None,
    warnings: list[str],
) -> Tables:
    """Checks a score table and combines it with the task and model tables.

    Args:
      path: the source of the scores, for messages.
      given: a checked task table that contains all tasks of the scores; None: it is inferred.
      models: the model table as text; None: only the facts in the score table.
      warnings: sentences from earlier steps.

    Raises:
      ConfigError: see `read`.
    """
    if given is None:
        wide = _without_errors(wide, warnings)
        files = {name: shipped(name) / "tasks.csv" for name in SETS}
        sets = {name: cells.unique(file, cells.read_csv(file), "task") for name, file in files.items()}
        kept = {task: wide.scores[task] for task in wide.scores.columns}
        given = task_table.checked(path, task_table.inferred(path, kept, sets, warnings))
    table = _numbers(path, wide.scores)
    given = _items(path, given, wide, warnings)
    _one_version(path, _defaults(wide.versions, given["metric_version"], "", table))
    sources = _defaults(wide.sources, given["source"], path.name, table)
    _refuse_invented(path, sources)
    _range(path, table, given)
    table = _turned(table, given, warnings)
    _enough(path, int(table.notna().any(axis=1).sum()))
    table = informative.useful(path, table, given, warnings)
    given = given.loc[table.columns]
    if len(table) < FEW_MODELS:
        few = f"{len(table)} models are few"
        warnings.append(f"{few}: with fewer than about {FEW_MODELS} little stands out from noise.")
    missing = int(table.isna().to_numpy().sum())
    if missing:
        words = f"{missing} of {table.size} cells are missing"
        warnings.append(f"{words} and filled by PCA with shrunk singular values for the components.")
    told = [column for column in wide.about.columns if (wide.about[column] != "").any()]
    if models is not None and told:
        warnings.append(f"The model table takes precedence: {', '.join(told)} of {path.name} are not used.")
    if models is None:
        about, languages = model_table.unknown(path, table.index, wide.about, warnings), ()
    else:
        about, languages = model_table.checked(models, table.index, warnings)
    if not languages:
        warnings.append("No token budgets are known: components and correlations only, nothing about what tokens buy.")
    errors = _numbers(path, wide.errors).reindex(index=table.index, columns=table.columns)
    sources = sources.loc[table.index, table.columns]
    return Tables(table, given, about, sources, errors, languages, tuple(warnings))


def _refuse_invented(path: pathlib.Path, sources: pd.DataFrame) -> None:
    """Refuses the invented numbers in the template of earlier versions, so that no report is made from them."""
    for model, cells_ in sources.iterrows():
        if any(cell.startswith(INVENTED) for cell in cells_):
            raise ConfigError(
                f"{path}: the scores of '{model}' are {INVENTED}: replace them by measured ones and name their source "
                "('kanana observe --template' now writes published scores)"
            )


def _without_errors(wide: Wide, warnings: list[str]) -> Wide:
    """Removes columns that look like error rates, since there is no task table to say which direction is better."""
    bad = [task for task in wide.scores.columns if task_table.ERRORS.search(task)]
    if bad:
        warnings.append(
            f"{informative.cut(bad)} may be better when lower and is left out: a tasks.csv with better=lower, low and "
            "high would bring it in."
        )
    return dataclasses.replace(wide, scores=wide.scores.drop(columns=bad))


def _numbers(path: pathlib.Path, text: pd.DataFrame) -> pd.DataFrame:
    values = {c: [cells.number(path, f"model '{m}'", c, v) for m, v in text[c].items()] for c in text.columns}
    return pd.DataFrame(values, index=text.index, dtype=float)


def _items(path: pathlib.Path, tasks: pd.DataFrame, wide: Wide, warnings: list[str]) -> pd.DataFrame:
    """The task table with numbers of questions from the score table; the smallest number where they differ."""
    tasks, counts = tasks.copy(), _numbers(path, wide.counts)
    for task in counts.columns.intersection(tasks.index):
        found = counts[task][counts[task] > 0]
        if len(found) and found.min() < found.max():
            least, most = found.idxmin(), found.idxmax()
            warnings.append(
                f"'{task}' has {found.min():g} questions for {least} and {found.max():g} for {most}: scores on "
                "different questions are hard to compare."
            )
        if len(found) and np.isnan(tasks.loc[task, "items"]):
            tasks.loc[task, "items"] = found.min()
    return tasks


def _defaults(text: pd.DataFrame, by_task: pd.Series, last: str, scores: pd.DataFrame) -> pd.DataFrame:
    """Each cell's own text, or else its task's, or else `last`; empty where there is no score."""
    filled = {task: [cell or by_task[task] or last for cell in text[task]] for task in scores.columns}
    return pd.DataFrame(filled, index=scores.index, dtype=str).where(scores.notna(), "")


def _enough(path: pathlib.Path, models: int) -> None:
    if models < MIN_MODELS:
        many = "1 model" if models == 1 else f"{models} models"
        raise ConfigError(
            f"{path} has {many} with scores: components need at least {MIN_MODELS}, and about {FEW_MODELS} to mean "
            "something"
        )


def _beside(scores: pathlib.Path, name: str) -> pathlib.Path | None:
    file = scores.parent / name
    return file if file.is_file() else None


def _turned(scores: pd.DataFrame, tasks: pd.DataFrame, warnings: list[str]) -> pd.DataFrame:
    """Scores for which higher is better: where lower is better, low + high − score, and likewise the chance level."""
    scores = scores.copy()
    for task in scores.columns:
        low, high, chance = tasks.loc[task, ["low", "high", "chance"]]
        if tasks.loc[task, "better"] == "lower":
            scores[task] = low + high - scores[task]
            tasks.loc[task, "chance"] = low + high - chance
            warnings.append(
                f"'{task}' is better when lower: it is inverted ({low + high:g} minus the score) everywhere, so that "
                "a rise is an improvement; --target takes the inverted value."
            )
    return scores


def _wide(
    path: pathlib.Path, raw: pd.DataFrame, tasks: pd.DataFrame | None, ignore: Sequence[str], warnings: list[str]
) -> Wide:
    """Classifies the columns of a wide or long table."""
    raw = columns.long_names(columns.named(raw), _LONG, () if tasks is None else tasks.index)
    if {"model", "task", "score"} <= set(raw.columns):
        return _from_long(path, raw, ignore)
    if {"model", "task"} <= set(raw.columns) and (tasks is None or "task" not in tasks.index):
        raise ConfigError(f"{path} has the columns 'model' and 'task' of a long table, but no 'score'")
    raw = columns.keyed(path, raw, warnings)
    found = columns.sort(path, raw, None if tasks is None else list(tasks.index), ignore, warnings)
    if found.idle:
        warnings.append(f"No scores, and left out: the columns {informative.cut(list(found.idle), 6)}.")
    by_row = {}
    for kind in ("metric_version", "source"):
        row = raw[kind] if kind in raw.columns else pd.Series("", raw.index)
        by_row[kind] = pd.DataFrame(dict.fromkeys(found.tasks.columns, row), index=raw.index, dtype=str)
    return Wide(found.tasks, found.errors, found.counts, by_row["metric_version"], by_row["source"], found.about)


def _from_long(path: pathlib.Path, raw: pd.DataFrame, ignore: Sequence[str]) -> Wide:
    for column in raw.columns:
        if column not in _LONG and column not in ignore:
            raise ConfigError(f"{path}: unknown column '{column}' of a long table ({', '.join(_LONG)})")
    for key in ("model", "task"):
        cells.refuse_empty(path, raw, key)
    double = raw[raw.duplicated(["model", "task"])]
    if len(double):
        first = double.iloc[0]
        raise ConfigError(
            f"{path}, line {double.index[0]}: '{first['model']}' has '{first['task']}' twice; keep one row of it"
        )
    order, rows = list(dict.fromkeys(raw["task"])), list(dict.fromkeys(raw["model"]))

    def pivot(column: str) -> pd.DataFrame:
        if column not in raw.columns:
            return pd.DataFrame("", rows, order)
        return raw.pivot(index="model", columns="task", values=column).fillna("").reindex(index=rows, columns=order)

    parts = (pivot(column) for column in ("score", "stderr", "n", "metric_version", "source"))
    return Wide(*parts, pd.DataFrame(index=rows))


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
