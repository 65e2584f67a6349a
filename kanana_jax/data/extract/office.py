"""Shared parts of the office formats: XML parts of a zip, the walk through a document, its blocks as Markdown."""

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
# Text in tables in tables; deeper is an attack.
MAX_DEPTH = 120
_MAX_NODES = 3_000_000


def parts(data: bytes, report: Report, what: str, wanted: tuple[str, ...]) -> dict[str, bytes]:
    """The parts of a zip whose names begin with one of `wanted`.

    Raises:
      ValueError: not a zip, broken, or over the limits of `archives`.
    """
    if not data.startswith(b"PK"):
        raise ValueError(f"not {what}: no zip archive")
    # Tables of numbers are packed a thousandfold.
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
    """A tree that refuses too many or too deep elements, since who walks it calls itself."""

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
    """An element's name without its namespace, whose address depends on the program's version."""
    return element.tag.rpartition("}")[2]


def attribute(element: ElementTree.Element, name: str) -> str | None:
    """An attribute's value, whatever its namespace."""
    return next((value for key, value in element.attrib.items() if key.rpartition("}")[2] == name), None)


def below(element: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    """Elements of a name anywhere below, in order."""
    return (other for other in element.iter() if local(other) == name)


def number(text: str | None, otherwise: int = 1) -> int:
    """A small whole number, or `otherwise`."""
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 5 else otherwise


def title(files: dict[str, bytes], part: str) -> str | None:
    """The text of the first `title` of an XML part."""
    found = next(below(parse(files[part], part), "title"), None) if part in files else None
    return None if found is None else found.text


@dataclasses.dataclass
class Walker(abc.ABC):
    """A walk through a document; a format says how its paragraphs, lines and tables are found.

    Attributes:
      waiting: tables and boxes that stand in the paragraph that is being read, and follow it.
      cells: how many cells of tables the walk is in.
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
        """A paragraph as heading, item or plain text, with its contents."""
        outer, self.waiting = self.waiting, []
        text = self.text(node).strip()
        waiting, self.waiting = self.waiting, outer
        if text and level:
            text = f"{'#' * min(level, 6)} {' '.join(text.split())}"
        elif text and listed:
            text = f"- {text}"
        return [text, *waiting]

    def note(self, blocks: Sequence[str]) -> str:
        """A footnote, in brackets where it is referred to."""
        text = " ".join(" ".join(blocks).split())
        self.report.count("notes", bool(text))
        return f" ({text})" if text else ""

    def table(self, node: Any) -> str:
        """A pipe table; one in a cell of another as running text."""
        self.report.count("tables")
        self.cells += 1
        rows = self.rows(node)
        self.cells -= 1
        if self.cells:
            return "; ".join(filter(None, (" ".join(cell.text for cell in row if cell.text) for row in rows)))
        return markup.table(rows)


def document(blocks: list[str], title: str | None, report: Report) -> Extracted:
    """The text of blocks, cleaned."""
    text = "\n\n".join(block for block in blocks if block.strip())
    return finish(encoding.clean(text, report), title, report)
