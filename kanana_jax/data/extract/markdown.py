"""Markdown: front matter gives the title; anchors, includes, site macros and page furniture go,
the text stays as written."""

import html
import re
from collections.abc import Callable, Iterator

from kanana_jax.data.extract import encoding, markup
from kanana_jax.data.extract.markup import Extracted, Report, finish

_FRONT_MATTER = re.compile(r"\s*(---|\+\+\+)[ \t]*\n")
_TITLE = re.compile(r"^(?:title|sidebar_label)[ \t]*[:=][ \t]*(.+)$", re.MULTILINE)
_FENCE = re.compile(r"[ \t>]*(`{3,}|~{3,})")
_COMMENT = re.compile(r"<!--")
_CODE_SPAN = re.compile(r"(`+)")
_ANCHOR = re.compile(r"<(a|span)\s[^<>]{0,300}>\s{0,3}</\1>", re.IGNORECASE)
_HEADING_ID = re.compile(r"\{#[\w:.-]{1,100}\}\s{0,20}$")
_ATTRIBUTES = re.compile(r"\{:?[ \t]?(?:\.[\w-]{1,40}[ \t]?){1,5}\}")
_LAYOUT_TAG = re.compile(
    r"</?(?:div|center|font|span|p|picture|source|img|br|details|summary|small|big|kbd|video|iframe|section|figure|"
    r"figcaption|b|strong|i|em|u|ins|hr|nobr)\b(?:[^<>`]{0,1000})>",
    re.IGNORECASE,
)
_BREAK = re.compile(r"<br[ \t]{0,3}/?>", re.IGNORECASE)
_LINK_TAG = re.compile(r"<a\s[^<>]{0,500}>|</a>", re.IGNORECASE)
_SCRIPT_TAG = re.compile(r"<(su[pb])>([^<>]{0,100})</su[pb]>", re.IGNORECASE)
_EMBEDDED_IMAGE = re.compile(r"!\[([^\[\]\n]{0,300})\]\(data:[^()\s]{0,20000000}\)")
_BADGE = re.compile(r"\[!\[[^\[\]\n]{0,200}\]\([^()\s]{0,500}\)\]\([^()\s]{0,500}\)")
# DocFX, Hugo, Jekyll, mdBook and Sphinx-like macros of documentation sites.
_MACRO = re.compile(
    r"\[!INCLUDE[ \t]?\[[^\[\]\n]{0,200}\][ \t]?\([^()\n]{0,300}\)\]|\{\{[<%][^{}\n]{0,500}[%>]\}\}|"
    r"\{%[^{}%\n]{0,500}%\}|\{\{#\w{1,30}[^{}\n]{0,300}\}\}|\[\[_?TOC_?\]\]|^\[TOC\]$",
    re.IGNORECASE,
)
_CONTAINER = re.compile(r":{3,}(?!:)[ \t]*(?![ \t])(?:\{?[\w-]{0,30}\}?)[ \t]*(?![ \t])(.{0,200})$")


def convert(data: bytes, name: str = "") -> Extracted:
    """The text of a Markdown file."""
    report = Report()
    text, title = split_front_matter(encoding.decode(data, report))
    body = clean(text, report)
    return finish(body, title or first_heading(body), report)


def split_front_matter(text: str) -> tuple[str, str | None]:
    """The text after the YAML or TOML block at its head, and the title that the block names."""
    opening = _FRONT_MATTER.match(text)
    if opening is None:
        return text, None
    end = text.find(f"\n{opening[1]}", opening.end() - 1)
    line_end = text.find("\n", end + 1)
    if end < 0 or text[end + 4 : line_end if line_end >= 0 else None].strip():
        return text, None
    block = text[opening.end() : end + 1]
    # A rule at the head of a page is no front matter: that has keys.
    if not re.search(r"^[\w.-]{1,60}[ \t]*[:=]", block, re.MULTILINE):
        return text, None
    found = _TITLE.search(block)
    title = found[1].strip() if found else ""
    if title[:1] in "'\"" and title[-1:] == title[:1]:
        title = title[1:-1]
    return text[line_end + 1 :] if line_end >= 0 else "", _unescape(title) or None


def _unescape(text: str) -> str:
    return html.unescape(text).replace("\\_", "_")


def first_heading(text: str) -> str | None:
    found = re.search(r"^#{1,2}[ \t]+(.+?)[ \t#]{0,20}$", text[:20_000], re.MULTILINE)
    return found[1].replace("`", "").replace("**", "") if found else None


def clean(text: str, report: Report, prose: Callable[[str, Report], str] | None = None) -> str:
    """Markdown without furniture; `prose` changes further what is neither code block nor comment."""
    prose = prose or (lambda part, report: part)
    parts = []
    for is_code, part in blocks(text, report):
        parts.append(part if is_code else _clean_prose(prose(part, report), report))
    return "".join(parts)


def blocks(text: str, report: Report) -> Iterator[tuple[bool, str]]:
    """Code blocks and what is between them, without HTML comments; together the whole text."""
    fence, start, at = "", 0, 0
    pieces: list[str] = []
    while at <= len(text):
        end = text.find("\n", at)
        end = len(text) if end < 0 else end + 1
        line = text[at:end]
        found = _FENCE.match(line)
        if not fence:
            if found is not None and not (found[1][0] == "`" and "`" in line[found.end() :]):
                pieces.append(text[start:at])
                yield False, "".join(pieces)
                pieces, fence, start = [], found[1], at
            elif (comment := _COMMENT.search(line)) is not None and "`" not in line[: comment.start()]:
                pieces.append(text[start : at + comment.start()])
                close = text.find("-->", at + comment.start())
                report.count("comments_dropped")
                end = len(text) if close < 0 else close + 3
                start = end
        elif found is not None and found[1].startswith(fence) and not line[found.end() :].strip():
            yield True, text[start:end]
            fence, start = "", end
        if end >= len(text):
            break
        at = end
    if fence:
        report.count("unbalanced")
    yield bool(fence), "".join(pieces) + text[start:]


def _clean_prose(text: str, report: Report) -> str:
    return "\n".join(_clean_line(line, report) for line in text.split("\n"))


def _clean_line(line: str, report: Report) -> str:
    if line.startswith(":::"):
        container = _CONTAINER.match(line)
        if container is not None:
            return container[1]
    if not any(c in line for c in "<{[!"):
        return line
    line = _EMBEDDED_IMAGE.sub(lambda m: report.count("images") or m[1], line)
    line = _BADGE.sub("", line)
    # Odd pieces are code spans, which stay as written.
    pieces = _CODE_SPAN.split(line)
    open_ticks = ""
    for i, piece in enumerate(pieces):
        if i % 2:
            open_ticks = "" if open_ticks == piece else open_ticks or piece
        elif not open_ticks:
            pieces[i] = _clean_piece(piece, line.lstrip().startswith("|"), report)
    return _HEADING_ID.sub("", "".join(pieces)) if line.startswith("#") else "".join(pieces)


def _clean_piece(piece: str, in_table: bool, report: Report) -> str:
    piece, macros = _MACRO.subn("", piece)
    report.count("macros_dropped", macros)
    if "{" in piece:
        piece = _ATTRIBUTES.sub("", piece)
    if "<" not in piece:
        return piece
    piece, anchors = _ANCHOR.subn("", piece)
    report.count("anchors_dropped", anchors)
    piece = _BREAK.sub(" " if in_table else "\n", piece)
    piece = _SCRIPT_TAG.sub(lambda m: (markup.superscript if m[1][2] in "pP" else markup.subscript)(m[2]), piece)
    piece = _LINK_TAG.sub("", piece)
    piece, tags = _LAYOUT_TAG.subn("", piece)
    report.count("tags_dropped", tags)
    return piece
