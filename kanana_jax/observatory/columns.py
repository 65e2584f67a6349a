"""Classification of a score table's columns: tasks, facts about models, standard errors, numbers of questions."""

import dataclasses
import pathlib
import re
import unicodedata
from collections.abc import Collection, Sequence

import pandas as pd

from kanana_jax.errors import ConfigError, nearest
from kanana_jax.observatory import cells

# Columns with facts about models, as published score tables name them, and the unit that models.csv expects.
_ABOUT = {
    "name": ("label", None), "label": ("label", None), "family": ("family", None), "model_family": ("family", None),
    "base": ("base", None), "base_name": ("base", None), "base_model": ("base", None), "date": ("date", None),
    "release_date": ("date", None), "released": ("date", None), "params": ("params", 1.0),
    "upload_to_hub_date": ("date", None),
    "parameters": ("params", 1.0), "n_params": ("params", 1.0), "size_b": ("params", 1e9), "params_b": ("params", 1e9),
    "model_size_b": ("params", 1e9), "parameters_b": ("params", 1e9), "active_params": ("active_params", 1.0),
    "active_params_b": ("active_params", 1e9), "tokens_b": ("tokens_b", 1.0), "training_tokens_b": ("tokens_b", 1.0),
    "pretraining_data_size_t": ("tokens_b", 1e3), "tokens_t": ("tokens_b", 1e3),
}  # fmt: skip
# Columns that are neither tasks nor used by the study.
_IDLE = re.compile(
    r"#|(\w+_)?type|categor(y|ies)|sort_?key|url|uri|link|(hub_)?licen[cs]e|organi[sz]ation|developer|creator|precision|revision|(model_)?sha"
    r"|commit|id|architecture|status|notes?|rank|no|index|flops(_1e21)?|(\w+_)?(avg|average|mean)(_score)?|overall"
    r"|hub|likes|downloads|co[2₂]_cost(_kg)?|generation|merged|moe|flagged|chat_template|available_on_the_hub"
    r"|official_providers|(submission|upload)_date|eval_name|fullname"
    r"|evaluated(_on)?|evaluation_date|harness|library|n|items|stderr"
)
_SUFFIXES = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
_ERROR, _COUNT = ("stderr", "std_err", "se", "sem", "standard_error"), ("n", "items", "count", "n_items", "samples")


@dataclasses.dataclass(frozen=True)
class Columns:
    """The columns of a wide score table (models × columns), by their meaning; cells are text.

    Attributes:
      tasks: scores, models × tasks.
      errors, counts: standard errors and numbers of questions, models × the tasks that have them.
      about: facts about models, models × columns of models.csv.
      idle: names of the remaining columns.
    """

    tasks: pd.DataFrame
    errors: pd.DataFrame
    counts: pd.DataFrame
    about: pd.DataFrame
    idle: tuple[str, ...]


def sort(
    path: pathlib.Path,
    raw: pd.DataFrame,
    listed: Collection[str] | None,
    ignore: Sequence[str],
    warnings: list[str],
) -> Columns:
    """Classifies the columns of a table that is indexed by model.

    Args:
      listed: task names from tasks.csv, which are tasks whatever they are called; None if there is no such file.
      ignore: columns that are not tasks.
      warnings: receives sentences about sizes that cannot be read.

    Raises:
      ConfigError: an ignored column does not exist, or a column is not among the listed tasks.
    """
    for column in ignore:
        if column not in raw.columns:
            raise ConfigError(f"--ignore: {path} has no column '{column}', {nearest(column, list(raw.columns))}")
    left = [c for c in raw.columns if c not in ("source", "metric_version") and c not in ignore]
    own = set(listed or ())
    names = {_plain(c): c for c in left}
    errors, counts, about, idle, tasks = {}, {}, {}, [], []
    for column in left:
        plain = _plain(column)
        task, kind = _beside(plain, names)
        if column in own:
            tasks.append(column)
        elif task is not None:
            (errors if kind == "error" else counts)[task] = raw[column]
        elif (bare := plain.removeprefix("#_")) in _ABOUT:
            name, found = _model_column(bare, raw[column], warnings)
            about[name] = about[name].where(about[name] != "", found) if name in about else found
        elif plain.endswith("_raw") and plain.removesuffix("_raw") in names:
            idle.append(column)  # a leaderboard that also shows scores above chance
        elif _IDLE.fullmatch(plain) or (listed is None and _is_text(raw[column])):
            idle.append(column)
        else:
            tasks.append(column)
    made = pd.DataFrame(about, index=raw.index)
    if "base" in made:
        made["base"] = made["base"].where(made["base"] != "Removed", "")  # that leaderboard's word for no base
    if "base" in made and "label" in made:
        by_label = {label: model for model, label in made["label"].items()}
        made["base"] = [by_label.get(base, base) for base in made["base"]]
    frames = (pd.DataFrame(of, index=raw.index) for of in (errors, counts))
    return Columns(raw[tasks], *frames, made, tuple(idle))


def keyed(path: pathlib.Path, raw: pd.DataFrame, warnings: list[str]) -> pd.DataFrame:
    """Indexes a wide table by model; rows that share an id but not a name are indexed by name.

    Raises:
      ConfigError: no column 'model', an empty cell in it, or two rows of one model.
    """
    raw = named(raw)
    if "model" in raw.columns and "name" in raw.columns:
        double = raw["model"].duplicated(keep=False) & (raw["model"] != "")
        names = raw["name"]
        if double.any() and (names != "").all() and not names.duplicated().any():
            raw = raw.copy()
            shared = sorted(set(raw.loc[double, "model"]))
            raw.loc[double, "model"] = names[double]
            warnings.append(f"Several rows have the model {', '.join(shared)}: they are called by their names.")
    return cells.unique(path, raw, "model")


def named(raw: pd.DataFrame) -> pd.DataFrame:
    """The table with its first column called Model, model_name or the like renamed to 'model'."""
    like = [c for c in raw.columns if _plain(c) in ("model", "models", "model_name", "model_id")]
    return raw if "model" in raw.columns or not like else raw.rename(columns={like[0]: "model"})


def long_names(raw: pd.DataFrame, names: Sequence[str], tasks: Collection[str]) -> pd.DataFrame:
    """Renames the columns of a long table to `names`, ignoring case; returns a wide table unchanged.

    Args:
      tasks: the listed tasks, which are columns of a wide table.
    """
    called = {c: _plain(c) for c in raw.columns if _plain(c) in names and c not in tasks}
    twice = len(set(called.values())) < len(called)
    return raw if twice or not {"model", "task"} <= set(called.values()) else raw.rename(columns=called)


def _plain(column: str) -> str:
    return "_".join(re.findall(r"[^\W_]+|±|#", column.casefold()))


def _beside(plain: str, names: dict[str, str]) -> tuple[str | None, str]:
    """The kind of a column that belongs to a task, and the task: MMLU_stderr, n_MMLU, MMLU (n), MMLU ±."""
    for kind, words in (("error", (*_ERROR, "±")), ("count", _COUNT)):
        for word in words:
            for other in (plain.removesuffix(f"_{word}"), plain.removeprefix(f"{word}_")):
                if other != plain and other in names and other.removeprefix("#_") not in _ABOUT:
                    return names[other], kind
    return None, ""


def _model_column(plain: str, column: pd.Series, warnings: list[str]) -> tuple[str, pd.Series]:
    """Converts a score table's column to one of models.csv; bare sizes below 1e4 are in units of 1e9, '7B' is 7e9."""
    name, unit = _ABOUT[plain]
    if unit is None:
        return name, column
    read = [_quantity(cell) for cell in column]
    bare = [value for value, suffix in read if not suffix and value == value]
    if name.endswith("params") and unit == 1.0 and bare and max(bare) < 1e4:
        unit = 1e9
    one = 1e9 if name == "tokens_b" else 1.0
    values = [value * (_SUFFIXES[suffix] / one if suffix else unit) for value, suffix in read]
    unread = [f"'{cell}' of {model}" for (model, cell), v in zip(column.items(), values) if cell and not v > 0]
    if unread:
        more = f" and {len(unread) - 3} more" if len(unread) > 3 else ""
        warnings.append(
            f"The column '{column.name}' holds {', '.join(unread[:3])}{more}: not a positive number, so "
            "taken as unknown; write 7e9 or 7B."
        )
    return name, pd.Series([f"{v:.9g}" if v > 0 else "" for v in values], column.index)


def _quantity(cell: str) -> tuple[float, str]:
    """Parses a number, with or without thousands separators, and its suffix: '7.2 B' → (7.2, 'B'); NaN if no number."""
    suffix = cell[-1:].upper()
    text, suffix = (cell[:-1].rstrip(), suffix) if suffix in _SUFFIXES else (cell, "")
    if re.fullmatch(r"\d{1,3}(,\d{3})+(\.\d+)?", text, re.ASCII):
        text = text.replace(",", "")
    return (float(text), suffix) if cells.is_number(text) else (float("nan"), "")


def _is_text(column: pd.Series) -> bool:
    """Whether no cell is a number and some are words or pictures; '0_5' is neither, but a mistyped number to report."""
    if any(cells.is_number(cell) for cell in column):
        return False
    return any(c.isalpha() or unicodedata.category(c) == "So" for cell in column for c in cell)
