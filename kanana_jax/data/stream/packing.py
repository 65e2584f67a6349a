"""Packing: sequences of tokens end to end in rows of `T`.

Two ways. **Concat-then-split** (documents): `inputs` and `targets` are two windows on one stream, one token apart, and
rows overlap by that token, so that every token of a document but its first (BOS) is a target exactly once; a document
cut by the end of a row continues in the next as a segment of its own. **Whole** (conversations, pairs): the sequences
of a record stay together in one row; a record that does not fit into the rest of a row starts the next one. **Each**
(conversations learnt answer by answer): the same for each single sequence.
`best_fit` has a third, which reads ahead.
"""

from collections.abc import Iterable, Sequence
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from kanana_jax.data.stream.encode import Example, Whole

Array = TypeVar("Array")


class Rows(NamedTuple, Generic[Array]):
    """Packed rows, `[T]` for one or `[B, T]` for a batch, on the host or on devices.

    Attributes:
      inputs, targets: int32 token ids.
      segment_ids: int32, 1, 2 … in each row; 0 is padding.
      positions: int32, within the segment's part in this row.
      weights: float32, of each target's loss; 0 where a target belongs to another segment, or to padding.
      source: int32 `[]` or `[B]`: the index of the source that a row comes from.
    """

    inputs: Array
    targets: Array
    segment_ids: Array
    positions: Array
    weights: Array
    source: Array


def shapes(batch_size: int, seq_len: int) -> Rows[np.ndarray]:
    """A batch's shapes and dtypes, as arrays that use no memory."""
    row = Rows(*(np.zeros((), kind) for kind in (*(np.int32,) * 4, np.float32, np.int32)))
    return Rows(*(np.broadcast_to(x, (batch_size, seq_len)) for x in row[:-1]), np.broadcast_to(row[-1], (batch_size,)))


class Piece(NamedTuple):
    """The rest of a sequence in the packer: its record, the record's tokens before it, its own, weights as targets."""

    key: int
    skipped: int
    tokens: np.ndarray
    weights: np.ndarray | None

    def after(self, count: int) -> "Piece":
        weights = None if self.weights is None else self.weights[count:]
        return Piece(self.key, self.skipped + count, self.tokens[count:], weights)

    def first(self, count: int) -> "Piece":
        weights = None if self.weights is None else self.weights[:count]
        return Piece(self.key, self.skipped, self.tokens[:count], weights)


class Packer:
    """Sequences with their borders. Add records, take rows.

    The position to resume from is `(record, offset)`: the record that holds the first token still needed, and how many
    of its tokens are used up (0 where records stay whole).

    Attributes:
      taken: targets in the last row taken, whatever their weights.
      window: None: positions hold for rows of any length.
    """

    window: list[int] | None = None

    def __init__(self, seq_len: int, whole: Whole = False):
        self.seq_len, self.whole, self.taken = seq_len, whole, 0
        self._pieces: list[Piece] = []
        self._length = 0

    def add(self, key: int, examples: Sequence[Example], offset: int = 0) -> None:
        """Appends a record's sequences (or, on resuming, the rest after `offset` tokens)."""
        before = 0
        for example in examples:
            piece = Piece(key, before, np.asarray(example.tokens, np.int32), example.weights)
            before += len(piece.tokens)
            piece = piece.after(max(offset - piece.skipped, 0))
            if len(piece.tokens):
                self._pieces.append(piece)
                self._length += len(piece.tokens)

    def ready(self) -> bool:
        """Returns whether the records added fill a row."""
        if not self.whole:
            return self._length >= self.seq_len + 1
        return bool(self._pieces) and self._units(self.seq_len + 1) < len(self._pieces)

    def position(self) -> tuple[int, int] | None:
        """(key, offset) of the first token still needed, or None when nothing is left over."""
        return (self._pieces[0].key, self._pieces[0].skipped) if self._pieces else None

    def take(self) -> Rows[np.ndarray]:
        """The next row; only when `ready()`."""
        if self.whole:
            return self._take_whole()
        row, self.taken = to_row(self._pieces, self.seq_len)
        left = self.seq_len  # keep the last target: it is the next row's first input
        self._length -= left
        while left:
            first = self._pieces[0]
            if len(first.tokens) > left:
                self._pieces[0], left = first.after(left), 0
            else:
                left -= len(first.tokens)
                del self._pieces[0]
        return row

    def _units(self, room: int) -> int:
        """Number of pieces (of whole records, if they stay together) that fit into a row; at least the first unit's."""
        end, total = 0, 0
        while end < len(self._pieces):
            stop, unit = end, (len(self._pieces) if self.whole is True else end + 1)
            while stop < unit and self._pieces[stop].key == self._pieces[end].key:
                total += len(self._pieces[stop].tokens)
                stop += 1
            if total > room and end:
                break
            end = stop
        return end

    def _take_whole(self) -> Rows[np.ndarray]:
        count = self._units(self.seq_len + 1)
        # A record that is longer than a row is cut at the row's end.
        row, self.taken = to_row(self._pieces[:count], self.seq_len)
        self._length -= sum(len(piece.tokens) for piece in self._pieces[:count])
        del self._pieces[:count]
        return row

    def flush(self) -> Rows[np.ndarray] | None:
        """The last, padded row, or None."""
        if self._length < 2:
            return None
        row, self.taken = to_row(self._pieces, self.seq_len)
        self._pieces, self._length = [], 0
        return row


def to_row(pieces: Sequence[Piece], T: int) -> tuple[Rows[np.ndarray], int]:
    """The first `T + 1` tokens as a row (shorter streams are padded), and its number of targets."""
    lengths, total = [], 0
    for piece in pieces:
        lengths.append(min(len(piece.tokens), T + 1 - total))
        total += lengths[-1]
        if total == T + 1:
            break
    stream = np.zeros(T + 1, np.int32)
    stream[:total] = np.concatenate([p.tokens[:n] for p, n in zip(pieces, lengths)])
    segments = np.zeros(T + 1, np.int32)
    segments[:total] = np.repeat(np.arange(1, len(lengths) + 1, dtype=np.int32), lengths)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    positions = np.zeros(T + 1, np.int32)
    positions[:total] = np.arange(total) - np.repeat(starts, lengths)
    inside = (segments[1:] == segments[:-1]) & (segments[1:] > 0)
    weights = inside.astype(np.float32)
    if any(piece.weights is not None for piece in pieces[: len(lengths)]):
        own = np.ones(T + 1, np.float32)
        parts = (np.ones(n) if p.weights is None else p.weights[:n] for p, n in zip(pieces, lengths))
        own[:total] = np.concatenate(list(parts))
        weights *= own[1:]
    row = Rows(stream[:-1], stream[1:], segments[:-1], positions[:-1], weights, np.zeros((), np.int32))
    return row, int(inside.sum())


def pack(records: Iterable[Sequence[Example]], seq_len: int, whole: Whole = False) -> Rows[np.ndarray]:
    """All records as rows `[rows, T]`, the last one padded; for evaluation."""
    packer, rows = Packer(seq_len, whole), []
    for key, examples in enumerate(records):
        packer.add(key, examples)
        while packer.ready():
            rows.append(packer.take())
    last = packer.flush()
    if last is not None:
        rows.append(last)
    if not rows:
        return Rows(*(np.array(x[:0]) for x in shapes(1, seq_len)))
    return Rows(*(np.stack(parts) for parts in zip(*rows)))
