"""Markdown: takes the title from front matter, removes anchors, includes, site macros and page furniture."""

import html
import re
from collections.abc import Callable, Iterator

from kanana_jax.data.extract import encoding, markup, rst, tags
from kanana_jax.data.extract.markup import Extracted, Report, finish

_FRONT_MATTER = re.compile(r"\s*(---|\+\+\+)[ \t]*\n")
_TITLE = re.compile(r"^(?:title|sidebar_label)[ \t]*[:=][ \t]*(.+)((?:\n[ \t]+\S.*)*)", re.MULTILINE)
_FENCE = re.compile(r"[ \t>]*(`{3,}|~{3,})")
_CODE_SPAN = re.compile(r"(`+)")
_HEADING_ID = re.compile(r"\{#[\w:.-]{1,100}(?:[ \t][.#][\w-]{1,40}){0,5}\}\s{0,20}$")
_ATTRIBUTES = re.compile(r"\{:?[ \t]?(?:[.#][\w-]{1,40}[ \t]?){1,5}\}|\{:[ \t]?[a-z][\w-]{0,40}=[^{}\n]{0,300}\}")
_EMBEDDED_IMAGE = re.compile(r"!\[([^\[\]\n]{0,300})\]\(data:[^()\s]{0,20000000}\)")
_BADGE = re.compile(r"\[!\[[^\[\]\n]{0,200}\]\([^()\s]{0,500}\)\]\([^()\s]{0,500}\)")
# Macros of documentation sites: DocFX, Hugo, Jekyll, mdBook and Sphinx-like.
_MACRO = re.compile(
    r"\[!INCLUDE[ \t]?\[[^\[\]\n]{0,200}\][ \t]?\([^()\n]{0,300}\)\]|\{\{[<%][^{}\n]{0,500}[%>]\}\}|"
    r"\{%[^{}%\n]{0,500}%\}|\{\{#\w{1,30}[^{}\n]{0,300}\}\}|\[\[_?TOC_?\]\]|^\[TOC\]$",
    re.IGNORECASE,
)
_CONTAINER = re.compile(r"[ \t>]{0,40}:{3,40}(?!:)[ \t]{0,9}(?:\{?[\w-]{0,30}\}?)[ \t]{0,9}(?![ \t])(.{0,300})$")
# Macros that show their first quoted string.
_SHOWING = re.compile(
    r"\{[{%][<%]?[ \t]{0,3}(?:tab|tabs|expand|details|summary|card|button)[ \t]{1,3}\"([^\"{}\n]{1,300})\""
)
_ABBREVIATION = re.compile(r"\*\[[^\[\]\n]{1,100}\]:[ \t]")
_ADMONITION = re.compile(
    r"([ \t]*)(?:!!!|\?\?\?\+?|===[!+]?)(?:[ \t]{1,9}([a-z][\w-]{0,30}))?(?:[ \t]{1,9}[a-z][\w-]{0,30}){0,3}"
    r"(?:[ \t]{1,9}\"([^\"\n]{0,300})\")?[ \t]*$"
)
_DIRECTIVE = re.compile(r"[ \t]*(?:`{3,}|~{3,})\{([\w:-]{1,40})\}[ \t]*(.*)")
_OPTION = re.compile(r"[ \t]*:[\w-]{1,40}:(?:[ \t]|$)")
_SPECIAL = re.compile(r"[<{\[!&]")
_ITEM = re.compile(r"[ \t]{0,3}(?:[*+-]|\d{1,9}[.)])[ \t]")
_CODE = markup.words("code code-block code-cell sourcecode")
_FURNITURE = markup.words("toctree contents tableofcontents index include eval-rst raw bibliography")
_MAX_DEPTH = 20


def convert(data: bytes, name: str = "") -> Extracted:
    """The text of a Markdown file."""
    report = Report()
    text, title = split_front_matter(encoding.decode(data, report))
    body = clean(text, report)
    return finish(body, title or first_heading(body), report)


def split_front_matter(text: str) -> tuple[str, str | None]:
    """The text after a YAML or TOML front matter block, and the title in that block."""
    opening = _FRONT_MATTER.match(text)
    if opening is None:
        return text, None
    end = text.find(f"\n{opening[1]}", opening.end() - 1)
    line_end = text.find("\n", end + 1)
    if end < 0 or text[end + 4 : line_end if line_end >= 0 else None].strip():
        return text, None
    block = text[opening.end() : end + 1]
    # Front matter has keys; otherwise this is a horizontal rule at the top of the page.
    if not re.search(r"^[\w.-]{1,60}[ \t]*[:=]", block, re.MULTILINE):
        return text, None
    found = _TITLE.search(block)
    title = found[1].strip() if found else ""
    if found and (title[:1] in (">", "|") or not title):  # a multi-line YAML string
        title = " ".join(found[2].split())
    if title[:1] in "'\"" and title[-1:] == title[:1]:
        title = title[1:-1].replace("''", "'")
    return text[line_end + 1 :] if line_end >= 0 else "", _unescape(title) or None


def _unescape(text: str) -> str:
    return html.unescape(text).replace("\\_", "_")


def first_heading(text: str) -> str | None:
    """The first heading of level one or two, in either Markdown style."""
    found = re.search(
        r"^#{1,2}[ \t]+(.+?)[ \t#]{0,20}$|^(\S[^\n]{0,300})\n={2,100}[ \t]{0,20}$", text[:20_000], re.MULTILINE
    )
    return (found[1] or found[2]).replace("`", "").replace("**", "") if found else None


def clean(text: str, report: Report, prose: Callable[[str, Report], str] | None = None, depth: int = 0) -> str:
    """Removes page furniture from Markdown.

    Args:
      prose: a further transformation of the text outside code blocks and comments.
      depth: nesting depth of directives.
    """
    parts = []
    # Content of components is indented, so indentation does not mean code.
    in_list = prose is not None
    for is_code, part in blocks(_admonitions(text), report):
        if not is_code:
            part = tags.blocks(prose(part, report) if prose else part, report)
            part = _clean_prose(part, in_list, prose is not None, report)
        elif (found := _DIRECTIVE.match(part)) is not None and depth < _MAX_DEPTH:
            part = _directive(found, part, report, prose, depth)
        parts.append(part)
        in_list = True
    return "".join(parts)


def _directive(
    found: re.Match[str], part: str, report: Report, prose: Callable[[str, Report], str] | None, depth: int
) -> str:
    """A MyST directive, which looks like a code block: keeps notes as text and code as code, removes furniture."""
    name, argument = found[1].rsplit(":", 1)[-1], found[2].strip()
    lines = part.rstrip("\n").split("\n")
    closed = _FENCE.match(lines[-1]) is not None and len(lines) > 1
    body = lines[1:-1] if closed else lines[1:]
    start = 0
    while start < len(body) and _OPTION.match(body[start]):
        start += 1
    if name in _FURNITURE:
        report.name("directives_dropped", name)
        return ""
    if name in _CODE:
        return markup.fenced("\n".join(body[start:]), argument if argument.isalnum() else "") + "\n"
    if name == "math":
        return markup.math("\n".join(body[start:]), display=True) + "\n"
    if name not in rst.TITLES:
        return part
    label = "" if name == "figure" else f"{rst.TITLES[name]} {argument}".strip()
    inner = clean("\n".join(body[start:]), report, prose, depth + 1)
    return "\n\n".join(filter(str.strip, (label, inner))) + "\n"


def _admonitions(text: str) -> str:
    """Converts MkDocs' notes and tabs: puts the title on a line of its own and removes the text's indentation."""
    if not any(mark in text for mark in ("!!!", "???", '=== "')):
        return text
    out: list[str] = []
    open_at: list[int] = []
    fence = ""
    for line in text.split("\n"):
        bare = line.lstrip(" \t")
        indent = len(line) - len(bare)
        while bare and open_at and indent < open_at[-1] + 4:
            open_at.pop()
            fence = ""
        marks = _FENCE.match(line)
        found = None if fence else _ADMONITION.match(line)
        if marks is not None:
            fence = marks[1] if not fence else "" if marks[1].startswith(fence) else fence
        line = line[min(4 * len(open_at), indent) :]
        if found is not None and (found[2] or found[3]) and len(open_at) < _MAX_DEPTH:
            title = found[3] if found[3] is not None else found[2].capitalize()
            out += [line[: len(line) - len(line.lstrip(" \t"))] + title, ""]
            open_at.append(indent)
        else:
            out.append(line)
    return "\n".join(out)


def blocks(text: str, report: Report) -> Iterator[tuple[bool, str]]:
    """Splits a text into code blocks (True) and the rest (False), in order; removes HTML comments."""
    fence, start, at = "", 0, 0
    pieces: list[str] = []
    if not any(mark in text for mark in ("```", "~~~", "<!--")):
        yield False, text
        return
    while at <= len(text):
        end = text.find("\n", at)
        end = len(text) if end < 0 else end + 1
        line = text[at:end]
        found = _FENCE.match(line) if "```" in line or "~~~" in line else None
        if not fence:
            if found is not None and not (found[1][0] == "`" and "`" in line[found.end() :]):
                pieces.append(text[start:at])
                yield False, "".join(pieces)
                pieces, fence, start = [], found[1], at
            elif (comment := line.find("<!--")) >= 0 and "`" not in line[:comment]:
                pieces.append(text[start : at + comment])
                close = text.find("-->", at + comment)
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


def _clean_prose(text: str, in_list: bool, no_indented_code: bool, report: Report) -> str:
    if _SPECIAL.search(text) is None and ":::" not in text:
        return text
    out: list[str] = []
    blank, code = True, False
    for line in text.split("\n"):
        is_empty = not line or line.isspace()
        if line.startswith(("    ", "\t")):
            code = not no_indented_code and not in_list and (blank or code)
        elif not is_empty:
            in_list = (line[0] in " *+-0123456789" and _ITEM.match(line) is not None) or (
                in_list and (not blank or line[0] == " ")
            )
            code = False
        out.append(line if code else _clean_line(line, report))
        blank = is_empty
    return "\n".join(out)


def _shown(rest: str) -> str:
    """The title after a container's name: `[title]`, `{title="…"}` or plain text."""
    rest = rest.strip()
    if rest.startswith("["):
        inside, _, rest = rest[1:].partition("]")
        return inside
    if rest.startswith("{"):
        return " ".join(tags.visible(rest))
    return rest


def _clean_line(line: str, report: Report) -> str:
    if ":::" in line and (container := _CONTAINER.match(line)) is not None:
        return _shown(container[1])
    if _SPECIAL.search(line) is None:
        return line
    if line.startswith("*[") and _ABBREVIATION.match(line):
        return ""
    line = _EMBEDDED_IMAGE.sub(lambda m: report.count("images") or m[1], line)
    line = _BADGE.sub(lambda m: "" if tags.is_badge(m[0]) else m[0][1 : m[0].index(")") + 1], line)
    # Pieces with odd indices are code spans, which stay as written.
    pieces = _CODE_SPAN.split(line)
    open_ticks = ""
    for i, piece in enumerate(pieces):
        if i % 2:
            open_ticks = "" if open_ticks == piece else open_ticks or piece
        elif not open_ticks:
            pieces[i] = _clean_piece(piece, line.lstrip().startswith("|"), report)
    return _HEADING_ID.sub("", "".join(pieces)) if line.startswith("#") else "".join(pieces)


def _clean_piece(piece: str, in_table: bool, report: Report) -> str:
    if "{" in piece or "[" in piece:
        piece, macros = _MACRO.subn(_macro, piece)
        report.count("macros_dropped", macros)
    if "{" in piece:
        piece = _ATTRIBUTES.sub("", piece)
    return tags.inline(piece, in_table, report)


def _macro(found: re.Match[str]) -> str:
    positional = _SHOWING.match(found[0])
    return positional[1] if positional else " ".join(tags.visible(found[0]))
