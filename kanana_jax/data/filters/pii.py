"""Personal data of Korean, Japanese and English pages: found, and replaced by what kind it was.

Numbers that have a checksum must pass it; numbers that could be anything (accounts, passports) need a word before them
that says what they are. Prices, dates, statutes and versions are no personal data.
"""

import datetime
import ipaddress
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

KINDS = ("rrn", "foreigner", "my_number", "card", "passport", "account", "phone", "email", "ip")


class Found(NamedTuple):
    """`text[start:end]` is personal data of a kind (`KINDS`)."""

    start: int
    end: int
    kind: str


_B, _A = r"(?<![\d.\-–/:])", r"(?![\d\-–/:]|\.\d)"  # no longer number, date, time or range around it
_EMAIL = re.compile(
    r"(?<![\w.%+-])[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,6}[A-Za-z]{2,24}(?![A-Za-z0-9])"
)
_RRN = re.compile(r"(?<![\d.\-])(\d{6})(?:[-–] ?| )?([1-8]\d{6})(?![\d\-]|\.\d)")
_PHONES = (
    # Korea: mobile, area codes with separators, internet and 0505 numbers
    re.compile(_B + r"(?:\+82[- .]?\(?0?\)?|\(?0)1[016789]\)?[- .]?\d{3,4}[- .]?\d{4}" + _A),
    re.compile(_B + r"(?:\+82[- .]?|\(?0)(?:2|[3-6][1-5]|70|50[2-8])(?:\) ?|[- .])\d{3,4}[- .]\d{4}" + _A),
    # Japan: mobile and area codes, ten or eleven digits
    re.compile(_B + r"(?:\+81[- ]?|\(?0)[5789]0[- ]?\d{4}[- ]?\d{4}" + _A),
    re.compile(_B + r"(?:\+81[- ]?|\(?0)\d{1,4}(?:\) ?|[- ])\d{1,4}-\d{4}" + _A),
    # North America, and any number that says its country
    re.compile(_B + r"(?:\+?1[- .])?(?:\(\d{3}\) ?|\d{3}[-.])\d{3}[-.]\d{4}" + _A),
    re.compile(_B + r"\+(?!1[- .]|8[12])\d{1,3}(?:[- .]?\d{2,4}){2,5}" + _A),
)
_CARD = re.compile(_B + r"(?:[3-6]\d{3}([- ]?)\d{4}\1\d{4}\1\d{4}|3[47]\d{2}([- ]?)\d{6}\2\d{5})" + _A)
_ACCOUNT = re.compile(_B + r"\d{2,6}-\d{2,6}-\d{2,8}(?:-\d{1,4})?(?![\d\-])|(?<![\d.])\d{10,14}(?![\d.])")
_ACCOUNT_BEFORE = re.compile(
    r"(?:계좌|입금|송금|이체|은행|뱅크|농협|신협|우체국|口座|振込|銀行|account|iban)[^\n\d]{0,20}$", re.I
)
_PASSPORT = re.compile(r"(?<![A-Za-z0-9])(?:[A-Z]{1,2}\d{7,8}|[A-Z]\d{3}[A-Z]\d{4})(?![A-Za-z0-9])")
_PASSPORT_BEFORE = re.compile(r"(?:여권|passport|旅券|パスポート)[^\n\d]{0,20}$", re.I)
_MY_NUMBER = re.compile(r"(?<![\d\-])\d{4}([- ]?)\d{4}\1\d{4}(?![\d\-])")
_MY_NUMBER_BEFORE = re.compile(r"(?:マイナンバー|個人番号|my ?number)[^\n\d]{0,20}$", re.I)
_RRN_BEFORE = re.compile(r"(?:주민|외국인|등록번호|resident registration|ARC)[^\n\d]{0,20}$", re.I)
_IP4 = re.compile(r"(?<![\w.\-])(?:\d{1,3}\.){3}\d{1,3}(?![\w\-]|\.\d)")
_IP6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{1,4}:){2,7}(?::|[0-9A-Fa-f]{1,4})(?::?[0-9A-Fa-f]{1,4}){0,6}(?![\w:])")
_VERSION_BEFORE = re.compile(r"(?:\bv|version|버전|버젼|판|バージョン|release|firmware)[^\n\d]{0,10}$", re.I)
_CONTEXT = 40


def find(text: str) -> list[Found]:
    """All personal data, in order, without overlaps; of two that overlap the kind that is first in `KINDS` stays."""
    found: list[Found] = []
    taken: set[int] = set()
    for kind, start, end in sorted(_candidates(text), key=lambda item: (_ORDER[item[0]], item[1])):
        places = range(start, end)
        if taken.isdisjoint(places):
            taken.update(places)
            found.append(Found(start, end, kind))
    return sorted(found)


def replace(text: str) -> tuple[str, dict[str, int]]:
    """The text with `<EMAIL>`, `<PHONE>` … in the place of personal data, and how many of each kind there were."""
    pieces, counts, at = [], {}, 0
    for start, end, kind in find(text):
        pieces += [text[at:start], f"<{kind.upper()}>"]
        counts[kind] = counts.get(kind, 0) + 1
        at = end
    return "".join([*pieces, text[at:]]), counts


def _candidates(text: str) -> Iterator[tuple[str, int, int]]:
    named = [rule for rule in _NAMED if rule[3].search(text)]
    # Ordinary text has few places with so many digits: the patterns look at nothing else.
    for region in _DIGITS.finditer(text):
        start, end = max(region.start() - 8, 0), region.end() + 3
        for match in _RRN.finditer(text, start, end):
            kind = _resident(match[1], match[2], "-" in match[0], _before(text, match.start(), _RRN_BEFORE))
            if kind:
                yield kind, *match.span()
        for kind, pattern, accept in (*_NUMBERS, *(rule[:3] for rule in named)):
            for match in pattern.finditer(text, start, end):
                if accept(text, match):
                    yield kind, *match.span()
    if "@" in text:
        yield from (("email", *match.span()) for match in _EMAIL.finditer(text))
    if _COLONS.search(text):
        yield from (("ip", *match.span()) for match in _IP6.finditer(text) if _address(text, match))


def _before(text: str, at: int, pattern: re.Pattern) -> bool:
    return pattern.search(text[max(0, at - _CONTEXT) : at]) is not None


def _resident(birth: str, rest: str, hyphen: bool, named: bool) -> str | None:
    """`rrn`, `foreigner`, or None; numbers given since October 2020 have no checksum and need to be named."""
    century = {"1": 1900, "2": 1900, "5": 1900, "6": 1900}.get(rest[0], 2000)
    try:
        born = datetime.date(century + int(birth[:2]), int(birth[2:4]), int(birth[4:]))
    except ValueError:
        return None
    foreign = rest[0] in "5678"
    digits = [int(d) for d in birth + rest]
    total = sum(d * w for d, w in zip(digits, (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5)))
    passes = digits[12] == ((13 if foreign else 11) - total % 11) % 10
    new = born >= datetime.date(2020, 10, 1)
    if passes and (hyphen or named) or named or (new and hyphen):
        return "foreigner" if foreign else "rrn"
    return None


def _luhn(text: str, match: re.Match) -> bool:
    digits = [int(d) for d in match[0] if d.isdigit()]
    doubled = [d if i % 2 == 0 else d * 2 - 9 * (d > 4) for i, d in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0 and len(set(digits)) > 2


def _my_number(text: str, match: re.Match) -> bool:
    """The check digit of Japan's individual number (Ordinance 85 of 2014, article 5)."""
    digits = [int(d) for d in match[0] if d.isdigit()]
    weights = (6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2)
    rest = sum(d * w for d, w in zip(digits, weights)) % 11
    check = 0 if rest <= 1 else 11 - rest
    return digits[11] == check and _before(text, match.start(), _MY_NUMBER_BEFORE)


def _account(text: str, match: re.Match) -> bool:
    return 10 <= sum(c.isdigit() for c in match[0]) <= 16 and _before(text, match.start(), _ACCOUNT_BEFORE)


def _phone(text: str, match: re.Match) -> bool:
    digits = sum(c.isdigit() for c in match[0])
    return 9 <= digits <= 15 if match[0].lstrip("(").startswith(("+", "0")) else digits in (10, 11)


def _address(text: str, match: re.Match) -> bool:
    """A public address; private ones say nothing about anybody."""
    if _before(text, match.start(), _VERSION_BEFORE):
        return False
    try:
        return ipaddress.ip_address(match[0]).is_global
    except ValueError:
        return False


_DIGITS = re.compile(r"\d[\dA-Z\-–. ()]{4,}\d")
_COLONS = re.compile(r"[0-9A-Fa-f]:[0-9A-Fa-f]{0,4}:")
_ORDER = {kind: i for i, kind in enumerate(KINDS)}
_NUMBERS: tuple[tuple[str, re.Pattern, Callable[[str, re.Match], bool]], ...] = (
    ("card", _CARD, _luhn),
    *(("phone", pattern, _phone) for pattern in _PHONES),
    ("ip", _IP4, _address),
)
# Those that only a word before them makes personal, with that word.
_NAMED = (
    ("my_number", _MY_NUMBER, _my_number, re.compile(_MY_NUMBER_BEFORE.pattern.split("[^")[0], re.I)),
    (
        "passport",
        _PASSPORT,
        lambda text, match: _before(text, match.start(), _PASSPORT_BEFORE),
        re.compile(_PASSPORT_BEFORE.pattern.split("[^")[0], re.I),
    ),
    ("account", _ACCOUNT, _account, re.compile(_ACCOUNT_BEFORE.pattern.split("[^")[0], re.I)),
)
