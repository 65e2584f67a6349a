"""Renders expanded LaTeX tokens as Markdown: sections, lists, tables and captions are converted, maths is kept.

One walk with a stack of frames: a command whose argument is transformed (a heading, a footnote, a table) opens a frame,
which collects the output until the argument ends.
"""

import re
import unicodedata
from collections.abc import Mapping

from kanana_jax.data.extract import markup
from kanana_jax.data.extract.latex import lexer, quantities
from kanana_jax.data.extract.latex import words as latex_words
from kanana_jax.data.extract.latex.counters import Counters
from kanana_jax.data.extract.latex.frames import SOFT, Writer
from kanana_jax.data.extract.latex.lexer import name_of
from kanana_jax.data.extract.latex.source import Source
from kanana_jax.data.extract.markup import Report

_SOFT_BREAK = re.compile(
    r"(?<=[\u3040-\u30ff\u4e00-\u9fff、。，．])[ \t]*(?:\x05[ \t]*)+(?=[\u3040-\u30ff\u4e00-\u9fff、。，．])"
)
# Soft line ends at the beginning of a paragraph, and repeated blanks left by dropped commands.
_SOFT_LINE_START = re.compile(r"(\n *)(?:\x05 *)+")
_SPACES = re.compile(r"(?<=[^\s]) {2,}")
_LONE_BLANK = re.compile(r"(?<=\n\n) (?! )")  # no indentation
_CODE_MARK = re.compile("^([^\n\x0e]*)\x0e(\\d+)\x0f", re.MULTILINE)
_DIMENSION = re.compile(r"^=?[ \t]{0,9}-?[\d.]{0,9}[ \t]{0,9}(?:pt|em|ex|cm|mm|in|bp|mu|sp)\b[ \t]{0,9}")
_REF = re.compile("\x06([^\x06\x07]*)\x07")


class Renderer:
    """Renders the tokens of a document.

    Args:
      theorems: environment → (title, counter, within), from the preamble.
      citations: key → (author, year) or (label, "").
      floats: environment → title of floats defined in the preamble.
    """

    def __init__(
        self,
        tokens: list[str],
        theorems: Mapping[str, tuple[str, str, str]],
        citations: Mapping[str, tuple[str, str]],
        report: Report,
        floats: Mapping[str, str] = {},
    ):
        self.floats = {**latex_words.TABLES, **floats}
        self.source, self.citations, self.report = Source(tokens), citations, report
        self.theorems = {name: (title, "theorem", "") for name, title in latex_words.THEOREMS.items()} | dict(theorems)
        self.counters = Counters(self.theorems)
        self.writer = Writer(len(tokens), self.counters, report)
        self.code: list[str] = []  # code blocks, kept apart until blanks are tidied
        self.has_chapters = any(token.startswith("\\chapter") for token in tokens)

    def render(self) -> str:
        at = 0
        while at < len(self.source.tokens):
            while len(self.writer.frames) > 1 and self.writer.frames[-1].end <= at:
                self.writer.close()
            at = self._step(at)
        while len(self.writer.frames) > 1:
            self.writer.close()
        self.writer.paragraph()
        text = _REF.sub(lambda found: self._resolve(found[1]), self.writer.frames[0].take())
        text = _SOFT_LINE_START.sub(r"\1", _SOFT_BREAK.sub("", f"\n{text}"))
        text = _LONE_BLANK.sub("", _SPACES.sub(" ", " ".join(text.split(SOFT))))
        return _CODE_MARK.sub(lambda found: found[1] + self._indented(int(found[2]), found[1]), text)

    def _indented(self, number: int, before: str) -> str:
        """A code block, indented like the text before it on its first line."""
        indent = re.sub(r"[^\s>]", " ", before)
        return self.code[number].replace("\n", f"\n{indent}")

    def _step(self, at: int) -> int:
        token = self.source.tokens[at]
        first = token[:1]
        if first == "\\":
            if token.startswith("\\begin{"):
                return self._begin(at, token[7:-1])
            if token.startswith("\\end{"):
                return at + 1
            return self._command(at, name_of(token))
        if first == "$":
            return self._math(at, token, display=token == "$$")
        if token == "&":
            self.writer.cell()
        elif token == lexer.PARAGRAPH:
            self.writer.paragraph()
        elif token == "~":
            self.writer.write(" ")
        elif token == "\n":
            self.writer.write(SOFT)
        elif first == lexer.CODE:
            self._code(token)
        elif first == lexer.URL:
            self.writer.write(token[1:])
        elif token not in ("{", "}"):
            self.writer.write(_typeset(token) if "`" in token or "''" in token or "--" in token else token)
        return at + 1

    def _code(self, token: str) -> None:
        language, mark, code = token[1:].partition("\x04")
        if mark:
            self.report.count("code_blocks")
            language, floats, caption = language.partition("\x0b")
            self.code.append(markup.fenced(code, language))
            place = f"\x0e{len(self.code) - 1}\x0f"
            if caption:
                self.counters.float("Listing")
                self.report.count("captions")
                place = f"Listing {self.counters.anchor[1]}: {self.plain(caption)}\n\n{place}"
            (self.writer.float if floats else self.writer.block)(place)
        else:
            self.writer.write(markup.code_span(token[2:]))

    def _math(self, at: int, opener: str, display: bool) -> int:
        closer = {"\\(": "\\)", "\\[": "\\]"}.get(opener, opener)
        end = self.source.find_closer(at + 1, closer)
        if end < 0:
            self.report.count("unbalanced")
            self.writer.write("\\$" if opener == "$" else "")
            return at + 1
        self._formula(self.source.tokens[at + 1 : end], display)
        return end + 1

    def _formula(self, parts: list[str], display: bool, environment: str = "") -> None:
        self.report.count("formulas")
        kept, at = [], 0
        while at < len(parts):
            name = name_of(parts[at])
            if name == "label" and "}" in parts[at : at + 12]:
                end = parts.index("}", at)
                self.counters.label(lexer.join(parts[at + 2 : end]))
                at = end
            elif name in ("nonumber", "notag"):
                self.counters.unnumbered_row()
                kept.append(parts[at])
            elif environment and parts[at].startswith("\\\\"):
                kept.append(parts[at])
                self.counters.equation_row()
            else:
                kept.append(" " if parts[at] == lexer.PARAGRAPH else parts[at])
            at += 1
        tex = re.sub(r"(?<![ \t])[ \t]*\n\s*", "\n", lexer.join(kept)).strip()
        if environment and not environment.startswith(("equation", "displaymath", "math")):
            self.writer.write(f"\n\n\\begin{{{environment}}}\n{tex}\n\\end{{{environment}}}\n\n")
        elif display:
            self.writer.write(f"\n\n$${tex}$$\n\n" if tex else "")
        else:
            self.writer.write(f"${' '.join(tex.split())}$" if tex else "")

    # Commands.

    def _command(self, at: int, name: str) -> int:
        after = at + 1
        if name in ("(", "["):
            return self._math(at, "\\" + name, display=name == "[")
        if name in latex_words.HEADINGS:
            return self._heading(after, name)
        if name == "\\":
            return self._line_end(after)
        if name == "par":
            self.writer.paragraph()
            return after
        if name in latex_words.ACCENTS:
            return self._accent(after, name)
        if name in latex_words.SYMBOLS:
            self.writer.write(latex_words.SYMBOLS[name])
        elif name == "item":
            return self._item(after)
        elif name == "label":
            key, after = self.source.raw(after)
            self.counters.label(key)
        elif name in latex_words.REFS:
            _, after = self.source.star(after)
            keys, after = self.source.raw(after)
            self.writer.write(", ".join(f"\x06{name}\x08{key.strip()}\x07" for key in keys.split(",")))
        elif name in latex_words.CITES:
            return self._cite(after, name)
        elif name in latex_words.FRAMED:
            return self._framed(after, name)
        elif name in quantities.COMMANDS:
            return self._quantity(after, name)
        elif name == "ensuremath":
            group = self.source.group(after)
            if group is not None:
                self._formula(self.source.tokens[group[0] : group[1]], display=False)
                after = group[1] + 1
        elif name == "multicolumn":
            span, after = self.source.raw(after)
            _, after = self.source.raw(after)
            tabular = self.writer.nearest("tabular")
            if tabular is not None and span.strip().isdecimal():
                tabular.span = min(int(span.strip()[:4]), markup.MAX_SPAN)
        elif name == "xspace":
            following = self.source.tokens[after] if after < len(self.source.tokens) else ""
            self.writer.write(" " if following[:1].isalnum() or following[:1] in "($" else "")
        elif name == "appendix":
            self.counters.appendix()
        elif name in latex_words.DIMENSIONED:
            after = self.source.blanks(after)
            if after < len(self.source.tokens):
                self.source.tokens[after] = _DIMENSION.sub("", self.source.tokens[after], count=1)
        elif name in latex_words.STATEMENTS:
            before, behind = latex_words.STATEMENTS[name]
            self.writer.write(before)
            group = self.source.group(after)
            if behind and group is not None:
                self.writer.open("wrap", group[1], behind)
        elif name in latex_words.DROPPED_ARGUMENTS:
            _, after = self.source.star(after)
            for _ in range(latex_words.DROPPED_ARGUMENTS[name]):
                _, after = self.source.option(after)
                group = self.source.group(after)
                after = group[1] + 1 if group is not None else after
        elif (
            after < len(self.source.tokens)
            and self.source.tokens[after].startswith("[")
            and not self.source.tokens[at][-1].isspace()
        ):
            _, after = self.source.option(after)  # the command only changes the appearance of its argument
        return after

    def _heading(self, at: int, name: str) -> int:
        star, at = self.source.star(at)
        _, at = self.source.option(at)
        group = self.source.group(at)
        if not star:
            self.counters.heading(name, self.has_chapters)
        if group is None:
            return at
        level = latex_words.HEADINGS[name] + self.has_chapters
        self.writer.paragraph()
        self.writer.open("heading", group[1], level=max(2, min(level, 6)))
        return group[0]

    def _line_end(self, at: int) -> int:
        _, at = self.source.star(at)
        if at < len(self.source.tokens) and self.source.tokens[at].startswith("["):
            _, at = self.source.option(at)
        frame = self.writer.frames[-1]
        if frame.kind == "tabular":
            self.writer.cell()
            frame.rows.append([])
        else:
            self.writer.write("\n")
        return at

    def _accent(self, at: int, name: str) -> int:
        mark = latex_words.ACCENTS[name]
        group = self.source.group(at)
        if group is not None:
            base, at = lexer.join(self.source.tokens[group[0] : group[1]]), group[1] + 1
        else:
            here = self.source.blanks(at)
            if here >= len(self.source.tokens) or self.source.tokens[here][0] in "{}$&~#\n\x01\x02":
                return at
            token = self.source.tokens[here].lstrip()
            base = token if token[0] == "\\" else token[0]
            if token[0] != "\\" and len(token) > 1:
                self.source.tokens[here], at = token[1:], here
            else:
                at = here + 1
        base = {"\\i": "i", "\\j": "j"}.get(base.strip(), base.strip().lstrip("\\"))
        self.writer.write(unicodedata.normalize("NFC", base[:1] + mark) + base[1:] if base else "")
        return at

    def _item(self, at: int) -> int:
        label, at = self.source.option(at)
        frame = self.writer.nearest("list")
        while frame is not None and self.writer.frames[-1] is not frame and self.writer.frames[-1].kind == "wrap":
            self.writer.close()
        if frame is None or self.writer.frames[-1] is not frame:
            self.writer.write("\n- ")
            return at
        self.writer.end_item(frame)
        frame.level += 1
        self.counters.item(frame.level)
        if label:
            self.writer.write(self.plain(label) + (": " if frame.name == "description" else " "))
        return at

    def _cite(self, at: int, name: str) -> int:
        _, at = self.source.star(at)
        first, at = self.source.option(at)
        second, at = self.source.option(at)
        keys, at = self.source.raw(at)
        note = self.plain(second or first) if first or second else ""
        self.report.count("citations")
        known = [self.citations.get(key.strip(), (key.strip(), "")) for key in keys.split(",")]
        dated = all(year for _, year in known)
        if dated and name in latex_words.TEXTUAL_CITES:
            note = f" ({note})" if note else ""
            self.writer.write("; ".join(f"{author} ({year})" for author, year in known) + note)
        else:
            between, opening, closing = ("; ", "(", ")") if dated else (", ", "[", "]")
            texts = [f"{author}, {year}" if dated else f"{author} {year}".strip() for author, year in known]
            self.writer.write(opening + between.join(texts) + (f", {note}" if note else "") + closing)
        return at

    def _framed(self, at: int, name: str) -> int:
        _, at = self.source.star(at)
        if name == "captionof":
            _, at = self.source.raw(at)
        _, at = self.source.option(at)
        group = self.source.group(at)
        if group is None:
            return at
        if name == "caption":
            holder = self.writer.nearest("figure", "table", "tabular")
            self.counters.float("Figure" if holder is None else "Table" if holder.kind == "tabular" else holder.name)
        self.writer.open("marginpar" if name in ("marginnote", "sidenote") else name, group[1])
        return group[0]

    def _quantity(self, at: int, name: str) -> int:
        _, at = self.source.option(at)
        values = []
        for _ in range(quantities.COMMANDS[name]):
            value, at = self.source.raw(at)
            values.append(value)
        self.writer.write(quantities.render(name, values))
        return at

    # Environments.

    def _begin(self, at: int, name: str) -> int:
        end, after = self.source.environments.get(at, -1), at + 1
        if end < 0:
            self.report.count("unbalanced")
            return after
        bare = name.rstrip("*")
        if name in latex_words.MATH_ENVIRONMENTS:
            if name not in ("math", "displaymath") and not name.endswith("*"):
                self.counters.equation_row()
            if bare.startswith(("alignat", "IEEEeqn")):
                _, after = self.source.raw(after)
            self._formula(self.source.tokens[after:end], display=name != "math", environment=name)
            return end + 1
        if name in latex_words.DROPPED_ENVIRONMENTS:
            self.report.count("drawings_dropped" if name != "thebibliography" else "bibliographies_dropped")
            return end + 1
        option, after = self.source.option(after)
        for _ in range(latex_words.ENVIRONMENT_ARGUMENTS.get(bare, 0)):
            _, after = self.source.raw(after)
        if bare in latex_words.FIGURES:
            self.writer.open("figure", end, latex_words.FIGURES[bare])
        elif bare in self.floats and name not in latex_words.TABULARS:
            self.writer.open("table", end, self.floats[bare])
        elif name in latex_words.TABULARS:
            for _ in range(latex_words.TABULARS[name]):
                _, after = self.source.raw(after)
            self.writer.open("tabular", end, name)
        elif name in latex_words.LISTS:
            self.writer.open("list", end, name)
        elif name in self.theorems:
            title = self.plain(self.theorems[name][0])
            number = self.counters.theorem(name)
            note = f" ({self.plain(option)})" if option else ""
            self.writer.paragraph()
            self.writer.write(f"**{title}{' ' + number if number else ''}**{note}. ")
        elif bare == "proof":
            self.writer.paragraph()
            self.writer.write(f"*{self.plain(option) or 'Proof'}.* ")
        elif bare in ("center", "flushleft", "flushright"):
            self.writer.open("centred", end)
        elif bare in ("abstract", "quote", "quotation", "verse"):
            self.writer.open("abstract" if bare == "abstract" else "quote", end)
        else:
            self.writer.write("\n\n" if bare not in ("document", "minipage", "CJK") else "")
        return after

    def plain(self, source: str) -> str:
        """Renders a short piece of source as plain text."""
        if not any(c in source for c in "\\{$~"):
            return " ".join(_typeset(source).split())
        parts = list(lexer.tokens(source[:2000]))
        inner = Renderer([t for t in parts if not t.startswith(("\\begin", "\\end"))], {}, {}, Report())
        return " ".join(inner.render().split())

    def _resolve(self, reference: str) -> str:
        name, _, key = reference.partition("\x08")
        found = self.counters.labels.get(key)
        if found is None:
            self.report.count("unresolved_references")
            return key
        kind, number = found
        if name == "nameref" or name == "pageref":
            return f"{kind} {number}"
        if name == "eqref":
            return f"({number})"
        return f"{kind} {number}" if name in ("autoref", "cref", "Cref", "zcref", "vref") else number


def _typeset(text: str) -> str:
    text = text.replace("---", "—").replace("--", "–")
    return text.replace("``", "“").replace("''", "”").replace("`", "‘")
