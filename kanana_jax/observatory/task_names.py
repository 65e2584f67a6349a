"""A task's language, chance level and range, inferred from its name when there is no task table."""

import csv
import functools
import importlib.resources
import re

from kanana_jax.languages import is_known, is_tag, tag

# Two-letter codes that mean a language at the end of a name. Codes that are also words or abbreviations (`it`, `no`,
# `is`, `cs`) are left out.
_ENDINGS = frozenset(("ko", "ja", "en", "zh", "de", "fr", "es", "pt", "ru", "ar", "hi", "vi", "th", "tr", "bn", "sw"))


def language(name: str) -> str:
    """The language of a task whose whole name is known, whose name ends in a language or begins with a known name.

    `kmmlu`, `kmmlu_law` and `ko_arc` are Korean, `mgsm_direct_ja` and `belebele_jpn_Jpan` Japanese; "" if unknown.
    """
    words = _words(name)
    whole = _known().get("_".join(words))
    if whole:
        return whole[0]
    parts = re.split(r"[^A-Za-z0-9]+", name.strip(" )]"))
    if len(parts) > 1:
        if len(parts[-1]) == 4 and is_tag("_".join(parts[-2:])) and is_known(parts[-2]):
            return tag(parts[-2])  # kor_Hang
        for part in (parts[-1], parts[0]):
            if part.lower() in _ENDINGS:
                return part.lower()
        if len(parts[-1]) > 4 and (named := _known().get(parts[-1].lower())):
            return named[0]
    begun = _begun(words)
    foreign = len(parts) > 1 and len(parts[-1]) == 2 and is_known(parts[-1])  # hellaswag_it: is it Italian?
    return begun[0] if begun and not foreign else ""


def chance(name: str) -> str:
    """The share of correct answers by guessing, as text for a table; "" if unknown."""
    found = _known().get("_".join(_words(name))) or _begun(_words(name))
    return found[1] if found else ""


def high(name: str) -> float | None:
    """The highest score of a task that is not a share or a percentage, such as 10 for MT-Bench; else None."""
    found = _known().get("_".join(_words(name))) or _begun(_words(name))
    return float(found[2]) if found and found[2] else None


def _begun(words: list[str]) -> tuple[str, str, str] | None:
    """The longest known name that these words begin with."""
    for end in range(len(words), 0, -1):
        if found := _known().get("_".join(words[:end])):
            return found
    return None


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[^a-z0-9]+", name.casefold()) if word]


@functools.cache
def _known() -> dict[str, tuple[str, str, str]]:
    """Name → language, chance level and highest score."""
    file = importlib.resources.files("kanana_jax.observatory") / "tables" / "known" / "tasks.csv"
    rows = csv.DictReader(file.read_text(encoding="utf-8").splitlines())
    return {row["task"]: (row["language"], row["chance"], row["high"]) for row in rows}
