"""The text of PDF files, by pdfium; scanned pages have no text."""

import ctypes
import re
from collections import Counter
from typing import Any

from kanana_jax.data.extract import encoding
from kanana_jax.data.extract.markup import Extracted, Report, finish
from kanana_jax.data.extract.office import ENCRYPTED
from kanana_jax.data.extract.paragraphs import Box, Line, join
from kanana_jax.errors import UserError

MAX_PAGES = 2_000
# A line at the top or bottom of more than this share of the pages is a running header or footer.
_RUNNING = 0.3
# pdfium's replacements for a hyphen at a line's end; the next line follows without a break.
_HYPHENS = "\ufffe\x02"
_UNIT = re.compile(
    r"[!-~\u00a1-\u024f\u2010-\u2027]+|[가-힣]\S{0,30}|.[ぁぃぅぇぉっゃゅょァィゥェォッャュョー、。，．」』）］】！？]*"
)
_FIXED = re.compile(rb"mono|courier|typewriter|consol|code|cmtt|lmtt", re.IGNORECASE)
_LINE = re.compile(f"[^\r\n{_HYPHENS}]+[{_HYPHENS}]?")


def convert(data: bytes, name: str = "") -> Extracted:
    """The pages' text, with lines joined to paragraphs.

    Raises:
      UserError: pypdfium2 is not installed.
      ValueError: not a PDF, or one that needs a password.
    """
    try:
        import pypdfium2
    except ImportError as error:
        raise UserError("reading PDF needs the pypdfium2 library: pip install pypdfium2") from error
    report = Report()
    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower():
            raise ValueError(ENCRYPTED) from error
        raise ValueError(f"not a readable PDF ({str(error)[:80]})") from error
    try:
        pages = []
        for number in range(min(len(document), MAX_PAGES)):
            try:
                lines = _lines(document[number], number, report)
            except pypdfium2.PdfiumError:
                report.count("pages_broken")
                continue
            report.count("pages_without_text", not lines)
            pages.append(lines)
        report.count("pages_cut", max(0, len(document) - MAX_PAGES))
        title = document.get_metadata_dict().get("Title") or None
    finally:
        document.close()
    return finish(join([line for page in _without_running_lines(pages, report) for line in page]), title, report)


def _lines(page: Any, number: int, report: Report) -> list[Line]:
    """The lines of a page, in pdfium's order, with their positions; lines outside the page are skipped."""
    textpage = page.get_textpage()
    text, places = textpage.get_text_range(), _Places(textpage)
    found = [(m.start() + len(m[0]) - len(m[0].lstrip()), m[0]) for m in _LINE.finditer(text) if m[0].strip()]
    cleaned = encoding.clean("\n".join(raw.strip(f" \t{_HYPHENS}") for _, raw in found), report).split("\n")
    if len(cleaned) != len(found):  # some line consists of control characters only
        cleaned = [encoding.clean(raw.strip(f" \t{_HYPHENS}"), report) for _, raw in found]
    left, bottom, right, top = page.get_bbox()
    lines: list[Line] = []
    previous = None
    for (start, raw), clean in zip(found, cleaned):
        bare = raw.strip().rstrip(_HYPHENS)
        if not clean.strip() or not bare:
            continue
        first, last = (places.box(at) for at in (start, start + len(bare) - 1))
        unit = start + _unit(bare) - 1
        word = places.box(unit) if unit != start else first
        if first and (first.left > right or first.right < left or first.bottom > top or first.top < bottom):
            continue
        fixed = places.is_fixed(start) and places.is_fixed(start + len(bare) - 1)
        how = {"hyphenated": raw[-1] in _HYPHENS, "spaced": raw[-1] in " \t", "fixed": fixed}
        if previous is not None and raw[0] in " \t":  # the space at the line's end was moved to the next line
            previous.spaced = True
        previous = Line.of(clean.strip(), number, first, last, word, **how)
        lines.append(previous)
    return lines


def _unit(text: str) -> int:
    """The number of characters at a line's start between which no line break is possible."""
    found = _UNIT.match(text)
    return len(found[0]) if found else 1


class _Places:
    """Positions and fonts of the characters of a page's text."""

    def __init__(self, textpage: Any):
        import pypdfium2.raw as pdfium

        self._pdfium, self._page = pdfium, textpage.raw
        self._rectangle = pdfium.FS_RECTF()
        self._name, self._flags = ctypes.create_string_buffer(80), ctypes.c_int(0)

    def box(self, at: int) -> Box | None:
        """The em box of a character (not its glyph's outline); None if unknown."""
        place = self._pdfium.FPDFText_GetCharIndexFromTextIndex(self._page, at)
        found = self._rectangle
        if place < 0 or not self._pdfium.FPDFText_GetLooseCharBox(self._page, place, ctypes.byref(found)):
            return None
        left, bottom, right, top = found.left, found.bottom, found.right, found.top
        return Box(left, bottom, right, top) if right > left and top > bottom else None

    def is_fixed(self, at: int) -> bool:
        """Whether a character's font is monospaced, by its flags or its name."""
        place = self._pdfium.FPDFText_GetCharIndexFromTextIndex(self._page, at)
        name = self._name
        if place < 0 or not self._pdfium.FPDFText_GetFontInfo(self._page, place, name, len(name), self._flags):
            return False
        return bool(self._flags.value & 1) or _FIXED.search(name.value) is not None


def _without_running_lines(pages: list[list[Line]], report: Report) -> list[list[Line]]:
    def key(line: Line) -> str:
        return re.sub(r"\d+", "0", line.text)

    edges = Counter(name for page in pages for name in {key(line) for line in (*page[:2], *page[-2:])})
    running = {line for line, n in edges.items() if n >= 3 and n > _RUNNING * len(pages)}
    kept = []
    for page in pages:
        inner = [line for i, line in enumerate(page) if not ((i < 2 or i >= len(page) - 2) and key(line) in running)]
        report.count("running_lines_dropped", len(page) - len(inner))
        kept.append(inner)
    return kept
