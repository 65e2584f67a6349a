"""Quoting of texts in prompts, and parsing of the citations in answers.

Passages, claims and answers are untrusted data. Each is quoted between marks derived from a hash of all quoted texts,
so that no text can contain its own mark and pass itself off as the prompt around it.
"""

import hashlib
import json
import re
from collections.abc import Sequence

_CITATION = re.compile(r"[ \t]?[\[［【]([1-9１-９]\d{0,2}(?:[ \t]?[,、，][ \t]?[1-9１-９]\d{0,2}){0,20})[\]］】]")


def mark_of(texts: Sequence[object]) -> str:
    """The mark to put around quotations of these texts: 12 hexadecimal digits in angle brackets."""
    return f"<{hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:12]}>"


def numbered(texts: Sequence[str], mark: str, places: Sequence[str] = ()) -> str:
    """Texts between marks, numbered from [1], each preceded by its number and source."""
    named = [f"[{number}] {place}".rstrip() for number, place in enumerate(places or [""] * len(texts), 1)]
    return "\n\n".join(f"{name}\n{mark}\n{text}\n{mark}" for name, text in zip(named, texts, strict=True))


def cited(text: str) -> tuple[int, ...]:
    """Numbers that a text cites as `[n]` or `[n, m]`, without repeats, in order of appearance.

    Brackets, commas and digits may be those of Chinese and Japanese typography: `［１］`, `【1、2】`.
    """
    found = (number for group in _CITATION.findall(text) for number in re.findall(r"\d+", group))
    return tuple(dict.fromkeys(int(number) for number in found))


def uncited(text: str) -> str:
    """A text without its citations."""
    return _CITATION.sub("", text).strip()
