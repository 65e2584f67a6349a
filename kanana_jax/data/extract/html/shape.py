"""Tests of an element's shape: a list of links, a note, a section with a heading, a line of site furniture."""

from kanana_jax.data.extract.html.tree import HEADINGS, Node, text_of
from kanana_jax.data.extract.markup import words

_NOTES = words(
    "note tip warning caution admonition callout important info example hint danger topic footnote footnotes endnotes "
    "footnote-list footnote-group doc-footnote doc-endnotes"
)
_BOXES = words("div ul ol section center dl menu table")
# Classes of the first element of an author's sidebar (reStructuredText, DocBook), as opposed to the site's.
_TITLES = words("sidebar-title titlepage title")
_LISTS = words("ul ol dl table")
# Lists and boxes with more than this share of link text are lists of links (after the rules of boilerpipe,
# Kohlschütter et al. 2010, whose trees split at 0.33 for blocks of text and later).
_LINK_SHARE = 0.7
# A text with fewer letters and no sentence is short: a licence, a date, a counter.
_SHORT = 60
# Levels of wrappers around a section's heading.
_TITLE_DEPTH = 5
# "Most of" an element's letters.
_MOST = 0.5


def is_note(node: Node) -> bool:
    """Whether an element is an aside that belongs to the text: an admonition, a footnote or an author's sidebar."""
    names = [*node.classes(), node.get("role")]
    if not _NOTES.isdisjoint(names) or any(name.startswith("admonition") for name in names):
        return True
    first = _first(node)
    return first is not None and not _TITLES.isdisjoint(first.classes()) and "sidebar" in node.classes()


def is_links(node: Node) -> bool:
    """Whether a box is a list of links, but neither a data table nor a note."""
    if node.tag not in _BOXES or node.linked <= _LINK_SHARE * node.letters:
        return False
    return not node.headers and node.tabled <= _MOST * node.letters and not is_note(node)


def introduced(parent: Node) -> set[int]:
    """Indices of children that are lists or tables within running text.

    A paragraph introduces them, and either ends with a colon or is followed by more prose after them.
    """
    found: set[int] = set()
    if not parent.prose or not parent.linked:
        return found
    before: Node | None = None
    waiting: list[int] = []
    for i, child in enumerate(parent.children):
        if not isinstance(child, Node) or not child.letters:
            continue
        if before is not None and before.tag == "p" and before.linked < _MOST * before.letters and _is_list(child):
            if text_of(before).rstrip().endswith((":", "：")):
                found.add(i)
            else:
                waiting.append(i)
        elif child.prose:
            found.update(waiting)
            waiting = []
        before = child
    return found


def _is_list(node: Node) -> bool:
    first = _first(node) if node.tag == "div" else node
    return first is not None and first.tag in _LISTS


def _first(node: Node) -> Node | None:
    """The first child with text; None if loose text precedes it."""
    for child in node.children:
        if isinstance(child, Node) and child.letters:
            return child
        if isinstance(child, str) and child.strip():
            return None
    return None


def is_headed(node: Node) -> bool:
    """Whether an element begins with a heading, possibly inside a `<header>` or another wrapper."""
    first: Node | None = node
    for _ in range(_TITLE_DEPTH):
        first = _first(first) if first is not None and first.tag not in HEADINGS else first
    return first is not None and first.tag in HEADINGS


def reads_like_machinery(node: Node) -> bool:
    return node.linked > _MOST * node.letters or is_short(node)


def is_short(node: Node) -> bool:
    return node.letters < _SHORT and not node.prose
