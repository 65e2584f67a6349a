"""Text of a PDF that has text, through pdfium; scanned pages have none."""

import re
from collections import Counter

from kanana_jax.data.extract import encoding
from kanana_jax.data.extract.markup import Extracted, Report, finish
from kanana_jax.errors import UserError

MAX_PAGES = 2_000
# A line at the edge of more than this share of the pages is a running head or foot.
_RUNNING = 0.3


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
        raise ValueError(f"not a readable PDF ({str(error)[:80]})") from error
    try:
        pages = []
        for number in range(min(len(document), MAX_PAGES)):
            try:
                page = document[number].get_textpage().get_text_bounded()
            except pypdfium2.PdfiumError:
                report.count("pages_broken")
                continue
            report.count("pages_without_text", not page.strip())
            pages.append(encoding.clean(page, report).split("\n"))
        report.count("pages_cut", max(0, len(document) - MAX_PAGES))
        title = document.get_metadata_dict().get("Title") or None
    finally:
        document.close()
    return finish(_paragraphs(_without_running_lines(pages, report)), title, report)


def _without_running_lines(pages: list[list[str]], report: Report) -> list[list[str]]:
    def key(line: str) -> str:
        return re.sub(r"\d+", "0", line.strip())

    edges = Counter(key(line) for page in pages for line in {*page[:2], *page[-2:]} if line.strip())
    running = {line for line, n in edges.items() if n >= 3 and n > _RUNNING * len(pages)}
    kept = []
    for page in pages:
        inner = [line for i, line in enumerate(page) if not (key(line) in running and (i < 2 or i >= len(page) - 2))]
        report.count("running_lines_dropped", len(page) - len(inner))
        kept.append(inner)
    return kept


def _paragraphs(pages: list[list[str]]) -> str:
    """Joins lines that go on: a hyphen at the end, or a full line without a stop."""
    lines = [line.strip() for page in pages for line in page]
    lengths = sorted(len(line) for line in lines if line)
    full = 0.8 * lengths[int(0.9 * len(lengths))] if lengths else 0
    out: list[str] = []
    before = ""
    for line in lines:
        if not before or not line:
            out.append("\n" if out else "")
        elif line[0].islower() and re.search(r"[a-z]-$", before):
            out[-1] = before[:-1]
        elif len(before) < full or before[-1] in ".?!。:;":
            out.append("\n")
        elif not (_unspaced(before[-1]) and _unspaced(line[0])):
            out.append(" ")
        out.append(line)
        before = line
    return "".join(out)


def _unspaced(c: str) -> bool:
    """Of a script without spaces between words."""
    return "\u3000" <= c <= "\u9fff"
