"""Class and id names that mark a part of the site's machinery.

A name is taken as a whole. `cookie-banner` is one; `cookies` may be what a section is about; `no-sidebar` says what
is not there, `tag-login` what a post is about, and `how-to-simulate-a-login` is the address of a heading.
"""

import enum
import functools
import re

from kanana_jax.data.extract.markup import words

_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
# What CSS modules append to a name: `docSidebar_njMd`.
_HASH = re.compile(r"(?<=[a-z])_{1,2}(?=[A-Za-z0-9-]{4,6}$)(?=.*[A-Z0-9]).*")
# Words that name machinery and nothing else.
_CERTAIN = words(
    "addthis addtoany adsbygoogle adsense ambox authority catlinks disqus docnav editsection hatnote headerlink "
    "infobox jumplinks mbox navbox navfooter navheader navpath noprint printfooter relatedposts reflist sharedaddy "
    "shortdescription sistersitebox skiplink skiplinks skipnav sphinxsidebar srclink viewcode"
)
# Names of machinery whose words alone say nothing: themes of Tistory, Naver and WordPress, RDoc.
_WHOLE = words("another_category area_sympathy method-click-advice widget-area")
# Places of a page. Documents also tell how to make them.
_PLACES = words(
    "banner breadcrumb breadcrumbs fnb footer gnb lnb masthead menu modal nav navbar navigation navigator navlinks "
    "pager pagenav pagination popup sidebar sidenav snb subnav toc toolbar topnav"
)
# Topics, of which documents may speak as well.
_TOPICS = words(
    "ad ads advert advertisement advertisements comments consent cookie cookies copyright follow gdpr login newsletter "
    "promo recommend recommendations recommended references related share sharing signin signup sns social sponsor "
    "sponsored subscribe subscription"
)
# With one of these around it, a topic is a part of the page.
_PARTS = words(
    "area article articles aside bar block body bottom box btn button buttons card cards collapsible container "
    "content contents count desktop doc docs entries entry fixed form global group head header icon icons inner "
    "item items jp layer left link links list local main mobile module modules mw next notice outer overlay page "
    "panel post posts prev previous primary right row sd secondary section site sticky story stories tab theme "
    "thread title top tt unit widget widgets wp wrap wrapper wrapping"
)
# The words before or behind these name a state of the element or its subject, not what it is.
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
    """Confidence that a name marks machinery."""

    NOTHING = 0
    TOPIC = 1
    PLACE = 2
    PART = 3
    CERTAIN = 4


def named(token: str, excused: frozenset[str] = frozenset()) -> Named:
    """Verdict on one class or id.

    Args:
      excused: words that name the content of this page.
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
        # `acme-sidebar` is a sidebar; `sidebar-example` and `acme-share` may be anything.
        return Named.PLACE if parts[-1] in _PLACES - excused and not _PREFIXES & set(parts) else Named.NOTHING
    if len(parts) > 1:
        return Named.PART
    return Named.PLACE if known & _PLACES else Named.TOPIC


def subjects(token: str) -> frozenset[str]:
    """The words for which a name counts."""
    if not named(token):
        return frozenset()
    parts = frozenset(word.lower() for word in _WORDS.findall(token))
    return parts & (_CERTAIN | _PLACES | _TOPICS)
