"""Quotations in prompts, and the citations that answers make of them.

Passages, claims and answers are data: each stands between marks that follow from all that is quoted, so that no text
can hold its own mark and pose as the prompt around it.
"""

import hashlib
import json
import re
from collections.abc import Sequence

_CITATION = re.compile(r"[ \t]?\[(\d{1,3})\]")


def mark_of(texts: Sequence[object]) -> str:
    """The mark around quotations of these texts."""
    return f"<{hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:12]}>"


def numbered(texts: Sequence[str], mark: str, places: Sequence[str] = ()) -> str:
    """Texts between marks, [1] first, each behind the place that it is from."""
    named = [f"[{number}] {place}".rstrip() for number, place in enumerate(places or [""] * len(texts), 1)]
    return "\n\n".join(f"{name}\n{mark}\n{text}\n{mark}" for name, text in zip(named, texts, strict=True))


def cited(text: str) -> tuple[int, ...]:
    """Numbers that a text cites, each once, in their order."""
    return tuple(dict.fromkeys(int(number) for number in _CITATION.findall(text)))


def uncited(text: str) -> str:
    """A text without its citations."""
    return _CITATION.sub("", text).strip()
