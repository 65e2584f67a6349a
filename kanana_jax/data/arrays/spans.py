"""Spans of a text: what an edit cuts out of it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# (start, end, rule), in code points of the normalised text.
Span = tuple[int, int, str]


def cut(text: str, spans: tuple[Span, ...]) -> str:
    """The text without the spans; a line that is cut whole goes with its newline."""
    pieces, at = [], 0
    for start, end, _ in spans:
        if start < at:
            continue
        pieces.append(text[at:start])
        whole = (start == 0 or text[start - 1] == "\n") and text[end : end + 1] == "\n"
        at = end + 1 if whole else end
    return "".join([*pieces, text[at:]]).strip()


class Rest(NamedTuple):
    """A text without some spans, and the original position of each remaining character.

    Attributes:
      starts: in `text`, of the pieces that stood together, int64, the first at 0.
      moved: how far each piece stood behind its place in `text`.
    """

    text: str
    starts: np.ndarray
    moved: np.ndarray

    def back(self, spans: Sequence[Span]) -> tuple[Span, ...]:
        """Spans of `text` in places of the whole; one that reaches over a gap becomes several."""
        found: list[Span] = []
        for start, end, rule in spans:
            while start < end:
                piece = int(np.searchsorted(self.starts, start, side="right")) - 1
                after = int(self.starts[piece + 1]) if piece + 1 < len(self.starts) else end
                by, stop = int(self.moved[piece]), min(end, after)
                found.append((start + by, stop + by, rule))
                start = stop
        return tuple(found)


def without(text: str, spans: Sequence[Span]) -> Rest:
    """The text without spans that are in order and apart; a line that goes whole goes with its newline."""
    pieces, starts, moved, at, size = [], [], [], 0, 0
    for start, end in [*((s, e) for s, e, _ in spans), (len(text), len(text))]:
        if start > at or not starts:
            pieces.append(text[at:start])
            starts.append(size)
            moved.append(at - size)
            size += start - at
        whole = (start == 0 or text[start - 1] == "\n") and text[end : end + 1] == "\n"
        at = end + 1 if whole else end
    return Rest("".join(pieces).rstrip("\n"), np.array(starts, np.int64), np.array(moved, np.int64))


def merged(first: Sequence[Span], second: Sequence[Span]) -> tuple[Span, ...]:
    """Spans of two rules in order; what lies in an earlier one is left out."""
    spans: list[Span] = []
    for span in sorted((*first, *second), key=lambda s: (s[0], -s[1])):
        if not spans or span[0] >= spans[-1][1]:
            spans.append(span)
    return tuple(spans)
