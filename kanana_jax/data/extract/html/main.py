"""Selects the main content of a page by the names, link shares and positions of its elements."""

import dataclasses

from kanana_jax.data.extract.html import shape
from kanana_jax.data.extract.html.names import Named, named, subjects
from kanana_jax.data.extract.html.tree import Heading, Node, find, measure
from kanana_jax.data.extract.markup import Report, words

_KEPT_WHOLE = words("pre math code")
# Elements that are removed with everything inside if their name marks site furniture ("machinery" below). Other
# elements must also read like it.
_CONTAINERS = words("div ul ol dl menu section aside header footer form fieldset table center details")
_NEVER_NAMED = words("main article h1 h2 h3 h4 h5 h6 blockquote pre code math figure tbody thead tr dt dd")
_LINES = words("p li td th caption address")
_SECTIONS = words(
    "section sect1 sect2 sect3 sect4 sect5 chapter appendix refsect1 refsect2 level1 level2 level3 level4"
)
# An element with more than this share of the page's letters is content, whatever its name.
_TOO_BIG = 0.5
# Lists and boxes with more than this share of link text are lists of links (after the rules of boilerpipe,
# Kohlschütter et al. 2010, whose trees split at 0.33 for blocks of text and later).
_LINK_SHARE = 0.7
# An element named like machinery is a section of the text if it has a heading, sentences and less link text than this.
_SECTION_LINKS = 0.3
# A header without a heading and with more link text than this is navigation.
_HEADER_LINKS = 0.4
# A teaser of an article elsewhere: its heading is a link, or it is mostly links, and it has at most this share of the
# letters of the largest article.
_TEASER = 0.25
# Other articles count as content if together they have more than this share of the main article's letters.
_SECOND = 0.1
# If the rules keep less than this share of the letters, they do not fit the page.
_TOO_LITTLE = 0.1
_CONTENT_IDS = words("content main main-content maincontent mw-content-text article bodycontent post")


def main_content(body: Node, report: Report) -> Node:
    """A copy of the tree without boilerplate, rooted at the element that contains the content.

    If the rules leave too little, the page is a page of links, whose links are kept, or does not fit the rules, and is
    kept whole.
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
    """Facts about the whole page that are needed to judge an element.

    Attributes:
      letters: number of letters of the page.
      article: number of letters of the largest `<article>`.
      excused: words in the names of elements with most of the text; on this page they do not mark machinery.
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
    """Context of an element: whether it is in an article, and in a list or data table (where links are allowed)."""

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
    """Whether an element is a subsection of the text: it has an id and begins with a heading that is not a link."""
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
    """Whether a paragraph, item, cell or inline element is machinery. Only classes count: ids are link targets here."""
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
        # A deeper element wins if it holds most of the letters: <main> over <body>, <article> over <main>.
        if called and node.letters > _TOO_BIG * best.letters and not _has_company(node, best):
            best = node
        stack += [child for child in node.children if isinstance(child, Node)]
    return best


def _has_company(node: Node, best: Node) -> bool:
    """Whether there are other articles beside a node: answers to a question, posts of a day."""
    inside = node.letters if node.is_article() else node.articles
    return best.articles - inside > _SECOND * node.letters
