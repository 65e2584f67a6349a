"""A strict check of fastText's model files, since the library trusts every number in them.

The library takes sizes from the file without checking its length: a truncated file gives all texts the same score, and
a malicious file can write to arbitrary memory. Layout: fastText 0.9.2, `FastText::saveModel` and the functions that it
calls; little-endian.
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
_MAX_LENGTH = 1000  # of word and character n-grams
_CENTROIDS = 256
_BLOCK = 1 << 22


@dataclasses.dataclass(frozen=True)
class Header:
    """The header of a model file.

    Attributes:
      dim: width of the vectors.
      buckets: number of rows for n-grams.
      words: number of words in the dictionary.
      labels: the labels in the dictionary.
    """

    dim: int
    buckets: int
    words: int
    labels: tuple[str, ...]


class _Reader:
    """Reads from a mapped file; a read beyond its end raises ValueError."""

    def __init__(self, data: mmap.mmap):
        self._data, self._at = data, 0

    def numbers(self, layout: str) -> tuple:
        return struct.unpack(f"<{layout}", self.take(struct.calcsize(f"<{layout}")))

    def take(self, count: int) -> bytes:
        self.room(count)
        self._at += count
        return self._data[self._at - count : self._at]

    def room(self, count: int) -> None:
        """Raises ValueError if fewer than `count` bytes are left."""
        if not 0 <= count <= self.left():
            raise ValueError(f"it ends after {len(self._data)} bytes, before the end that its header gives")

    def left(self) -> int:
        return len(self._data) - self._at

    def word(self) -> bytes:
        """Reads a zero-terminated string."""
        end = self._data.find(b"\0", self._at, self._at + _MAX_WORD)
        if end < 0:
            raise ValueError("a word of its dictionary has no end")
        word = self._data[self._at : end]
        self._at = end + 1
        return word

    def floats(self, count: int) -> None:
        """Skips `count` floats, which must be finite."""
        self.room(4 * count)
        for start in range(0, count, _BLOCK):
            if not np.isfinite(np.frombuffer(self.take(4 * min(_BLOCK, count - start)), "<f4")).all():
                raise ValueError("its weights hold NaN or infinite numbers")


def check(path: pathlib.Path) -> Header:
    """Checks a classification model from beginning to end; a file that passes is safe to load with the library.

    Raises:
      ValueError: the file is not such a model, or is damaged; the message says why.
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
    """Returns the number of words, the labels, and the number of rows that the input matrix must have."""
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
        # Words precede labels; the library's Huffman tree fails on counts from 1e15 on.
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
    """Checks a product quantiser and returns its number of codes per row."""
    found, parts, width, last = reader.numbers("4i")
    whole = found == dim and width >= 1 and parts == math.ceil(dim / width) and last == dim - (parts - 1) * width
    if not whole:
        raise ValueError("its quantiser does not fit its vectors")
    reader.floats(dim * _CENTROIDS)
    return parts
