"""Line-level wikitext: headings, lists, emphasis, HTML tags, external links, entities."""

import html
import re

from kanana_jax.data.extract import markup
from kanana_jax.data.extract.markup import Report
from kanana_jax.data.extract.wikitext.templates import HOLE

_TAGS = re.compile(
    r"</?(?:abbr|b|bdi|big|blockquote|center|cite|code|data|dd|del|dfn|div|dl|dt|em|font|h[1-6]|hr|i|includeonly|ins|"
    r"kbd|li|mark|noinclude|ol|onlyinclude|p|poem|q|rb|ruby|s|samp|small|span|strike|strong|table|tbody|td|th|time|tr|"
    r"tt|u|ul|var|wbr|nowiki)\b[^<>]{0,2000}>",
    re.IGNORECASE,
)
_BREAK_TAGS = re.compile(r"<br\b[^<>]{0,100}>|</?(?:p|div|li|tr|poem|blockquote|center)\b[^<>]{0,2000}>", re.IGNORECASE)
_CELL_END = re.compile(r"</t[dh]>", re.IGNORECASE)
_SCRIPTS = re.compile(r"<(su[pb])\b[^<>]{0,100}>([^<>]{0,200})</su[pb]>", re.IGNORECASE)
_READING = re.compile(r"<(?:rt|rp)\b[^<>]{0,50}>[^<>]{0,100}</(?:rt|rp)>", re.IGNORECASE)
_CODE = re.compile(r"<(?:code|kbd|samp|tt)\b[^<>]{0,100}>([^<>\n]{1,500})</(?:code|kbd|samp|tt)>", re.IGNORECASE)
_EXTERNAL = re.compile(r"\[(?:(?:https?|ftp)://|mailto:|//)[^\s\[\]<>]{1,2000}(?:[ \t]([^\[\]\n]{0,2000}))?\]")
_MAGIC = re.compile(r"__[A-Z가-힣]{3,25}__")
_QUOTES = re.compile(r"'{2,5}")
# Empty brackets left by dropped templates.
_EMPTY_BRACKETS = re.compile(r"[ \t]?[(（][\s,;:·、，；]{0,20}[)）]")
_BRACKET_START = re.compile(r"([(（])[ \t]{0,5}[,;、，；][ \t,;、，；]{0,20}")
_BRACKET_END = re.compile(r"[ \t,;、，；]{1,20}([)）])")
# A dropped part within a sentence: a word follows directly, or a word precedes it and the sentence continues.
_CUT = re.compile(f"{HOLE}(?:(?=['\\]]{{0,5}}\\w)|(?<=\\w{HOLE})|(?<=\\w {HOLE})(?=[ ,、]))")
_SPACES = re.compile(r"[ \t\u00a0]+")
_ONLY_FORMULA = re.compile("\x01(\\d+)\x02[ \t]*([.,;]?)")


class Lines:
    """Converts text without brackets to Markdown lines.

    Args:
      chunks: the chunks that placeholders in the text stand for; a formula alone on an indented line is displayed.
    """

    def __init__(self, chunks: list[str], report: Report):
        self.chunks, self.report = chunks, report

    @staticmethod
    def inline(text: str) -> str:
        """Converts markup within a line, e.g. in a table cell."""
        text = text.replace(HOLE, "")
        text = _QUOTES.sub("", text)
        text = _SCRIPTS.sub(lambda m: (markup.superscript if m[1][2] in "pP" else markup.subscript)(m[2]), text)
        text = _READING.sub("", text)
        text = _CODE.sub(lambda m: markup.code_span(m[1]), text)
        text = _EXTERNAL.sub(lambda m: (m[1] or "").strip(), text)
        text = _MAGIC.sub("", text)
        return html.unescape(_TAGS.sub("", re.sub(r"<br\b[^<>]{0,100}>", " ", text, flags=re.IGNORECASE)))

    def render(self, text: str) -> str:
        text = _CELL_END.sub(" ", _BREAK_TAGS.sub("\n", text))
        self.report.count("sentences_cut", sum(1 for _ in _CUT.finditer(text)) if HOLE in text else 0)
        text = self.inline(text)
        text = _BRACKET_START.sub(r"\1", _EMPTY_BRACKETS.sub("", text))
        text = _BRACKET_END.sub(r"\1", text)
        out: list[str] = []
        counters: list[int] = []
        for line in text.split("\n"):
            line = _SPACES.sub(" ", line).strip()
            marks = line[: len(line) - len(line.lstrip("*#:;"))]
            level = min(len(line) - len(line.lstrip("=")), len(line) - len(line.rstrip("=")), 6)
            if level and line.strip("= "):
                counters = []
                out += ["", "#" * level + " " + line.strip("= "), ""]
            elif marks and line[len(marks) :].strip():
                counters = self._item(out, marks, line[len(marks) :].strip(), counters)
            else:
                counters = []
                out.append("" if marks or line == "----" else line)
        self._drop_empty_sections(out)
        return "\n".join(out)

    def _item(self, out: list[str], marks: str, text: str, counters: list[int]) -> list[int]:
        """Writes one line of a list; returns the counters of the open numbered lists by depth."""
        formula = _ONLY_FORMULA.fullmatch(text)
        if marks.strip(":") == "" and formula is not None:
            number = int(formula[1])
            inner = self.chunks[number]
            if inner.startswith("$") and not inner.startswith("$$"):
                self.chunks[number] = f"${inner}$"
            out += ["", text, ""]
            return counters
        depth = min(sum(mark in "*#" for mark in marks), markup.MAX_LIST_DEPTH)
        if depth == 0:  # an indented line, or a term and its definition
            out.append(text)
            return []
        counters = (counters + [0] * depth)[:depth]
        indent = "  " * (depth - 1)
        if marks[-1] == "#":
            counters[-1] += 1
            indent = "   " * (depth - 1)
            out.append(f"{indent}{counters[-1]}. {text}")
        else:
            out.append(f"{indent}- {text}" if marks[-1] == "*" else f"{indent}  {text}")
        return counters

    def _drop_empty_sections(self, out: list[str]) -> None:
        """Removes headings without text below, such as a section whose references were dropped."""
        level_below = 0  # level of the next heading if it follows without text between; 7 if text follows
        for i in range(len(out) - 1, -1, -1):
            line = out[i]
            if not line:
                continue
            level = len(line) - len(line.lstrip("#"))
            if not (1 <= level <= 6 and line[level : level + 1] == " "):
                level_below = 7
            elif level_below <= level:
                out[i] = ""
                self.report.count("empty_sections")
            else:
                level_below = level
