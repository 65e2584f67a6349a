"""MDX (Markdown with JSX): removes imports, exports and tags; keeps text, code and the words that components show."""

import re

from kanana_jax.data.extract import encoding, markdown, markup, tags
from kanana_jax.data.extract.markup import Extracted, Report, finish

_COMMENT = re.compile(r"\{/\*")
_MODULE = re.compile(
    r"^(?:import\s.{0,300}?\sfrom\s|import\s+[\"']|import\s{1,9}(?:[\w$]{1,60},\s{0,9})?\{[^{}\n]{0,300}$|export\s+(?:default|const|let|var|function|async|class|\{|\*))"
)
# Components, fragments, and HTML elements whose attributes are expressions.
_TAG = re.compile(r"<(?<!\\<)/?(?:[A-Z][\w.]{0,100}|>|[a-z][\w.-]{0,60}(?=\s[^<>]{0,300}=\{))")
_EXPRESSION = re.compile(r"^[ \t]*\{[^{}`\n]{1,500}\}[ \t]*$", re.MULTILINE)
_OPEN_EXPRESSION = re.compile(r"[ \t]{0,40}\{[ \t]{0,9}(?:$|[A-Za-z_$][\w$.]{0,100}[ \t]{0,9}(?:\.map\(|\(|&&|\?))")
_CODE_OR_NAME = re.compile(
    r"(`{1,3})[^`\n]{1,500}\1|(?<![\\$\w}^_{])\{[A-Za-z_$][\w$]{0,60}(?:\.[A-Za-z_$][\w$]{0,60}){1,6}\}"
)
_TEMPLATE_CHILD = re.compile(r"\{(?<!=\{)\s{0,40}`([^`]{0,20000})`\s{0,40}\}")
_TEXT_CHILD = re.compile(r">([^<>{}]{1,2000})</")
_STRING_CHILD = re.compile(r"\{[ \t]*([\"'])([^\"'{}\n]{0,500})\1[ \t]*\}")
_NAME = re.compile(r"\{[A-Za-z_$][\w$]{0,60}\.")
# An export or expression with more lines is taken to be unclosed.
_MAX_LINES = 200
# A longer tag is taken to be unclosed.
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
    text = _TEMPLATE_CHILD.sub(lambda m: f"\n{markup.fenced(m[1])}\n" if "\n" in m[1].strip() else m[1].strip(), text)
    text = _without_tags(text, report)
    text = _STRING_CHILD.sub(r"\2", text)
    if "{" in text:
        text, expressions = _EXPRESSION.subn(lambda m: _children(m[0]), text)
        report.count("expressions_dropped", expressions)
    return _CODE_OR_NAME.sub(lambda m: m[0] if m[1] else "", text) if _NAME.search(text) else text


def _children(code: str) -> str:
    """The text between tags in an expression, which the page may show."""
    return " ".join(" ".join(part.split()) for part in _TEXT_CHILD.findall(code) if tags.is_text(part))


def _without_modules(text: str, report: Report) -> str:
    """Removes imports, exports and multi-line expressions, up to the closing bracket or the next empty line."""
    if not any(mark in text for mark in ("{", "import", "export")):
        return text
    lines = text.split("\n")
    kept, at = [], 0
    while at < len(lines):
        is_module = lines[at].startswith(("import", "export")) and _MODULE.match(lines[at]) is not None
        if not is_module and ("{" not in lines[at] or _OPEN_EXPRESSION.match(lines[at]) is None):
            kept.append(lines[at])
            at += 1
            continue
        end = _closed(lines, at)
        if end is not None and is_module:
            while end < len(lines) and lines[end].strip():
                end += 1
        if end is None and not is_module:
            kept.append(lines[at])
            end = at + 1
        elif end is None:
            end = next((i for i in range(at, len(lines)) if not lines[i].strip()), len(lines))
        elif not is_module:
            kept.append(_children("\n".join(lines[at:end])))
            report.count("expressions_dropped")
        report.count("imports_and_exports_dropped", end - at if is_module else 0)
        at = end
    return "\n".join(kept)


def _closed(lines: list[str], at: int) -> int | None:
    """The index after the line on which all brackets opened since `at` are closed; None if there is none."""
    depth = 0
    for i in range(at, min(len(lines), at + _MAX_LINES)):
        line = lines[i]
        depth += sum(line.count(c) for c in "([{") - sum(line.count(c) for c in ")]}")
        if depth <= 0:
            return i + 1
    return None


def _without_tags(text: str, report: Report) -> str:
    out, at, seen, ticks, failures = [], 0, 0, 0, 0
    while (found := _TAG.search(text, at)) is not None:
        # After an odd number of backticks on the line, this is a code span, which keeps its angle brackets.
        between = text[seen : found.start()]
        line_end = between.rfind("\n")
        ticks = between.count("`", line_end) if line_end >= 0 else ticks + between.count("`")
        seen = found.start()
        end = -1 if ticks % 2 else _tag_end(text, found.end(), _MAX_TAG if failures < _MAX_FAILURES else 200)
        failures += end < 0
        out.append(_shallow(text[at : found.end() if end < 0 else found.start()], at > 0))
        if end >= 0:
            report.count("tags_dropped")
            out.append(_shown(text, found, end, out[-1]))
        at = seen = found.end() if end < 0 else end
    out.append(_shallow(text[at:], at > 0))
    return "".join(out)


def _shown(text: str, found: re.Match[str], end: int, before: str) -> str:
    """The words that a tag shows; as paragraphs if the component is on a line of its own."""
    if text[found.start() + 1] in "/>" or not (words := tags.visible(text[found.end() : end - 1])):
        return ""
    indent = before[before.rfind("\n") + 1 :]
    after = text[end : end + 1]
    if indent.strip() or (not before.endswith(indent) or (before == indent and found.start() > len(indent))):
        return " ".join(words) + ("" if not after or after.isspace() or text[end - 2] == "/" else " ")
    indent = indent if len(indent) < 4 else ""
    return f"\n\n{indent}".join(words) + ("" if not after else "\n" if after == "\n" else f"\n\n{indent}")


def _shallow(text: str, in_component: bool) -> str:
    """Removes indentation that would turn a component's text into a code block."""
    if not in_component or "\n    " not in text:
        return text
    first, *lines = text.split("\n")
    indent = min((len(line) - len(line.lstrip(" ")) for line in lines if line.strip()), default=0)
    return "\n".join([first, *(line[indent:] for line in lines)]) if indent >= 4 else text


def _tag_end(text: str, at: int, longest: int) -> int:
    """The index after a tag's `>`; attributes may contain `>` in strings and in braces."""
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
