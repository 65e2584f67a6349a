"""Limits for pathological pages: removes constructs whose parsing time is quadratic before they reach the parser."""

import re

from kanana_jax.data.extract.markup import Report, words

# At some tags the parser scans all open elements, and at each attribute all earlier ones: at these numbers, either
# takes about half a second.
MAX_OPEN = 10_000
MAX_ATTRIBUTES = 2_000
_LONG_TAG = 20_000

_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9-]{0,30})")
# Elements without end tags, and elements that the next one of their kind closes.
_NEVER_OPEN = words(
    "area base br col embed hr img input link meta param source track wbr p li dt dd td th tr tbody thead tfoot rt rp "
    "html head body colgroup"
)


def within_limits(text: str, report: Report) -> str:
    """Removes tags with too many attributes, and cuts the page where too many elements are open."""
    if len(text) > _LONG_TAG:
        text = _without_long_tags(text, report)
    if text.count("<") > MAX_OPEN:
        opened = 0
        for found in _TAG.finditer(text):
            if found[2].lower() not in _NEVER_OPEN:
                opened += -1 if found[1] else 1
                if abs(opened) > MAX_OPEN:
                    report.count("cut_after_open_elements", MAX_OPEN)
                    return text[: found.start()]
    return text


def _without_long_tags(text: str, report: Report) -> str:
    out, at, kept = [], 0, 0
    while (start := text.find("<", at)) >= 0:
        end = text.find(">", start)
        end = len(text) if end < 0 else end
        if end - start > _LONG_TAG:
            tag = _TAG.search(text, start, end)
            if tag is not None and len(text[tag.start() : end].split(None, MAX_ATTRIBUTES)) > MAX_ATTRIBUTES:
                out.append(text[kept : tag.start()])
                kept = min(end + 1, len(text))
                report.count("oversized_tags")
        at = end + 1
    return "".join([*out, text[kept:]])
