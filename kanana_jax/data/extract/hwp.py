"""Hangul documents (.hwp; Hancom's 'HWP 5.0' revision 1.3, §3–§4.3): body, tables, notes, text boxes.

The file is a compound file of streams. A section is a stream of records (tag, level, size) whose levels form a tree. A
paragraph has a text and one control (table, note, box) for each placeholder in the text.
"""

import dataclasses
import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

from kanana_jax.data.extract import office
from kanana_jax.data.extract.archives import Limits
from kanana_jax.data.extract.markup import Cell, Extracted, Report
from kanana_jax.errors import UserError

_BEGIN = 0x10
PARA_HEADER, PARA_TEXT, CTRL_HEADER, LIST_HEADER = _BEGIN + 50, _BEGIN + 51, _BEGIN + 55, _BEGIN + 56
EQUATION, STYLE, PARA_SHAPE = _BEGIN + 72, _BEGIN + 10, _BEGIN + 9
# Control characters below 32 (§4.3.2, table 6): these take one character, all others eight; those in `_HELD` are
# placeholders of controls.
_SINGLE = {0: "", 10: "\n", 13: "", 24: "-", 25: "", 26: "", 27: "", 28: "", 29: "", 30: "\u00a0", 31: "\u3000"}
_HELD = frozenset((1, 2, 3, 11, 12, 14, 15, 16, 17, 18, 21, 22, 23))
_TAB = 9
# Headers, footers and hidden comments. Fields, page numbers and bookmarks have no text of their own.
_DROPPED = frozenset((b"head", b"foot", b"tcmt"))
_COMPRESSED, _ENCRYPTED, _DISTRIBUTED, _DRM = 1, 1 << 1, 1 << 2, 1 << 4
_MAX_SECTIONS = 4096


@dataclasses.dataclass(frozen=True, slots=True)
class Node:
    """A record with the records below it."""

    tag: int
    payload: bytes
    children: list["Node"]


def convert(data: bytes, name: str = "") -> Extracted:
    """The text of a document.

    Raises:
      UserError: olefile is not installed.
      ValueError: encrypted, of another version, or broken.
    """
    try:
        import olefile
    except ImportError as error:
        raise UserError("reading HWP needs the olefile library: pip install olefile") from error
    if data.startswith(b"HWP Document File"):
        raise ValueError("a Hangul document from before 2000 (HWP 3): save it as .hwpx")
    if data.startswith(b"PK"):  # saved as .hwpx and named .hwp
        from kanana_jax.data.extract import hwpx

        return hwpx.convert(data, name)
    if not data.startswith(office.OLE):
        raise ValueError("not a Hangul document: no compound file")
    report = Report()
    broken = (OSError, IndexError, struct.error, RecursionError, OverflowError, MemoryError, UnicodeError)
    try:
        container = olefile.OleFileIO(io.BytesIO(data), raise_defects=olefile.DEFECT_FATAL)
    except (*broken, ValueError) as error:
        raise ValueError(f"Hangul document is broken ({str(error)[:80]})") from error
    with container:
        try:
            return _read(container, report)
        except broken as error:
            raise ValueError(f"Hangul document is broken ({str(error)[:80]})") from error


def _read(container: Any, report: Report) -> Extracted:
    if not container.exists("FileHeader"):
        raise ValueError("not a Hangul document: no FileHeader")
    header = container.openstream("FileHeader").read(64)
    if not header.startswith(b"HWP Document File") or len(header) < 40:
        raise ValueError("not a Hangul document: no signature")
    version, flags = struct.unpack_from("<II", header, 32)
    if version >> 24 != 5:
        raise ValueError(f"a Hangul document of version {version >> 24}: save it as .hwpx")
    if flags & (_ENCRYPTED | _DRM):
        raise ValueError(office.ENCRYPTED)
    if flags & _DISTRIBUTED:
        raise ValueError("a Hangul document for distribution, whose text is encrypted: save it as an ordinary one")
    left = Limits().total_bytes
    levels: list[int] = []
    blocks: list[str] = []
    if container.exists("DocInfo"):
        stream = _stream(container, "DocInfo", flags, left)
        levels = [_outline(payload) for tag, _, payload in records(stream) if tag == PARA_SHAPE]
    walker = _Walker(report, levels)
    for number in range(_MAX_SECTIONS):
        path = f"BodyText/Section{number}"
        if not container.exists(path):
            break
        stream = _stream(container, path, flags, left)
        left -= len(stream)
        blocks += walker.blocks(tree(stream))
    else:
        raise ValueError(f"Hangul document has more than {_MAX_SECTIONS} sections")
    if not number:
        raise ValueError("not a Hangul document: no BodyText/Section0")
    return office.document(blocks, _title(container), report)


def _title(container: Any) -> str | None:
    if not container.exists("\x05HwpSummaryInformation"):
        return None
    title = container.getproperties("\x05HwpSummaryInformation").get(2)  # property 2 is PIDSI_TITLE
    title = title.decode("utf-8", "replace") if isinstance(title, bytes) else title
    return title.partition("\0")[0] if isinstance(title, str) else None  # the stored length is not in bytes


def _stream(container: Any, path: str, flags: int, left: int) -> bytes:
    """The decompressed content of a stream.

    Raises:
      ValueError: the stream is broken, or unpacks to more than `left` bytes.
    """
    packed = container.openstream(path).read()
    if not flags & _COMPRESSED:
        return packed[: left + 1]
    unpacker = zlib.decompressobj(wbits=-15)
    try:
        content = unpacker.decompress(packed, left + 1)
    except zlib.error as error:
        raise ValueError(f"{path} is broken ({str(error)[:80]})") from error
    if len(content) > left:
        raise ValueError("Hangul document unpacks to more than the limit")
    return content


def records(stream: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yields `(tag, level, payload)` of each record (§4.1).

    The header has ten bits of tag, ten of level and twelve of size; if all size bits are set, the size follows.

    Raises:
      ValueError: the stream ends within a record.
    """
    at = 0
    while at + 4 <= len(stream):
        (head,) = struct.unpack_from("<I", stream, at)
        at += 4
        size = head >> 20
        if size == 0xFFF:
            if at + 4 > len(stream):
                raise ValueError("a record of the Hangul document is cut")
            (size,) = struct.unpack_from("<I", stream, at)
            at += 4
        if at + size > len(stream):
            raise ValueError("a record of the Hangul document is cut")
        yield head & 0x3FF, head >> 10 & 0x3FF, stream[at : at + size]
        at += size


def tree(stream: bytes) -> list[Node]:
    """The tree of a section's records: each is a child of the last record of a lower level.

    Raises:
      ValueError: the stream is truncated or nested too deep.
    """
    top: list[Node] = []
    open_nodes: list[tuple[int, list[Node]]] = [(-1, top)]
    for tag, level, payload in records(stream):
        while open_nodes[-1][0] >= level:
            open_nodes.pop()
        if len(open_nodes) > office.MAX_DEPTH:
            raise ValueError("document is nested too deep")
        node = Node(tag, payload, [])
        open_nodes[-1][1].append(node)
        open_nodes.append((level, node.children))
    return top


def _outline(payload: bytes) -> int:
    """The outline level of a paragraph shape, 0 if it has none (§4.2.10, table 44: bits 23–24 and 25–27)."""
    properties = int.from_bytes(payload[:4], "little")
    return (properties >> 25 & 7) + 1 if properties >> 23 & 3 == 1 else 0


@dataclasses.dataclass
class _Walker(office.Walker):
    """A walk through a section's records.

    Attributes:
      levels: outline level of each paragraph shape.
    """

    levels: list[int]

    def blocks(self, nodes: list[Node]) -> list[str]:
        """The paragraphs among records, each followed by its tables and boxes."""
        return [block for node in nodes if node.tag == PARA_HEADER for block in self.paragraph(node, self.level(node))]

    def level(self, node: Node) -> int:
        shape = int.from_bytes(node.payload[8:10], "little")
        return self.levels[shape] if shape < len(self.levels) else 0

    def text(self, node: Node) -> str:
        """A paragraph's text, with the text of its controls in place."""
        controls = iter([child for child in node.children if child.tag == CTRL_HEADER])
        payload = b"".join(child.payload for child in node.children if child.tag == PARA_TEXT)
        units = struct.unpack(f"<{len(payload) // 2}H", payload[: len(payload) // 2 * 2])
        out: list[str] = []
        at = start = 0
        while at < len(units):
            unit = units[at]
            if unit >= 32:
                at += 1
                continue
            out.append(payload[2 * start : 2 * at].decode("utf-16-le", "replace"))
            if unit in _SINGLE:
                out.append(_SINGLE[unit])
                at += 1
            else:
                if unit == _TAB:
                    out.append("\t")
                elif unit in _HELD and (control := next(controls, None)) is not None:
                    out.append(self.control(control))
                at += 8
            start = at
        out.append(payload[2 * start :].decode("utf-16-le", "replace"))
        for control in controls:  # controls without a placeholder, when the paragraph's text is missing
            out.append(self.control(control))
        return "".join(out)

    def control(self, node: Node) -> str:
        """The text of a control within the line; tables and boxes are put off until the paragraph's end."""
        kind = node.payload[:4][::-1]
        if kind in _DROPPED:
            return ""
        if kind == b"tbl ":
            self.waiting.append(self.table(node))
            self.waiting += self.caption(node)
        elif kind in (b"fn  ", b"en  "):
            return self.note(self.listed(node))
        elif kind == b"eqed":
            return self.equation(node)
        elif kind == b"tdut":  # characters with a ruby reading
            size = int.from_bytes(node.payload[4:6], "little")
            return node.payload[6 : 6 + 2 * size].decode("utf-16-le", "replace")
        else:
            found = self.listed(node)
            self.report.count("text_boxes", bool(found))
            self.waiting += found
        return ""

    def equation(self, node: Node) -> str:
        for child in node.children:
            if child.tag == EQUATION and len(child.payload) >= 6:
                size = int.from_bytes(child.payload[4:6], "little")
                script = child.payload[6 : 6 + 2 * size].decode("utf-16-le", "replace")
                self.report.count("formulas")
                return " ".join(script.split())
        return ""

    def listed(self, node: Node) -> list[str]:
        """The paragraphs of all lists anywhere below a record, e.g. in the shapes of a text box."""
        found = self.blocks(node.children)
        for child in node.children:
            if child.tag != PARA_HEADER:
                found += self.listed(child)
        return [block for block in found if block]

    def caption(self, node: Node) -> list[str]:
        """The paragraphs of a table's caption, whose list precedes the table record."""
        before = []
        for child in node.children:
            if child.tag == _BEGIN + 61:
                break
            before.append(child)
        return self.blocks(before)

    def rows(self, node: Node) -> list[list[Cell]]:
        """The cells of a table (§4.3.9.1), placed by the row and column of each cell's list record."""
        rows: dict[int, list[tuple[int, Cell]]] = {}
        place: tuple[int, int, int, int] | None = None
        held: list[Node] = []
        inside = False

        def close() -> None:
            if place is not None:
                column, row, across, down = place
                text = " ".join(block for block in self.blocks(held) if block)
                rows.setdefault(row, []).append((column, Cell(text, max(across, 1), max(down, 1))))
            held.clear()

        for child in node.children:
            if child.tag == _BEGIN + 61:
                inside = True
            elif inside and child.tag == LIST_HEADER:
                close()
                known = len(child.payload) >= 16
                place = struct.unpack_from("<4H", child.payload, 8) if known else (0, len(rows), 1, 1)
                held += child.children
            elif inside:
                held.append(child)
        close()
        return [[cell for _, cell in sorted(cells, key=lambda item: item[0])] for _, cells in sorted(rows.items())]
