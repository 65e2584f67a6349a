"""Cells of .csv files, read strictly: every fault is one sentence with the file and the line."""

import csv
import pathlib
import re

import numpy as np
import pandas as pd

from kanana_jax.errors import ConfigError


def read_csv(path: pathlib.Path) -> pd.DataFrame:
    """All cells as text, indexed by line.

    A row of more or fewer cells than the header has is refused: its cells would be in the wrong columns.
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


def refuse_empty(path: pathlib.Path, table: pd.DataFrame, key: str) -> None:
    for line in table.index[table[key] == ""]:
        raise ConfigError(f"{path}, line {line}: the column '{key}' is empty")


def unique(path: pathlib.Path, table: pd.DataFrame, key: str) -> pd.DataFrame:
    if key not in table.columns:
        raise ConfigError(f"{path} has no column '{key}' (columns: {', '.join(table.columns)})")
    refuse_empty(path, table, key)
    double = table[key][table[key].duplicated()]
    if len(double):
        raise ConfigError(f"{path}, line {double.index[0]}: '{double.iloc[0]}' occurs twice; keep one row of it")
    return table.set_index(key)


def number(path: pathlib.Path, where: str, column: str, text: str) -> float:
    if text == "":
        return float("nan")
    try:
        value = float(text)
    except ValueError:
        value = float("inf")
    if not np.isfinite(value):
        raise ConfigError(f"{path}, {where}: '{text}' in column '{column}' is not a number; leave it empty if unknown")
    return value
