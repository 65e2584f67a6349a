"""Telephone and fax numbers.

The forms are those of Korea's numbering plan (01x; areas 02 to 064; 070, 080, 050x), Japan's (0 and nine digits, or 0x0
and eight), North America's, and ITU-T E.164 for all others. If the form alone does not decide, a word before it does.
"""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from kanana_jax.data.filters.pii import labels
from kanana_jax.data.filters.pii.labels import Label
from kanana_jax.data.filters.pii.place import END, NEAR, START, Candidate, Place, alone, digits

_MAYBE = r"(?: {0,2}[-./~()_]{1,2} {0,2}| {1,2})?"
_SURELY = r"(?: {0,2}[-./~()_]{1,2} {0,2}| {1,2})"
_COUNTRY = r"\)?[-. /]{0,3}\(?0?\)?[-. ]{0,2}\(?|\(0|0)"  # "+82-10", "(+82) 10", "+82 (0)10", or the domestic 0
_KOREAN = r"(?:\(?(?:\+|00[1278]?[- ]?)?82" + _COUNTRY
_JAPANESE = r"(?:\(?(?:\+|00[1278]?[- ]?)?81" + _COUNTRY
_EITHER = r"(?:\(?(?:\+|00[1278]?[- ]?)?8[12]" + _COUNTRY

_AREAS = re.compile(r"2|3[1-3]|4[1-4]|5[1-5]|6[1-4]|[678]0|50[2-8]")
_TOLL_FREE = re.compile(r"120|570|800|990")
_COUNTED = "만천억자원명개년회字円名年回個枚点"
_IN_A_NAME = re.compile(r"[A-Za-z0-9+~_)]")  # "gtk+3.0", "14~++2022"
_YEARS = re.compile(r"20[0-9]{2} ?[-.)] ?20[0-9]{2}")
_BESIDE = " .:()-=>/|번호는은대표\n"  # between a word and a number without an area


class _Phone(NamedTuple):
    """A match with the facts that decide about it.

    Attributes:
      called: whether a word for telephones directly precedes it.
      bare: whether it begins with neither 0 nor +.
      columns: whether only spaces separate it, and other figures are next to it.
    """

    match: re.Match
    number: str
    label: Label
    called: bool
    bare: bool
    columns: bool


def _mobile(phone: _Phone) -> bool:
    if phone.number == phone.match[0]:
        return len(set(phone.number)) > 2 and (phone.called or len(phone.number) == 11 and not phone.bare)
    return phone.called or not phone.columns and (not phone.bare or "-" in phone.match[0])


def _of_a_bank(phone: _Phone, area: str) -> bool:
    return phone.label.name == "account" or phone.label.name == "bank" and not _AREAS.fullmatch(area)


def _fixed(phone: _Phone) -> bool:
    area, middle, last = phone.match.groups()
    if _of_a_bank(phone, area) or (phone.bare or phone.columns) and not phone.called:
        return False
    if _AREAS.fullmatch(area) and len(middle) >= 3 and len(last) == 4:
        return True
    if _TOLL_FREE.fullmatch(area) and len(middle) + len(last) in (6, 7):
        return True
    parted = "-" in phone.match[0] or ")" in phone.match[0] or area in ("3", "6") and not phone.columns
    return len(area + middle + last) == 9 and len(last) == 4 and (phone.called or parted)


def _american(phone: _Phone) -> bool:
    if _of_a_bank(phone, ""):
        return False
    if phone.called or phone.match[0][0] == "+" or "(" in phone.match[0]:
        return True
    alike = "." not in phone.match[0] or "-" not in phone.match[0]  # "252.227-7013" is a clause
    return phone.number[-10] in "23456789" and " " not in phone.match[0] and alike


def _abroad(phone: _Phone) -> bool:
    parts = re.findall(r"[0-9]+", phone.match[0])
    if _IN_A_NAME.search(phone.match.string, max(phone.match.start() - 1, 0), phone.match.start()) and phone.label.gap:
        return False
    if _of_a_bank(phone, "") or "+" not in phone.match[0] and not phone.called:
        return False
    if len(parts) == 1:
        return len(phone.number) >= 10
    return len(parts) > 2 and len(parts[0]) <= 3 and (max(map(len, parts)) >= 3 or len(parts) >= 5)


def _called(phone: _Phone) -> bool:
    text, (start, end) = phone.match.string, phone.match.span()
    if not phone.called or text[end : end + 1] in tuple(_COUNTED) or phone.number in "01234567890":
        return False
    if _YEARS.fullmatch(phone.match[0]):
        return False
    return len(phone.number) > 8 or not text[start - phone.label.gap : start].strip(_BESIDE)


_FORMS: tuple[tuple[re.Pattern, Callable[[_Phone], bool]], ...] = (
    (re.compile(START + _KOREAN + r"1[016-9]" + _MAYBE + r"[0-9]{3,4}" + _MAYBE + r"[0-9]{4}" + END), _mobile),
    (re.compile(START + _JAPANESE + r"[5-9]0" + _MAYBE + r"[0-9]{4}" + _MAYBE + r"[0-9]{4}" + END), _mobile),
    (
        re.compile(
            START + _EITHER + r"([1-9][0-9]{0,3})" + _SURELY + r"([0-9]{1,4})" + _SURELY + r"([0-9]{3,4})" + END
        ),
        _fixed,
    ),
    (
        re.compile(
            START + r"(?:\(?(?:\+|00)?1\)?[-. ]{1,2})?(?:\([0-9]{3}\)[-. ]?|[0-9]{3}[-./ ])[0-9]{3}[-. ][0-9]{4}" + END
        ),
        _american,
    ),
    (re.compile(START + r"\(?(?:\+|00[- ]?)[1-9](?:[-. ()]{0,3}[0-9]){7,14}" + END), _abroad),
    (
        re.compile(
            START
            + r"(?:\(?0(?:[-. ()/~]{0,3}[0-9]){8,10}|[2-9][0-9]{2,3} ?[-.)] ?[0-9]{4}"
            + r"|\(?[2-9][0-9]{2}\)?[-. /]{0,2}[0-9]{3}[-. ]{0,2}[0-9]{4})"
            + END
            + r"(?!\.[0-9])"
        ),
        _called,
    ),
)


def phones(place: Place) -> Iterator[Candidate]:
    """Telephone and fax numbers at a place."""
    for pattern, accept in _FORMS:
        for match in pattern.finditer(place.text, max(place.start - 3, 0), place.end + 3):
            start, end = match.span()
            if match[0][0] == "(" and match[0].count("(") > match[0].count(")"):
                start += 1
            label = labels.before(place.text, start)
            if label.name == "other" and label.gap <= NEAR or not alone(place, start, end, label):
                continue
            called = label.name == "phone" and label.gap <= NEAR
            bare = not match[0].lstrip("(").startswith(("+", "0"))
            spaced = set(match[0]) - set("0123456789+()") <= {" "}
            columns = spaced and _among_figures(place.text, start, end)
            if accept(_Phone(match, digits(match[0]), label, called, bare, columns)):
                yield "phone", start, end


def _among_figures(text: str, start: int, end: int) -> bool:
    return text[max(start - 2, 0) : start].rstrip(" ").isdigit() or text[end : end + 2].lstrip(" ").isdigit()
