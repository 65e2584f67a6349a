"""Rows of untrusted parquet files: the unpacked size of a file is known before it is unpacked.

A page of a few bytes may hold gigabytes, and a dictionary of one long value may fill a million rows. So the headers of
all pages are read first (`parquet.thrift`, struct PageHeader, in Thrift's compact protocol), dictionaries stay
dictionaries until rows are measured, and rows are made in portions of bounded size.
"""

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import IO, Any

import numpy as np

from kanana_jax.data.read.jsonl import MAX_LINE
from kanana_jax.data.read.record import Broken
from kanana_jax.errors import UserError

MAX_PAGE = 512 << 20
MAX_NESTED = 100_000_000  # values of a column of lists in one row group
_BATCH_BYTES, _BATCH_ROWS = 128 << 20, 1024
_HEADER, _MAX_HEADER = 1 << 12, 16 << 20
_DICTIONARY_PAGE, _TEXT, _REPEATED = 2, 6, 2  # PageType, Type BYTE_ARRAY, FieldRepetitionType
_VALUE = 32  # bytes of a small value of Python


def rows(file: pathlib.Path) -> Iterator[tuple[str, Any]]:
    """Place and value of each row; a row that is too long or does not match its type is a `Broken`.

    Raises:
      UserError: the file is damaged, or a page or a column of lists exceeds the limits.
    """
    import pyarrow
    from pyarrow import parquet

    row = 0
    try:
        # Not by the library's own view of the footer, which ends the process where a histogram is damaged.
        with file.open("rb") as stream:
            leaves, groups = _footer(stream)
            sizes = [_batch_rows(f"{file}, row group {g}", stream, leaves, found) for g, found in enumerate(groups, 1)]
        texts = {
            i for group in groups for i, column in enumerate(group) if leaves[i].kind == _TEXT and column.dictionary
        }
        # Not ahead of time: that would hold whole row groups.
        with parquet.ParquetFile(
            file, read_dictionary=[leaves[i].path for i in sorted(texts)], pre_buffer=False, buffer_size=1 << 20
        ) as table:
            for group, size in enumerate(sizes):
                for batch in table.iter_batches(batch_size=size, row_groups=[group], use_threads=False):
                    for value in _values(batch):
                        row += 1
                        where = f"{file}:{row}"
                        yield where, Broken(where, value) if isinstance(value, str) else value
    except (pyarrow.ArrowException, OSError, ValueError, MemoryError, OverflowError, LookupError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise UserError(f"{file} is truncated or not parquet ({reason}): fetch it again") from error


@dataclasses.dataclass(frozen=True)
class _Leaf:
    """A column: where in the schema, its physical type, its length if that is fixed, whether it is in a list."""

    path: str
    kind: int
    length: int
    nested: bool


@dataclasses.dataclass(frozen=True)
class _Column:
    """A column chunk: where it begins, its dictionary (0: none), and its bytes."""

    begin: int
    dictionary: int
    size: int


def _footer(stream: IO[bytes]) -> tuple[list[_Leaf], list[list[_Column]]]:
    """The columns, and the column chunks of each row group (`parquet.thrift`, struct FileMetaData).

    Raises:
      ValueError: no footer.
    """
    end = stream.seek(0, 2)
    stream.seek(max(end - 8, 0))
    tail = stream.read()
    size = int.from_bytes(tail[:4], "little")
    if tail[4:] != b"PAR1" or size > end - 8:
        raise ValueError("it has no footer")
    stream.seek(end - 8 - size)
    try:
        fields, _ = _struct(stream.read(size), 0, 0)
        leaves = _leaves(fields[2])
        groups = [[_column(column[3]) for column in group[1]] for group in fields[4]]
    except (IndexError, KeyError, TypeError, AttributeError):
        raise ValueError("its footer is invalid") from None
    if any(len(group) != len(leaves) for group in groups):
        raise ValueError("the columns of its footer differ from its schema")
    return leaves, groups


def _leaves(schema: list[dict[int, Any]]) -> list[_Leaf]:
    """The schema's leaves; it is written with each node before its children."""
    leaves, open_nodes = [], [(int(schema[0].get(5, 0)), "", False)]
    for element in schema[1:]:
        while open_nodes and open_nodes[-1][0] == 0:
            open_nodes.pop()
        left, above, inside = open_nodes.pop()
        open_nodes.append((left - 1, above, inside))
        path = above + element[4].decode("utf-8")
        nested = inside or element.get(3) == _REPEATED
        if element.get(5):
            open_nodes.append((int(element[5]), f"{path}.", nested))
        else:
            leaves.append(_Leaf(path, int(element.get(1, -1)), int(element.get(2, 0)), nested))
    return leaves


def _column(fields: dict[int, Any]) -> _Column:
    dictionary, data = int(fields.get(11) or 0), int(fields[9])
    return _Column(min(dictionary or data, data), dictionary, int(fields[7]))


def _batch_rows(where: str, stream: IO[bytes], leaves: list[_Leaf], columns: list[_Column]) -> int:
    """Number of rows of a row group that may be in memory at once.

    Raises:
      UserError: a page or column exceeds the limits.
    """
    a_row = 1
    for leaf, column in zip(leaves, columns):
        place = f"{where}, column '{leaf.path[:60]}'"
        pages = list(_pages(stream, column))
        longest = max((page.unpacked for page in pages), default=0)
        if longest > MAX_PAGE:
            raise UserError(f"{place}: a page unpacks to {longest} bytes, more than {MAX_PAGE}: write smaller pages")
        data = [page for page in pages if page.kind != _DICTIONARY_PAGE]
        values = sum(page.values for page in data)
        if leaf.nested and values > MAX_NESTED:
            raise UserError(f"{place}: lists of {values} values, more than {MAX_NESTED}: write smaller row groups")
        a_row += max((p.unpacked for p in data), default=0) if leaf.kind == _TEXT else max(leaf.length, 8)
    return int(np.clip(_BATCH_BYTES // a_row, 1, _BATCH_ROWS))


@dataclasses.dataclass(frozen=True)
class _Page:
    kind: int
    unpacked: int
    values: int


def _pages(stream: IO[bytes], column: _Column) -> Iterator[_Page]:
    """The pages of a column chunk by their headers.

    Raises:
      ValueError: an invalid header.
    """
    at, end = column.begin, column.begin + column.size
    if not 0 <= at <= end <= stream.seek(0, 2):
        raise ValueError("a column lies outside the file")
    while at < end:
        stream.seek(at)
        data = stream.read(_HEADER)
        try:
            fields, size = _struct(data, 0, 0)
        except IndexError:
            data += stream.read(_MAX_HEADER)
            try:
                fields, size = _struct(data, 0, 0)
            except IndexError:
                raise ValueError("a page's header is incomplete") from None
        unpacked, packed = fields.get(2), fields.get(3)
        if not isinstance(unpacked, int) or not isinstance(packed, int) or packed < 0 or unpacked < 0:
            raise ValueError("a page has no size")
        about = next((f for key in (5, 7, 8) if isinstance(f := fields.get(key), dict)), {})
        kind, values = fields.get(1), about.get(1)
        if not isinstance(kind, int) or (about and not isinstance(values, int)):
            raise ValueError("a page has no kind or no count")
        yield _Page(kind, unpacked, max(values or 0, 0))
        at += size + packed


def _struct(data: bytes, at: int, depth: int) -> tuple[dict[int, Any], int]:
    """The numbers, texts, structs and lists of a Thrift struct by field, and where it ends; all else is None.

    Raises:
      IndexError: the data end before the struct does.
      ValueError: the data are not a struct.
    """
    found: dict[int, Any] = {}
    field = 0
    while head := data[at]:
        at += 1
        field, at = (field + (head >> 4), at) if head >> 4 else _integer(data, at)
        found[field], at = _value(data, at, head & 15, depth + 1)
    return found, at + 1


def _value(data: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if depth > 16:
        raise ValueError("a page's header is nested too deeply")
    if kind in (1, 2):  # true, false
        return None, at
    if kind == 3:
        return None, at + 1
    if kind in (4, 5, 6):
        return _integer(data, at)
    if kind == 7:
        return None, at + 8
    if kind == 8:
        size, at = _varint(data, at)
        if size > len(data) - at:
            raise IndexError
        return data[at : at + size], at + size
    if kind in (9, 10):
        size, of = data[at] >> 4, data[at] & 15
        at += 1
        if size == 15:
            size, at = _varint(data, at)
        if size > len(data) - at:
            raise IndexError
        items = []
        for _ in range(size):
            item, at = (None, at + 1) if of in (1, 2) else _value(data, at, of, depth + 1)
            items.append(item)
        return items, at
    if kind == 12:
        return _struct(data, at, depth + 1)
    raise ValueError("a page's header is invalid")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        shift += 7
        at += 1
        if data[at - 1] < 128:
            return value, at
        if shift > 63:
            raise ValueError("a page's header has no number")


def _integer(data: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return (value >> 1) ^ -(value & 1), at


def _values(batch: Any) -> Iterator[dict[str, Any] | str]:
    """The rows of a batch, or the reason why one is invalid; few at once, by their sizes."""
    sizes = sum((_sizes(column) for column in batch.columns), np.zeros(batch.num_rows, np.int64))
    until = np.cumsum(sizes)
    at = 0
    while at < batch.num_rows:
        if sizes[at] > MAX_LINE:
            yield f"row has more than {MAX_LINE} bytes"
            at += 1
            continue
        end = max(int(np.searchsorted(until, until[at] - sizes[at] + MAX_LINE, "right")), at + 1)
        yield from _python(batch.slice(at, end - at))
        at = end


def _python(batch: Any) -> list[dict[str, Any] | str]:
    try:
        return batch.to_pylist()
    except (ValueError, OverflowError, RecursionError, ArithmeticError) as error:  # bad UTF-8, the year 300,000 …
        if batch.num_rows > 1:
            return [value for i in range(batch.num_rows) for value in _python(batch.slice(i, 1))]
        return [f"row does not match its types ({str(error)[:80]})"]


def _sizes(array: Any) -> np.ndarray:
    """Approximate bytes of each element as a Python object; int64 `[N]`."""
    import pyarrow
    from pyarrow import compute, types

    if isinstance(array, pyarrow.ExtensionArray):
        return _sizes(array.storage)
    kind = array.type
    if types.is_dictionary(kind):
        of = np.append(_sizes(array.dictionary), 0)
        return of[array.indices.fill_null(len(of) - 1).to_numpy(zero_copy_only=False)] + _VALUE
    if types.is_string(kind) or types.is_binary(kind) or types.is_large_string(kind) or types.is_large_binary(kind):
        lengths = compute.call_function("binary_length", [array])
        return lengths.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64) + _VALUE
    if types.is_fixed_size_binary(kind):
        return np.full(len(array), kind.byte_width + _VALUE)
    if types.is_struct(kind):
        return sum((_sizes(child) for child in array.flatten()), np.full(len(array), _VALUE))
    if types.is_list(kind) or types.is_large_list(kind) or types.is_map(kind):
        values = (
            pyarrow.StructArray.from_arrays([array.keys, array.items], ["k", "v"])
            if types.is_map(kind)
            else array.values
        )
        before = np.append(0, np.cumsum(_sizes(values)))
        return np.diff(before[array.offsets.to_numpy()]) + _VALUE
    if types.is_fixed_size_list(kind):
        return _sizes(array.values).reshape(len(array), -1).sum(axis=1) + _VALUE
    return np.full(len(array), _VALUE)
