"""Cells of .csv files, read strictly: every fault is one sentence with the file and the line."""

import csv
import io
import pathlib
import re
import unicodedata

import numpy as np
import pandas as pd

from kanana_jax.errors import ConfigError

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)  # float() takes 0_5, too
_INVISIBLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028\u2029\u2060\ufeff]")


def read_csv(path: pathlib.Path) -> pd.DataFrame:
    """All cells as text in Unicode's composed form (NFC), indexed by line; rows that are wholly empty are skipped.

    A row of more or fewer cells than the header has is refused: its cells would be in the wrong columns.
    """
    text = _text(path)
    first, _, rest = text.partition("\n")
    given = re.fullmatch("sep=(.)", first.strip())  # Excel's first line
    if given:
        text = rest
    header, rows, lines = [], [], []
    try:
        reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True)
        names = next(reader, [])
        separator = re.search("[;\t]", names[0]) if len(names) == 1 else None
        if separator or (given and given[1] != ","):
            _other_separator(path, separator[0] if separator else given[1] if given else "")
        header = [_cell(path, 1 + bool(given), name) for name in names]
        for row in reader:
            line = reader.line_num + bool(given)
            row = [_cell(path, line, cell) for cell in row]
            if not any(row):
                continue
            if len(row) != len(header):
                raise ConfigError(
                    f"{path}, line {line} has {len(row)} cells, the header {len(header)}: "
                    "separate by commas, and put a text that holds one in quotes"
                )
            rows.append(row)
            lines.append(line)
    except csv.Error as error:
        raise ConfigError(f"cannot read {path} as .csv: {error}") from error
    if not rows:
        raise ConfigError(f"{path} has no rows below its header")
    for number, name in enumerate(header, 1):
        if not name:
            raise ConfigError(f"{path}: column {number} has no name; name it, or remove the comma")
        if header.count(name) > 1:
            raise ConfigError(f"{path} has the column '{name}' twice: keep one")
    return pd.DataFrame(rows, index=lines, columns=header, dtype=str)


def _text(path: pathlib.Path) -> str:
    """The file as text; of any other encoding than UTF-8, which one it is likely to be."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist: give a .csv file") from None
    except IsADirectoryError:
        raise ConfigError(f"{path} is a folder: give the .csv file in it") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path} as UTF-8 .csv: {str(error).splitlines()[0]}") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 but probably {_encoding(data)}: save it as 'CSV UTF-8'") from None


def _encoding(data: bytes) -> str:
    """The likely encoding of bytes that are not UTF-8, by the letters that they make."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "UTF-16"
    for codec, name, letters in (
        ("cp949", "CP949 (Korean)", "[\uac00-\ud7a3]"),
        ("cp932", "Shift_JIS (Japanese)", "[\u3040-\u30ff\u4e00-\u9fff]"),
        ("gb18030", "GB18030 (Chinese)", "[\u4e00-\u9fff]"),
    ):
        try:
            other = re.sub("[\x00-\x7f]", "", data.decode(codec))
        except UnicodeDecodeError:
            continue
        words = re.findall(f"{letters}{{2,}}", data.decode(codec))  # an accent makes one strange letter, a name several
        if 2 * sum(map(len, words)) > len(other):
            return name
    return "of a Windows code page such as 1252"


def _cell(path: pathlib.Path, line: int, cell: str) -> str:
    """A cell without the spaces around it, composed; refuses what cannot be seen."""
    cell = unicodedata.normalize("NFC", cell.strip())
    hidden = _INVISIBLE.search(cell)
    if hidden:
        shown = _INVISIBLE.sub("\N{REPLACEMENT CHARACTER}", cell)
        what = "a line break" if hidden[0] in "\r\n" else f"the invisible character U+{ord(hidden[0]):04X}"
        raise ConfigError(f"{path}, line {line}: '{shown}' holds {what}: remove it")
    return cell


def _other_separator(path: pathlib.Path, separator: str) -> None:
    name = "tabs" if separator == "\t" else f"'{separator}'"
    raise ConfigError(
        f"{path} is not separated by commas but by {name}: save it with ',' between cells and '.' in numbers (a "
        "spreadsheet in Europe writes ';' and decimal commas: export it with the locale en-US)"
    )


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
    value = float(text) if _NUMBER.fullmatch(text) else float("inf")
    if not np.isfinite(value):
        comma = "; write decimals with '.'" if re.fullmatch(r"[+-]?\d+,\d+", text) else ""
        raise ConfigError(
            f"{path}, {where}: '{text}' in column '{column}' is not a number; leave it empty if unknown{comma}"
        )
    return value
