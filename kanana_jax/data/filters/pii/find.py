"""The places of personal data in a text, and the text without them."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from kanana_jax.data.filters.pii import addresses, checks, folding, labels, numbers
from kanana_jax.data.filters.pii.phones import phones
from kanana_jax.data.filters.pii.place import Candidate, Place

KINDS = ("rrn", "foreigner", "my_number", "card", "passport", "account", "phone", "email", "ip")
_ORDER = {kind: i for i, kind in enumerate(KINDS)}


class Found(NamedTuple):
    """`text[start:end]` is personal data of a kind (`KINDS`)."""

    start: int
    end: int
    kind: str


# Ordinary text has few places with this many digits; the number patterns look at nothing else.
_BETWEEN = re.escape(
    " -~./()[]_（）［］〔〕／～－"
    + folding.DASHES
    + folding.LIKE_DASHES
    + folding.TILDES
    + folding.DOTS
    + folding.SPACES
)
_DIGITS = re.compile(f"[0-9０-９][0-9０-９{_BETWEEN}]{{5,}}[0-9０-９]")
_PLAIN_DATE = re.compile(r"(?:19|20)[0-9]{2}[-./] ?[0-9]{1,2}[-./] ?[0-9]{1,2}")
_PASSPORT = re.compile(
    r"(?<![A-Za-zＡ-Ｚ0-9０-９])(?:[A-ZＡ-Ｚ]{1,2}[ \-]?[0-9０-９]{7,8}|[A-ZＡ-Ｚ][0-9０-９]{3}[A-ZＡ-Ｚ][0-9０-９]{4}"
    r"|[0-9０-９]{9}|[CFGHJK][0-9CFGHJKLMNPRTVWXYZ]{8})"
    r"(?![A-Za-zＡ-Ｚ0-9０-９])",
    re.I,
)
_PASSPORT_WORDS = ("여권", "passport", "Passport", "PASSPORT", "旅券", "パスポート")
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Za-z0-9])")
_POSTAL_ACCOUNT = re.compile(r"記号[ :：　]{0,3}([0-9０-９]{5})[^\n0-9０-９]{0,6}番号[ :：　]{0,3}([0-9０-９]{6,8})")


def find(text: str) -> list[Found]:
    """All personal data, in order, without overlaps; of two that overlap, the first kind in `KINDS` stays."""
    found: list[Found] = []
    taken: set[int] = set()
    for kind, start, end in sorted(_candidates(text), key=lambda item: _ORDER[item[0]]):
        places = range(start, end)
        if taken.isdisjoint(places):
            taken.update(places)
            found.append(Found(start, end, kind))
    return sorted(found)


def replace(text: str) -> tuple[str, dict[str, int]]:
    """The text with `<EMAIL>`, `<PHONE>` … in place of personal data, and the number of each kind."""
    pieces, counts, at = [], {}, 0
    for start, end, kind in find(text):
        pieces += [text[at:start], f"<{kind.upper()}>"]
        counts[kind] = counts.get(kind, 0) + 1
        at = end
    return "".join([*pieces, text[at:]]), counts


def _candidates(text: str) -> Iterator[Candidate]:
    for region in _DIGITS.finditer(text):
        yield from _numbers(text, region)
    yield from addresses.mails(text)
    yield from addresses.machines(text)
    if any(word in text for word in _PASSPORT_WORDS):
        yield from _passports(text)
    if "IBAN" in text or "iban" in text:
        for match in _IBAN.finditer(text):
            if checks.iban(match[0].replace(" ", "")):
                yield "account", *match.span()
    if "記号" in text:
        for match in _POSTAL_ACCOUNT.finditer(text):
            yield from (("account", *match.span(group)) for group in (1, 2))


def _numbers(text: str, region: re.Match) -> Iterator[Candidate]:
    run = region[0]
    count = sum(c.isdigit() for c in run)
    if _PLAIN_DATE.fullmatch(run) or (count < 7 and run.count(".") + run.count("．") < 3):
        return
    start = max(0, region.start() - labels.WINDOW)
    before = folding.text(text[start : region.start()])
    folded = before + folding.number(run) + folding.text(text[region.end() : region.end() + 24])
    place = Place(folded, len(before), len(before) + len(run))
    if count >= 7:
        called = list(phones(place))
        found = [*called, *numbers.accounts(place, called)]
        if count >= 12:
            found += [*numbers.residents(place), *numbers.my_numbers(place), *numbers.cards(place)]
        yield from ((kind, s + start, e + start) for kind, s, e in found)
    if run.count(".") + run.count("．") >= 3:
        yield from ((kind, s + start, e + start) for kind, s, e in addresses.machines_at(place))


def _passports(text: str) -> Iterator[Candidate]:
    for match in _PASSPORT.finditer(text):
        label = labels.before(text, match.start())
        if label.name == "passport" and label.gap <= 22 and sum(c.isdigit() for c in match[0]) >= 4:
            yield "passport", *match.span()
