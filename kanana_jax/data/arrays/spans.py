"""Spans of a text: what an edit cuts out of it."""

from collections.abc import Sequence

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


def merged(first: Sequence[Span], second: Sequence[Span]) -> tuple[Span, ...]:
    """Spans of two rules in order; what lies in an earlier one is left out."""
    spans: list[Span] = []
    for span in sorted((*first, *second), key=lambda s: (s[0], -s[1])):
        if not spans or span[0] >= spans[-1][1]:
            spans.append(span)
    return tuple(spans)
