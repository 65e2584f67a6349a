"""A strict reader of fastText's model files, of which the library trusts every number.

The library takes sizes out of the file without a look at its length: a cut file gives the same score to all texts, and
a made one writes where it likes. Layout: fastText 0.9.2, `FastText::saveModel` and what it calls; little-endian.
"""

import dataclasses
import math
import mmap
import pathlib
import struct

import numpy as np

MAGIC, VERSIONS = 793712314, (11, 12)
_SUPERVISED = 3
_MAX_WORD = 1 << 16
_MAX_LENGTH = 1000  # of n-grams
_CENTROIDS = 256
_BLOCK = 1 << 22


@dataclasses.dataclass(frozen=True)
class Header:
    """Header of a model file.

    Attributes:
      dim: of its vectors.
      buckets: rows for n-grams.
      words, labels: entries of its dictionary.
    """

    dim: int
    buckets: int
    words: int
    labels: tuple[str, ...]


class _Reader:
    """A file whose every read must succeed."""

    def __init__(self, data: mmap.mmap):
        self._data, self._at = data, 0

    def numbers(self, layout: str) -> tuple:
        return struct.unpack(f"<{layout}", self.take(struct.calcsize(f"<{layout}")))

    def take(self, count: int) -> bytes:
        self.room(count)
        self._at += count
        return self._data[self._at - count : self._at]

    def room(self, count: int) -> None:
        """Raises: ValueError: fewer bytes are left."""
        if not 0 <= count <= self.left():
            raise ValueError(f"it ends after {len(self._data)} bytes, before the end that its header gives")

    def left(self) -> int:
        return len(self._data) - self._at

    def word(self) -> bytes:
        """A text up to its zero byte."""
        end = self._data.find(b"\0", self._at, self._at + _MAX_WORD)
        if end < 0:
            raise ValueError("a word of its dictionary has no end")
        word = self._data[self._at : end]
        self._at = end + 1
        return word

    def floats(self, count: int) -> None:
        """Passes over floats that must be numbers."""
        self.room(4 * count)
        for start in range(0, count, _BLOCK):
            if not np.isfinite(np.frombuffer(self.take(4 * min(_BLOCK, count - start)), "<f4")).all():
                raise ValueError("its weights hold NaN or infinite numbers")


def check(path: pathlib.Path) -> Header:
    """Reads a model of classes from end to end; what passes can be given to the library.

    Raises:
      ValueError: why it is none, or no whole one.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        reader = _Reader(data)
        if reader.left() < 8 or reader.numbers("i") != (MAGIC,):
            raise ValueError("it does not begin as fastText's files do")
        (version,) = reader.numbers("i")
        if version not in VERSIONS:
            raise ValueError(f"its version is {version}; only 11 and 12 are supported")
        dim, _, _, _, _, ngrams, loss, model, buckets, shortest, longest, _ = reader.numbers("12i")
        reader.numbers("d")
        if model != _SUPERVISED:
            raise ValueError("it is a model of words, not of classes")
        lengths = 1 <= ngrams <= _MAX_LENGTH and 0 <= shortest <= _MAX_LENGTH and 0 <= longest <= _MAX_LENGTH
        if dim < 1 or buckets < 0 or loss not in (1, 2, 3, 4) or not lengths:
            raise ValueError("its settings are out of their ranges")
        if buckets == 0 and (ngrams > 1 or longest > 0):
            raise ValueError("it has n-grams but no rows for them")
        words, labels, rows = _dictionary(reader, buckets)
        quantised = reader.numbers("B")[0]
        _matrix(reader, quantised, rows, dim, "input")
        output = reader.numbers("B")[0]
        if quantised > 1 or output > 1 or (output and not quantised):
            raise ValueError("its quantisation flags are invalid")
        _matrix(reader, output, len(labels), dim, "output")
        if reader.left():
            raise ValueError(f"{reader.left()} bytes follow its end")
    return Header(dim, buckets, words, labels)


def _dictionary(reader: _Reader, buckets: int) -> tuple[int, tuple[str, ...], int]:
    """Words, labels, and the rows that the input matrix must have."""
    size, words, labels, _, pruned = reader.numbers("iiiqq")
    if min(size, words) < 0 or labels < 1 or words + labels != size:
        raise ValueError(f"its dictionary has {size} entries for {words} words and {labels} labels")
    if pruned < -1:
        raise ValueError(f"its dictionary is pruned to {pruned} n-grams")
    reader.room(10 * size)
    names, total = [], 0
    for i in range(size):
        word = reader.word()
        count, kind = reader.numbers("qb")
        total += count
        # Words first; the library's tree of classes breaks on counts from 1e15.
        if kind != (i >= words) or count < 0 or total >= 1e15:
            raise ValueError(f"entry {i + 1} of its dictionary is neither a word nor a label")
        if kind:
            try:
                names.append(word.decode("utf-8"))
            except UnicodeDecodeError as error:
                raise ValueError("a label is not UTF-8") from error
    if pruned < 0:
        return words, tuple(names), words + buckets
    places = np.frombuffer(reader.take(8 * pruned), "<i4").reshape(-1, 2)[:, 1]
    if len(places) and not (places.min() >= 0 and places.max() < pruned):
        raise ValueError("its pruned n-grams lie outside its rows")
    return words, tuple(names), words + pruned


def _matrix(reader: _Reader, quantised: int, rows: int, dim: int, name: str) -> None:
    norms = reader.numbers("B")[0] if quantised else 0
    found = reader.numbers("qq")
    if found != (rows, dim):
        raise ValueError(f"its {name} matrix is {found[0]} × {found[1]}, its header says {rows} × {dim}")
    if not quantised:
        reader.floats(rows * dim)
        return
    (codes,) = reader.numbers("i")
    reader.take(codes)
    parts = _quantiser(reader, dim)
    if codes != rows * parts or norms > 1:
        raise ValueError(f"its {name} matrix has {codes} codes for {rows} rows of {parts}")
    if norms:
        reader.take(rows)
        _quantiser(reader, 1)


def _quantiser(reader: _Reader, dim: int) -> int:
    """Parts of a row of a product quantiser."""
    found, parts, width, last = reader.numbers("4i")
    whole = found == dim and width >= 1 and parts == math.ceil(dim / width) and last == dim - (parts - 1) * width
    if not whole:
        raise ValueError("its quantiser does not fit its vectors")
    reader.floats(dim * _CENTROIDS)
    return parts
