"""Hangul documents (.hwpx; KS X 6101, OWPML): body, tables, notes and text boxes; no headers, footers or comments."""

import dataclasses
import re
from xml.etree.ElementTree import Element

from kanana_jax.data.extract import markup, office
from kanana_jax.data.extract.markup import Cell, Extracted, Report
from kanana_jax.data.extract.office import attribute, local

_SECTION = re.compile(r"Contents/section(\d{1,6})\.xml")
_MARKS = {"tab": "\t", "lineBreak": "\n", "nbSpace": "\u00a0", "fwSpace": "\u3000", "hyphen": "-"}
# Elements without text of the document: headers, footers, hidden comments, field parameters, layout data.
_DROPPED = markup.words("header footer hiddenComment parameters secPr linesegarray shapeComment indexmark")


def convert(data: bytes, name: str = "") -> Extracted:
    """The text of a document.

    Raises:
      ValueError: encrypted, of another kind, or broken.
    """
    report = Report()
    files = office.parts(data, report, "a Hangul document", ("Contents/", "META-INF/manifest.xml", "mimetype"))
    if b"encryption-data" in files.get("META-INF/manifest.xml", b""):
        raise ValueError(office.ENCRYPTED)
    sections = sorted((int(m[1]), part) for part in files if (m := _SECTION.fullmatch(part)))
    if not sections:
        raise ValueError("not a Hangul document: no Contents/section0.xml")
    header = (
        office.parse(files["Contents/header.xml"], "Contents/header.xml") if "Contents/header.xml" in files else None
    )
    walker = _Walker(report, _headings(header))
    blocks = [block for _, part in sections for block in walker.blocks(office.parse(files[part], part))]
    return office.document(blocks, office.title(files, "Contents/content.hpf"), report)


def _headings(header: Element | None) -> dict[str, int]:
    """Id of each paragraph shape with an outline level → the level."""
    levels: dict[str, int] = {}
    for shape in office.below(header, "paraPr") if header is not None else ():
        for heading in office.below(shape, "heading"):
            if attribute(heading, "type") == "OUTLINE":
                levels[attribute(shape, "id") or ""] = office.number(attribute(heading, "level"), 0) + 1
    return levels


@dataclasses.dataclass
class _Walker(office.Walker):
    """A walk through a section's tree.

    Attributes:
      headings: see `_headings`.
    """

    headings: dict[str, int]

    def blocks(self, parent: Element) -> list[str]:
        """The paragraphs below an element, each followed by its tables and boxes."""
        found: list[str] = []
        for child in parent:
            if local(child) == "p":
                found += self.paragraph(child, self.headings.get(attribute(child, "paraPrIDRef") or ""))
            elif local(child) not in _DROPPED:
                found += self.blocks(child)
        return found

    def text(self, element: Element) -> str:
        """The running text of a paragraph."""
        out: list[str] = []
        for child in element:
            name = local(child)
            if name == "t":
                out.append(self.marked(child))
            elif name == "tbl":
                self.waiting.append(self.table(child))
            elif name in ("footNote", "endNote"):
                out.append(self.note(self.blocks(child)))
            elif name == "equation":
                script = next((s.text or "" for s in office.below(child, "script")), "")
                self.report.count("formulas", bool(script.strip()))
                out.append(" ".join(script.split()))
            elif name in ("drawText", "caption"):
                self.report.count("text_boxes")
                self.waiting += self.blocks(child)
            elif name == "dutmal":  # characters with a ruby reading
                out.append(next((t.text or "" for t in office.below(child, "mainText")), ""))
            elif name == "compose":
                out.append(attribute(child, "composeText") or "")
            elif name not in _DROPPED:
                out.append(self.text(child))
        return "".join(out)

    def marked(self, text: Element) -> str:
        """A run of text with its inline marks; tracked deletions are left out."""
        out, deleted = [text.text or ""], False
        for mark in text:
            name = local(mark)
            if name in ("deleteBegin", "deleteEnd"):
                deleted = name == "deleteBegin"
            if not deleted:
                out.append(_MARKS.get(name, ""))
                out.append(mark.tail or "")
        return "".join(out)

    def rows(self, table: Element) -> list[list[Cell]]:
        rows = []
        for row in (r for r in table if local(r) == "tr"):
            cells = []
            for cell in (c for c in row if local(c) == "tc"):
                span = next((s for s in cell if local(s) == "cellSpan"), None)
                across, down = ((attribute(span, key) if span is not None else None) for key in ("colSpan", "rowSpan"))
                text = " ".join(block for block in self.blocks(cell) if block)
                cells.append(Cell(text, office.number(across), office.number(down)))
            rows.append(cells)
        return rows
