"""The model table: families, bases, parameters and token budgets by language, checked against each other."""

import dataclasses
import pathlib
import re
from collections.abc import Mapping

import numpy as np
import pandas as pd

from kanana_jax.errors import ConfigError, nearest
from kanana_jax.languages import tag
from kanana_jax.observatory import cells

STATUSES = ("reported", "derived", "assumed", "undisclosed")
MOST_TOKENS_B = 1e6  # 1e15 tokens, far beyond any model: the value must be a raw count
_COLUMNS = ("model", "label", "family", "base", "params", "active_params", "tokens_b", "date", "note")
_BUDGET = re.compile(r"([A-Za-z]{2,3}(?:[-_][A-Za-z]{2,4})?)_(tokens_b_(?:low|est|high)|status)")


def unknown(path: pathlib.Path, models: pd.Index, about: pd.DataFrame, warnings: list[str]) -> pd.DataFrame:
    """A model table from the score table alone, which often contains only the models' names.

    Args:
      path: the score table's file, for messages.
      about: text, models × columns of models.csv that the score table contains.
      warnings: receives a sentence about unknown facts.
    """
    table = pd.DataFrame("", models, list(_COLUMNS[1:]))
    for column in about.columns:
        table[column] = about[column].reindex(models).fillna("")
    _numbers(path, table, [])
    table["label"] = _labels(table)
    _bases(path, table)
    told = [c for c in about.columns if c != "label" and (about[c] != "").any()]
    words = f"only {', '.join(told)} from the score table" if told else "families, bases and budgets are unknown"
    warnings.append(f"There is no model table: {words}.")
    _families(table, [])
    _active(path, table)
    return table


@dataclasses.dataclass(frozen=True)
class Rows:
    """A model table before it is checked.

    Attributes:
      path: the file, for messages.
      table: all cells as text, indexed by model.
    """

    path: pathlib.Path
    table: pd.DataFrame

    def completed(self, told: Mapping[str, Mapping[str, str]], warnings: list[str]) -> "Rows":
        """Fills empty cells from another source of facts.

        If this table gives any of a model's tokens, none are taken from the other source. A table that contains none of
        the models is returned unchanged, to be refused later.

        Args:
          told: model → column → text.
          warnings: receives a sentence about models without a row.
        """
        table = _tagged(self.path, self.table)
        if not set(told) & set(table.index):
            return self
        lacking = [model for model, row in told.items() if row and model not in table.index]
        if lacking:
            words = f"{self.path.name} has no row for {', '.join(lacking)}"
            warnings.append(f"{words}: their size and tokens are taken from the results.")
        columns = dict.fromkeys([*table.columns, *(column for row in told.values() for column in row)])
        table = table.reindex(index=[*table.index, *lacking], columns=list(columns)).fillna("")
        budgets = [column for column in table.columns if column == "tokens_b" or _BUDGET.fullmatch(column)]
        for model, row in told.items():
            if model not in table.index:
                continue
            closed = set(budgets) if any(table.loc[model, column] for column in budgets) else set()
            for column, value in row.items():
                if column not in closed and not table.loc[model, column]:
                    table.loc[model, column] = value
        return Rows(self.path, table)


def text(path: pathlib.Path, warnings: list[str] | None = None) -> Rows:
    """Reads a model table, in which every model occurs once.

    Args:
      warnings: as in `cells.read_csv`.
    """
    return Rows(path, cells.unique(path, cells.read_csv(path, warnings), "model"))


def checked(rows: Rows, models: pd.Index, warnings: list[str]) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Checks and completes the rows of `models`.

    Args:
      warnings: receives sentences about missing facts.

    Returns:
      The table, indexed by model in the order of `models`, and the languages with at least one known budget.

    Raises:
      ConfigError: unknown columns, impossible or contradictory values, or no row for any of the models.
    """
    path, table = rows.path, rows.table
    table = _tagged(path, table)
    languages = sorted({m[1] for m in map(_BUDGET.fullmatch, table.columns) if m})
    for column in table.columns:
        if column not in _COLUMNS and not _BUDGET.fullmatch(column):
            known = [*_COLUMNS, *(f"{lang}_tokens_b_est" for lang in languages or ["ko"])]
            raise ConfigError(f"{path}: unknown column '{column}', {nearest(column, known)}")
    absent = [m for m in models if m not in table.index]
    if len(absent) == len(models):
        example = nearest(absent[0], list(table.index))
        raise ConfigError(f"{path} has no row for any model of the scores: '{absent[0]}', {example}")
    if absent:
        warnings.append(f"{path.name} has no row for {', '.join(absent)}: left out of everything about compute.")
    table = table.reindex(models).fillna("")
    for column in (*_COLUMNS[1:], *(f"{lang}_status" for lang in languages)):
        if column not in table.columns:
            table[column] = ""
    _numbers(path, table, languages)
    table["label"] = _labels(table)
    _bases(path, table)
    _families(table, warnings)
    _active(path, table)
    known = tuple(lang for lang in languages if _budgets(path, table, lang))
    lacking = [m for m in table.index if m not in absent and np.isnan(table.loc[m, "params"])]
    if lacking:
        warnings.append(f"The parameters of {', '.join(lacking)} are unknown: left out of everything about compute.")
    return table, known


def _numbers(path: pathlib.Path, table: pd.DataFrame, languages: list[str]) -> None:
    """Converts the columns of parameters and tokens to float64, NaN where empty."""
    numbers = ["params", "active_params", "tokens_b"]
    for lang in languages:
        numbers += [f"{lang}_tokens_b_{end}" for end in ("low", "est", "high")]
    for column in numbers:
        given = table[column] if column in table.columns else pd.Series("", table.index)
        table[column] = [cells.number(path, f"model '{m}'", column, v) for m, v in given.items()]
        negative = table.index[table[column] < 0]
        if len(negative):
            raise ConfigError(f"{path}, model '{negative[0]}': column '{column}' is negative")
        large = table.index[table[column] > MOST_TOKENS_B]
        if len(large) and "tokens_b" in column:
            value = table.loc[large[0], column]
            raise ConfigError(
                f"{path}, model '{large[0]}': column '{column}' has {value:g}; the unit is 1e9 tokens: 80 for 80e9"
            )


def _labels(table: pd.DataFrame) -> list[str]:
    """Short names of the models: as given, or the last part of the id."""
    return [label or model.rsplit("/", 1)[-1] for model, label in zip(table.index, table["label"])]


def _bases(path: pathlib.Path, table: pd.DataFrame) -> None:
    """Raises ConfigError if a model descends, through its bases, from itself."""
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
            "counts as its base's family or as one of its own, which makes intervals too narrow if they are related."
        )
    for model, base in table["base"].items():
        if base in table.index and table.loc[base, "family"] != table.loc[model, "family"]:
            warnings.append(
                f"'{model}' is of another family than its base '{base}': bootstraps treat them as unrelated."
            )


def _active(path: pathlib.Path, table: pd.DataFrame) -> None:
    table["active_params"] = table["active_params"].fillna(table["params"])
    for model in table.index[table["active_params"] > table["params"]]:
        raise ConfigError(f"{path}, model '{model}': active_params is larger than params")
    for model in table.index[table["params"] < 1e4]:
        raise ConfigError(
            f"{path}, model '{model}': params is {table.loc[model, 'params']:g}; it is a number of parameters: 8e9"
        )


def _tagged(path: pathlib.Path, table: pd.DataFrame) -> pd.DataFrame:
    """The table with language tags in column names normalised."""
    names = {column: m and f"{tag(m[1])}_{m[2]}" for column in table.columns for m in [_BUDGET.fullmatch(column)]}
    tagged = table.rename(columns={column: name for column, name in names.items() if name})
    for name in tagged.columns[tagged.columns.duplicated()]:
        raise ConfigError(f"{path} has the column '{name}' under two names of its language: keep one")
    return tagged


def _budgets(path: pathlib.Path, table: pd.DataFrame, lang: str) -> bool:
    """Completes and checks one language's intervals; returns whether any model has one."""
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
