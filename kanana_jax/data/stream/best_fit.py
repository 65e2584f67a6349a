"""Best-fit packing: documents are cut only if they are longer than a row (Ding et al., arXiv:2404.10830, §3).

A window of documents is read, longer ones are cut into parts of one row; the parts fill the window's rows by
best-fit-decreasing. A row ends in padding if nothing fits into its rest. Rows come in the order of the
documents that begin them, so they are as mixed as the documents.
"""

import bisect
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kanana_jax.data.stream.encode import Example, Whole
from kanana_jax.data.stream.packing import Piece, Rows, to_row


class _Unit(NamedTuple):
    """A unit that is not split: a part of a document, or the sequences of a record that stays whole."""

    pieces: tuple[Piece, ...]
    length: int


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Bins by best-fit-decreasing: each item, the longest first, goes to the bin where it leaves the least room.

    Args:
      lengths: lengths of the items, none above `capacity`.

    Returns:
      Indices by bin, ascending; bins by their first item. Ties are in the items' order.
    """
    bins: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # (remaining room, bin), sorted
    for item in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        at = bisect.bisect_left(rooms, (lengths[item], 0))
        if at < len(rooms):
            room, into = rooms.pop(at)
            bins[into].append(item)
        else:
            room, into = capacity, len(bins)
            bins.append([item])
        bisect.insort(rooms, (room - lengths[item], into))
    return sorted(sorted(items) for items in bins)


class BestFitPacker:
    """Sequences by best fit, a window at a time. Add records, take rows.

    The position to resume from is `(record, rows)`: the first record of the window, and how many of the window's rows
    are taken.

    Attributes:
      window: tokens of a row and rows of a window; positions hold within packers of the same.
      taken: targets in the last row taken, whatever their weights.
    """

    def __init__(self, seq_len: int, whole: Whole, rows: int):
        self.seq_len, self.whole, self.rows, self.taken = seq_len, whole, rows, 0
        self.window = [seq_len, rows]
        self._units: list[_Unit] = []
        self._length = self._done = 0
        self._packed: list[list[int]] = []

    def add(self, key: int, examples: Sequence[Example], offset: int = 0) -> None:
        """Appends a record's sequences; on resuming, `offset` rows of the window that it begins are taken."""
        self._done = max(self._done, offset)
        pieces = [Piece(key, 0, np.asarray(e.tokens, np.int32), e.weights) for e in examples if len(e.tokens)]
        if self.whole is True:
            units = [tuple(pieces)] if pieces else []
        elif self.whole:
            units = [(piece,) for piece in pieces]
        else:
            # A part's last target is the next part's first input.
            units = [
                (piece.after(start),)
                for piece in pieces
                for start in range(0, max(len(piece.tokens) - 1, 1), self.seq_len)
            ]
        for unit in units:
            length = min(sum(len(piece.tokens) for piece in unit), self.seq_len + 1)
            self._units.append(_Unit(unit, length))
            self._length += length

    def ready(self) -> bool:
        """Returns whether there is a row to take, from a complete window."""
        return self._length >= self.rows * (self.seq_len + 1)

    def position(self) -> tuple[int, int] | None:
        """(first record of the window, rows taken of it), or None between two windows."""
        return (self._units[0].pieces[0].key, self._done) if self._units else None

    def take(self) -> Rows[np.ndarray]:
        """The next row; only when `ready()`."""
        if not self._packed:
            self._packed = best_fit([unit.length for unit in self._units], self.seq_len + 1)
        units = [self._units[i] for i in self._packed[self._done]]
        pieces = [piece.first(unit.length) for unit in units for piece in unit.pieces]
        row, self.taken = to_row(pieces, self.seq_len)
        self._done += 1
        if self._done == len(self._packed):
            self._units, self._packed, self._length, self._done = [], [], 0, 0
        return row
