"""Renders the tree of a page as Markdown, in one non-recursive walk."""

import dataclasses
import re
from collections.abc import Iterator

from kanana_jax.data.extract import markup
from kanana_jax.data.extract.html import mathml
from kanana_jax.data.extract.html.tree import Node, find, text_of
from kanana_jax.data.extract.markup import Cell, Report, words

_BLOCKS = words(
    "address article aside blockquote body caption center dd details dir div dl dt fieldset figcaption figure footer "
    "form h1 h2 h3 h4 h5 h6 header hgroup hr html legend li main menu ol p pre section summary table tbody td tfoot "
    "th thead tr ul"
)
_CAPTURED = words("li blockquote td th h1 h2 h3 h4 h5 h6 sup sub")
_LINE_NUMBERS = words("gutter linenos lineno line-numbers hljs-ln-numbers blob-num")
# A table that contains one of these is page layout, not data.
_LAYOUT = words("table pre h1 h2 h3 h4 blockquote article section form")
# Elements nested deeper than this open no frame of their own, since each frame copies its text once.
_MAX_FRAMES = 40
# Stands for <br> until white space is collapsed; `encoding.clean` has removed all control characters.
_BREAK = "\v"
_SPACES = re.compile(r"[ \t\n]+")
_BREAKS = re.compile("(?<! ) *\v *")


@dataclasses.dataclass(slots=True)
class _Frame:
    """The output of an open element: finished blocks, and the current line."""

    node: Node
    blocks: list[str] = dataclasses.field(default_factory=list)
    inline: list[str] = dataclasses.field(default_factory=list)
    rows: list[list[Cell]] | None = None
    number: int | None = None

    def flush(self) -> None:
        if self.inline:
            text = _SPACES.sub(" ", "".join(self.inline))
            text = _BREAKS.sub("\n", text).strip()
            self.inline = []
            if text:
                self.blocks.append(text)


def render(root: Node, report: Report) -> str:
    """Markdown of everything below `root`."""
    frames = [_Frame(root)]
    for node, entering in _walk(root, frames, report):
        top = frames[-1]
        if isinstance(node, str):
            top.inline.append(node)
        elif entering:
            if node.tag in _BLOCKS:
                top.flush()
            if _opens_frame(node, frames):
                frames.append(_Frame(node))
                if node.tag == "table":
                    frames[-1].rows = []
                elif node.tag == "ol":
                    frames[-1].number = _integer(node.get("start"), 1)
            elif node.tag == "tr" and top.rows is not None:
                top.rows.append([])
        else:
            if node.tag in _BLOCKS:
                top.flush()
            if top.node is node and len(frames) > 1:
                frames.pop()
                _close(top, frames[-1], report)
    frames[0].flush()
    return "\n\n".join(frames[0].blocks)


def _walk(root: Node, frames: list[_Frame], report: Report) -> Iterator[tuple[Node | str, bool]]:
    """Yields elements on entering and on leaving, and text; writes leaves such as code and formulas directly."""
    stack: list[tuple[Node | str, bool]] = [(child, True) for child in reversed(root.children)]
    while stack:
        node, entering = stack.pop()
        if isinstance(node, str) or not entering:
            yield node, entering
        elif not _leaf(node, frames[-1], report):
            yield node, True
            stack.append((node, False))
            stack += [(child, True) for child in reversed(node.children)]


def _leaf(node: Node, top: _Frame, report: Report) -> bool:
    """Writes an element that is rendered as a whole; returns whether it was one."""
    tag = node.tag
    if tag == "br":
        top.inline.append(_BREAK)
    elif tag == "hr":
        top.flush()
    elif tag in ("pre", "listing", "xmp"):
        top.flush()
        if block := markup.fenced(text_of(node), _language(node)):
            report.count("code_blocks")
            top.blocks.append(block)
    elif tag in ("code", "kbd", "samp", "tt"):
        top.inline.append(markup.code_span(text_of(node)))
    elif tag in ("math", "mjx-container", "script"):
        _formula(node, top, report)
    elif tag == "img":
        if {"tex", "latex"} & set(node.classes()) and node.get("alt"):
            top.inline.append(markup.math(node.get("alt"), display=False))
            report.count("formulas")
        else:
            report.count("images")
    elif tag in ("td", "th", "span") and not _LINE_NUMBERS.isdisjoint(node.classes()):
        pass
    elif tag == "a" and node.letters == 1 and text_of(node).strip() in ("§", "¶", "#", "🔗"):
        pass  # a heading's link to itself
    elif tag in ("rt", "rp", "rtc"):  # ruby readings
        report.count("ruby_dropped", tag == "rt")
    else:
        return False
    return True


def _formula(node: Node, top: _Frame, report: Report) -> None:
    if node.tag == "script":
        tex, display = text_of(node), "mode=display" in node.get("type")
    else:
        math = node if node.tag == "math" else find(node, "math")
        tex = mathml.to_tex(math) if math is not None else ""
        display = node.get("display") in ("block", "true") or (math is not None and math.get("display") == "block")
    if not tex.strip():
        report.count("formulas_lost")
        return
    report.count("formulas")
    formula = markup.math(tex, display)
    if display:
        top.flush()
        top.blocks.append(formula)
    else:
        top.inline.append(formula)


def _opens_frame(node: Node, frames: list[_Frame]) -> bool:
    if len(frames) > _MAX_FRAMES:
        return False
    if node.tag in ("td", "th"):
        return frames[-1].rows is not None
    if node.tag == "caption":
        return False
    if node.tag == "table":
        return not _is_layout(node)
    return node.tag in _CAPTURED or node.tag in ("ul", "ol", "menu")


def _is_layout(table: Node) -> bool:
    if table.get("role") == "presentation":
        return True
    stack = list(table.children)
    while stack:
        item = stack.pop()
        if isinstance(item, Node):
            if item.tag in _LAYOUT:
                return True
            stack += item.children
    return False


def _close(frame: _Frame, parent: _Frame, report: Report) -> None:
    """Writes a finished element into its parent's frame."""
    tag = frame.node.tag
    frame.flush()
    text = "\n\n".join(frame.blocks)
    if tag in ("sup", "sub"):
        script = markup.superscript if tag == "sup" else markup.subscript
        parent.inline.append(script(" ".join(text.split())))
    elif tag in ("td", "th"):
        spans = _integer(frame.node.get("colspan"), 1), _integer(frame.node.get("rowspan"), 1)
        if not parent.rows:
            parent.rows = [[]]
        parent.rows[-1].append(Cell(" ".join(text.split()), *spans))
    elif tag == "table":
        parent.blocks += frame.blocks  # the caption, and misplaced content between rows
        if rows := markup.table(frame.rows or []):
            report.count("tables")
            parent.blocks.append(rows)
    elif tag in ("ul", "ol", "menu"):
        if frame.blocks:
            parent.blocks.append("\n".join(frame.blocks))
    elif not text:
        return
    elif tag == "li":
        mark = "- "
        if parent.number is not None:
            mark, parent.number = f"{parent.number}. ", parent.number + 1
        tight = "\n".join(frame.blocks)
        parent.blocks.append(mark + tight.replace("\n", "\n" + " " * len(mark)))
    elif tag == "blockquote":
        parent.blocks.append("> " + text.replace("\n", "\n> "))
    else:
        parent.blocks.append("#" * int(tag[1]) + " " + " ".join(text.split()))


def _integer(text: str, default: int) -> int:
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 7 else default


_LANGUAGE = re.compile(r"(?:language|lang|highlight-source|highlight|brush)[-:_ ]\s?([A-Za-z0-9+#]{1,20})")


def _language(pre: Node) -> str:
    inner = find(pre, "code")
    for node in (pre, inner):
        if node is None:
            continue
        if name := node.get("data-lang") or node.get("data-language"):
            return name if re.fullmatch(r"[A-Za-z0-9+#-]{1,20}", name) else ""
        if found := _LANGUAGE.search(node.get("class")):
            return found[1]
    return ""
