"""Strict reading of score, model and task tables: every fault is one sentence, every cell keeps its source.

`scores.csv`: `model` and one column a task (0–1 unless `tasks.csv` says otherwise; empty: not measured); optional
columns `source` and `metric_version` hold for a row. Or long: `model, task, score[, metric_version, source]`.

`tasks.csv`: `task, language` and optionally `name, ability, metric, metric_version, shots, items, chance, low, high`
(range of possible scores, default 0–1), `pair` (the same ability in another language), `anchor` (`PC2`: the task whose
loading on that component is positive), `source`.

`models.csv`: `model` and optionally `label, family, base, params, active_params, tokens_b` (all text, 1e9),
for each language `LANG_tokens_b_low, _est, _high` (1e9 tokens that the model has seen in all, its base's included)
and `LANG_status` (reported, derived, assumed, undisclosed), `note`.
"""

import csv
import dataclasses
import importlib.resources
import pathlib
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from kanana_jax.errors import ConfigError, nearest

STATUSES = ("reported", "derived", "assumed", "undisclosed")
MIN_MODELS = 5
MOST_TOKENS_B = 1e6  # 1e15 tokens, far beyond any model's: a raw count was meant
_TASK_COLUMNS = ("task", "language", "name", "ability", "metric", "metric_version", "shots", "items", "chance", "low",
                 "high", "pair", "anchor", "source")  # fmt: skip
_MODEL_COLUMNS = ("model", "label", "family", "base", "params", "active_params", "tokens_b", "note")
_BUDGET = re.compile(r"([a-z]{2,3})_(tokens_b_(?:low|est|high)|status)")


@dataclasses.dataclass(frozen=True)
class Tables:
    """What was read.

    Attributes:
      scores: float64, models × tasks; NaN where not measured.
      tasks: one row a task, indexed by it, in the order of the columns of `scores`.
      models: one row a model, indexed by it, in the order of `scores`; `family` is filled.
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
    raw = _csv(scores)
    models = models or _beside(scores, "models.csv")
    tasks = tasks or _beside(scores, "tasks.csv")
    if tasks is None:
        raise ConfigError(
            f"{scores} has no tasks.csv beside it: say --tasks TASKS.csv (columns: {', '.join(_TASK_COLUMNS)})"
        )
    task_table = _tasks(tasks)
    table, versions, sources = _scores(scores, raw, task_table, tasks, ignore)
    _one_version(scores, versions)
    _range(scores, table, task_table)
    table, task_table = _useful(scores, table, task_table, warnings)
    if len(table) < MIN_MODELS:
        raise ConfigError(
            f"{scores} has {len(table)} models with scores: components need at least {MIN_MODELS}, "
            "and some twenty to mean much"
        )
    model_table, languages = _models(models, table, warnings)
    if not languages:
        warnings.append("No token budgets are known: components and correlations only, nothing about what tokens buy.")
    return Tables(table, task_table, model_table, sources.loc[table.index, table.columns], languages, tuple(warnings))


def _beside(scores: pathlib.Path, name: str) -> pathlib.Path | None:
    file = scores.parent / name
    return file if file.is_file() else None


def _csv(path: pathlib.Path) -> pd.DataFrame:
    """All cells as text, indexed by line.

    A row of more or fewer cells than the header has is refused: they would stand in wrong columns.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, skipinitialspace=True)
            header = [name.strip() for name in next(reader, [])]
            rows, lines = [], []
            for row in reader:
                if not row:
                    continue
                if len(row) != len(header):
                    raise ConfigError(
                        f"{path}, line {reader.line_num} has {len(row)} cells, the header {len(header)}: "
                        "separate by commas, and put a text that holds one in quotes"
                    )
                rows.append([cell.strip() for cell in row])
                lines.append(reader.line_num)
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist: give a .csv file") from None
    except IsADirectoryError:
        raise ConfigError(f"{path} is a folder: give the .csv file in it") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"cannot read {path} as UTF-8 .csv: {str(error).splitlines()[0]}") from error
    if not rows:
        raise ConfigError(f"{path} has no rows below its header")
    if len(header) == 1 and re.search("[;\t]", header[0]):
        raise ConfigError(f"{path} is not separated by commas: save it as .csv with ',' between cells")
    for number, name in enumerate(header, 1):
        if not name:
            raise ConfigError(f"{path}: column {number} has no name; name it, or remove the comma")
        if header.count(name) > 1:
            raise ConfigError(f"{path} has the column '{name}' twice: keep one")
    return pd.DataFrame(rows, index=lines, columns=header, dtype=str)


def _filled(path: pathlib.Path, table: pd.DataFrame, key: str) -> None:
    for line in table.index[table[key] == ""]:
        raise ConfigError(f"{path}, line {line}: the column '{key}' is empty")


def _unique(path: pathlib.Path, table: pd.DataFrame, key: str) -> pd.DataFrame:
    if key not in table.columns:
        raise ConfigError(f"{path} has no column '{key}' (columns: {', '.join(table.columns)})")
    _filled(path, table, key)
    double = table[key][table[key].duplicated()]
    if len(double):
        raise ConfigError(f"{path}, line {double.index[0]}: '{double.iloc[0]}' stands twice; keep one row of it")
    return table.set_index(key)


def _number(path: pathlib.Path, where: str, column: str, text: str) -> float:
    if text == "":
        return float("nan")
    try:
        value = float(text)
    except ValueError:
        value = float("inf")
    if not np.isfinite(value):
        raise ConfigError(f"{path}, {where}: '{text}' in column '{column}' is not a number; leave it empty if unknown")
    return value


def _tasks(path: pathlib.Path) -> pd.DataFrame:
    table = _unique(path, _csv(path), "task")
    for column in table.columns:
        if column not in _TASK_COLUMNS:
            raise ConfigError(f"{path}: unknown column '{column}', {nearest(column, _TASK_COLUMNS)}")
    if "language" not in table.columns:
        raise ConfigError(f"{path} has no column 'language': a code like ko or en for every task")
    for column in _TASK_COLUMNS[1:]:
        if column not in table.columns:
            table[column] = ""
    anchors = table["anchor"][table["anchor"] != ""]
    for task in anchors.index[anchors.duplicated()]:
        raise ConfigError(f"{path}, task '{task}': anchor '{anchors[task]}' stands at another task too; keep one")
    for task, row in table.iterrows():
        if not re.fullmatch("[a-z]{2,3}", row["language"]):
            raise ConfigError(f"{path}, task '{task}': language '{row['language']}' is no code like ko or en")
        if row["pair"] and row["pair"] not in table.index:
            raise ConfigError(
                f"{path}, task '{task}': its pair '{row['pair']}' is no task; {nearest(row['pair'], table.index)}"
            )
        if row["anchor"] and not re.fullmatch(r"PC\d+", row["anchor"]):
            raise ConfigError(f"{path}, task '{task}': anchor '{row['anchor']}' is no component like PC2")
    for column, default in (("low", 0.0), ("high", 1.0), ("chance", float("nan"))):
        values = [_number(path, f"task '{t}'", column, v) for t, v in table[column].items()]
        table[column] = [default if np.isnan(v) else v for v in values]
    for task, row in table.iterrows():
        if not row["low"] < row["high"]:
            raise ConfigError(f"{path}, task '{task}': low {row['low']:g} is not below high {row['high']:g}")
        if not np.isnan(row["chance"]) and not row["low"] <= row["chance"] <= row["high"]:
            words = f"chance {row['chance']:g} is outside {row['low']:g}–{row['high']:g}"
            raise ConfigError(f"{path}, task '{task}': {words}")
    return table


def _scores(path, raw: pd.DataFrame, tasks: pd.DataFrame, tasks_path, ignore):
    for column in ignore:
        if column not in raw.columns:
            raise ConfigError(f"--ignore: {path} has no column '{column}', {nearest(column, list(raw.columns))}")
    if {"model", "task", "score"} <= set(raw.columns):
        raw = _from_long(path, raw)
    elif {"model", "task"} <= set(raw.columns) and "task" not in tasks.index:
        raise ConfigError(f"{path} has the columns 'model' and 'task' of a long table, but no 'score'")
    else:
        raw = _unique(path, raw, "model")
    columns = [c for c in raw.columns if c not in ("source", "metric_version") and c not in ignore]
    versions_of, sources_of = raw.attrs.get("versions", {}), raw.attrs.get("sources", {})
    for column in columns:
        if column not in tasks.index:
            raise ConfigError(
                f"{path}: the column '{column}' is no task of {tasks_path}: add it there, or leave it out with "
                f"--ignore; {nearest(column, tasks.index)}"
            )
    scores = pd.DataFrame(
        {c: [_number(path, f"model '{m}'", c, v) for m, v in raw[c].items()] for c in columns},
        index=raw.index,
        dtype=float,
    )
    versions, sources = pd.DataFrame("", scores.index, columns), pd.DataFrame("", scores.index, columns)
    for column in columns:
        for table, kind, cells in ((versions, "metric_version", versions_of), (sources, "source", sources_of)):
            rows = raw[kind] if kind in raw.columns else pd.Series("", raw.index)
            default = tasks[kind][column] or (path.name if kind == "source" else "")
            table[column] = [cells.get((m, column)) or rows[m] or default for m in raw.index]
    return scores, versions.where(scores.notna(), ""), sources.where(scores.notna(), "")


def _from_long(path: pathlib.Path, raw: pd.DataFrame) -> pd.DataFrame:
    for column in raw.columns:
        if column not in ("model", "task", "score", "metric_version", "source"):
            raise ConfigError(
                f"{path}: unknown column '{column}' of a long table (model, task, score, metric_version, source)"
            )
    for key in ("model", "task"):
        _filled(path, raw, key)
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
        cells = zip(raw["model"], raw["task"], raw[kind]) if kind in raw.columns else ()
        wide.attrs[name] = {(m, t): v for m, t, v in cells}
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


def _useful(path, scores, tasks, warnings):
    empty = scores.index[scores.isna().all(axis=1)]
    for model in empty:
        warnings.append(f"'{model}' has no score at all and is left out.")
    scores = scores.drop(index=empty)
    for task in list(scores.columns):
        seen = scores[task].dropna()
        if len(seen) < 2 or seen.nunique() < 2:
            words = f"the same score ({seen.iloc[0]:g}) for every model" if len(seen) > 1 else "fewer than two scores"
            warnings.append(f"'{task}' has {words}: it tells nothing and is left out.")
            scores = scores.drop(columns=task)
            continue
        zeros = seen.index[seen == 0]
        if len(zeros):
            warnings.append(
                f"'{task}' is exactly 0 for {', '.join(zeros)}: a fault of the scoring more likely than a "
                "lack of ability; it is kept."
            )
    if len(scores.columns) < 3:
        raise ConfigError(f"{path} has {len(scores.columns)} usable tasks: components need at least 3")
    missing = int(scores.isna().to_numpy().sum())
    if missing:
        warnings.append(f"{missing} of {scores.size} cells are missing and filled by iterative PCA for the components.")
    return scores, tasks.loc[scores.columns]


def _models(path: pathlib.Path | None, scores: pd.DataFrame, warnings: list[str]):
    if path is None:
        warnings.append("There is no model table: families, bases and budgets are unknown.")
        table = pd.DataFrame(index=pd.Index([], name="model"))
    else:
        table = _unique(path, _csv(path), "model")
    languages = sorted({m[1] for m in map(_BUDGET.fullmatch, table.columns) if m})
    for column in table.columns:
        if column not in _MODEL_COLUMNS and not _BUDGET.fullmatch(column):
            known = [*_MODEL_COLUMNS, *(f"{lang}_tokens_b_est" for lang in languages or ["ko"])]
            raise ConfigError(f"{path}: unknown column '{column}', {nearest(column, known)}")
    unknown = [m for m in scores.index if m not in table.index]
    if path is not None and len(unknown) == len(scores):
        example = nearest(unknown[0], list(table.index))
        raise ConfigError(f"{path} has a row for none of the models of the scores: '{unknown[0]}', {example}")
    if path is not None and unknown:
        warnings.append(f"{path.name} has no row for {', '.join(unknown)}: left out of everything about compute.")
    table = table.reindex(scores.index).fillna("")
    for column in (*_MODEL_COLUMNS[1:], *(f"{lang}_status" for lang in languages)):
        if column not in table.columns:
            table[column] = ""
    numbers = ["params", "active_params", "tokens_b"]
    for lang in languages:
        numbers += [f"{lang}_tokens_b_{end}" for end in ("low", "est", "high")]
    for column in numbers:
        given = table[column] if column in table.columns else pd.Series("", table.index)
        table[column] = [_number(path, f"model '{m}'", column, v) for m, v in given.items()]
        negative = table.index[table[column] < 0]
        if len(negative):
            raise ConfigError(f"{path}, model '{negative[0]}': column '{column}' is negative")
        large = table.index[table[column] > MOST_TOKENS_B]
        if len(large) and "tokens_b" in column:
            value = table.loc[large[0], column]
            raise ConfigError(
                f"{path}, model '{large[0]}': column '{column}' has {value:g}; it counts 1e9 tokens, as 80 for 80e9"
            )
    table["label"] = [label or model.rsplit("/", 1)[-1] for model, label in table["label"].items()]
    _bases(path, table)
    _families(table, warnings if path is not None else [])
    _active(path, table)
    languages = tuple(lang for lang in languages if _budgets(path, table, lang, warnings))
    lacking = [m for m in table.index if m not in unknown and np.isnan(table.loc[m, "params"])]
    if lacking:
        warnings.append(f"The parameters of {', '.join(lacking)} are unknown: left out of everything about compute.")
    return table, languages


def _bases(path, table: pd.DataFrame) -> None:
    """Refuses a model that comes, through its bases, from itself."""
    for model in table.index:
        seen, at = [model], table.loc[model, "base"]
        while at in table.index:
            if at in seen:
                raise ConfigError(f"{path}, model '{model}': its base leads back to it ({' → '.join([*seen, at])})")
            seen.append(at)
            at = table.loc[at, "base"]


def _families(table: pd.DataFrame, warnings: list[str]) -> None:
    own = [m for m in table.index if not table.loc[m, "family"]]
    for model in own:
        base = table.loc[model, "base"]
        inherited = table.loc[base, "family"] if base in table.index else ""
        table.loc[model, "family"] = inherited or base or model
    if own:
        warnings.append(
            f"The family of {len(own)} models is not given ({', '.join(own[:3])}{' …' if len(own) > 3 else ''}): each "
            "counts as its base's or its own, which makes intervals too narrow if they are related."
        )
    for model, base in table["base"].items():
        if base in table.index and table.loc[base, "family"] != table.loc[model, "family"]:
            warnings.append(
                f"'{model}' is of another family than its base '{base}': bootstraps treat them as unrelated."
            )


def _active(path, table: pd.DataFrame) -> None:
    table["active_params"] = table["active_params"].fillna(table["params"])
    for model in table.index[table["active_params"] > table["params"]]:
        raise ConfigError(f"{path}, model '{model}': active_params is larger than params")
    for model in table.index[table["params"] < 1e4]:
        raise ConfigError(
            f"{path}, model '{model}': params is {table.loc[model, 'params']:g}; it counts parameters, as 8e9"
        )


def _budgets(path, table: pd.DataFrame, lang: str, warnings: list[str]) -> bool:
    """Fills and checks one language's intervals; whether any model has one."""
    low, est, high = (f"{lang}_tokens_b_{end}" for end in ("low", "est", "high"))
    status = f"{lang}_status"
    for model, value in table[status].items():
        if value and value not in STATUSES:
            raise ConfigError(f"{path}, model '{model}': {status} '{value}', {nearest(value, STATUSES)}")
        if value == "undisclosed" and not np.isnan(table.loc[model, est]):
            raise ConfigError(
                f"{path}, model '{model}': {status} is undisclosed, but {est} is given: say how it is known"
            )
    table[low], table[high] = table[low].fillna(table[est]), table[high].fillna(table[est])
    for model in table.index[~((table[low] <= table[est]) & (table[est] <= table[high])) & table[est].notna()]:
        values = ", ".join(f"{table.loc[model, end]:g}" for end in (low, est, high))
        raise ConfigError(f"{path}, model '{model}': {lang} tokens must be low ≤ est ≤ high, not {values}")
    table[status] = [s or ("undisclosed" if np.isnan(e) else "assumed") for s, e in zip(table[status], table[est])]
    for model, base in table["base"].items():
        if base in table.index and table.loc[model, high] < table.loc[base, low]:
            raise ConfigError(
                f"{path}, model '{model}': it has seen fewer {lang} tokens ({table.loc[model, high]:g}e9) than its "
                f"base '{base}' ({table.loc[base, low]:g}e9); the columns hold all tokens, the base's included"
            )
    return bool(table[est].notna().any())
