"""MDX: Markdown with JSX. Imports, exports and component tags go; text and code stay."""

import re

from kanana_jax.data.extract import encoding, markdown, markup
from kanana_jax.data.extract.markup import Extracted, Report, finish

_COMMENT = re.compile(r"\{/\*")
_MODULE = re.compile(
    r"^(?:import\s.{0,300}?\sfrom\s|import\s+[\"']|export\s+(?:default|const|let|var|function|async|class|\{|\*))"
)
_TAG = re.compile(r"</?(?:[A-Z][\w.]{0,100}|>)")
_EXPRESSION = re.compile(r"^[ \t]*\{[^{}`\n]{1,500}\}[ \t]*$", re.MULTILINE)
_STRING_CHILD = re.compile(r"\{[ \t]*([\"'])([^\"'{}\n]{0,500})\1[ \t]*\}")
# A tag longer than this has forgotten its end.
_MAX_TAG = 20_000
_MAX_FAILURES = 50


def convert(data: bytes, name: str = "") -> Extracted:
    """The text of an MDX file."""
    report = Report()
    text, title = markdown.split_front_matter(encoding.decode(data, report))
    body = markdown.clean(text, report, _without_jsx)
    return finish(body, title or markdown.first_heading(body), report)


def _without_jsx(text: str, report: Report) -> str:
    text, comments = markup.without(text, _COMMENT, "*/}")
    report.count("comments_dropped", comments)
    text = _without_modules(text, report)
    text = _without_tags(text, report)
    text = _STRING_CHILD.sub(r"\2", text)
    text, expressions = _EXPRESSION.subn("", text)
    report.count("expressions_dropped", expressions)
    return text


def _without_modules(text: str, report: Report) -> str:
    """Drops `import …` and `export …` up to the next empty line."""
    kept, inside = [], False
    for line in text.split("\n"):
        inside = bool(line.strip()) and (inside or _MODULE.match(line) is not None)
        if inside:
            report.count("imports_and_exports_dropped")
        else:
            kept.append(line)
    return "\n".join(kept)


def _without_tags(text: str, report: Report) -> str:
    out, at, seen, ticks, failures = [], 0, 0, 0, 0
    while (found := _TAG.search(text, at)) is not None:
        # An odd number of backticks before it on its line: a code span, which keeps its angle brackets.
        between = text[seen : found.start()]
        line_end = between.rfind("\n")
        ticks = between.count("`", line_end) if line_end >= 0 else ticks + between.count("`")
        seen = found.start()
        end = -1 if ticks % 2 else _tag_end(text, found.end(), _MAX_TAG if failures < _MAX_FAILURES else 200)
        failures += end < 0
        out.append(text[at : found.end() if end < 0 else found.start()])
        if end >= 0:
            report.count("tags_dropped")
        at = seen = found.end() if end < 0 else end
    out.append(text[at:])
    return "".join(out)


def _tag_end(text: str, at: int, longest: int) -> int:
    """The index after a tag's `>`; attributes may hold `>` in strings and in braces."""
    if text[at - 1] == ">":  # a fragment: <> or </>
        return at
    depth, quote = 0, ""
    for i in range(at, min(len(text), at + longest)):
        c = text[i]
        if quote:
            quote = "" if c == quote else quote
        elif c in "\"'":
            quote = c
        elif c == "{":
            depth += 1
        elif c == "}":
            depth -= 1
        elif depth <= 0 and c in "<>":
            return i + 1 if c == ">" else -1
    return -1
