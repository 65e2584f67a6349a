"""Registration numbers, cards and bank accounts: their forms, and the neighbouring words that decide."""

import re
from collections.abc import Iterator, Sequence

from kanana_jax.data.filters.pii import checks, labels
from kanana_jax.data.filters.pii.labels import Label
from kanana_jax.data.filters.pii.place import END, FAR, NEAR, START, Candidate, Place, alone, digits

_CARD = re.compile(
    START + r"(?:[0-9]{4}([-. /]{0,3})[0-9]{4}\1[0-9]{4}\1[0-9]{4}|3[0-9]{3}([-. ]{0,3})[0-9]{6}\2[0-9]{4,5})" + END
)
_RESIDENT = re.compile(START + r"([0-9]{6})( {0,2}[-./~]? {0,2})([0-9]{7})" + END)
_MY_NUMBER = re.compile(START + r"[0-9]{4}([-. ]?)[0-9]{4}\1[0-9]{4}" + END)
_ACCOUNT = re.compile(
    r"(?<![0-9])(?<![0-9][-_.])"
    r"(?:[0-9]{1,8}(?: ?[-.] ?[0-9]{1,8}){1,4}|[0-9]{2,6}(?: [0-9]{2,8}){1,3}|[0-9]{7,17})(?![0-9]| ?[-.][0-9])"
)
# Between the word "account" and a number shorter than most accounts.
_NUMBERED = re.compile(
    r"[ .:()#=|'\"]*+(?:no|num|number|번호|番号)?[ .:()#=|'\"]*+(?:is|는|은|が|は)?[ .:()#=|'\"]*+", re.I
)
_DATE = re.compile(r"(?:19|20)[0-9]{2} ?[-./] ?(?:0?[1-9]|1[0-2])(?![0-9])")


def cards(place: Place) -> Iterator[Candidate]:
    """Numbers of payment cards."""
    for match in _CARD.finditer(place.text, place.start, place.end + 3):
        label = labels.before(place.text, match.start())
        number = digits(match[0])
        if label.name == "other" and label.gap <= NEAR or not alone(place, *match.span(), label):
            continue
        if checks.luhn(number) and (checks.issued(number) or label.name == "card" and number[0] in "2345679"):
            yield "card", *match.span()


def residents(place: Place) -> Iterator[Candidate]:
    """Korean resident and foreigner registration numbers."""
    for match in _RESIDENT.finditer(place.text, place.start, place.end + 3):
        label = labels.before(place.text, match.start())
        if label.name == "other" and label.gap <= FAR or not alone(place, *match.span(), label):
            continue
        kind = checks.resident(match[1], match[3], "-" in match[2], label.name == "rrn" and label.gap <= FAR)
        if kind:
            yield kind, *match.span()


def my_numbers(place: Place) -> Iterator[Candidate]:
    """Japanese individual numbers."""
    for match in _MY_NUMBER.finditer(place.text, place.start, place.end + 3):
        label = labels.before(place.text, match.start())
        if label.name == "my_number" and label.gap <= FAR and checks.my_number(digits(match[0])):
            yield "my_number", *match.span()


def accounts(place: Place, phones: Sequence[Candidate]) -> Iterator[Candidate]:
    """Bank accounts: a word for one, or a bank, must be next to them, and they are not telephone numbers."""
    taken = {i for _, start, end in phones for i in range(start, end)}
    for match in _ACCOUNT.finditer(place.text, place.start, place.end + 3):
        n = sum(c.isdigit() for c in match[0])
        if n < 7 or n > 17 or _DATE.match(match[0]):
            continue
        if not taken.isdisjoint(range(*match.span())):
            continue
        label = labels.before(place.text, match.start())
        if _is_account(place.text, match, n, label) and alone(place, *match.span(), label):
            yield "account", *match.span()


def _is_account(text: str, match: re.Match, n: int, label: Label) -> bool:
    following = text[match.end() : match.end() + 1]
    if following and following in "원円호号명달개":
        return False
    if label.name == "deposit":
        between = text[match.start() - label.gap : match.start()]
        return (
            n == 7 and match[0].isdigit() and not between.strip(" :()") and following not in tuple("人台円名年回個枚点")
        )
    if label.name == "account":
        between = text[match.start() - label.gap : match.start()]
        return label.gap <= FAR and (n >= 10 or _NUMBERED.fullmatch(between) is not None)
    if label.name == "bank":
        return n >= 10 and label.gap <= FAR and (not match[0].isdigit() or n <= 14)
    return label.name == "" and 10 <= n <= 16 and "-" in match[0] and labels.names_account(text, match.end())
