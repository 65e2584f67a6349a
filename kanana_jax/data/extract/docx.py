"""Word documents (.docx; ECMA-376 part 1, §17): body, tables, notes and text boxes, without comments and deletions."""

import dataclasses
from xml.etree.ElementTree import Element

from kanana_jax.data.extract import markup, office
from kanana_jax.data.extract.markup import Cell, Extracted, Report
from kanana_jax.data.extract.office import attribute, local

_MATH = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
# Text that is not part of the current document: deleted or moved text, field instructions, ruby readings.
_DROPPED = markup.words(
    "del moveFrom instrText delText delInstrText rt rPr pPr tblPr tblGrid tcPr trPr sectPr comment Fallback"
)
_MARKS = {"tab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-", "softHyphen": ""}


def convert(data: bytes, name: str = "") -> Extracted:
    """The text of a document.

    Raises:
      ValueError: encrypted, of another kind, or broken.
    """
    report = Report()
    if data.startswith(office.OLE):
        packed = "EncryptedPackage".encode("utf-16-le") in data
        raise ValueError(office.ENCRYPTED if packed else "a Word document from before 2007: save it as .docx")
    files = office.parts(data, report, "a Word document", ("word/", "docProps/core"))
    main = next((files[part] for part in ("word/document.xml", "word/document2.xml") if part in files), None)
    if main is None:
        raise ValueError("not a Word document: no word/document.xml")
    walker = _Walker(report, _notes(files, "footnote"), _notes(files, "endnote"), *_styles(files))
    body = next(office.below(office.parse(main, "word/document.xml"), "body"), None)
    blocks = [] if body is None else walker.blocks(body)
    return office.document(blocks, office.title(files, "docProps/core.xml"), report)


def _notes(files: dict[str, bytes], kind: str) -> dict[str, Element]:
    part = f"word/{kind}s.xml"
    if part not in files:
        return {}
    notes = office.below(office.parse(files[part], part), kind)
    return {attribute(note, "id") or "": note for note in notes if attribute(note, "type") is None}


def _styles(files: dict[str, bytes]) -> tuple[dict[str, int], set[str]]:
    """Style ids: heading styles with their levels, and list styles.

    In Korean Word a heading style's id is arbitrary; its name identifies it.
    """
    levels: dict[str, int] = {}
    lists: set[str] = set()
    if "word/styles.xml" not in files:
        return levels, lists
    for style in office.below(office.parse(files["word/styles.xml"], "word/styles.xml"), "style"):
        name = next((attribute(n, "val") or "" for n in style if local(n) == "name"), "").lower()
        outline = next((attribute(o, "val") for o in office.below(style, "outlineLvl")), None)
        if name == "title":
            levels[attribute(style, "styleId") or ""] = 1
        elif name.startswith("heading "):
            levels[attribute(style, "styleId") or ""] = office.number(name[8:])
        elif outline is not None and outline != "9":
            levels[attribute(style, "styleId") or ""] = office.number(outline, 0) + 1
        elif next(office.below(style, "numPr"), None) is not None:
            lists.add(attribute(style, "styleId") or "")
    return levels, lists


@dataclasses.dataclass
class _Walker(office.Walker):
    """A walk through a document's tree.

    Attributes:
      footnotes, endnotes: notes by the id that the text refers to.
      headings, lists: see `_styles`.
    """

    footnotes: dict[str, Element]
    endnotes: dict[str, Element]
    headings: dict[str, int]
    lists: set[str]

    def blocks(self, parent: Element) -> list[str]:
        """The paragraphs and tables below an element, looking through mere wrappers."""
        found: list[str] = []
        for child in parent:
            name = local(child)
            if name == "p":
                found += self.styled(child)
            elif name == "tbl":
                found.append(self.table(child))
            elif name not in _DROPPED:
                found += self.blocks(child)
        return found

    def styled(self, element: Element) -> list[str]:
        """A paragraph as heading, list item or text, according to its style."""
        properties = next((c for c in element if local(c) == "pPr"), None)
        style = level = None
        listed = False
        if properties is not None:
            style = next((attribute(s, "val") for s in properties if local(s) == "pStyle"), None)
            outline = next((attribute(o, "val") for o in properties if local(o) == "outlineLvl"), None)
            level = self.headings.get(style or "") or (
                None if outline in (None, "9") else office.number(outline, 0) + 1
            )
            listed = style in self.lists or any(local(c) == "numPr" for c in properties)
        return self.paragraph(element, level, listed)

    def text(self, element: Element) -> str:
        """The running text of a paragraph."""
        out: list[str] = []
        for child in element:
            name = local(child)
            if child.tag.startswith(_MATH):
                if formula := "".join(t.text or "" for t in office.below(child, "t")):
                    self.report.count("formulas")
                    out.append(formula)
            elif name == "t":
                out.append(child.text or "")
            elif name in _MARKS:
                out.append("" if name == "br" and attribute(child, "type") in ("page", "column") else _MARKS[name])
            elif name in ("footnoteReference", "endnoteReference"):
                out.append(self.referred(child, self.footnotes if name[0] == "f" else self.endnotes))
            elif name == "txbxContent":
                self.report.count("text_boxes")
                self.waiting += self.blocks(child)
            elif name not in _DROPPED:
                out.append(self.text(child))
        return "".join(out)

    def referred(self, reference: Element, notes: dict[str, Element]) -> str:
        note = notes.pop(attribute(reference, "id") or "", None)  # shown once, even if notes refer to each other
        return "" if note is None else self.note(self.blocks(note))

    def rows(self, table: Element) -> list[list[Cell]]:
        """The cells of a table; of vertically merged cells, only the first has text."""
        rows = []
        for row in (r for child in table for r in ([child] if local(child) == "tr" else child) if local(r) == "tr"):
            cells = []
            for cell in (
                c for child in row for c in ([child] if local(child) == "tc" else child.iter()) if local(c) == "tc"
            ):
                span = next(
                    (
                        office.number(attribute(s, "val"))
                        for p in cell
                        if local(p) == "tcPr"
                        for s in p
                        if local(s) == "gridSpan"
                    ),
                    1,
                )
                cells.append(Cell(" ".join(block for block in self.blocks(cell) if block), colspan=span))
            rows.append(cells)
        return rows
