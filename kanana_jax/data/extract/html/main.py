"""Which part of a page is its content: by what elements are called, and by how much of them is links."""

import dataclasses
import re

from kanana_jax.data.extract.html.tree import Node, find, measure
from kanana_jax.data.extract.markup import Report, words

_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_BOILERPLATE = words(
    "nav navbar navigation navbox navigator menu breadcrumb breadcrumbs sidebar footer masthead cookie cookies consent "
    "gdpr banner advert advertisement adsense ads ad sponsor sponsored promo share sharing social sns related "
    "recommend recommended recommendations comments disqus newsletter subscribe subscription popup modal "
    "pagination pager toolbar toc login signup copyright editsection catlinks noprint sistersitebox jumplinks "
    "printfooter skiplink "
    "headerlink hatnote shortdescription infobox reflist references mbox ambox authority"
)
_NOTES = words("note tip warning caution admonition callout important info example hint danger")
_KEPT_WHOLE = words("pre math code")
_BOXES = words("div ul ol section center dl menu table")
# An element with more of the page's letters than this is content, whatever it is called.
_TOO_BIG = 0.5
# Lists and boxes in which more than this share of the letters is link text (as boilerpipe's rules have it,
# Kohlschütter et al. 2010, whose trees cut at 0.33 for blocks of text and later).
_LINK_SHARE = 0.7
_CONTENT_IDS = words("content main main-content maincontent mw-content-text article bodycontent post")


def main_content(body: Node, report: Report) -> Node:
    """A copy of the tree without boilerplate, from the element on that holds the content."""
    kept = _prune(body, report)
    measure(kept)
    root = _content_root(kept)
    report.count("boilerplate_letters", body.letters - root.letters)
    heading = find(kept, "h1")
    if root is not kept and heading is not None and not root.heads:
        return Node("body", {}, [heading, root], letters=root.letters + heading.letters)
    return root


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where an element stands: in an article, and in a list or data table, whose parts may be all links."""

    article: bool = False
    data: bool = False

    def inside(self, node: Node) -> "_Place":
        data = self.data or node.tag == "li" or (node.tag == "table" and node.headers)
        return _Place(self.article or node.tag in ("article", "main"), data)


def _prune(body: Node, report: Report) -> Node:
    kept = Node(body.tag, body.attributes, [], body.own)
    stack = [(body, kept, _Place())]
    while stack:
        old, new, place = stack.pop()
        for child in old.children:
            if isinstance(child, str) or (child.tag in _KEPT_WHOLE and not _called_boilerplate(child)):
                new.children.append(child)
            elif not _is_boilerplate(child, body.letters, place, report):
                copy = Node(child.tag, child.attributes, [], child.own)
                new.children.append(copy)
                stack.append((child, copy, place.inside(child)))
    return kept


def _is_boilerplate(node: Node, total: int, place: _Place, report: Report) -> bool:
    if node.letters > _TOO_BIG * total:
        return False
    if node.tag in ("footer", "aside") and not (place.article and _NOTES & _called(node)):
        return True
    if node.tag == "header" and not place.article and not node.heads:
        return True
    if node.tag == "sup" and "reference" in node.classes():
        report.count("references_dropped")
        return True
    if node.get("role") in ("navigation", "banner", "contentinfo", "search", "complementary"):
        return True
    if _called_boilerplate(node):
        report.count("infoboxes_dropped", "infobox" in node.classes())
        return True
    if place.data or node.headers:
        return False
    return node.tag in _BOXES and node.linked > _LINK_SHARE * node.letters


def _called(node: Node) -> set[str]:
    names = f"{node.get('class')} {node.get('id')}"
    return {word.lower() for word in _WORDS.findall(names)} if len(names) > 1 else set()


def _called_boilerplate(node: Node) -> bool:
    return not _BOILERPLATE.isdisjoint(_called(node))


def _content_root(body: Node) -> Node:
    best = body
    stack = [body]
    while stack:
        node = stack.pop()
        called = (
            node.tag in ("main", "article")
            or node.get("role") == "main"
            or node.get("id").lower() in _CONTENT_IDS
            or "markdown-body" in node.classes()
        )
        # Deeper ones win as long as they hold most of it: <main> over <body>, <article> over <main>.
        if called and node.letters > _TOO_BIG * best.letters:
            best = node
        stack += [child for child in node.children if isinstance(child, Node)]
    return best
