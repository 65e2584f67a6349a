"""MediaWiki markup to Markdown: keeps headings, formulas, values, tables and lists in reading order.

One pass over the brackets with a stack: templates and links are rendered when they close, from the inside out. Time is
linear and there is no recursion (mwparserfromhell takes 13 s for 60 kB of `<b>`).
"""

import html
import re
from collections.abc import Callable

from kanana_jax.data.extract import encoding, markup
from kanana_jax.data.extract.markup import Extracted, Report, finish, words
from kanana_jax.data.extract.wikitext import countries
from kanana_jax.data.extract.wikitext.lines import Lines
from kanana_jax.data.extract.wikitext.tables import render_table
from kanana_jax.data.extract.wikitext.templates import Page, render_template

# MediaWiki's limit on the depth of templates; deeper brackets are treated as text.
_MAX_DEPTH = 40
_OPAQUE = re.compile(
    r"<!--|<(nowiki|math|chem|ce|pre|syntaxhighlight|source|ref|timeline|score|hiero|graph|mapframe|maplink|gallery|"
    r"templatestyles|references|imagemap|categorytree|section|inputbox|indicator)\b([^<>]{0,1000})>",
    re.IGNORECASE,
)
_BRACKETS = re.compile(r"\{\{+|\}\}+|\[\[|\]\]|\||(?:^|\n)[ \t:]*\{\||\n[ \t]*\|\}(?!\}(?!\}))|\n=")
_FILE = words("file image media 파일 그림 미디어 ファイル 画像 メディア")
_FILE_OPTIONS = words(
    "thumb thumbnail frame framed frameless border left right center centre none upright 섬네일 썸네일 축소판 프레임 "
    "왼쪽 오른쪽 가운데 중앙 없음 サムネイル サムネール フレーム 左 右 中央 なし"
)
_LANGUAGES = words("en de fr es it pt ru ja zh ko nl pl sv ar vi uk ca no fi cs hu tr id he da eo simple")
_CATEGORY = words("category 분류 カテゴリ")
_REDIRECT = re.compile(r"\s*#\s*(redirect|넘겨주기|転送|リダイレクト)\b", re.IGNORECASE)


def convert(data: bytes, name: str = "") -> Extracted:
    """The text of one page; `name` is its title."""
    report = Report()
    return render(encoding.decode(data, report), name or None, report)


def render(source: str, title: str | None, report: Report) -> Extracted:
    """The text of a page's wikitext."""
    if _REDIRECT.match(source):
        report.count("redirect")
        return finish("", title, report)
    kept = _Kept()
    page = Page(title or "", source[: countries.SAMPLE], kept.add, report)
    text = _Brackets(_protect(source, kept, report), page, kept, report).render()
    lines = Lines(kept.chunks, report).render(text)
    return finish(encoding.clean(kept.restore(lines), report), title, report)


class _Kept:
    """Chunks that are finished or must not be parsed, and their placeholders: numbers between control characters."""

    _MARK = re.compile("\x01(\\d+)\x02")

    def __init__(self):
        self.chunks: list[str] = []

    def add(self, chunk: str) -> str:
        self.chunks.append(self.restore(chunk))  # stored chunks contain no placeholders
        return f"\x01{len(self.chunks) - 1}\x02"

    def restore(self, text: str, flat: bool = False) -> str:
        """Replaces placeholders by their chunks; `flat` keeps each chunk on one line."""
        if flat:
            return self._MARK.sub(lambda m: " ".join(self.chunks[int(m[1])].split()), text)
        return self._MARK.sub(lambda m: self.chunks[int(m[1])], text)


def _protect(source: str, kept: _Kept, report: Report) -> str:
    """Replaces comments, formulas, code, references and other elements whose content is not wikitext."""
    out, at, unclosed = [], 0, set()
    while (found := _OPAQUE.search(source, at)) is not None:
        out.append(source[at : found.start()])
        at = found.end()
        if found[1] is None:
            end = source.find("-->", at)
            at = len(source) if end < 0 else end + 3
            continue
        tag, attributes = found[1].lower(), found[2]
        if attributes.endswith("/"):
            report.count("references_dropped", tag == "ref")
            continue
        closer = None if tag in unclosed else re.compile(rf"</{tag}[^<>]{{0,20}}>", re.IGNORECASE).search(source, at)
        if closer is None:
            unclosed.add(tag)  # searching again each time would be quadratic in the text
            report.count("unbalanced")
            continue
        out.append(_opaque(tag, attributes, source[at : closer.start()], kept, report))
        at = closer.end()
    out.append(source[at:])
    return "".join(out)


def _opaque(tag: str, attributes: str, inner: str, kept: _Kept, report: Report) -> str:
    if tag in ("math", "chem", "ce"):
        report.count("formulas")
        tex = " ".join(inner.split())
        display = re.search(r"display\s?=\s?[\"']?block", attributes) is not None
        formula = markup.math(tex if tag == "math" else rf"\ce{{{tex}}}", display)
        return f"\n\n{kept.add(formula)}\n\n" if display else kept.add(formula)
    if tag == "nowiki":
        return kept.add(html.unescape(inner))
    if tag in ("pre", "syntaxhighlight", "source"):
        language = re.search(r"lang\s?=\s?[\"']?([\w+#-]{1,20})", attributes)
        report.count("code_blocks")
        if "inline" in attributes:
            return kept.add(markup.code_span(inner))
        inner = re.sub(r"</?nowiki>", "", inner)
        return f"\n\n{kept.add(markup.fenced(inner, language[1] if language else ''))}\n\n"
    if tag == "gallery":
        captions = [line.split("|", 1)[1] for line in inner.split("\n") if "|" in line]
        return "\n" + "".join(f"* {caption}\n" for caption in captions)
    report.count("references_dropped" if tag in ("ref", "references") else "extensions_dropped")
    return ""


class _Brackets:
    """Renders `{{…}}`, `{{{…}}}`, `[[…]]` and `{|…|}` with one stack of open brackets."""

    def __init__(self, text: str, page: Page, kept: _Kept, report: Report):
        self.text, self.page, self.kept, self.report = text, page, kept, report
        # For each open bracket: its kind, its opening characters, and its parts between pipes, each a list of pieces.
        self.stack: list[tuple[str, str, list[list[str]]]] = [("text", "", [[]])]

    def render(self) -> str:
        at = 0
        for found in _BRACKETS.finditer(self.text):
            self._write(self.text[at : found.start()])
            at = found.end()
            self._token(found[0])
        self._write(self.text[at:])
        while len(self.stack) > 1:
            self._flatten()
        return "".join(self.stack[0][2][0])

    def _write(self, text: str) -> None:
        self.stack[-1][2][-1].append(text)

    def _token(self, token: str) -> None:
        kind = self.stack[-1][0]
        bare = token.strip()
        if bare.startswith("{{"):
            self._open_braces(len(bare))
        elif bare.startswith("}}"):
            self._close_braces(len(bare))
        elif bare == "[[":
            self._open("link", "[[")
        elif bare == "]]":
            if kind == "link":
                self._close(self._link)
            else:
                self._write("" if kind == "text" else "]]")
        elif bare == "|":
            self.stack[-1][2].append([]) if kind in ("template", "link", "parameter") else self._write("|")
        elif bare.endswith("{|"):
            self._write("\n")
            self._open("table", "{|")
        elif bare == "|}":
            while self.stack[-1][0] == "link":
                self._flatten()
            if self.stack[-1][0] == "table":
                self._close(self._table)
            elif self.stack[-1][0] == "template":  # an empty last argument before the closing braces
                self.stack[-1][2].append([])
                self._write("}")
            else:
                self._write(token)
        else:  # a heading ends links that were never closed
            while self.stack[-1][0] == "link":
                self._flatten()
            self._write(token)

    def _open(self, kind: str, opener: str) -> None:
        if len(self.stack) > _MAX_DEPTH:
            self.report.count("too_deep")
            self._write(opener)
        else:
            self.stack.append((kind, opener, [[]]))

    def _open_braces(self, n: int) -> None:
        if n > 2 * _MAX_DEPTH:
            self.report.count("too_deep")
            return
        while n >= 2:
            size = 3 if n == 3 else 2
            self._open("parameter" if size == 3 else "template", "{" * size)
            n -= size

    def _close_braces(self, n: int) -> None:
        while n >= 2:
            depth = len(self.stack) - 1
            while self.stack[depth][0] in ("link", "table"):
                depth -= 1
            need = {"parameter": 3, "template": 2}.get(self.stack[depth][0])
            if need is None or (need > n and self.stack[depth][0] == "parameter"):
                break
            while len(self.stack) - 1 > depth:
                self._flatten()
            self._close(self._parameter if need == 3 else self._template)
            n -= need
        self._write("}" * n if self.stack[-1][0] != "text" else "")

    def _flatten(self) -> None:
        """Turns an opening bracket that is never closed, and its content, into text."""
        _, _, parts = self.stack.pop()
        self.report.count("unbalanced")
        self._write("|".join("".join(part) for part in parts))

    def _close(self, rendered: Callable[[list[str]], str]) -> None:
        _, _, parts = self.stack.pop()
        self._write(rendered(["".join(part) for part in parts]))

    def _parameter(self, parts: list[str]) -> str:
        return parts[1] if len(parts) > 1 else ""

    def _template(self, parts: list[str]) -> str:
        return render_template(parts, self.page)

    def _table(self, parts: list[str]) -> str:
        nested = any(kind == "table" for kind, _, _ in self.stack)
        rows = render_table(parts[0], nested)
        if nested or not rows:
            return f" {rows} " if rows else ""
        self.report.count("tables")
        return f"\n\n{self.kept.add(self.kept.restore(Lines.inline(rows), flat=True))}\n\n"

    def _link(self, parts: list[str]) -> str:
        target = parts[0].strip()
        space, _, rest = target.partition(":")
        space = space.strip().lower()
        if rest and space in _FILE:
            self.report.count("images")
            caption = parts[-1].strip() if len(parts) > 1 else ""
            # The last part is the caption unless it is an option such as `thumb` or `200px`.
            is_option = caption.lower() in _FILE_OPTIONS or re.fullmatch(
                r"[\dx]{1,9} ?px|\w{1,20}\s?=.{0,200}", caption
            )
            return "" if not caption or is_option else f"\n\n{caption}\n\n"
        if rest and space in _CATEGORY:
            self.report.count("categories")
            return ""
        if rest and space in _LANGUAGES and len(parts) == 1:  # a link to this page in another language
            return ""
        if len(parts) > 1:
            return parts[-1] or re.sub(r"(?<!\s)\s*\([^()]{0,100}\)$", "", target.rpartition(":")[2])
        return target.removeprefix(":").partition("#")[0] or target
