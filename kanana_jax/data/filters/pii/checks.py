"""Check digits and dates of numbers that have them. Arguments are strings of ASCII digits."""

import datetime

_BORN = {"1": 1900, "2": 1900, "5": 1900, "6": 1900, "3": 2000, "4": 2000, "7": 2000, "8": 2000}
_NO_CHECKSUM = datetime.date(2020, 10, 1)  # from then on, the digits after the first of the second part are random
_LAST = datetime.date(2030, 1, 1)  # later dates are not dates of birth


def luhn(digits: str) -> bool:
    """The check digit of payment cards (ISO/IEC 7812-1, annex B)."""
    values = [int(d) for d in digits]
    doubled = [d if i % 2 == 0 else d * 2 - 9 * (d > 4) for i, d in enumerate(reversed(values))]
    return sum(doubled) % 10 == 0 and len(set(values)) > 2


def issued(digits: str) -> bool:
    """Returns whether a card network issues numbers with this length and beginning."""
    two, three, four = int(digits[:2]), int(digits[:3]), int(digits[:4])
    if len(digits) == 16:
        return (
            digits[0] == "4"
            or 51 <= two <= 55
            or 2221 <= four <= 2720
            or four == 6011
            or two in (62, 65)
            or 644 <= three <= 649
            or 3528 <= four <= 3589
        )
    return two in (34, 37) if len(digits) == 15 else two in (36, 38, 39) or 300 <= three <= 305


def my_number(digits: str) -> bool:
    """The check digit of Japan's individual number (Ordinance 85 of 2014, article 5)."""
    weights = (6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2)
    rest = sum(int(d) * w for d, w in zip(digits, weights)) % 11
    return int(digits[11]) == (0 if rest <= 1 else 11 - rest)


def resident(birth: str, rest: str, hyphen: bool, named: bool) -> str | None:
    """`rrn`, `foreigner`, or None for the two parts of a Korean resident registration number.

    Numbers issued since October 2020 have no checksum; they need a hyphen or a name before them.
    """
    if rest[0] not in _BORN:
        return None
    try:
        born = datetime.date(_BORN[rest[0]] + int(birth[:2]), int(birth[2:4]), int(birth[4:]))
    except ValueError:
        return None
    foreign = rest[0] in "5678"
    total = sum(int(d) * w for d, w in zip(birth + rest, (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5)))
    passes = int(rest[6]) == ((13 if foreign else 11) - total % 11) % 10
    if named or (hyphen and (passes or _NO_CHECKSUM <= born < _LAST)):
        return "foreigner" if foreign else "rrn"
    return None


def iban(value: str) -> bool:
    """The check digits of an international bank account number without spaces (ISO 13616)."""
    moved = value[4:] + value[:4]
    return 15 <= len(value) <= 34 and int("".join(str(int(c, 36)) for c in moved)) % 97 == 1
