"""Shared code of the office formats: XML parts of a zip, the walk through a document, Markdown blocks."""

import abc
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

from kanana_jax.data.extract import archives, encoding, markup
from kanana_jax.data.extract.archives import Limits
from kanana_jax.data.extract.markup import Cell, Extracted, Report, finish

OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
ENCRYPTED = "document is encrypted: save it without a password"
# Enough for text in tables in tables; deeper nesting is an attack.
MAX_DEPTH = 120
_MAX_NODES = 3_000_000


def parts(data: bytes, report: Report, what: str, wanted: tuple[str, ...]) -> dict[str, bytes]:
    """Name → content of the parts of a zip whose names begin with one of `wanted`.

    Args:
      what: the document's kind, for messages.

    Raises:
      ValueError: not a zip, broken, or beyond the limits of `archives`.
    """
    if not data.startswith(b"PK"):
        raise ValueError(f"not {what}: no zip archive")
    # Tables of numbers compress a thousandfold.
    limits = Limits(member_bytes=256 << 20, ratio=2000.0)
    return archives.unpack(data, report, limits, lambda name: name.startswith(wanted))


def parse(data: bytes, part: str) -> ElementTree.Element:
    """The tree of an XML part.

    Raises:
      ValueError: not well-formed, or nested too deep.
    """
    builder = _Bounded()
    try:
        parser = ElementTree.XMLParser(target=builder)
        parser.feed(data)
        return parser.close()
    except (ElementTree.ParseError, expat.ExpatError, LookupError) as error:
        raise ValueError(f"{part} is broken ({str(error)[:80]})") from error


class _Bounded(ElementTree.TreeBuilder):
    """A tree builder that refuses too many or too deeply nested elements, since the walkers are recursive."""

    def __init__(self):
        super().__init__()
        self._depth = self._nodes = 0

    def start(self, tag, attrs):
        self._depth += 1
        self._nodes += 1
        if self._depth > MAX_DEPTH or self._nodes > _MAX_NODES:
            raise ValueError("document is nested too deep or has too many parts")
        return super().start(tag, attrs)

    def end(self, tag):
        self._depth -= 1
        return super().end(tag)


def local(element: ElementTree.Element) -> str:
    """An element's name without its namespace, which depends on the version of the program."""
    return element.tag.rpartition("}")[2]


def attribute(element: ElementTree.Element, name: str) -> str | None:
    """An attribute's value, whatever its namespace."""
    return next((value for key, value in element.attrib.items() if key.rpartition("}")[2] == name), None)


def below(element: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    """All descendants with this name, in document order."""
    return (other for other in element.iter() if local(other) == name)


def number(text: str | None, otherwise: int = 1) -> int:
    """Parses a small whole number; `otherwise` if it is not one."""
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 5 else otherwise


def title(files: dict[str, bytes], part: str) -> str | None:
    """The text of the first `title` element of an XML part."""
    found = next(below(parse(files[part], part), "title"), None) if part in files else None
    return None if found is None else found.text


@dataclasses.dataclass
class Walker(abc.ABC):
    """A walk through a document; subclasses define how to find a format's text and tables.

    Attributes:
      waiting: tables and boxes inside the current paragraph, which will follow it.
      cells: nesting depth in table cells.
    """

    report: Report
    waiting: list[str] = dataclasses.field(default_factory=list, kw_only=True)
    cells: int = dataclasses.field(default=0, kw_only=True)

    @abc.abstractmethod
    def text(self, node: Any, /) -> str:
        """The running text of a paragraph."""

    @abc.abstractmethod
    def rows(self, node: Any, /) -> list[list[Cell]]:
        """The cells of a table."""

    def paragraph(self, node: Any, level: int | None, listed: bool = False) -> list[str]:
        """A paragraph as heading, list item or plain text, followed by the tables and boxes inside it."""
        outer, self.waiting = self.waiting, []
        text = self.text(node).strip()
        waiting, self.waiting = self.waiting, outer
        if text and level:
            text = f"{'#' * min(level, 6)} {' '.join(text.split())}"
        elif text and listed:
            text = f"- {text}"
        return [text, *waiting]

    def note(self, blocks: Sequence[str]) -> str:
        """A footnote, to be placed in brackets at its reference."""
        text = " ".join(" ".join(blocks).split())
        self.report.count("notes", bool(text))
        return f" ({text})" if text else ""

    def table(self, node: Any) -> str:
        """A pipe table; a table nested in a cell becomes running text."""
        self.report.count("tables")
        self.cells += 1
        rows = self.rows(node)
        self.cells -= 1
        if self.cells:
            return "; ".join(filter(None, (" ".join(cell.text for cell in row if cell.text) for row in rows)))
        return markup.table(rows)


def document(blocks: list[str], title: str | None, report: Report) -> Extracted:
    """Joins blocks and cleans the text."""
    text = "\n\n".join(block for block in blocks if block.strip())
    return finish(encoding.clean(text, report), title, report)
