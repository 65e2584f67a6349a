"""Parsing of numbers in texts: commas, fractions, currencies, myriads (3만 5천, 12万), minus signs."""

import re
from fractions import Fraction

_DIGITS = r"(?:\d{1,3}(?:,\d{3}){1,9}(?!\d)|\d{1,30})(?:\.\d{1,30})?(?!\d)"
_SIGN = r"(?:(?:마이너스|minus|マイナス)\s*+|[-−+])?"
_CURRENCY = r"(?:[$₩¥€£]|US\$)?"
PLACE = re.compile(rf"(?<![A-Za-z_^\d.,])(?:(?:마이너스|minus|マイナス)\s*+|(?<!\d)[-−])?\s?{_CURRENCY}\d")
_WHOLE = re.compile(rf"(?P<sign>{_SIGN})\s?{_CURRENCY}(?P<digits>{_DIGITS})")
_OF = re.compile(rf"({_DIGITS})\s*(?:분의|分の)\s*({_DIGITS})")
_OVER = re.compile(rf"\s*/\s*({_DIGITS})(?!\s*/)")
_MIXED = re.compile(r" +(\d{1,9}) ?/ ?(\d{1,9})(?!\s*/|\d)")
_SUM = re.compile(rf"{_SIGN}[(\s]*{_DIGITS}[)\s]*(?:(?:[-−+*/×÷·]|\\(?:times|div|cdot))[(\s]*{_DIGITS}[)\s]*)+=\s*")
_SMALL = {"십": 10, "十": 10, "백": 100, "百": 100, "천": 1000, "千": 1000, "": 1}
_LARGE = {"만": 10**4, "万": 10**4, "억": 10**8, "億": 10**8, "": 1}
_WORDS = {"thousand": 10**3, "million": 10**6, "billion": 10**9}
_UNITS = re.compile(rf"\s?({_DIGITS})\s?([십백천十百千]?)\s?((?:만(?!큼)|万|억|億)?)")


def without_exponents(text: str) -> str:
    """A text without the exponents of units (m², cm^2), which are not numbers of the text."""
    text = re.sub(r"(?<=[A-Za-z])[⁰¹²³⁴-⁹]+", "", text)
    return re.sub(r"(?<=[A-Za-z}])\s?\^\s?(?:\{\d+\}|\d)(?![\d.])", "", text)


def at(text: str, begin: int) -> tuple[str, int] | None:
    """The number that begins at an offset, in the form of `canonical`, and the offset of its end; None if none does."""
    sum_of = _SUM.match(text, begin)  # '3 × 4 = 12' says 12
    begin = sum_of.end() if sum_of else begin
    match = _OF.match(text, begin)
    if match and (low := _value(match[1])):
        return canonical(_value(match[2]) / low), match.end()
    match = _WHOLE.match(text, begin)
    if match is None:
        return None
    sign = -1 if match["sign"].strip("+") else 1
    over = _OVER.match(text, match.end())
    if over and (low := _value(over[1])):
        return canonical(sign * _value(match["digits"]) / low), over.end()
    mixed = _MIXED.match(text, match.end())
    if mixed and (low := _value(mixed[2])) and _value(mixed[1]) < low:
        return canonical(sign * (_value(match["digits"]) + _value(mixed[1]) / low)), mixed.end()
    value, end = _myriads(text, match.start("digits"))
    word = re.compile(r"\s(thousand|million|billion)\b").match(text, end)
    if word:
        value, end = value * _WORDS[word[1]], word.end()
    return canonical(sign * value), end


def _myriads(text: str, begin: int) -> tuple[Fraction, int]:
    """The value of digits with myriads (3만 5천 = 35,000) and its end; units must decrease from part to part."""
    total, section, end, below = Fraction(0), Fraction(0), begin, 10**16
    match = _UNITS.match(text, begin)
    while match:
        unit = _SMALL[match[2]] * _LARGE[match[3]]
        if unit >= below and end != begin:
            break
        section += _value(match[1]) * _SMALL[match[2]]
        end = match.end(3) if match[3] else match.end(2) if match[2] else match.end(1)
        if match[3]:
            total, section = total + section * _LARGE[match[3]], Fraction(0)
        if unit == 1:
            break
        below = unit if match[3] or unit < below else below
        match = _UNITS.match(text, end)
    return total + section, end


def _value(digits: str) -> Fraction:
    return Fraction(digits.replace(",", ""))


def canonical(value: Fraction) -> str:
    """A number as text: an integer or a finite decimal if it is one, else a fraction."""
    low = value.denominator
    for factor in (2, 5):
        while low % factor == 0:
            low //= factor
    if value.denominator == 1 or low != 1:
        return str(value)
    return f"{float(value):.12f}".rstrip("0").rstrip(".")


def parse(text: str) -> Fraction | None:
    """The value of a text that is a single number, as in answers of data sets (1,042; 42.0; 3/4); None for others."""
    found = at(text.strip(), 0)
    try:
        return None if found is None or found[1] != len(text.strip()) else Fraction(found[0])
    except (ValueError, ZeroDivisionError):
        return None
