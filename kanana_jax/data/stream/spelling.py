"""Rows of tokens as text again, marked where it carries loss, to inspect what a stage is trained on."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from kanana_jax.data.stream.packing import Rows
from kanana_jax.data.tokens.tokenizer import Tokenizer, continuation


@dataclasses.dataclass(frozen=True)
class Part:
    """A run of text of one weight; `weight` 0: it is only read, nothing is learnt from it."""

    text: str
    weight: float


@dataclasses.dataclass(frozen=True)
class Segment:
    """A sequence in a row, or its part in that row.

    Attributes:
      tokens: number of tokens read.
      trained: number of them (and of the token after them) that carry loss.
    """

    tokens: int
    trained: int
    parts: tuple[Part, ...]


def segments(rows: Rows[np.ndarray], row: int, tokenizer: Tokenizer) -> list[Segment]:
    """The segments of one row of a batch, in order; padding is left out.

    Special tokens are spelt out, as they are in a template. A control character is written as its escape, since a text
    may hold commands for a terminal.
    """
    inputs, targets, ids, weights = (x[row] for x in (rows.inputs, rows.targets, rows.segment_ids, rows.weights))
    specials = {tokenizer.token_id(piece): piece for piece in tokenizer.symbols}
    found = []
    for number in range(1, int(ids.max(initial=0)) + 1):
        at = np.flatnonzero(ids == number)
        tokens, own = inputs[at].tolist(), [0.0, *weights[at].tolist()]
        # A row's last target is not an input; after any other segment comes the first token of the next one.
        if own[-1] > 0:
            tokens.append(int(targets[at[-1]]))
        parts = tuple(_parts(tokens, own[: len(tokens)], specials, tokenizer))
        found.append(Segment(len(at), int(np.count_nonzero(own)), parts))
    return found


def _parts(tokens: list[int], weights: list[float], specials: dict[int | None, str], tokenizer: Tokenizer):
    """Runs of tokens of one weight."""
    text, begin = "", 0
    for end in range(1, len(tokens) + 1):
        over = end == len(tokens) or weights[end] != weights[begin]
        if not over:
            continue
        for piece in _spelt(tokens, begin, end, specials, tokenizer):
            text += piece
        yield Part(_printable(text), weights[begin])
        text, begin = "", end


def _spelt(
    tokens: list[int], begin: int, end: int, specials: dict[int | None, str], tokenizer: Tokenizer
) -> Iterator[str]:
    """The text of tokens `begin` to `end`, which may follow others."""
    first = begin
    for place in range(begin, end + 1):
        if place == end or tokens[place] in specials:
            if first < place:
                yield continuation(tokenizer, tokens[:first], tokens[first:place])
            if place < end:
                yield specials[tokens[place]]
            first = place + 1


def _printable(text: str) -> str:
    return "".join(c if c in "\n\t" or c.isprintable() else c.encode("unicode_escape").decode() for c in text)
