"""Number templates: powers, uncertainties, units, fractions, intervals. Values are kept as the author gave them.

Names and arguments follow the templates' documentation on the English, Korean and Japanese Wikipedia.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence

from kanana_jax.data.extract import markup

_UNITS_OF_TEMPERATURE = {"C": "°C", "F": "°F", "C-change": "°C", "F-change": "°F", "K-change": "K", "R": "°R"}
_UNITS = {
    "sqmi": "sq mi", "sqkm": "km²", "cumi": "cu mi", "sqft": "sq ft", "cuft": "cu ft", "kmh": "km/h", "km/h": "km/h",
    "impgal": "imp gal", "usgal": "US gal", "USgal": "US gal", "acre": "acres", "sqin": "sq in", "sqyd": "sq yd",
    "sqm": "m²", "cum": "m³", "cc": "cc", "um": "μm", "uF": "μF", "us": "μs", "ug": "μg", "angstrom": "Å",
    "Angstrom": "Å",
    "ohm": "Ω", "Ohm": "Ω", "kohm": "kΩ", "Mohm": "MΩ", "deg": "°", "degC": "°C", "degF": "°F", "arcmin": "′",
    "arcsec": "″", "percent": "%", "permil": "‰", "ppm": "ppm", "Msol": "M☉", "solar mass": "M☉", "Solar mass": "M☉",
    "Rsol": "R☉", "Lsol": "L☉", "solar radius": "R☉", "solar luminosity": "L☉", "ly": "ly", "lightyear": "ly",
    "au": "AU",
    "oz": "oz", "lb": "lb", "foot": "ft", "inch": "in", "mile": "mi", "yard": "yd", "nmi": "nmi", "kn": "kn",
}  # fmt: skip
_RANGES = {
    **{"-": "–", "–": "–", "~": "–", "～": "–", "x": " × ", "by": " × ", "×": " × ", "*": " × ", "xx": " × ", "/": "/"},
    **{"+/-": " ± ", "±": " ± ", "+": " + ", "to(-)": " to ", "and(-)": " and ", ",": ", "},
    **{word: f" {word} " for word in ("to", "and", "or", "to about", "및", "또는")},
    **{word: f"{word} " for word in (", and", ", or")},
}
_NUMBER = r"[+−–-]?\d[\d.,\u00a0 ]*"
_GREEK = {"solar_mass": "M☉", "solar_radius": "R☉", "solar_luminosity": "L☉", "earth_mass": "M⊕", "jupiter_mass": "MJ"}
_INTERVALS = {"closed-closed": "[]", "open-open": "()", "closed-open": "[)", "open-closed": "(]"}
_AROUND = {"abs": "||", "norm": "‖‖", "floor": "⌊⌋", "ceil": "⌈⌉", "bra": "⟨|", "ket": "|⟩", "angbr": "⟨⟩", "set": "{}",
           "angle_bracket": "⟨⟩", "mset": "{}", "절댓값": "||"}  # fmt: skip
_AROUND |= {"angle_brackets": "⟨⟩", "langle": "⟨⟩", "grapheme": "⟨⟩"}
_BEFORE = {"ap": "≈", "approx": "≈", "circa": "c. ", "c.": "c. ", "ca.": "c. ", "floruit": "fl. ", "fl.": "fl. ",
           "±": "±",
           "+-": "±", "plusminus": "±", "pm": "±", "reign": "r. ", "r.": "r. ", "born_in": "b. ", "b.": "b. ",
           "d.": "d. ",
           "u+": "U+", "num_sign": "#"}  # fmt: skip
_SYMBOLS = {"us$": "US$", "usd": "US$", "미국_달러": "US$", "eur": "€", "€": "€", "euro": "€", "jpy": "¥", "¥": "¥",
            "yen": "¥",
            "krw": "₩", "₩": "₩", "won": "₩", "inr": "₹", "₹": "₹", "indian_rupee": "₹", "cad": "C$", "aud": "A$",
            "a$": "A$",
            "c$": "C$", "gbp": "£", "£": "£", "gb£": "£", "pound_sterling": "£", "cny": "CN¥", "cn¥": "CN¥",
            "rmb": "CN¥",
            "hkd": "HK$", "hk$": "HK$", "twd": "NT$", "nt$": "NT$", "rub": "₽", "chf": "CHF ", "sgd": "S$", "s$": "S$",
            "brl": "R$", "r$": "R$", "nzd": "NZ$", "nz$": "NZ$", "php": "₱", "thb": "฿", "vnd": "₫",
            "btc": "₿"}  # fmt: skip


_FRACTION = re.compile(r"\d{1,3}/\d{1,3}")
_ROMAN = ((1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC"), (50, "L"), (40, "XL"), (10, "X"),
          (9, "IX"), (5, "V"), (4, "IV"), (1, "I"))  # fmt: skip


def render(name: str, at: Sequence[str], named: Mapping[str, str]) -> str | None:
    """The text of a number template, given its name, positional and named arguments; None for other templates."""
    shown = _SHOWN.get(name)
    if shown is not None:
        return shown(at, named)
    if name in _SYMBOLS and at:
        return f"{_SYMBOLS[name]}{digits(at[0])}"
    if name in _BEFORE and at:
        spans = name in ("reign", "r.", "floruit", "fl.")
        return f"{_BEFORE[name]}{'–'.join(filter(None, at)) if spans else at[0]}"
    if name in _AROUND and at:
        return f"{_AROUND[name][0]}{', '.join(at)}{_AROUND[name][1]}"
    if name in _INTERVALS and len(at) > 1:
        return f"{_INTERVALS[name][0]}{at[0]}, {at[1]}{_INTERVALS[name][1]}"
    return _GREEK.get(name) or (name if _FRACTION.fullmatch(name) else None)


def digits(number: str) -> str:
    """Adds thousands separators: 1234567.5 → 1,234,567.5."""
    bare = number.replace(",", "")
    found = re.fullmatch(r"([+−-]?)(\d{1,60})(\.\d{1,60})?", bare)
    if found is None or not bare.isascii():
        return number
    return f"{found[1]}{int(found[2]):,}{found[3] or ''}" if not found[2].startswith("0") else number


def value(at: Sequence[str], named: Mapping[str, str]) -> str:
    """`{{val|1.2|0.1|e=5|u=m/s}}` → (1.2 ± 0.1) × 10⁵ m/s; of three numbers, two are upper and lower errors."""
    first, second, third = (*at, "", "", "")[:3]
    number = digits(first) + named.get("end", "")
    if second.startswith("("):
        number += second
    elif re.fullmatch(_NUMBER, third):
        # Either upper and lower errors, or two values with a word between them.
        number += (
            f" +{second.lstrip('+')}/−{third.lstrip('−-')}"
            if re.fullmatch(_NUMBER, second)
            else _between(second) + third
        )
    elif second:
        number += f" ± {digits(second.lstrip('±'))}"
    exponent = named.get("e") or named.get("10^") or ""
    if exponent:
        number = f"({number})" if " " in number else number
        number = f"{number} × 10{_exponent(exponent)}".strip() if number else f"10{_exponent(exponent)}"
    unit = _unit(named.get("u") or named.get("ul") or named.get("단위") or "", temperature=False)
    per = named.get("up") or named.get("upl") or ""
    unit += f"/{_unit(per, temperature=False)}" if per else ""
    close = unit in ("%", "‰", "°", "′", "″")
    number = f"{named.get('p', '')}{number}{named.get('s', '')}"
    return f"{number}{'' if close else ' '}{unit}".strip()


def conversion(at: Sequence[str]) -> str:
    """`{{convert|5|-|10|km|mi}}` → 5–10 km: the author's values, without the converted ones."""
    out: list[str] = []
    for i, part in enumerate(at):
        following = at[i + 1] if i + 1 < len(at) else ""
        if re.match(_NUMBER, part) or re.fullmatch(r"\d+(?:\+\d+)?/+\d+", part):
            out.append(digits(part.replace("//", "/").replace("+", " ") if "/" in part else part))
        elif part in _RANGES and re.match(_NUMBER, following):
            out.append(_RANGES[part])
        else:
            out.append(f" {_unit(part)}")
            # A further number is part of a value in two units: 5 ft 10 in.
            if not (re.fullmatch(r"[\d.]+", following) and i == 1 and i + 2 < len(at) and at[i + 2].isalpha()):
                break
            out.append(" ")
    return "".join(out).strip()


def _between(word: str) -> str:
    return _RANGES.get(word, f" {word} " if word else " ")


def _unit(unit: str, temperature: bool = True) -> str:
    """The symbol for a unit code; C means degrees Celsius in `convert` and coulombs in `val`."""
    if temperature and unit in _UNITS_OF_TEMPERATURE:
        return _UNITS_OF_TEMPERATURE[unit]
    if unit in _UNITS:
        return _UNITS[unit]
    unit = re.sub(r"(?<![A-Za-z])u(?=[A-Za-z])", "μ", unit)
    return re.sub(r"(?<=[A-Za-zΩμ])[-−]?[1-9](?![\w.])", lambda m: _exponent(m[0]), unit)


def _exponent(power: str) -> str:
    return markup.superscript(power.strip().replace("-", "−"))


def _percentage(first: str, second: str, places: str) -> str:
    if max(len(first), len(second)) > 40:
        return f"{first}/{second}"
    try:
        share = 100 * float(first.replace(",", "")) / float(second.replace(",", ""))
    except (ValueError, ZeroDivisionError):
        return f"{first}%" if first and not second else f"{first}/{second}"
    return (
        f"{share:.{int(places) if places.isdecimal() and len(places) < 2 else 1}f}%" if math.isfinite(share) else first
    )


def _ordinal(number: str) -> str:
    if not number.isdecimal() or not number.isascii():
        return number
    last = int(number[-2:])
    return number + ("th" if 10 < last < 14 else {1: "st", 2: "nd", 3: "rd"}.get(last % 10, "th"))


def _roman(number: str) -> str:
    if not (number.isdecimal() and number.isascii() and len(number) < 5 and 0 < int(number) < 4000):
        return number
    left, out = int(number), ""
    for size, sign in _ROMAN:
        out += sign * (left // size)
        left %= size
    return out


def _height(at: Sequence[str], named: Mapping[str, str]) -> str:
    shown = [f"{named[unit]} {unit}" for unit in ("m", "cm", "ft", "in") if named.get(unit)]
    return " ".join(shown) or conversion(at)


def _fraction(at: Sequence[str], named: Mapping[str, str]) -> str:
    first, second, third = (*at, "", "", "")[:3]
    return {0: "", 1: f"1/{first}", 2: f"{first}/{second}"}.get(len(at), f"{first} {second}/{third}")


def _nuclide(at: Sequence[str], named: Mapping[str, str]) -> str:
    first, second = (*at, "", "")[:2]
    symbol, mass = (first, second) if not first.isdigit() else (second, first)
    return f"{markup.superscript(mass)}{symbol}" if mass.isdigit() else "-".join(filter(None, (first, second)))


def _root(at: Sequence[str], named: Mapping[str, str]) -> str:
    first, second = (*at, "", "")[:2]
    sign = f"{markup.superscript(second)}√"
    return f"{sign}{first}" if len(first) < 2 else f"{sign}({first})"


def _scripts(at: Sequence[str], named: Mapping[str, str]) -> str:
    upper, lower = ((*at, "", "")[:2]) if not named else ("", "")
    upper, lower = named.get("p") or named.get("sup") or upper, named.get("b") or named.get("sub") or lower
    return f"{markup.superscript(upper)}{markup.subscript(lower)}"


def _power_of_ten(sign: str) -> Callable[[Sequence[str], Mapping[str, str]], str]:
    return lambda at, named: f"{sign}10{_exponent(at[0])}" if at and at[0] else f"{sign}10"


def _units(signs: str) -> Callable[[Sequence[str], Mapping[str, str]], str]:
    return lambda at, named: " ".join(f"{part}{unit}" for part, unit in zip(at, signs) if part)


_SHOWN: dict[str, Callable[[Sequence[str], Mapping[str, str]], str]] = {
    name: shown
    for names, shown in (
        ("val 값 formatnum formatnum2 수 num nts mpf ntsc number nombre 숫자 gapnum delimitnum 数値 桁区切り", value),
        (
            "convert cvt 변환 단위_변환 단위변환 conv convert/old convertir 換算 単位換算 convinfobox",
            lambda at, named: conversion(at),
        ),
        ("e ×10^ x10^ x10 ×10 esp scinote", _power_of_ten(" × ")),
        ("10^ 10e exp10 十の冪乗", _power_of_ten("")),
        ("pow power 거듭제곱 exponent", lambda at, named: f"{''.join(at[:1])}{_exponent(''.join(at[1:2]))}"),
        ("frac sfrac fraction 분수 tfrac dfrac vfrac 分数 分數 frac2", _fraction),
        ("su sub_sup sup_sub subsup supsub physics", _scripts),
        ("nuclide isotope 핵종 nuclide2 simplenuclide 核種", _nuclide),
        ("sqrt 제곱근 radic √ 근호 根号", _root),
        ("binom binomial", lambda at, named: f"C({', '.join(at[:2])})"),
        ("gaps gap", lambda at, named: value(["".join(at)], named)),
        ("percentage percent pct 백분율 퍼센트 パーセント", lambda at, named: _percentage(*(*at, "", "", "")[:3])),
        ("ordinal 서수 nth ord", lambda at, named: _ordinal("".join(at[:1]))),
        ("roman 로마_숫자 roman_numeral ローマ数字", lambda at, named: _roman("".join(at[:1]))),
        ("height 키 신장 身長", _height),
        ("ra 적경 赤経", _units("hms")),
        ("dec 적위 赤緯 deg2dms dms 각도", _units("°′″")),
        ("unit 단위 単位 quantity measure", lambda at, named: conversion(at[:2])),
    )
    for name in names.split()
}
