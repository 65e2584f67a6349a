"""The commands that the documents show, taken from their text; `test_commands.py` parses them, `more/` runs them."""

import dataclasses
import pathlib
import re
import shlex
from collections.abc import Iterator

from conftest import ROOT

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Docstrings of configs and scripts show how they are called.
SCRIPTS = [f for top in ("configs", "launch", "benchmarks") for f in sorted((ROOT / top).rglob("*.py"))]
_FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.M | re.S)
_SHELLS = ("", "sh", "bash", "text")
_INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_OURS = re.compile(r"(kanana|python (?:benchmarks|launch)/[\w/]+\.py|make)(?= |$)")
_PIECES = re.compile(r"\s(?:&&|\|\||;|\||>|2>)\s?")


@dataclasses.dataclass(frozen=True)
class Command:
    """A command as it stands.

    Attributes:
      place: file.
      words: as a shell splits them.
      whole: it stands on a line of its own, to be typed; else in a sentence, which may leave arguments out.
    """

    place: str
    words: tuple[str, ...]
    whole: bool

    def __str__(self) -> str:
        return f"{self.place}: {shlex.join(self.words)}"


def _split(text: str, place: str, whole: bool) -> Iterator[Command]:
    text = re.sub(r"\\\n\s*", " ", text)
    for line in text.splitlines() if whole else [" ".join(text.split())]:
        line = line.strip().removeprefix("$ ")
        if not _OURS.match(line) and "&&" not in line and "xpk" not in line:
            continue
        try:
            words = shlex.split(line, comments=True)
        except ValueError:  # a quotation mark of the text
            continue
        part: list[str] = []
        for word in (*words, "&&"):
            if word in ("&&", "||", "|", ";", ">"):
                if part and _OURS.match(" ".join(part[:2])):
                    yield Command(place, tuple(part), whole)
                part = []
            else:
                part.append(re.sub(r"^\[(?=--)|(?<=\w)\]$", "", word))  # [--option VALUE] may be left out


def of_text(text: str, place: str) -> list[Command]:
    """The commands of a Markdown text, those in fences first."""
    fences = [body for language, body in _FENCE.findall(text) if language in _SHELLS]
    rest = re.sub(r"^ *```.*?^ *```", "", text, flags=re.M | re.S)
    found = [c for fence in fences for c in _split(fence, place, True)]
    return found + [c for inline in _INLINE.findall(rest) for c in _split(inline, place, False)]


def of_documents() -> list[Command]:
    """Those of README and docs."""
    return [c for file in DOCUMENTS for c in of_text(file.read_text(), str(file.relative_to(ROOT)))]


def of_docstrings() -> list[Command]:
    """Those that stand on indented lines of docstrings."""
    found = []
    for file in SCRIPTS:
        parts = file.read_text().split('"""')
        if len(parts) > 2:
            text = re.sub(r"\\\\\n\s*", " ", parts[1])
            lines = "\n".join(
                re.split(r"\s{2,}[(#]", line.strip())[0] for line in text.splitlines() if line[:4] == " " * 4
            )
            found += _split(lines, str(file.relative_to(ROOT)), True)
    return found


def is_sketch(words: tuple[str, ...]) -> bool:
    """Whether a word is left out, or stands for others."""
    return any("…" in word or word in ("VERB", "...") for word in words)


def configs(words: tuple[str, ...]) -> str | None:
    """The value of --config."""
    for i, word in enumerate(words):
        if word == "--config" and i + 1 < len(words):
            return words[i + 1]
        if word.startswith("--config="):
            return word.removeprefix("--config=")
    return None


def as_path(value: str) -> pathlib.Path:
    """The file that FILE_OR_NAME[:ARG] names."""
    file = value.partition(":")[0]
    return ROOT / file if file.endswith(".py") else ROOT / "configs" / f"{file}.py"
