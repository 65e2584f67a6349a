"""Concat-then-split packing: documents end to end, cut into rows of `T` tokens.

`inputs` and `targets` are two windows on one stream, one token apart, and rows overlap by that token:
every token of a document but its first (BOS) is a target exactly once. A document that is cut by the
end of a row goes on in the next as a segment of its own.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np


class Row(NamedTuple):
    """One packed row; all int32 `[T]` but `weights`, float32 `[T]`."""

    inputs: np.ndarray
    targets: np.ndarray
    segment_ids: np.ndarray
    positions: np.ndarray
    weights: np.ndarray


class Packer:
    """A token stream with document borders. Add documents, take rows.

    The position to resume from is `(document, offset)`: the document that holds the first token still
    needed, and how many of its tokens are used up.
    """

    def __init__(self, seq_len: int):
        self.seq_len = seq_len
        self._tokens: list[np.ndarray] = []
        self._keys: list[int] = []
        self._skipped: list[int] = []
        self._length = 0

    def add(self, key: int, tokens: np.ndarray, offset: int = 0) -> None:
        """Appends a document (or, on resuming, its rest after `offset` tokens)."""
        rest = np.asarray(tokens, np.int32)[offset:]
        if len(rest):
            self._tokens.append(rest)
            self._keys.append(key)
            self._skipped.append(offset)
            self._length += len(rest)

    def ready(self) -> bool:
        return self._length >= self.seq_len + 1

    def position(self) -> tuple[int, int] | None:
        """(key, offset) of the first token still needed, or None when nothing is left over."""
        return (self._keys[0], self._skipped[0]) if self._keys else None

    def take(self) -> Row:
        """The next full row; only when `ready()`."""
        row = _row(self._tokens, self.seq_len)
        left = self.seq_len  # the last target stays: it is the next row's first input
        while left:
            if len(self._tokens[0]) > left:
                self._tokens[0] = self._tokens[0][left:]
                self._skipped[0] += left
                left = 0
            else:
                left -= len(self._tokens[0])
                del self._tokens[0], self._keys[0], self._skipped[0]
        self._length -= self.seq_len
        return row

    def flush(self) -> Row | None:
        """The last, padded row (segment 0, weight 0 where nothing is), or None."""
        if self._length < 2:
            return None
        row = _row(self._tokens, self.seq_len)
        self._tokens, self._keys, self._skipped, self._length = [], [], [], 0
        return row


def _row(documents: Sequence[np.ndarray], T: int) -> Row:
    """The first `T + 1` tokens as a row; shorter streams are padded."""
    lengths, total = [], 0
    for document in documents:
        lengths.append(min(len(document), T + 1 - total))
        total += lengths[-1]
        if total == T + 1:
            break
    stream = np.zeros(T + 1, np.int32)
    stream[:total] = np.concatenate([d[:n] for d, n in zip(documents, lengths)])
    segments = np.zeros(T + 1, np.int32)
    segments[:total] = np.repeat(np.arange(1, len(lengths) + 1, dtype=np.int32), lengths)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    positions = np.zeros(T + 1, np.int32)
    positions[:total] = np.arange(total) - np.repeat(starts, lengths)
    weights = ((segments[1:] == segments[:-1]) & (segments[1:] > 0)).astype(np.float32)
    return Row(stream[:-1], stream[1:], segments[:-1], positions[:-1], weights)


def pack(documents: Iterable[np.ndarray], seq_len: int) -> Row:
    """All documents as rows `[rows, T]`, the last one padded; for evaluation."""
    packer, rows = Packer(seq_len), []
    for key, tokens in enumerate(documents):
        packer.add(key, tokens)
        while packer.ready():
            rows.append(packer.take())
    last = packer.flush()
    if last is not None:
        rows.append(last)
    if not rows:
        return Row(*(np.zeros((0, seq_len), t) for t in (np.int32,) * 4 + (np.float32,)))
    return Row(*(np.stack(parts) for parts in zip(*rows)))
