"""The common output of all formats: NFC text with Markdown for headings, code, tables and formulas.

Headings are `#`, code is fenced, tables are pipe tables, formulas are `$…$` and `$$…$$`.
"""

import dataclasses
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

# Cells that span more, or rows with more cells, are a mistake or an attack.
MAX_SPAN = 100
MAX_COLUMNS = 1000
MAX_LIST_DEPTH = 8


@dataclasses.dataclass(frozen=True)
class Broken:
    """An input that could not be read: its place (`file:line`) and the reason."""

    where: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Skipped(Broken):
    """A part of an input that is not a document, such as an error page of a crawl; `reason` is one of a few kinds."""


@dataclasses.dataclass(frozen=True)
class Extracted:
    """The text of a document, and a report on the extraction.

    Attributes:
      text: NFC, `\\n` line ends, no control characters; may be empty.
      title: the document's title, if it states one.
      report: what was lost, dropped or repaired: counts, or names in order of appearance.
    """

    text: str
    title: str | None
    report: dict[str, int | list[str]]


class Report:
    """Collects counts and (few) names of what was lost or repaired."""

    MAX_NAMES = 50

    def __init__(self):
        self.counts: Counter[str] = Counter()
        self.names: dict[str, dict[str, None]] = {}

    def count(self, key: str, by: int = 1) -> None:
        if by:
            self.counts[key] += by

    def name(self, key: str, value: str) -> None:
        """Counts an occurrence and keeps the name, if it is new and there are not too many names yet."""
        self.counts[key] += 1
        seen = self.names.setdefault(f"{key}_names", {})
        if len(seen) < self.MAX_NAMES:
            seen[value[:100]] = None

    def as_dict(self) -> dict[str, int | list[str]]:
        values: dict[str, int | list[str]] = {key: count for key, count in self.counts.items() if count}
        values |= {key: list(names) for key, names in self.names.items()}
        return dict(sorted(values.items()))


def words(text: str) -> frozenset[str]:
    """A set of words, written as one string separated by blanks."""
    return frozenset(text.split())


def finish(text: str, title: str | None, report: Report) -> Extracted:
    """Returns the result, with blank lines tidied."""
    title = re.sub(r"\s+", " ", unicodedata.normalize("NFC", title)).strip() if title else ""
    return Extracted(tidy(unicodedata.normalize("NFC", text)), title or None, report.as_dict())


def tidy(text: str) -> str:
    """Removes spaces at line ends, repeated blank lines outside code, and white space at both ends."""
    lines, fence, blanks = [], "", 0
    for line in text.split("\n"):
        line = line.rstrip(" \t\r\u00a0")
        bare = line.lstrip("> ")
        if bare.startswith(("```", "~~~")):
            run = bare[: len(bare) - len(bare.lstrip(bare[0]))]
            if not fence:
                fence = run
            elif bare.startswith(fence) and not bare[len(run) :].strip():
                fence = ""
        blanks = 0 if line else blanks + 1
        if blanks <= 1 or fence:
            lines.append(line)
    return "\n".join(lines).strip("\n").rstrip()


def fenced(code: str, language: str = "") -> str:
    """A code block with a fence that is longer than any inside."""
    runs = [len(run) for run in re.findall(r"^ *(`{3,})", code, re.MULTILINE)]
    fence = "`" * max([3, *(n + 1 for n in runs)])
    code = code.strip("\n").rstrip()
    return f"{fence}{language}\n{code}\n{fence}" if code else ""


def code_span(code: str) -> str:
    code = " ".join(code.split())
    if not code:
        return ""
    return f"`` {code} ``" if "`" in code else f"`{code}`"


def math(tex: str, display: bool) -> str:
    """Puts TeX between dollars, unless the formula brings its own delimiters."""
    tex = tex.strip()
    if not tex:
        return ""
    if tex.startswith(("$", "\\(", "\\[")):
        return tex
    # Wikipedia and MathJax wrap every formula in this.
    wrapped = re.match(r"\{\\(displaystyle|textstyle)\b", tex)
    if wrapped and _closes_at_end(tex):
        tex = tex[wrapped.end() : -1].strip()
    return f"$${tex}$$" if display else f"${tex}$"


def _closes_at_end(tex: str) -> bool:
    depth = 0
    for found in re.finditer(r"\\.|[{}]", tex, re.DOTALL):
        depth += {"{": 1, "}": -1}.get(found[0], 0)
        if depth == 0:
            return found.end() == len(tex)
    return False


@dataclasses.dataclass(frozen=True)
class Cell:
    text: str
    colspan: int = 1
    rowspan: int = 1


def table(rows: Sequence[Sequence[Cell]], max_cells: int = 200_000) -> str:
    """Formats a pipe table; spanned cells are left empty, line breaks in cells become spaces.

    A table of one column becomes plain lines. The first row is the header, as Markdown requires.
    """
    grid: list[list[str]] = []
    waiting: dict[int, int] = {}  # column → number of rows still covered by a cell above
    cells = 0
    for row in rows:
        line: list[str] = []
        left = {column: n - 1 for column, n in waiting.items() if n > 1}
        for cell in row:
            while len(line) in waiting:
                line.append("")
            if len(line) > MAX_COLUMNS:
                break
            columns = max(1, min(cell.colspan, MAX_SPAN))
            if cell.rowspan > 1:
                left |= {len(line) + i: min(cell.rowspan, MAX_SPAN) - 1 for i in range(columns)}
            line += [" ".join(cell.text.split()).replace("|", "\\|")] + [""] * (columns - 1)
        while len(line) in waiting:
            line.append("")
        waiting = left
        cells += len(line)
        if cells > max_cells:
            break
        if any(line):
            grid.append(line)
    width = max((max((i + 1 for i, text in enumerate(line) if text), default=0) for line in grid), default=0)
    if width == 0:
        return ""
    if width == 1:
        return "\n".join(line[0].replace("\\|", "|") for line in grid)
    # Padding short rows to one long row must not create width × rows cells.
    if width * len(grid) > max_cells:
        return "\n".join(" | ".join(filter(None, line)) for line in grid)
    lines = ["| " + " | ".join((line + [""] * (width - len(line)))[:width]) + " |" for line in grid]
    return "\n".join([lines[0], "|" + " --- |" * width, *lines[1:]])


_SUPERSCRIPTS = str.maketrans("0123456789+-−=()n", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻⁼⁽⁾ⁿ")
_SUBSCRIPTS = str.maketrans("0123456789+-−=()", "₀₁₂₃₄₅₆₇₈₉₊₋₋₌₍₎")


def without(text: str, opener: re.Pattern[str], closer: str) -> tuple[str, int]:
    """Removes the spans from each `opener` to the next `closer`, in linear time; also returns their number."""
    out, at, removed = [], 0, 0
    while (found := opener.search(text, at)) is not None:
        end = text.find(closer, found.end())
        if end < 0:
            break
        out.append(text[at : found.start()])
        at = end + len(closer)
        removed += 1
    return "".join([*out, text[at:]]), removed


def superscript(text: str) -> str:
    """Renders superscript text: 10<sup>6</sup> must not become 106."""
    text = text.strip()
    if text and all(c in "0123456789+-−=()n" for c in text):
        return text.translate(_SUPERSCRIPTS)
    if text in ("st", "nd", "rd", "th", "") or not text.isascii():  # ordinals such as 1st; ruby-like notes
        return text
    return f"^{text}" if len(text) == 1 else f"^({text})"


def subscript(text: str) -> str:
    text = text.strip()
    if text and all(c in "0123456789+-−=()" for c in text):
        return text.translate(_SUBSCRIPTS)
    return text if not text.isascii() or not text else f"_{text}" if len(text) == 1 else f"_({text})"
