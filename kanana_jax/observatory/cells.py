"""Cells of .csv files, read strictly: every fault is one sentence with the file and the line."""

import csv
import io
import pathlib
import re
import unicodedata

import numpy as np
import pandas as pd

from kanana_jax.errors import ConfigError
from kanana_jax.observatory import encodings

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)  # float() takes 0_5, too
_SEPARATOR = re.compile(r'"?sep=(.)"?[ ,;\t]*(\r\n|\r|\n)', re.IGNORECASE)  # Excel's first line
# Unicode counts these as letters and marks, but they are invisible.
_BLANK = "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\uffa0\ufe00-\ufe0f\U000e0100-\U000e01ef"
_BLANKS = re.compile(f"[{_BLANK}]")
_STYLED = re.compile("(.)[\ufe0e\ufe0f]")
_COMMA = re.compile(r"[+-]?\d+,\d+", re.ASCII)
_POINT = re.compile(r"[+-]?\d*\.\d+", re.ASCII)
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}", re.ASCII)
_POINTED = re.compile(r"[+-]?[1-9]\d{0,2}(\.\d{3}){2,}(,\d+)?", re.ASCII)  # 1.234.567; 1.234 is a number
_GROUPED = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d+)?", re.ASCII)
_DATE = re.compile(r"\d{1,2}\.\d{1,2}\.(\d{4}|\d{2})|\d{4}([-/.])\d{1,2}\2\d{1,2}|\d{1,2}/\d{1,2}/\d{4}", re.ASCII)
_DATES = re.compile(r"(.*[ _])?date|released", re.IGNORECASE)  # the name of a column of dates
# An amount with its unit, as people write sizes and budgets: '8B', '15T', '2.5 trillion', '100억'.
_UNITS = {"k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12, "million": 1e6, "billion": 1e9, "trillion": 1e12, "만": 1e4,
          "억": 1e8, "조": 1e12, "万": 1e4, "億": 1e8, "兆": 1e12}  # fmt: skip
_AMOUNT = re.compile(rf"(\d+(?:\.\d+)?|[1-9]\d{{0,2}}(?:,\d{{3}})+) ?({'|'.join(_UNITS)})", re.ASCII | re.IGNORECASE)
_OTHERS = {"\t": "tabs", ";": "';'", "|": "'|'"}


def read_csv(path: pathlib.Path, warnings: list[str] | None = None) -> pd.DataFrame:
    """Reads all cells as text in Unicode's composed form (NFC), indexed by line number.

    Skips empty rows, and empty columns without a name at the right edge, as spreadsheets leave them. Cells may be
    separated by ';' and then use decimal commas, as European spreadsheets write them (`_points`).

    Args:
      warnings: receives sentences about an unusual encoding or separator.

    Raises:
      ConfigError: the file cannot be read, has no rows, has a row with more or fewer cells than the header (its cells
        would be in the wrong columns), or has unnamed or repeated columns.
    """
    text = encodings.text(path, warnings)
    given = _SEPARATOR.match(text)
    text, before = (text[given.end() :], 1) if given else (text, 0)
    delimiter = given[1] if given else _delimiter(text)
    if delimiter not in (",", ";"):
        _refuse_separator(path, delimiter)
    header, rows, lines, first = [], [], [], 0
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
        for row in reader:
            line = reader.line_num + before
            row = [_cell(path, line, cell) for cell in row]
            if not any(row):
                continue
            if not header:
                header, first = row, line
            elif len(row) != len(header):
                raise _uneven(path, (first, header), (line, row), delimiter)
            else:
                rows.append(row)
                lines.append(line)
    except csv.Error as error:
        raise ConfigError(f"cannot read {path} as .csv: {error}") from error
    if not rows:
        raise ConfigError(f"{path} has no rows below its header")
    while header and not header[-1] and not any(row[-1] for row in rows):
        header, rows = header[:-1], [row[:-1] for row in rows]
    if sum(map(bool, header)) == 1 < len(header):
        raise ConfigError(f"{path}, line {first} holds '{max(header)[:40]}' alone: if it is a title, remove it")
    for number_, name in enumerate(header, 1):
        if not name:
            raise ConfigError(f"{path}: column {number_} has no name; name it, or remove the comma")
        if header.count(name) > 1:
            raise ConfigError(f"{path} has the column '{name}' twice: keep one")
    table = pd.DataFrame(rows, index=lines, columns=header, dtype=str)
    return _points(path, table, warnings) if delimiter == ";" else table


_Row = tuple[int, list[str]]


def _uneven(path: pathlib.Path, head: _Row, found: _Row, delimiter: str) -> ConfigError:
    """The way out for a row of another number of cells than the header: a title, a note, or an unquoted separator."""
    (first, header), (line, row) = head, found
    named = "commas" if delimiter == "," else "';'"
    way = f"separate by {named}, and put a text that holds one in quotes"
    if sum(map(bool, header)) == 1 < len(row):
        way += f"; if line {first}, '{max(header)[:40]}', is a title, remove it"
    elif sum(map(bool, row)) == 1 < len(header):
        way += "; if this line is a note, remove it"
    return ConfigError(f"{path}, line {line} has {len(row)} cells, the header {len(header)}: {way}")


def _points(path: pathlib.Path, table: pd.DataFrame, warnings: list[str] | None) -> pd.DataFrame:
    """Converts the decimal commas of a table separated by ';' to points.

    Raises:
      ConfigError: it is unclear whether commas separate decimals or thousands, or some numbers have points.
    """
    numbers = table[[name for name in table.columns if not _DATES.fullmatch(name)]]  # 02.2024 is a month
    found = [(line, name, cell) for line, row in numbers.iterrows() for name, cell in row.items()]
    commas = [cell for cell in found if _COMMA.fullmatch(cell[2])]
    if commas:
        line, name, text = commas[0]
        where = f"{path}, line {line}: '{text}' in column '{name}'"
        pointed = next((cell for cell in found if _POINT.fullmatch(cell[2])), None)
        if pointed:
            raise ConfigError(
                f"{where} has a decimal comma, '{pointed[2]}' in line {pointed[0]} a point: write all decimals with '.'"
            )
        if all(_THOUSANDS.fullmatch(text) for *_, text in commas):
            raise ConfigError(
                f"{where} is {text.replace(',', '.')} or {text.replace(',', '')}: write decimals with '.' and "
                "thousands without a sign"
            )
        table = table.copy()
        table[numbers.columns] = numbers.map(lambda cell: cell.replace(",", ".") if _COMMA.fullmatch(cell) else cell)
    if warnings is not None:
        more = " with decimal commas" if commas else ""
        warnings.append(f"{path.name} is separated by ';'{more} and is read as such.")
    return table


def composed(text: str) -> str:
    """Normalises text for comparing names: NFC, white space collapsed and stripped, no variation selectors on symbols.

    A variation selector after a symbol only chooses whether it is shown in colour (`❤️`).
    """
    text = _STYLED.sub(_unstyled, unicodedata.normalize("NFC", text))
    return "".join(" " if unicodedata.category(c) == "Zs" else c for c in text).strip()


def _unstyled(found: re.Match[str]) -> str:
    return found[1] if unicodedata.category(found[1]).startswith("S") else found[0]


def _cell(path: pathlib.Path, line: int, cell: str) -> str:
    """A cell, normalised by `composed`; raises ConfigError if it contains invisible characters."""
    cell = composed(cell)
    hidden = [c for c in cell if _unseen(c)]
    if hidden:
        shown = "".join("\N{REPLACEMENT CHARACTER}" if _unseen(c) else c for c in cell)
        what = "a line break" if hidden[0] in "\r\n" else f"the invisible character U+{ord(hidden[0]):04X}"
        raise ConfigError(f"{path}, line {line}: '{shown}' holds {what}: remove it")
    return cell


def _unseen(character: str) -> bool:
    """Whether a character is invisible: control, format (zero-width), line separator, private use or blank letter."""
    return unicodedata.category(character) in ("Cc", "Cf", "Co", "Cn", "Cs", "Zl", "Zp") or bool(
        _BLANKS.match(character)
    )


def _delimiter(text: str) -> str:
    """The cell separator: the candidate that is most frequent, outside of quotes, in the first line that has any."""
    line = next((line for line in text.splitlines() if line.strip(" ,;\t|")), "")
    bare = re.sub('"[^"]*"', "", line)
    counts = {separator: bare.count(separator) for separator in (",", *_OTHERS)}
    return max(counts, key=lambda separator: counts[separator])


def _refuse_separator(path: pathlib.Path, separator: str) -> None:
    name = _OTHERS.get(separator, f"'{separator}'")
    raise ConfigError(f"{path} is separated by {name}: save it with ',' between cells and '.' in numbers")


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


def is_number(text: str) -> bool:
    """Whether a cell is a plain, finite number."""
    return bool(_NUMBER.fullmatch(text)) and bool(np.isfinite(float(text)))


def number(path: pathlib.Path, where: str, column: str, text: str) -> float:
    if text == "":
        return float("nan")
    if not is_number(text):
        problem = f"{path}, {where}: '{text}' in column '{column}' is not a number"
        raise ConfigError(f"{problem}; leave it empty if unknown{way_out(text, column)}")
    return float(text)


def way_out(text: str, column: str = "") -> str:
    """A hint on how to write the number that was probably meant; empty if there is none."""
    foreign = next((c for c in text if not c.isascii()), "")
    if found := _AMOUNT.fullmatch(text):
        value = float(found[1].replace(",", "")) * _UNITS[found[2].lower()]
        told = f"{value / 1e9:.9g}, the unit is 1e9" if "tokens_b" in column else f"{value:.9g}"
        return f"; write {re.sub('e[+]0*', 'e', told)}"
    if _THOUSANDS.fullmatch(text):
        return f"; write {text.replace(',', '.')} or {text.replace(',', '')}, whichever is meant"
    if _GROUPED.fullmatch(text):
        return "; write thousands without ','"
    if _DATE.fullmatch(text):
        told = "it looks like a date, which spreadsheets make of some numbers"
        return f"; {told}: write the number, or name a column of dates 'date'"
    if _POINTED.fullmatch(text):
        return "; write thousands without '.'"
    if re.fullmatch(r"[+-]?\d+,\d+", text, re.ASCII):
        return "; write decimals with '.'"
    if foreign and any(c.isdecimal() for c in text):
        named = unicodedata.name(foreign, "").lower()
        return f"; it holds U+{ord(foreign):04X} ({named}): write it with 0-9, '.' and '-'"
    if "_" in text and is_number(text.replace("_", "")):
        return "; write it without '_'"
    if text.endswith("%") and "tokens_b" not in column and is_number(share := text[:-1].strip().replace(",", ".")):
        return f"; write a share: {float(share) / 100:g}"
    return ""
