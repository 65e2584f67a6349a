"""Plain text: UTF-8, or else the most plausible encoding; long files in pieces, so that none is in memory whole."""

import codecs
import itertools
import pathlib
from collections.abc import Iterator
from typing import Any

from kanana_jax.data.extract import extract
from kanana_jax.data.extract.files import read_unit
from kanana_jax.data.read import jsonl
from kanana_jax.data.read.record import Broken


def documents(file: pathlib.Path) -> Iterator[tuple[str, Any]]:
    """The text of a file; one too long for a record in pieces."""
    if file.stat().st_size > jsonl.MAX_LINE:
        yield from _pieces(file)
        return
    data = file.read_bytes()
    try:
        yield str(file), {"text": data.decode("utf-8-sig").replace("\r\n", "\n")}
    except UnicodeDecodeError:
        yield from read_unit(file, "text")


def _pieces(file: pathlib.Path) -> Iterator[tuple[str, Any]]:
    """A text too long for one record as documents `FILE#1` …, cut at blank lines or else at line ends."""
    size, held = jsonl.MAX_LINE // 4, b""
    with file.open("rb") as stream:
        for number in itertools.count(1):
            held += stream.read(size - len(held))
            if not held:
                return
            where = f"{file}#{number}"
            if number == 1 and held.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                yield where, Broken(where, f"text of more than {jsonl.MAX_LINE} bytes in UTF-16: convert it to UTF-8")
                return
            cut = _cut(held) if len(held) == size else len(held)
            piece, held = held[:cut], held[cut:]
            try:
                yield where, {"text": piece.decode("utf-8-sig").replace("\r\n", "\n")}
            except UnicodeDecodeError:
                try:
                    yield where, {"text": extract(piece, "text").text}
                except ValueError as error:
                    yield where, Broken(where, str(error))


def _cut(data: bytes) -> int:
    """Positions at which a piece of text may end: after a blank line, a line, or a UTF-8 character."""
    half = len(data) // 2
    for end in (b"\n\n", b"\n"):
        at = data.rfind(end, half)
        if at >= 0:
            return at + len(end)
    cut = len(data)
    while cut > half and data[cut - 1] & 0xC0 == 0x80:
        cut -= 1
    return cut - 1 if cut > half and data[cut - 1] >= 0xC0 else len(data)
