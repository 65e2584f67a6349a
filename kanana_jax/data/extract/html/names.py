"""Class and id names that mark site furniture ("machinery"), such as menus and banners.

Names are judged as a whole. `cookie-banner` is machinery, but `cookies` may be the topic of a section, `no-sidebar`
states an absence, `tag-login` is the tag of a post, and `how-to-simulate-a-login` is the link target of a heading.
"""

import enum
import functools
import re

from kanana_jax.data.extract.markup import words

_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
# The suffix that CSS modules append to a name: `docSidebar_njMd`.
_HASH = re.compile(r"(?<=[a-z])_{1,2}(?=[A-Za-z0-9-]{4,6}$)(?=.*[A-Z0-9]).*")
# Words that always mean machinery.
_CERTAIN = words(
    "addthis addtoany adsbygoogle adsense ambox authority catlinks disqus docnav editsection hatnote headerlink "
    "infobox jumplinks mbox navbox navfooter navheader navpath noprint printfooter relatedposts reflist sharedaddy "
    "shortdescription sistersitebox skiplink skiplinks skipnav sphinxsidebar srclink viewcode"
)
# Whole names of machinery whose single words are neutral: themes of Tistory, Naver and WordPress, RDoc.
_WHOLE = words("another_category area_sympathy method-click-advice widget-area")
# Regions of a page; documents may also explain how to build them.
_PLACES = words(
    "banner breadcrumb breadcrumbs fnb footer gnb lnb masthead menu modal nav navbar navigation navigator navlinks "
    "pager pagenav pagination popup sidebar sidenav snb subnav toc toolbar topnav"
)
# Kinds of machinery that may also be the topic of a document.
_TOPICS = words(
    "ad ads advert advertisement advertisements comments consent cookie cookies copyright follow gdpr login newsletter "
    "promo recommend recommendations recommended references related share sharing signin signup sns social sponsor "
    "sponsored subscribe subscription"
)
# Combined with one of these words, a topic names a part of the page.
_PARTS = words(
    "area article articles aside bar block body bottom box btn button buttons card cards collapsible container "
    "content contents count desktop doc docs entries entry fixed form global group head header icon icons inner "
    "item items jp layer left link links list local main mobile module modules mw next notice outer overlay page "
    "panel post posts prev previous primary right row sd secondary section site sticky story stories tab theme "
    "thread title top tt unit widget widgets wp wrap wrapper wrapping"
)
# Next to these, a word names a state or the subject of the element, not its role.
_PREFIXES = words(
    "cat category format has hide hides is label lang layout no not show shows status subject "
    "tag tags taxonomy term toggle topic type using with without"
)
_SUFFIXES = words(
    "accepted active closed collapsed disabled enabled expanded false given hidden layout loaded none off on open "
    "opened ready shown support template true visible"
)


_LONGEST_NAME = 100


class Named(enum.IntEnum):
    """Degree of confidence that a name marks machinery."""

    NOTHING = 0
    TOPIC = 1
    PLACE = 2
    PART = 3
    CERTAIN = 4


def named(token: str, excused: frozenset[str] = frozenset()) -> Named:
    """Judges one class or id.

    Args:
      excused: words that name the content of this page and are ignored.
    """
    return _named(token, excused) if len(token) <= _LONGEST_NAME else Named.NOTHING


@functools.lru_cache(maxsize=1 << 14)
def _named(token: str, excused: frozenset[str]) -> Named:
    if token in _WHOLE:
        return Named.CERTAIN
    parts = [word.lower() for word in _WORDS.findall(_HASH.sub("", token))]
    known = frozenset(parts) - excused
    if not known & (_CERTAIN | _PLACES | _TOPICS) or parts[0] in _PREFIXES or parts[-1] in _SUFFIXES:
        return Named.NOTHING
    if known & _CERTAIN:
        return Named.CERTAIN
    others = set(parts) - _PLACES - _TOPICS
    if others - _PARTS or not known.isdisjoint(_PREFIXES):
        # `acme-sidebar` is a sidebar, but `sidebar-example` and `acme-share` may be anything.
        return Named.PLACE if parts[-1] in _PLACES - excused and not _PREFIXES & set(parts) else Named.NOTHING
    if len(parts) > 1:
        return Named.PART
    return Named.PLACE if known & _PLACES else Named.TOPIC


def subjects(token: str) -> frozenset[str]:
    """The words because of which a name is judged as machinery."""
    if not named(token):
        return frozenset()
    parts = frozenset(word.lower() for word in _WORDS.findall(token))
    return parts & (_CERTAIN | _PLACES | _TOPICS)
