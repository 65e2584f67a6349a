"""Selects the content of a page by the names, link shares and places of its elements."""

import dataclasses

from kanana_jax.data.extract.html import shape
from kanana_jax.data.extract.html.names import Named, named, subjects
from kanana_jax.data.extract.html.tree import Heading, Node, find, measure
from kanana_jax.data.extract.markup import Report, words

_KEPT_WHOLE = words("pre math code")
# What a name can take away with all that is inside; of what else, only what reads like machinery as well.
_CONTAINERS = words("div ul ol dl menu section aside header footer form fieldset table center details")
_NEVER_NAMED = words("main article h1 h2 h3 h4 h5 h6 blockquote pre code math figure tbody thead tr dt dd")
_LINES = words("p li td th caption address")
_SECTIONS = words(
    "section sect1 sect2 sect3 sect4 sect5 chapter appendix refsect1 refsect2 level1 level2 level3 level4"
)
# An element with more of the page's letters than this is content, whatever it is called.
_TOO_BIG = 0.5
# Lists and boxes in which more than this share of the letters is link text (as boilerpipe's rules have it,
# Kohlschütter et al. 2010, whose trees cut at 0.33 for blocks of text and later).
_LINK_SHARE = 0.7
# What is called like machinery and has less link text than this, and a heading and sentences, is a section.
_SECTION_LINKS = 0.3
# A header without a heading that has more link text than this leads to other pages.
_HEADER_LINKS = 0.4
# An article that is a link's target elsewhere: its heading is a link, and it is this much smaller than the largest.
_TEASER = 0.25
# Articles beside the one that holds most of a page are content with more of its letters than this.
_SECOND = 0.1
# Boilerplate rules that leave less of the letters than this have met a page that they do not fit.
_TOO_LITTLE = 0.1
_CONTENT_IDS = words("content main main-content maincontent mw-content-text article bodycontent post")


def main_content(body: Node, report: Report) -> Node:
    """A copy of the tree without boilerplate, from the element on that holds the content.

    A page of which the rules leave too little is a page of links, or one that they do not fit at all.
    """
    page = _Page.of(body)
    for links in (False, True):
        kept = _prune(body, page, links, report)
        measure(kept)
        root = _content_root(kept)
        if root.letters >= _TOO_LITTLE * body.letters:
            break
        report.count("boilerplate_rules_waived")
    else:
        root = body
    report.count("boilerplate_letters", body.letters - root.letters)
    heading = find(kept, "h1")
    if root is not body and root is not kept and heading is not None and not root.heads:
        return Node("body", {}, [heading, root], letters=root.letters + heading.letters)
    return root


@dataclasses.dataclass(frozen=True)
class _Page:
    """Facts about the whole page that the judgement of an element needs.

    Attributes:
      letters: of the page.
      article: letters of the largest `<article>`.
      excused: words that name most of its text, so that they name no machinery here.
    """

    letters: int
    article: int
    excused: frozenset[str]

    @classmethod
    def of(cls, body: Node) -> "_Page":
        article, by_word = 0, dict[str, int]()
        stack: list[tuple[Node, frozenset[str]]] = [(body, frozenset())]
        while stack:
            node, above = stack.pop()
            if node.is_article():
                article = max(article, node.letters)
            for token in _tokens(node):
                for word in subjects(token) - above:
                    by_word[word] = by_word.get(word, 0) + node.letters - node.linked
                    above |= {word}
            stack += [(child, above) for child in node.children if isinstance(child, Node)]
        most = _TOO_BIG * (body.letters - body.linked)
        return cls(body.letters, article, frozenset(word for word, n in by_word.items() if n > most))


@dataclasses.dataclass(frozen=True)
class _Place:
    """Context of an element: in an article, in a list or data table (whose parts may be all links)."""

    article: bool = False
    data: bool = False

    def inside(self, node: Node) -> "_Place":
        data = self.data or node.tag == "li" or (node.tag == "table" and node.headers)
        article = self.article or node.tag in ("article", "main") or node.get("role") == "main"
        return self if (article, data) == (self.article, self.data) else _Place(article, data)


def _prune(body: Node, page: _Page, links: bool, report: Report) -> Node:
    kept = Node(body.tag, body.attributes, [], body.own)
    stack = [(body, kept, _Place())]
    while stack:
        old, new, place = stack.pop()
        introduced = shape.introduced(old)
        for i, child in enumerate(old.children):
            if isinstance(child, str) or child.tag in _KEPT_WHOLE:
                new.children.append(child)
                continue
            if _is_boilerplate(child, old, page, place, report):
                continue
            inside = place.inside(child)
            if not (links or place.data) and shape.is_links(child):
                if i not in introduced and not _is_part_of_document(child, place):
                    continue
                inside = dataclasses.replace(inside, data=True)
            copy = Node(child.tag, child.attributes, [], child.own)
            new.children.append(copy)
            stack.append((child, copy, inside))
    return kept


def _is_boilerplate(node: Node, parent: Node, page: _Page, place: _Place, report: Report) -> bool:
    if node.letters > _TOO_BIG * page.letters:
        return False
    if node.tag in ("footer", "aside") and not (place.article and shape.is_note(node)):
        return True
    if node.tag == "header" and not place.article and not node.heads and parent.tag != "section":
        return True
    if node.tag == "sup" and "reference" in node.classes():
        report.count("references_dropped")
        return True
    if node.get("role") in ("navigation", "banner", "contentinfo", "search", "complementary", "dialog", "alertdialog"):
        return True
    if node.tag == "article":
        return _is_teaser(node, page)
    if node.tag not in _CONTAINERS:
        return _is_named_line(node, parent, page, place)
    if _is_named_container(node, page):
        report.count("infoboxes_dropped", "infobox" in node.classes())
        return True
    return "header" in node.classes() and not node.heading and node.linked > _HEADER_LINKS * node.letters


def _is_part_of_document(node: Node, place: _Place) -> bool:
    """Returns whether it is a section below the page's own, with an address and a heading that is no link itself."""
    section = (node.tag == "section" and place.article) or not _SECTIONS.isdisjoint(node.classes())
    addressed = section and node.get("id") != "" and not node.heads
    return addressed and node.heading is Heading.PLAIN and shape.is_headed(node)


def _is_teaser(node: Node, page: _Page) -> bool:
    if node.letters > _TEASER * page.article:
        return False
    if node.linked > _LINK_SHARE * node.letters:
        return True
    return node.heading is Heading.LINKED


def _tokens(node: Node) -> list[str]:
    if not node.attributes or node.tag in _NEVER_NAMED:
        return []
    return [*node.classes(), *([node.get("id")] if node.get("id") else ())]


def _by_class(node: Node, page: _Page) -> Named:
    return max((named(token, page.excused) for token in node.classes()), default=Named.NOTHING)


def _is_named_line(node: Node, parent: Node, page: _Page, place: _Place) -> bool:
    """Returns whether a paragraph, item, cell or a part of one is machinery. An id of theirs is an address."""
    if node.tag in _NEVER_NAMED or node.main or not node.get("class"):
        return False
    by_class = _by_class(node, page)
    if by_class is Named.CERTAIN or not by_class or place.data:
        return by_class is Named.CERTAIN
    links = node.linked > _TOO_BIG * node.letters
    if node.tag not in _LINES:
        return links and not parent.own
    return links or shape.is_short(node) and (by_class is Named.PART or "copyright" in node.classes())


def _is_named_container(node: Node, page: _Page) -> bool:
    if not node.attributes or node.main:
        return False
    by_class = _by_class(node, page)
    by_id = named(node.get("id"), page.excused) if node.get("id") else Named.NOTHING
    if by_class >= Named.PART:
        return True
    if not by_class and not by_id or shape.is_note(node):
        return False
    headed = shape.is_headed(node)
    tells = headed and node.prose > 0 and node.linked < _SECTION_LINKS * node.letters
    section = headed and (node.tag == "section" or not _SECTIONS.isdisjoint(node.classes()))
    if by_class is Named.PLACE:
        return not (section and tells)
    if by_class is Named.TOPIC and not tells:
        return True
    if headed and (section or by_id <= Named.TOPIC):
        return node.linked > _TOO_BIG * node.letters
    if by_id <= Named.TOPIC:
        return shape.reads_like_machinery(node)
    return by_id >= Named.PART or not tells


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
        if called and node.letters > _TOO_BIG * best.letters and not _has_company(node, best):
            best = node
        stack += [child for child in node.children if isinstance(child, Node)]
    return best


def _has_company(node: Node, best: Node) -> bool:
    """Returns whether there are other articles beside it: answers after a question, posts of a day."""
    inside = node.letters if node.is_article() else node.articles
    return best.articles - inside > _SECOND * node.letters
