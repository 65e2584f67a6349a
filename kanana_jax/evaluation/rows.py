"""Rows of evaluation sets: local files in their published formats (JSON, CSV, parquet) to the harness's data sets."""

import csv
import gzip
import io
import json
import pathlib
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from kanana_jax.data.read import jsonl, parquet
from kanana_jax.data.read.record import Broken
from kanana_jax.errors import ConfigError

if TYPE_CHECKING:
    import datasets

Rows = list[dict[str, Any]]


def read_rows(file: pathlib.Path, task: str, fields: Mapping[str, type]) -> Rows:
    """The rows of a file, checked for the fields that a task needs and their types.

    The format follows from the name: `.parquet`, `.csv`, `.tsv`, `.json` (a list, or a list under `data`), otherwise
    JSON lines; all but parquet may be followed by `.gz`. A CSV column that holds only integers becomes int.

    Args:
      task: name of the task, for messages.
      fields: required fields and their types.

    Raises:
      ConfigError: the file cannot be read, or a row lacks a field or has one of another type.
    """
    return [row for _, row in placed_rows(file, task, fields)]


def placed_rows(file: pathlib.Path, task: str, fields: Mapping[str, type]) -> list[tuple[str, dict[str, Any]]]:
    """Like `read_rows`, with the place of each row (file and line) for messages."""
    if not file.is_file():
        raise ConfigError(f"task '{task}' needs {file}, which is not there: see docs/evaluation.md for its fields")
    rows = [(place, _row(value, place, task, fields)) for place, value in _values(file, task)]
    if not rows:
        raise ConfigError(f"task '{task}': {file} is empty")
    return rows


def _values(file: pathlib.Path, task: str) -> Iterable[tuple[str, Any]]:
    """Place and value of each row."""
    kind = pathlib.Path(file.name.removesuffix(".gz")).suffix
    if kind == ".parquet":
        return parquet.rows(file)
    if kind in (".csv", ".tsv"):
        return _table(file, task, "\t" if kind == ".tsv" else ",")
    if kind == ".json":
        return _list(file, task)
    return _parsed(file, task)


def _parsed(file: pathlib.Path, task: str) -> Iterator[tuple[str, Any]]:
    for number, line in _lines(file, task):
        place = f"{file}, line {number}"
        try:
            yield place, jsonl.parse(line)
        except ValueError as error:
            raise _not_json(place, error) from error


def _not_json(place: str, error: ValueError) -> ConfigError:
    return ConfigError(f"{place}: not JSON ({error}){': save it as UTF-8' * isinstance(error, UnicodeDecodeError)}")


def _list(file: pathlib.Path, task: str) -> Iterator[tuple[str, Any]]:
    try:
        value = jsonl.parse(_bytes(file, task))
    except ValueError as error:
        raise _not_json(str(file), error) from error
    value = value.get("data") if isinstance(value, dict) else value
    if not isinstance(value, list):
        raise ConfigError(f"{file}: not a list of rows, nor an object with one under 'data'")
    yield from ((f"{file}, row {number}", row) for number, row in enumerate(value, 1))


def _table(file: pathlib.Path, task: str, delimiter: str) -> Iterator[tuple[str, Any]]:
    """Rows of a table, but for those that are wholly empty, as spreadsheets leave them; likewise columns at the end."""
    try:
        text = _bytes(file, task).decode("utf-8-sig")
        heads, *rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)) or [[]]
    except (UnicodeDecodeError, csv.Error) as error:
        reason = f"task '{task}': {file} is not a table of UTF-8 text ({error})"
        raise ConfigError(f"{reason}: save it as 'CSV UTF-8', or fetch it again") from error
    if other := next((c for c in ",;\t|" if len(heads) == 1 and c in heads[0]), None):
        found, wanted = ("tabs" if c == "\t" else f"'{c}'" for c in (other, delimiter))
        raise ConfigError(f"{file} is separated by {found}: save it with {wanted} between cells, as its ending says")
    numbered = [(number, row) for number, row in enumerate(rows, 1) if any(cell.strip() for cell in row)]
    while heads and not heads[-1].strip() and not any("".join(row[len(heads) - 1 :]).strip() for _, row in numbered):
        heads, numbered = heads[:-1], [(number, row[: len(heads) - 1]) for number, row in numbered]
    if twice := next((head for head in heads if heads.count(head) > 1), None):
        raise ConfigError(f"{file} has the column '{twice}' twice: keep one")
    for number, row in numbered:
        if len(row) != len(heads):
            raise ConfigError(f"{file}, row {number}: {len(row)} values for {len(heads)} columns: fetch it again")
    whole = [i for i in range(len(heads)) if all(_WHOLE.fullmatch(row[i]) for _, row in numbered)]
    for number, row in numbered:
        yield f"{file}, row {number}", {h: int(v) if i in whole else v for i, (h, v) in enumerate(zip(heads, row))}


_WHOLE = re.compile(r"-?(?:0|[1-9]\d{0,17})")


def _bytes(file: pathlib.Path, task: str) -> bytes:
    try:
        return gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"task '{task}': {file} cannot be read ({error}): write it again") from error


def _lines(file: pathlib.Path, task: str) -> Iterator[tuple[int, bytes]]:
    """Yields number and content of lines that are not blank; unlike `splitlines`, does not split at U+2028."""
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            for number, line in enumerate(jsonl.lines(stream), 1):
                if line is None:
                    raise ConfigError(f"{file}, line {number}: more than {jsonl.MAX_LINE} bytes")
                if line.strip():
                    yield number, line
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise ConfigError(f"task '{task}': {file} cannot be read ({error}): write it again") from error


def _row(row: Any, place: str, task: str, fields: Mapping[str, type]) -> dict[str, Any]:
    if isinstance(row, Broken):
        raise ConfigError(f"{place}: {row.reason}")
    if not isinstance(row, dict):
        raise ConfigError(f"{place}: not a JSON object, as each row of a data set must be")
    try:
        json.dumps(row, ensure_ascii=False, default=str).encode("utf-8")
    except UnicodeEncodeError as error:
        raise ConfigError(f"{place}: half of a surrogate pair (as \\ud83d alone), which is not valid text") from error
    for field, kind in fields.items():
        if field not in row:
            raise ConfigError(f"{place}: no field '{field}', which task '{task}' needs: see docs/evaluation.md")
        if not isinstance(row[field], kind):
            wanted = "text" if kind is str else "a whole number"
            raise ConfigError(f"{place}: field '{field}' must be {wanted}, which task '{task}' sorts its rows by")
    return row


def as_datasets(splits: dict[str, Rows], **_: Any) -> "datasets.DatasetDict":
    """The splits as a `DatasetDict`; a function with the signature that the harness expects, so it ignores keywords."""
    import datasets

    return datasets.DatasetDict({split: datasets.Dataset.from_dict(_columns(rows)) for split, rows in splits.items()})


def _columns(rows: Rows) -> dict[str, list[Any]]:
    """The columns of rows; lists of mixed types, which Arrow cannot hold (JEMHopQA's derivations), are omitted."""
    found = {}
    for key in dict.fromkeys(key for row in rows for key in row):
        values = [row.get(key) for row in rows]
        try:
            pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            continue
        found[key] = values
    return found
