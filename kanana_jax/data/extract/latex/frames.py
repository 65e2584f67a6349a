"""The output stack: nested frames, each of which collects text until its argument or environment ends."""

import dataclasses

from kanana_jax.data.extract import markup
from kanana_jax.data.extract.latex import words as latex_words
from kanana_jax.data.extract.latex.counters import Counters
from kanana_jax.data.extract.markup import Cell, Report

# Each frame copies its text once, so frames nested deeper than this are not opened.
_MAX_FRAMES = 60
# Frames that consist of paragraphs, between which floats may be placed.
_FLOWING = ("document", "list", "quote", "abstract")
_BLANKS = " \t\n\x05"
# A line end of the source; becomes a space, or nothing between characters of scripts without spaces.
SOFT = "\x05"


@dataclasses.dataclass(slots=True)
class Frame:
    """The text of one argument or environment, with a list's items or a table's rows.

    Attributes:
      flows: whether a paragraph is open.
      floats: floats taken out of the open paragraph, which will follow it.
    """

    kind: str
    end: int  # index of the token that closes it
    name: str = ""
    level: int = 0
    out: list[str] = dataclasses.field(default_factory=list)
    items: list[str] = dataclasses.field(default_factory=list)
    rows: list[list[Cell]] = dataclasses.field(default_factory=lambda: [[]])
    span: int = 1
    flows: bool = False
    floats: list[str] = dataclasses.field(default_factory=list)

    def take(self) -> str:
        text = "".join(self.out)
        self.out = []
        return text

    def end_paragraph(self) -> None:
        self.out += ["\n\n", *(f"{text}\n\n" for text in self.floats)]
        self.flows, self.floats = False, []


class Writer:
    """A stack of frames; the first is the document."""

    def __init__(self, end: int, counters: Counters, report: Report):
        self.counters, self.report = counters, report
        self.frames = [Frame("document", end)]

    def write(self, text: str) -> None:
        frame = self.frames[-1]
        frame.out.append(text)
        if not frame.flows and text.strip(_BLANKS):
            frame.flows = True

    def paragraph(self) -> None:
        """Ends the paragraph and writes its floats after it."""
        self.frames[-1].end_paragraph()

    def float(self, text: str) -> None:
        """Writes a figure, table or margin note, without splitting the sentence that contains its source."""
        if not text:
            return
        figure, around = self.nearest("figure"), self.nearest(*_FLOWING)
        if figure is not None:
            figure.items.append(text)
        elif around is None or around is self.frames[-1] and not around.flows or self.nearest("table") is not None:
            self.frames[-1].out.append(f"\n\n{text}\n\n")
        else:
            around.floats.append(text)

    def block(self, text: str) -> None:
        """Writes a caption, table or piece of code; nothing else of a figure is kept."""
        figure = self.nearest("figure")
        if figure is not None:
            figure.items.append(text)
        else:
            self.write(f"\n\n{text}\n\n")

    def open(self, kind: str, end: int, name: str = "", level: int = 0) -> None:
        if len(self.frames) <= _MAX_FRAMES:
            # Force overlapping braces and environments to nest.
            self.frames.append(Frame(kind, min(end, self.frames[-1].end), name, level))

    def nearest(self, *kinds: str) -> Frame | None:
        return next((frame for frame in reversed(self.frames) if frame.kind in kinds), None)

    def cell(self) -> None:
        frame = self.frames[-1]
        if frame.kind == "tabular":
            frame.rows[-1].append(Cell(frame.take(), frame.span))
            frame.span = 1
        else:
            self.write(" ")

    def end_item(self, frame: Frame) -> None:
        frame.end_paragraph()
        text = markup.tidy(frame.take().strip(f" \n{SOFT}"))
        if text and not frame.level:  # before the first \\item
            frame.items.append(text)
        elif text:
            mark = f"{frame.level}. " if latex_words.LISTS.get(frame.name) == "1" else "- "
            frame.items.append(mark + text.replace("\n", "\n" + " " * len(mark)))

    def close(self) -> None:
        """Closes the innermost frame and writes its text into the enclosing one."""
        if self.frames[-1].floats:
            self.paragraph()
        frame = self.frames.pop()
        kind = frame.kind
        text = frame.take().strip() if kind not in ("wrap", "list", "tabular") else ""
        if kind == "wrap":
            self.write(frame.take() + frame.name)
        elif kind == "list":
            self.end_item(frame)
            gap = "\n" if self.nearest("list") is not None else "\n\n"
            self.write(gap + "\n".join(frame.items) + gap if frame.items else "")
        elif kind == "tabular":
            self.table(frame)
        elif kind == "figure":
            self.float("\n\n".join(frame.items))
        elif kind in ("table", "marginpar"):
            self.float(markup.tidy(text))
        elif kind == "centred":
            self.write(f"\n\n{text}\n\n" if text.strip(_BLANKS) else "")
        elif kind == "heading":
            line = " ".join(text.replace(SOFT, " ").split())
            self.write(f"\n\n{'#' * frame.level} {line}\n\n" if line else "")
        elif kind == "caption" or kind == "subcaption":
            self.caption(text)
        elif kind in ("footnote", "footnotetext"):
            self.write(f" ({text})" if text else "")
        elif kind in ("textsuperscript", "textsubscript"):
            self.write((markup.superscript if kind == "textsuperscript" else markup.subscript)(text))
        elif kind == "texttt":
            self.write(markup.code_span(text.replace(SOFT, " ")) if "$" not in text else text)
        elif kind == "abstract":
            self.write(f"\n\n## Abstract\n\n{text}\n\n" if text else "")
        elif kind == "keywords":
            self.write(f"\n\nKeywords: {text}\n\n")
        elif kind == "quote":
            self.write("\n\n> " + markup.tidy(text.replace(SOFT, " ")).replace("\n", "\n> ") + "\n\n" if text else "")
        # The title has already been read from the tokens.

    def table(self, frame: Frame) -> None:
        if frame.out:
            frame.rows[-1].append(Cell(frame.take(), frame.span))
        if self.nearest("tabular") is not None:
            self.write("; ".join(" ".join(cell.text.strip() for cell in row) for row in frame.rows if row))
        elif rows := markup.table(
            [[dataclasses.replace(c, text=c.text.replace(SOFT, " ")) for c in r] for r in frame.rows]
        ):
            self.report.count("tables")
            self.block(rows)

    def caption(self, text: str) -> None:
        text = " ".join(text.replace(SOFT, " ").split())
        if text:
            kind, number = self.counters.anchor
            self.report.count("captions")
            self.block(f"{kind} {number}: {text}")
