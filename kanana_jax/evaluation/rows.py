"""Rows of evaluation sets: local JSON lines in, the harness's data sets out."""

import gzip
import json
import pathlib
import zlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from kanana_jax.data.read import jsonl
from kanana_jax.errors import ConfigError

if TYPE_CHECKING:
    import datasets

Rows = list[dict[str, Any]]


def read_rows(file: pathlib.Path, task: str, fields: Mapping[str, type]) -> Rows:
    """The rows of a file, each with the fields that a task needs, of the types that it needs.

    Raises:
      ConfigError: the file cannot be read, or a line is no such row.
    """
    if not file.is_file():
        raise ConfigError(f"task '{task}' needs {file}, which is not there: see docs/evaluation.md for its fields")
    rows = [_row(line, f"{file}, line {number}", task, fields) for number, line in _lines(file, task)]
    if not rows:
        raise ConfigError(f"task '{task}': {file} is empty")
    return rows


def _lines(file: pathlib.Path, task: str) -> Iterator[tuple[int, bytes]]:
    """Numbers and lines that are not blank. (Not by `splitlines`: questions may hold U+2028 and its like.)"""
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            for number, line in enumerate(jsonl.lines(stream), 1):
                if line is None:
                    raise ConfigError(f"{file}, line {number}: more than {jsonl.MAX_LINE} bytes")
                if line.strip():
                    yield number, line
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise ConfigError(f"task '{task}': {file} cannot be read ({error}): write it anew") from error


def _row(line: bytes, place: str, task: str, fields: Mapping[str, type]) -> dict[str, Any]:
    try:
        row = jsonl.parse(line)
        if b"\\ud" in line.lower():
            json.dumps(row, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise ConfigError(f"{place}: half of a surrogate pair (as \\ud83d alone), which is no text") from error
    except ValueError as error:
        raise ConfigError(f"{place}: not JSON ({error})") from error
    if not isinstance(row, dict):
        raise ConfigError(f"{place}: not a JSON object, as each row of a data set must be")
    for field, kind in fields.items():
        if field not in row:
            raise ConfigError(f"{place}: no field '{field}', which task '{task}' needs: see docs/evaluation.md")
        if not isinstance(row[field], kind):
            told = "text" if kind is str else "a whole number"
            raise ConfigError(f"{place}: field '{field}' must be {told}, which task '{task}' sorts its rows by")
    return row


def as_datasets(splits: dict[str, Rows], **_: Any) -> "datasets.DatasetDict":
    """What the harness asks a task's function for: its keyword arguments say nothing here."""
    import datasets

    return datasets.DatasetDict({split: datasets.Dataset.from_dict(_columns(rows)) for split, rows in splits.items()})


def _columns(rows: Rows) -> dict[str, list[Any]]:
    """By field; those with lists of unlike things (JEMHopQA's derivations), which Arrow cannot hold, are left out."""
    found = {}
    for key in dict.fromkeys(key for row in rows for key in row):
        values = [row.get(key) for row in rows]
        try:
            pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            continue
        found[key] = values
    return found
