"""HTML and JSX inside Markdown: keeps what a page would show and removes tags."""

import html
import re
from collections.abc import Iterator

from kanana_jax.data.extract import markup
from kanana_jax.data.extract.markup import Cell, Report, words

# Attributes whose text components, shortcodes and directives of documentation sites show.
VISIBLE = words(
    "title subtitle heading subheading header headline label description desc alt caption summary tagline text content "
    "question answer message note tip quote"
)
# Attributes that contain lists of shown text.
_LISTS = words("items headers header columns rows tabs steps features faqs cards data")
_ATTRIBUTE = re.compile(
    r"(?<![\w-])([A-Za-z][\w-]{0,40})[ \t\n]{0,3}=[ \t\n]{0,3}(?:\"([^\"]{0,2000})\"|'([^']{0,2000})'|(\{))"
)
_STRING = re.compile(
    r"(?:(?<![\w-])([A-Za-z]\w{0,40})[ \t\n]{0,3}:[ \t\n]{0,3})?"
    r"(?:\"([^\"\n]{0,2000})\"|'([^'\n]{0,2000})'|`([^`]{0,2000})`)"
)
_ADDRESS = re.compile(r"(?:https?:|[.]{0,2}/|#)\S*")
_ANY_TAG = re.compile(r"<[^<>]{0,1000}>")
_TAG = re.compile(r"<(?<!\\<)(/?)([A-Za-z][A-Za-z0-9]{0,14})((?:[\s/](?=[\sA-Za-z_:@/>])[^<>`]{0,1000})?)>")
_OVER_LINES = re.compile(r"<(?<!\\<)[A-Za-z][A-Za-z0-9]{0,14}\s[^<>`\n]{0,1000}\n[^<>`]{0,1000}>")
_HIDDEN = re.compile(r"^[ \t]{0,20}<(script|style|svg)\b[^<>]{0,1000}>", re.IGNORECASE | re.MULTILINE)
_TABLE = re.compile(r"^[ \t]{0,20}<table\b[^<>]{0,1000}>", re.IGNORECASE | re.MULTILINE)
_TABLE_PART = re.compile(r"<(tr|t[dh])\b([^<>]{0,1000})>", re.IGNORECASE)
_SPAN = re.compile(r"\b(col|row)span[ \t]{0,3}=[ \t]{0,3}[\"']?(\d{1,3})", re.IGNORECASE)
_READING = re.compile(r"<(r[tp])>[^<>]{0,200}</\1>", re.IGNORECASE)
_ANCHOR = re.compile(r"<(a|span)\s[^<>]{0,300}>\s{0,3}</\1>", re.IGNORECASE)
_SCRIPT_TAG = re.compile(r"<(su[pb])>([^<>]{0,100})</su[pb]>", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_BADGE_ADDRESS = re.compile(r"shields\.io|badge|travis-ci|codecov|circleci|appveyor|coveralls", re.IGNORECASE)
_BOOLEAN = words(
    "open hidden controls allowfullscreen default disabled nowrap checked compact noshade muted autoplay loop required"
)
_LAYOUT = words(
    "a abbr address article aside audio b bdo big blockquote body button canvas caption center cite col colgroup dd "
    "del details dfn div dl dt em embed fieldset figcaption figure font footer form header hgroup hr html i iframe "
    "img input ins kbd label legend link main map mark meta nav nobr noscript object ol option p param picture pre "
    "q rb rp rt ruby s samp section select small source span strike strong style sub summary sup svg table tbody td "
    "textarea tfoot th thead time tr track tt u ul var video wbr "
)


def visible(attributes: str) -> list[str]:
    """The texts that a component shows from its attributes (strings and lists of strings), in order."""
    shown: list[str] = []
    at = 0
    while (found := _ATTRIBUTE.search(attributes, at)) is not None:
        name, at = found[1], found.end()
        if found[4] is None:
            values: Iterator[str] = iter([found[2] if found[2] is not None else found[3]])
        else:
            end = closing(attributes, at)
            values, at = _expression(attributes[at:end].strip()), end
        if name in VISIBLE or (found[4] is not None and name in _LISTS):
            shown += [value.strip() for value in values if is_text(value)]
    return shown


def is_text(value: str) -> bool:
    """Whether a string is text for readers: it has letters or digits and is not an address."""
    return any(map(str.isalnum, value)) and _ADDRESS.fullmatch(value.strip()) is None


def _expression(code: str) -> Iterator[str]:
    if code.startswith("<"):
        yield " ".join(_ANY_TAG.sub(" ", code).split())
        return
    for found in _STRING.finditer(code):
        if found[1] is None or found[1] in VISIBLE:
            yield next(text for text in found.groups()[1:] if text is not None)


def closing(text: str, at: int) -> int:
    """The index of the brace that closes the one before `at`, or of the text's end; strings may contain braces."""
    depth, quote = 1, ""
    for i in range(at, len(text)):
        c = text[i]
        if quote:
            quote = "" if c == quote else quote
        elif c in "\"'`":
            quote = c
        elif c == "{":
            depth += 1
        elif c == "}":
            depth -= 1
            if not depth:
                return i
    return len(text)


def is_badge(text: str) -> bool:
    """Whether an image's markup names a service for status badges."""
    return _BADGE_ADDRESS.search(text) is not None


def blocks(text: str, report: Report) -> str:
    """Converts tables to pipe tables, removes scripts, styles and drawings, and joins tags that span lines."""
    if "<" not in text:
        return text
    text = _OVER_LINES.sub(lambda m: " ".join(m[0].split("\n")), text)
    lower = text.lower()
    if not any(tag in lower for tag in ("<script", "<style", "<svg", "<table")):
        return text
    out, at = [], 0
    while (found := _HIDDEN.search(text, at)) is not None:
        end = text.find(f"</{found[1]}>", found.end())
        if end < 0:
            break
        out.append(text[at : found.start()])
        at = end + len(found[1]) + 3
        report.count("tags_dropped")
    text = "".join([*out, text[at:]])
    out, at = [], 0
    while (found := _TABLE.search(text, at)) is not None:
        end = text.find("</table>", found.end())
        if end < 0:
            break
        report.count("tables")
        out += [text[at : found.start()], "\n", markup.table(_rows(text[found.end() : end], report)), "\n"]
        at = end + len("</table>")
    return "".join([*out, text[at:]])


def _rows(text: str, report: Report) -> list[list[Cell]]:
    rows: list[list[Cell]] = [[]]
    marks = list(_TABLE_PART.finditer(text))
    before = text[: marks[0].start()] if marks else text
    if lead := inline(before, True, report).strip():  # text before the first row: a caption
        rows += [[Cell(lead)], []]
    for mark, after in zip(marks, [*marks[1:], None]):
        if mark[1].lower() == "tr":
            rows.append([])
            continue
        spans = {which.lower(): int(n) for which, n in _SPAN.findall(mark[2])}
        content = inline(text[mark.end() : after.start() if after else None], True, report)
        rows[-1].append(Cell(" ".join(content.split()), spans.get("col", 1), spans.get("row", 1)))
    return [row for row in rows if row]


def inline(text: str, in_table: bool, report: Report) -> str:
    """Removes tags from a part of a line and decodes entities; in a table, also removes line breaks."""
    if "<" in text:
        text, anchors = _ANCHOR.subn("", text)
        report.count("anchors_dropped", anchors)
        text = _SCRIPT_TAG.sub(lambda m: (markup.superscript if m[1][2] in "pP" else markup.subscript)(m[2]), text)
        text = _READING.sub("", text)
        text = _TAG.sub(lambda m: _tag(m, in_table, report), text)
    if "&" in text:
        text = _ENTITY.sub(lambda m: _entity(m[0], in_table), text)
    return text


def _tag(found: re.Match[str], in_table: bool, report: Report) -> str:
    name, attributes = found[2].lower(), found[3].strip(" \t\n/")
    known = name in _LAYOUT or name in ("br", "li", "code") or (name[0] == "h" and name[1:] in "123456" and name[1:])
    if not known or (attributes and "=" not in attributes and not _BOOLEAN.issuperset(attributes.lower().split())):
        return found[0]
    report.count("tags_dropped", name not in ("br", "a"))
    if name == "br":
        return " " if in_table else "\n"
    if name == "code":
        return "`"
    if name == "img":
        return "" if is_badge(attributes) else " ".join(visible(attributes))
    starts = not in_table and not found.string[max(0, found.start() - 12) : found.start()].strip()
    if name == "li" or name[1:].isdigit():
        if found[1]:
            return ""
        mark = "- " if name == "li" else "#" * int(name[1]) + " "
        return " " if in_table else mark if starts else f"\n{mark}"
    if name in ("td", "th", "dt", "dd", "tr", "option"):  # texts of neighbours must not merge into one word
        return " " if in_table or name in ("td", "th", "option") else "" if starts else "\n"
    return ""


def _entity(name: str, in_table: bool) -> str:
    text = html.unescape(name)
    if text == "|" and in_table:
        return "\\|"
    return text if text.isprintable() else " " if text.isspace() else ""
