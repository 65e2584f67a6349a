"""A run of digits with its surroundings, folded to ASCII: the input of the patterns for numbers."""

import re
import string
from typing import NamedTuple

from kanana_jax.data.filters.pii.labels import Label

NEAR = 10  # characters between a label and its number: "전화번호는 "
FAR = 22  # the same, if a name may come between: "입금 계좌는 신한은행 (예금주 홍길동) "
START, END = r"(?<![0-9])(?<![0-9][-_])", r"(?![0-9]|[-_][0-9])"

_TIME_BEFORE = re.compile(r"[0-9]{2}:[0-9]{2}:\Z")
_CODE_BEFORE = re.compile(r"(?<![A-Za-z])[A-Z]{1,4}[-_]\Z")

Candidate = tuple[str, int, int]  # kind, start, end


class Place(NamedTuple):
    """`text[start:end]` are digits and the characters between them."""

    text: str
    start: int
    end: int


def digits(piece: str) -> str:
    """Only the digits of a piece of text."""
    return "".join(c for c in piece if c.isdigit())


def alone(place: Place, start: int, end: int, label: Label) -> bool:
    """Returns whether a match is not part of something longer: a decimal, a hash, a file number."""
    text = place.text
    inside = text[start:end].lstrip("+(")
    joined = inside.isdigit()
    last, first = text[start - 1 : start], text[end : end + 1]
    if last == "제" or last == "第" or first == "호" or first == "号":
        return False
    if last in (".", ",", ":", "/") and text[start - 2 : start - 1].isdigit() and (joined or last == "." in inside):
        return False
    if _TIME_BEFORE.search(text, max(start - 6, 0), start) and " " in inside:
        return False
    if last == "." and joined and not text[start - 2 : start - 1].isalpha():
        return False
    if first == "." and text[end + 1 : end + 2].isdigit() and (joined or "." in inside):
        return False
    if last.isascii() and last.isalpha() and not (label.gap == 0 and label.name):
        word = text[:start].rstrip(string.ascii_letters)
        if joined or word[-1:].isdigit() or word[-1:] in ("-", "_", "="):
            return False
    in_code = joined and last in ("-", "_", "/", "=", "&") or _CODE_BEFORE.search(text, max(start - 6, 0), start)
    if in_code and label.gap > 2:
        return False
    if last == "$" or last == "#" and joined and not label.name:
        return False
    return not (joined and (first in ("_", "%") or first.isascii() and first.isalpha()))
