"""Spans of a text that an edit cuts out."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# (start, end, rule), in code points of the normalised text.
Span = tuple[int, int, str]


def cut(text: str, spans: tuple[Span, ...]) -> str:
    """The text without the spans; a line that is cut entirely loses its newline too."""
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
      starts: starts in `text` of the pieces that were contiguous, int64, the first at 0.
      moved: distance between each piece's original position and its position in `text`.
    """

    text: str
    starts: np.ndarray
    moved: np.ndarray

    def back(self, spans: Sequence[Span]) -> tuple[Span, ...]:
        """Spans of `text` in positions of the original; one that crosses a gap becomes several."""
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
    """The text without ordered, disjoint spans; a line that is cut entirely loses its newline too."""
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
    """Spans of two rules in order; a span within an earlier one is left out."""
    spans: list[Span] = []
    for span in sorted((*first, *second), key=lambda s: (s[0], -s[1])):
        if not spans or span[0] >= spans[-1][1]:
            spans.append(span)
    return tuple(spans)
