"""reStructuredText, as used by Sphinx documentation, to Markdown.

Section levels follow from the order in which underlines first appear. The text of directives is kept; directives
without text are counted.
"""

import re
from collections.abc import Callable

from kanana_jax.data.extract import encoding, markup, rst_tables
from kanana_jax.data.extract.markup import Extracted, Report, finish, words

_ADORNMENT = re.compile(r"([!-/:-@\[-`{-~])\1{1,500}[ \t]*$")
_DIRECTIVE = re.compile(r"([ \t]*)\.\. (?:\|[^|\n]{1,100}\| )?([\w:.+-]{1,60})::(?:[ \t]+(.*))?$")
_COMMENT = re.compile(r"([ \t]*)\.\.(?:[ \t]|$)")
_SUBSTITUTION = re.compile(r"^[ \t]*\.\. \|([^|\n]{1,100})\| replace::[ \t]*(.*)$", re.MULTILINE)
_NOTE = re.compile(r"([ \t]*)\.\. \[([^\[\]\n]{1,100})\](?:[ \t]+(.*))?$")
_NOTE_REFERENCE = re.compile(r"(\[[^\[\]\s]{1,100}\])_(?!\w)")
_TARGET = re.compile(r"^[ \t]{0,40}\.\. _(?:`([^`\n]{1,200})`|([^:\n]{1,200})):(?:[ \t]|$)", re.MULTILINE)
_SIMPLE_REFERENCE = re.compile(r"(?<![\w`\\])([^\W_](?:\w{0,60}[^\W_])?(?:[-.+:]\w{0,60}[^\W_]){0,5})(__?)(?![\w`])")
_ANONYMOUS = re.compile(r"^(?:\.\. __:|__[ \t])", re.MULTILINE)
_LINE_BLOCK = re.compile(r"[ \t]*\|(?:[ \t]+(?=\S)|[ \t]*$)(?!.*\|[ \t]*$)")
_PICTURE = re.compile(
    r"^[ \t]{0,40}\.\. \|([^|\n]{1,100})\| image::.{0,500}(?:\n[ \t]{1,40}:alt:[ \t]{1,9}(.{1,500}))?$", re.MULTILINE
)
_BARS = re.compile(r"\|[^|\n]{1,100}\|")
_OPTION = re.compile(r"[ \t]*:([\w-]{1,40}):(?:[ \t]+(.*))?$")
_FIELD = re.compile(
    r"([ \t]*):(param|parameter|arg|type|returns?|rtype|raises|var|ivar|keyword|exception)\b([^:\n]{0,200}):[ \t]*(.*)$"
)
_NAMED = re.compile(r"[ \t]{0,100}:([^:`\n]{1,60}):[ \t]+(\S.*)$")
_ROLE = re.compile(r"(?<![\w`]):([\w:+-]{1,40}):`([^`]{1,2000})`")
_LINK = re.compile(r"`([^`<>\n]{1,500}?)[ \t\n]{0,3}<([^<>`]{1,1000})>`_{0,2}")
_REFERENCE = re.compile(r"`([^`\n]{1,500})`_{1,2}(?!\w)")
_ESCAPE = re.compile(r"\\([\s*`|_\\:<>])")
_TARGETED = re.compile(r"([^<>]{1,1000}?)\s{0,3}<[^<>]{1,1000}>$")
_BULLET = re.compile(r"([ \t]*)(?:[*+•-]|#\.|\(?[\w#]{1,3}[.)])[ \t]")
_GRID = re.compile(r"[ \t]*\+[-=+]{3,}\+[ \t]*$")

_CODE = words(
    "code-block code sourcecode highlight literalinclude prompt doctest testcode testsetup ipython parsed-literal "
    "productionlist"
)
_MATH = words("math")
TITLES = {"note": "Note", "warning": "Warning", "tip": "Tip", "caution": "Caution", "important": "Important",
         "hint": "Hint", "danger": "Danger", "attention": "Attention", "error": "Error", "seealso": "See also",
         "todo": "", "admonition": "", "topic": "", "sidebar": "", "rubric": "", "centered": "", "container": "",
         "epigraph": "", "pull-quote": "", "compound": "", "details": "", "figure": "",
         "impl-detail": "Implementation detail",
         "versionadded": "New in version", "versionchanged": "Changed in version",
         "deprecated": "Deprecated since version",
         "versionremoved": "Removed in version", "glossary": "", "hlist": "", "only": "", "dropdown": "", "tab": "",
         "tab-item": "", "tab-set": "", "grid": "", "grid-item": "",
         "availability": "Availability"}  # fmt: skip
_OBJECTS = words(
    "function method class attribute data exception classmethod staticmethod property module currentmodule macro type "
    "member enum option cmdoption envvar opcode describe decorator struct union var autofunction autoclass "
    "automethod automodule "
    "autoexception program variable command"
)
# Roles whose text is rendered as prose.
_SPOKEN = words(
    "ref doc term abbr dfn emphasis strong menuselection numref index download title eq cite issue gh source any "
)
_TABLES = words("list-table csv-table table")
# Directives without text, or with text of other documents. Unknown directives belong to extensions and keep their text.
_FURNITURE = words(
    "toctree contents sectnum section-numbering include raw image index meta highlight default-role role class target "
    "default-domain sectionauthor codeauthor moduleauthor tabularcolumns graphviz digraph graph inheritance-diagram "
    "uml plantuml blockdiag seqdiag actdiag nwdiag mermaid plot jinja exec ifconfig bibliography replace unicode date "
    "header footer title cssclass rst-class autosummary"
)
_CONTENT = _OBJECTS | frozenset(TITLES) | {"table"}
_MAX_INDENT = 100
# Directives nested deeper than this are treated as siblings.
_MAX_DEPTH = 50


def convert(data: bytes, name: str = "") -> Extracted:
    """The text of a reStructuredText file."""
    report = Report()
    text = encoding.decode(data, report)
    body = clean(text, report)
    heading = re.search(r"^#{1,2} (.+)$", body, re.MULTILINE)
    return finish(body, heading[1] if heading else None, report)


def clean(text: str, report: Report) -> str:
    """Converts reStructuredText to Markdown."""
    replacements = {f"|{found[1]}|": found[2] for found in _SUBSTITUTION.finditer(text)}
    replacements |= {
        f"|{found[1]}|": found[2] or "" for found in (_PICTURE.finditer(text) if "| image::" in text else ())
    }
    text = _references(text)
    if replacements:
        text = _BARS.sub(lambda found: replacements.get(found[0], found[0]), text)
    return "\n".join(_Document(text.expandtabs(8).split("\n"), report).render())


def _references(text: str) -> str:
    """Removes the underscores of references by a bare name, if the document has such targets."""
    names = {" ".join((a or b).lower().split()) for a, b in (_TARGET.findall(text) if ".. _" in text else ())}
    anonymous = "__" in text and _ANONYMOUS.search(text) is not None
    if not names and not anonymous:
        return text

    def shown(found: re.Match[str]) -> str:
        known = anonymous if found[2] == "__" else found[1].lower() in names
        return found[1] if known else found[0]

    lines = text.split("\n")
    return "\n".join(
        line
        if "_" not in line or "``" in line or line.lstrip().startswith(".. _")
        else ""
        if line.startswith("__ ")
        else _SIMPLE_REFERENCE.sub(shown, line)
        for line in lines
    )


def inline(text: str) -> str:
    """Converts roles, links and escapes in running text; literals stay as written."""
    pieces = text.split("``")
    for i in range(0, len(pieces), 2):
        pieces[i] = _inline(pieces[i])
    return ("`" if len(pieces) % 2 else "``").join(pieces)


def _inline(text: str) -> str:
    if "`" in text:
        text = _ROLE.sub(lambda m: _role(m[1], m[2]), text)
        text = _REFERENCE.sub(r"\1", _LINK.sub(r"\1", text))
    if "]_" in text:
        text = _NOTE_REFERENCE.sub(r"\1", text)
    # An escaped blank disappears.
    return _ESCAPE.sub(lambda m: "" if m[1].isspace() else m[1], text) if "\\" in text else text


def _role(role: str, text: str) -> str:
    name = role.rsplit(":", 1)[-1]
    if name == "math":
        return f"${text}$"
    shown = _TARGETED.fullmatch(text)
    if shown is not None and name not in ("code", "kbd", "file"):
        return shown[1]
    if name in ("sup", "sub"):
        return (markup.superscript if name == "sup" else markup.subscript)(text)
    if name == "guilabel":
        return text.replace("&&", "\0").replace("&", "").replace("\0", "&")
    if name in _SPOKEN:
        return text.lstrip("!~")
    if name in ("pep", "rfc"):
        return f"{name.upper()} {text}"
    text = text.lstrip("!")
    text = text[1:].rsplit(".", 1)[-1] if text.startswith("~") else text
    return f"`{text}`" if text.isascii() or name in ("code", "kbd", "file", "samp", "command", "option") else text


class _Document:
    """Converts the lines of a document in one pass; a stack of indents determines where directives end."""

    def __init__(self, lines: list[str], report: Report):
        self.lines, self.report = lines, report
        self.levels: list[str] = []  # heading adornments in order of appearance
        self.dedent: list[int] = []  # indents of the open directives

    def render(self) -> list[str]:
        out: list[str] = []
        at = 0
        while at < len(self.lines):
            line = self.lines[at]
            if line.strip():
                indent = _indent(line)
                while self.dedent and indent <= self.dedent[-1]:
                    self.dedent.pop()
            at = self._line(at, out)
        return out

    def _line(self, at: int, out: list[str]) -> int:
        line = self.lines[at]
        mark = line.lstrip(" \t")[:1]
        if not mark:
            out.append("")
            return at + 1
        if (after := self._heading(at, out)) is not None:
            return after
        if mark == "." and (after := self._explicit(at, out)) is not None:
            return after
        if mark == "=" and rst_tables.SIMPLE.match(line) and at + 1 < len(self.lines):
            return self._table(rst_tables.simple, at, out)
        if mark == "+" and _GRID.match(line):
            return self._table(rst_tables.grid, at, out)
        field = _FIELD.match(line) if mark == ":" else None
        if field is not None:
            out.append(f"- {field[2]}{field[3]}: {inline(field[4])}")
            return at + 1
        named = _NAMED.match(line) if mark == ":" else None
        if named is not None:
            out.append(f"{named[1]}: {inline(named[2])}")
            return at + 1
        if line.rstrip().endswith("::"):
            return self._literal(at, out)
        bar = _LINE_BLOCK.match(line) if mark == "|" else None
        if bar is not None:
            out.append(self._prose(" " * _indent(line) + line[bar.end() :]))
            return at + 1
        end = at + 1
        # A role or link may extend over several lines.
        while _opens(line) and end < min(len(self.lines), at + 6) and self.lines[end].strip():
            line = f"{line.rstrip()} {self.lines[end].strip()}"
            end += 1
        out.append(self._prose(line))
        return end

    def _explicit(self, at: int, out: list[str]) -> int | None:
        """Converts a directive, note or comment, which begins with two dots; returns the index after it."""
        line = self.lines[at]
        if (directive := _DIRECTIVE.match(line)) is not None:
            return self._directive(at, directive, out)
        if (note := _NOTE.match(line)) is not None:  # its further lines are treated as text
            out += ["", self._prose(f"{note[1]}[{note[2]}] {note[3] or ''}")]
            return at + 1
        if _COMMENT.match(line) is None:
            return None
        self.report.count("comments_dropped")
        return self._block_end(at)

    def _prose(self, line: str) -> str:
        """A line of text without the indentation of directives; the indentation of lists is kept."""
        indent = _indent(line)
        base = 0
        for outer in self.dedent:
            base = max(base, min(indent, outer + 3))
        bullet = _BULLET.match(line)
        keep = min(indent - base, _MAX_INDENT) if bullet is not None or indent > base else 0
        return " " * max(0, keep) + inline(line.strip())

    def _heading(self, at: int, out: list[str]) -> int | None:
        """Converts a title with its underline and optional overline; returns the index after it."""
        lines, line = self.lines, self.lines[at]
        over = _ADORNMENT.fullmatch(line)
        if (
            over is not None
            and at + 2 < len(lines)
            and lines[at + 2].rstrip() == line.rstrip()
            and lines[at + 1].strip()
        ):
            title, mark, after = lines[at + 1].strip(), over[1] * 2, at + 3
        elif line.strip() and at + 1 < len(lines) and not line.startswith((" ", "..")):
            under = _ADORNMENT.fullmatch(lines[at + 1])
            if under is None or over is not None or len(lines[at + 1].rstrip()) < min(len(line.rstrip()), 4):
                return None
            title, mark, after = line.strip(), under[1], at + 2
        else:
            return None
        if mark not in self.levels:
            self.levels.append(mark)
        level = min(self.levels.index(mark) + 1, 6)
        out += ["", "#" * level + " " + inline(title), ""]
        return after

    def _block_end(self, at: int) -> int:
        """The index after the lines that are indented more than line `at`."""
        indent = _indent(self.lines[at])
        end = at + 1
        while end < len(self.lines) and (not self.lines[end].strip() or _indent(self.lines[end]) > indent):
            end += 1
        while end > at + 1 and not self.lines[end - 1].strip():
            end -= 1
        return end

    def _directive(self, at: int, found: re.Match[str], out: list[str]) -> int:
        name, argument = found[2].rsplit(":", 1)[-1].lower(), (found[3] or "").strip()
        body = at + 1
        while body < len(self.lines) and _OPTION.match(self.lines[body]) is not None:
            body += 1
        options = self.lines[at + 1 : body]
        end = at if name in _CONTENT else max(body, self._block_end(at))
        if name in _CODE:
            code = _dedented(self.lines[body:end])
            if block := markup.fenced(code, argument if re.fullmatch(r"[\w+#-]{1,20}", argument) else ""):
                out += ["", inline(_option(options, "caption")), "", block, ""]
                self.report.count("code_blocks")
            self.report.count("includes_missing", name == "literalinclude")
            return end
        if name in _MATH:
            tex = "\n".join(filter(None, [argument, _dedented(self.lines[body:end]).strip()]))
            out += ["", markup.math(tex, display=True), ""]
            self.report.count("formulas")
            return end
        if name in _TABLES and name != "table":
            rows = (
                rst_tables.listed(self.lines[body:end], inline)
                if name == "list-table"
                else rst_tables.comma_separated(
                    [*filter(None, [_option(options, "header")]), *self.lines[body:end]], inline
                )
            )
            out += ["", inline(argument), "", markup.table(rows), ""]
            self.report.count("tables")
            return end
        if name in _CONTENT:
            label = TITLES.get(name, "")
            shown = f"`{argument}`" if name in _OBJECTS and argument else inline(argument)
            if name in ("figure", "container", "only", "grid", "currentmodule", "program"):
                shown = ""
            version, _, change = shown.partition(" ")
            lead = (
                f"{label} {version}: {change}".rstrip()
                if name.startswith(("version", "deprec"))
                else f"{label}: {shown}"
                if label
                else shown
            )
            out += ["", lead.strip().rstrip(" ") if lead.strip(": ") else "", ""]
            if len(self.dedent) < _MAX_DEPTH:
                self.dedent.append(_indent(self.lines[at]))
            return body
        if name == "image" and (alt := _option(options, "alt")):
            out += ["", self._prose(alt), ""]
            return end
        self.report.name("directives_dropped" if name in _FURNITURE else "directives_unknown", name)
        if name in _FURNITURE or body >= end:
            return end
        # An argument of several words is a title; others are names of files or settings.
        out += ["", inline(argument) if " " in argument or not argument.isascii() else "", ""]
        if len(self.dedent) < _MAX_DEPTH:
            self.dedent.append(_indent(self.lines[at]))
        return body

    def _table(self, read: Callable, at: int, out: list[str]) -> int:
        rows, end = read(self.lines, at, inline)
        out += ["", markup.table(rows), ""]
        self.report.count("tables")
        return end

    def _literal(self, at: int, out: list[str]) -> int:
        """Converts a paragraph that ends in `::` and the code below it; returns the index after them."""
        line = self.lines[at].rstrip()
        text = line[:-2].rstrip()
        if text.strip():
            out.append(self._prose(text + (":" if not text.endswith(":") else "")))
        if at + 1 < len(self.lines) and not self.lines[at + 1].strip():
            end = self._block_end(at)
            if code := markup.fenced(_dedented(self.lines[at + 1 : end])):
                out += ["", code, ""]
                self.report.count("code_blocks")
                return end
        return at + 1


def _opens(line: str) -> bool:
    """Whether inline markup in backticks is still open at the line's end."""
    return "`" in line and (line.count("``") % 2 == 1 or line.replace("``", "").count("`") % 2 == 1)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _option(lines: list[str], name: str) -> str:
    """The value of a directive's option, or ""."""
    found = (_OPTION.match(line) for line in lines)
    return next((m[2] or "" for m in found if m is not None and m[1] == name), "")


def _dedented(lines: list[str]) -> str:
    indent = min((_indent(line) for line in lines if line.strip()), default=0)
    return "\n".join(line[indent:] for line in lines).strip("\n")
