"""Untrusted JSON lines: bounded length, and only values that every reader interprets in the same way."""

import itertools
import json
import math
from collections.abc import Iterator
from typing import Any, Protocol

MAX_LINE = 32 << 20
MAX_DEPTH = 100
# A run of bytes this many lines long without a line end is not a file of lines, and reading it would take hours.
_MAX_SKIPPED = 64
_PIECE = 1 << 20


class Stream(Protocol):
    """Protocol of a binary file, perhaps a decompressed one, from which lines are read."""

    def readline(self, size: int, /) -> bytes: ...


def lines(stream: Stream, limit: int = MAX_LINE) -> Iterator[bytes | None]:
    """The lines of a stream, with their ends; None for a line of more than `limit` bytes, which is never held.

    Raises:
      ValueError: one line is longer than 64 times the limit.
    """
    for number in itertools.count(1):
        line = stream.readline(limit + 1)
        if not line:
            return
        if len(line) <= limit or line.endswith(b"\n"):
            yield line
            continue
        skipped = len(line)
        while (piece := stream.readline(_PIECE)) and not piece.endswith(b"\n"):
            skipped += len(piece)
            if skipped > _MAX_SKIPPED * limit:
                raise ValueError(f"line {number} does not end within {_MAX_SKIPPED * limit} bytes")
        yield None


def parse(data: bytes | str) -> Any:
    """A JSON value (RFC 8259) that means the same to every reader; a byte order mark before it is passed over.

    Editors of Windows write one, and files that were put together have them between lines, too.

    Raises:
      ValueError: not UTF-8, not JSON, a key given twice, NaN or a number beyond 64 bits, nested deeper than
        `MAX_DEPTH`.
    """
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
        value = _DECODER.decode(text.removeprefix("\ufeff"))
    except RecursionError:
        raise ValueError(f"nested deeper than {MAX_DEPTH}") from None
    check(value)
    return value


def check(value: Any) -> None:
    """Refuses values that JSON cannot represent, in nested lists and dicts.

    Raises:
      ValueError: as `parse`.
    """
    level, depth = [value], 0
    while level:
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below += item.values()
            elif isinstance(item, list):
                below += item
            elif isinstance(item, float):
                if not math.isfinite(item):
                    raise ValueError("a number is infinite or NaN")
            elif isinstance(item, int) and not -(2**63) <= item < 2**64:
                raise ValueError("a number has more than 64 bits")
        level, depth = below, depth + 1
        if depth > MAX_DEPTH + 1:
            raise ValueError(f"nested deeper than {MAX_DEPTH}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key '{next(key for key in keys if keys.count(key) > 1)[:40]}' is given twice")
    return made


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)
