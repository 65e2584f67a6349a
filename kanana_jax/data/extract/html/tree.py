"""A light tree of the elements that can contain content, built from resiliparse's DOM."""

import dataclasses
import enum
import re
from typing import TYPE_CHECKING, TypeGuard

from kanana_jax.data.extract.html.limits import within_limits
from kanana_jax.data.extract.markup import Report, words

if TYPE_CHECKING:
    from resiliparse.parse.html import DOMNode, ElementNode, HTMLTree

# Chosen so that a 64 MB page of nothing but tags takes less than about 2 GB of memory.
MAX_NODES = 1_000_000

_DROPPED = words(
    "script style noscript template head iframe svg canvas object embed audio video map button input select "
    "textarea datalist nav dialog frameset mjx-math mjx-speech link meta"
)
# Classes of rendered formulas, whose source is next to them.
_RENDERED_MATH = words(
    "katex-html MathJax MathJax_Display MathJax_Preview MathJax_SVG MathJax_CHTML MathJax_SVG_Display"
)
_MATH_SOURCE = words(
    "mwe-math-mathml-inline mwe-math-mathml-display mwe-math-mathml-a11y katex-mathml MJX_Assistive_MathML"
)
_HIDDEN_STYLE = re.compile(r"display\s{0,3}:\s{0,3}none|visibility\s{0,3}:\s{0,3}hidden", re.IGNORECASE)
HEADINGS = words("h1 h2 h3 h4 h5 h6")
_ATTRIBUTES = words(
    "class id style hidden role aria-hidden aria-level href type alt alttext display colspan rowspan start encoding "
    "data-lang data-language"
)


class Heading(enum.IntEnum):
    """The kind of the first heading inside an element."""

    NONE = 0
    PLAIN = 1
    LINKED = 2


@dataclasses.dataclass(slots=True, eq=False)
class Node:
    """An element.

    Attributes:
      own: characters of the element's own text, without white space.
      letters: characters of all text inside, without white space.
      linked: letters in links.
      prose: letters in sentences, outside links.
      articles: letters in articles inside this element.
      tabled: letters in tables with `<th>` cells.
      heading: whether there is a heading inside, and whether the first one is entirely a link.
      heads: whether there is an `<h1>` inside.
      main: whether the element is or contains what the page marks as its main part.
      headers: whether it has `<th>` cells, not counting those of nested tables.
    """

    tag: str
    attributes: dict[str, str]
    children: list["Node | str"]
    own: int = 0
    letters: int = 0
    linked: int = 0
    prose: int = 0
    articles: int = 0
    tabled: int = 0
    heading: Heading = Heading.NONE
    heads: bool = False
    main: bool = False
    headers: bool = False

    def get(self, name: str) -> str:
        return self.attributes.get(name, "")

    def classes(self) -> list[str]:
        return self.get("class").split()

    def is_article(self) -> bool:
        return self.tag == "article" or (bool(self.attributes) and "markdown-body" in self.classes())


def build(text: str, report: Report) -> tuple[Node, str | None]:
    """Parses a page; returns its body, without scripts, forms, hidden parts and `<nav>`, and its title.

    Raises:
      UserError: resiliparse is not installed.
    """
    try:
        from resiliparse.parse.html import ELEMENT, TEXT, HTMLTree
    except ImportError as error:
        from kanana_jax.errors import UserError

        raise UserError("reading HTML needs the resiliparse library: pip install resiliparse") from error

    def is_element(node: "DOMNode") -> "TypeGuard[ElementNode]":
        return node.node_type == ELEMENT

    tree = HTMLTree.parse(within_limits(text, report))
    root = Node("body", {}, [])
    path = [root]
    nodes = 0
    start = tree.body if tree.body is not None else tree.document
    current = start.first_child if start is not None else None
    while current is not None:
        nodes += 1
        if nodes > MAX_NODES:
            report.count("cut_after_nodes", MAX_NODES)
            break
        inside = None
        if current.node_type == TEXT:
            if value := current.node_value:
                path[-1].children.append(value)
                path[-1].own += len("".join(value.split()))
        elif is_element(current):
            element = _element(current, report)
            if element is not None:
                path[-1].children.append(element)
                inside = current.first_child
                if inside is not None:
                    path.append(element)
        if inside is not None:
            current = inside
            continue
        while current is not None and (following := current.next_sibling) is None:
            current = current.parent_node
            if len(path) == 1:
                current = None
                break
            path.pop()
        else:
            current = following if current is not None else None
    measure(root)
    return root, _title(tree)


def _title(tree: "HTMLTree") -> str | None:
    head = tree.head
    if head is not None:
        meta = head.query_selector('meta[property="og:title"]')
        if meta is not None and (content := meta.getattr("content")):
            return content
    return (tree.title or "").strip() or None


def _element(dom: "ElementNode", report: Report) -> Node | None:
    tag = (dom.local_name or "").lower()
    names = dom.attrs
    attributes = {n: dom.getattr(n) or "" for n in names if n in _ATTRIBUTES} if names else {}
    if tag == "script" and attributes.get("type", "").startswith("math/tex"):
        return Node(tag, attributes, [])
    if tag in _DROPPED:
        return None
    if attributes:
        classes = attributes.get("class", "").split()
        if not _RENDERED_MATH.isdisjoint(classes):
            return None
        hidden = (
            "hidden" in attributes
            or attributes.get("aria-hidden") == "true"
            or _HIDDEN_STYLE.search(attributes.get("style", "")) is not None
        )
        if hidden and _MATH_SOURCE.isdisjoint(classes) and tag not in ("math", "mjx-container"):
            report.count("hidden_elements")
            return None
    return Node(tag, attributes, [])


# The end of a sentence; `다` and `요` end Korean sentences that have no full stop.
_SENTENCE = re.compile(r"[.!?][\s\"')\]]|[.!?]$|[。！？…]|[다요][.\s]|[다요]$")
_LEAST_PROSE = 8
# If links to one address hold more than this share of a page's letters, their `<a>` was never closed.
_LONGEST_LINK = 0.3
_LEAST_UNCLOSED = 200


def measure(root: Node) -> None:
    """Fills in the measurements (`letters` to `headers`) of all elements of a tree."""
    order, stack = [], [root]
    while stack:
        node = stack.pop()
        order.append(node)
        stack += [child for child in node.children if isinstance(child, Node)]
    order.reverse()  # children before parents
    for node in order:
        node.letters = node.own + sum(child.letters for child in node.children if isinstance(child, Node))
    unclosed = _unclosed(order, root.letters)
    for node in order:
        _measure_one(node, unclosed)


def _measure_one(node: Node, unclosed: set[str]) -> None:
    node.prose = node.own if node.own >= _LEAST_PROSE and _is_prose(node) else 0
    node.linked = node.articles = node.tabled = 0
    node.heading = Heading.NONE
    node.heads, node.headers = node.tag == "h1", node.tag == "th"
    node.main = node.tag == "main" or (bool(node.attributes) and node.get("role") == "main")
    for child in node.children:
        if isinstance(child, str):
            continue
        node.linked += child.linked
        node.prose += child.prose
        node.articles += child.letters if child.is_article() else child.articles
        node.tabled += child.letters if child.tag == "table" and child.headers else child.tabled
        node.heading = node.heading or child.heading
        node.heads |= child.heads
        node.main |= child.main
        node.headers |= child.headers and child.tag != "table"
    # An `<a>` without `href` is a link target, not a link.
    if node.tag == "a" and "href" in node.attributes and node.attributes["href"] not in unclosed:
        node.linked, node.prose = node.letters, 0
        node.heading = Heading.LINKED if node.heading else Heading.NONE
    elif node.tag in HEADINGS and node.letters:
        node.heading = Heading.LINKED if node.linked == node.letters else Heading.PLAIN


def _is_prose(node: Node) -> bool:
    return _SENTENCE.search("".join([child for child in node.children if isinstance(child, str)]).rstrip()) is not None


def _unclosed(order: list[Node], letters: int) -> set[str]:
    """Addresses whose links contain so much of the page that an `<a>` must have been left open."""
    total: dict[str, int] = {}
    for node in order:
        if node.tag == "a" and "href" in node.attributes:
            total[node.attributes["href"]] = total.get(node.attributes["href"], 0) + node.letters
    return {href for href, n in total.items() if n > max(_LEAST_UNCLOSED, _LONGEST_LINK * letters)}


def text_of(node: Node) -> str:
    """All text below a node, unchanged; `<br>` becomes a line end."""
    parts: list[str] = []
    stack: list[Node | str] = [node]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            parts.append(item)
        elif item.tag == "br":
            parts.append("\n")
        else:
            stack += reversed(item.children)
    return "".join(parts)


def find(node: Node, tag: str) -> Node | None:
    """The first descendant with this tag, in document order."""
    stack: list[Node] = [node]
    while stack:
        item = stack.pop()
        if item.tag == tag:
            return item
        stack += [child for child in reversed(item.children) if isinstance(child, Node)]
    return None
