"""HTML to Markdown: keeps headings, lists, tables, code and formulas, and removes boilerplate.

resiliparse's parser (lexbor) builds the tree as a browser would. Limits are on bytes and nodes, not on time, so that
results do not depend on the speed of the machine.
"""

import re

from kanana_jax.data.extract import encoding
from kanana_jax.data.extract.html.main import main_content
from kanana_jax.data.extract.html.render import render
from kanana_jax.data.extract.html.tree import build
from kanana_jax.data.extract.markup import Extracted, Report, finish

_META_CHARSET = re.compile(rb"""<meta[^>]{0,200}?charset\s{0,9}=\s{0,9}["']?\s{0,9}([\w.:-]{2,40})""", re.IGNORECASE)
_XML_ENCODING = re.compile(rb"""^\s{0,9}<\?xml[^>]{0,100}?encoding=["']([\w.:-]{2,40})""")
# Bytes searched for a page's charset; browsers look at 1,024, but some pages declare it later.
_HEAD = 1 << 14


def convert(data: bytes, name: str = "", declared: str | None = None) -> Extracted:
    """The main content of a page.

    Args:
      declared: the charset of the HTTP header, which takes precedence over the page's own.
    """
    report = Report()
    head = data[:_HEAD]
    found = _XML_ENCODING.search(head) or _META_CHARSET.search(head)
    text = encoding.decode(data, report, declared, found[1].decode("ascii") if found else None)
    body, title = build(text, report)
    kept = main_content(body, report)
    rendered = render(kept, report)
    if kept is not body and not rendered.strip():
        report.count("boilerplate_rules_waived")
        rendered = render(body, report)
    heading = re.search(r"^#{1,2} (.+)", rendered, re.MULTILINE)
    # The page title often includes the name of the site: prefer the heading.
    if heading is not None and (title is None or heading[1] in title):
        title = heading[1]
    return finish(rendered, title, report)
