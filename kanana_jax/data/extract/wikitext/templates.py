"""The text of templates: the values of conversions, languages, numbers and dates; notes and boxes are dropped.

Only templates that stand in running text are rendered; the rest is counted, by name where unknown.
"""

import re
from collections.abc import Callable, Mapping, Sequence

from kanana_jax.data.extract import markup
from kanana_jax.data.extract.markup import Report, words

# Templates that show their first argument, their last one, or their second.
_FIRST = words(
    "nowrap nobr nowrapend mvar math big small smaller larger resize em strong u s sic 仮リンク unicode mono tt var "
    "kbd "
    "samp 작게 크게 as-is linktext plainlist flatlist block_indent center centre columns-list col-list ill "
    "interlanguage_link 언어_링크 lw 루비 ruby rubi ruby-ja not_a_typo not_typo proper_name noitalic noitalics normal "
    "italic bold keypress nbhyph honorific 링크 링크-en 임시_링크 임시링크 abbr abbrlink tooltip 약어 dfn 강조 flag "
    "국기 국기나라 "
    "flagcountry 국기2 flagu"
)
_LAST = words("transl transliteration tlit ipa ipa2 ipa-en ipa-ko ipa-ja font_color 글자색")
_SECOND = words("lang llang lang-x langx color 색 colour fontcolor 폰트 rtl-lang bg stylize style")
_CURRENCIES = {"us$": "US$", "usd": "US$", "미국_달러": "US$", "eur": "€", "€": "€", "jpy": "¥", "¥": "¥",
               "krw": "₩", "₩": "₩", "inr": "₹", "cad": "C$", "aud": "A$"}  # fmt: skip
_QUOTE = words(
    "quote blockquote cquote quotation 인용문 인용문2 인용구 quotebox quote_box 인용_상자 인용 centered_pull_quote"
)
_LISTED = words("ubl unbulleted_list bulleted_list ordered_list hlist 수평_목록 목록")
_DATES = words(
    "start_date end_date birth_date death_date birth_date_and_age death_date_and_age bda dda dob 시작_날짜 종료_날짜 "
    "출생일 출생일과_나이 사망일 사망일과_나이 생년월일 生年月日と年齢 死亡年月日と没年齢 生年月日 release_date "
    "film_date 일자 날짜 date dts"
)
# Notes to editors and readers, navigation, and lists of sources: no part of what the page says.
_NOISE = re.compile(
    r"(?:main|see_also|further|about|redirect|distinguish|for|other_uses|hatnote|본문|참고|다른_뜻|구별|둘러보기|넘어옴|"
    r"authority_control|전거_통제|commons|위키|wiki|portal|포털|reflist|각주|주석|notelist|refbegin|refend|refn|efn|sfn|harv|"
    r"cite|citation|웹_인용|뉴스_인용|서적_인용|저널_인용|출처|fact|cn|coord|좌표|short_description|use_|good_article|"
    r"featured_article|알찬_글|좋은_글|토막글|stub|pp-|보호|defaultsort|기본정렬|toc|목차|clear|-$|anchor|앵커|ipac-|audio|"
    r"listen|zh-toc|otheruses|出典|脚注|参照|要出典|notetags|r$|spaces?$|rp$|isbn|issn|doi|webarchive|dead_link|깨진|"
    r"flagicon|국기그림|col-|col$|multicol|div_col_end|end$|s-|succession|family_name|isp)",
)
_BOX = re.compile(r"infobox|.{0,80}정보(?:_상자)?(?:_.{0,40})?$|정보_상자|基礎情報|taxobox|생물_분류|speciesbox|"
                  r"chembox|drugbox|automatic_taxobox|geobox|화합물|ウィキ座標|生物分類表|性格")  # fmt: skip
_FIXED = {
    "!": "|", "=": "=", "(": "{", ")": "}", "((": "{{", "))": "}}", "'": "'", "snd": " – ", "spnd": " – ",
    "spaced_ndash": " – ", "ndash": "–", "en_dash": "–", "mdash": "—", "em_dash": "—", "nbsp": " ",
    "·": " · ", "•": " • ", "dot": " · ", "pi": "π", "minus": "−", "times": "×", "sdot": "·", "degree": "°",
    "deg": "°", "euro": "€",
    "yen": "¥", "won": "₩", "pound": "£", "ellipsis": "…", "shy": "", "wbr": "", "zwj": "", "hairsp": " ",
    "thinsp": " ", "bull": "•", "bullet": "•", "middot": "·", "pipe": "|", "ic": "", "break": "\n", "br": "\n",
    "crlf": "\n",
    "half": "½", "frac12": "½", "hr": "", "prime": "′", "pprime": "″", "infty": "∞", "plusmn": "±",
}  # fmt: skip
_UNITS = {
    "C": "°C", "F": "°F", "sqmi": "sq mi", "sqkm": "km²", "cumi": "cu mi", "sqft": "sq ft", "cuft": "cu ft",
    "kmh": "km/h",
    "impgal": "imp gal", "usgal": "US gal", "USgal": "US gal",
    "acre": "acres", "°C": "°C", "sqin": "sq in", "sqyd": "sq yd",
}  # fmt: skip
_RANGES = {"-": "–", "–": "–", "to": " to ", "and": " and ", "or": " or ", "x": " × ", "by": " × ", "×": " × ",
           "to(-)": " to ", "and(-)": " and ", "+/-": " ± ", "±": " ± "}  # fmt: skip

Keep = Callable[[str], str]


def render_template(parts: Sequence[str], title: str, keep: Keep, report: Report) -> str:
    """The text that `{{parts[0]|parts[1]|…}}` shows.

    Args:
      parts: the parts between pipes, already rendered; the first is the name.
      title: of the page, for `{{PAGENAME}}`.
      keep: takes text that must not be read as markup again, gives what stands for it.
    """
    head = parts[0].strip()
    if head.startswith("#") or ":" in head[:20]:
        rendered = _function(head, parts[1:], title, keep, report)
        if rendered is not None:
            return rendered
    name = re.sub(r"[\s_]+", "_", head).lower()
    name = name.removeprefix("template:").removeprefix("틀:")
    named, positional = _arguments(parts[1:])
    if name in _FIXED:
        return _FIXED[name]
    if name in ("pagename", "fullpagename", "subpagename"):
        return title
    if _BOX.match(name):
        report.count("infoboxes_dropped")
        report.count("infobox_values", sum(bool(value) for value in named.values()))
        return ""
    rendered = _value(name, positional, named, keep)
    if rendered is not None:
        report.count("templates_rendered")
        return rendered
    if _NOISE.match(name):
        report.count("references_dropped" if name.startswith(("cite", "sfn", "efn", "harv")) else "notes_dropped")
        return ""
    report.name("templates_dropped", name)
    return ""


def _arguments(parts: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    named: dict[str, str] = {}
    numbered: dict[int, str] = {}
    position = 0
    for part in parts:
        key, equals, value = part.partition("=")
        key = key.strip()
        if equals and key.isdecimal() and key.isascii() and len(key) < 4:
            numbered[int(key)] = value.strip()
        elif equals and len(key) < 60 and not re.search(r"[<>\"'\x01\n/]", key):
            named[key.lower()] = value.strip()
        else:
            position += 1
            numbered[position] = part.strip()
    last = max(numbered, default=0)
    return named, [numbered.get(i, "") for i in range(1, last + 1)]


def _function(head: str, rest: Sequence[str], title: str, keep: Keep, report: Report) -> str | None:
    """Parser functions: `#if:`, `formatnum:` and their like."""
    name, _, first = head.partition(":")
    name, first = name.strip().lower(), first.strip()
    parts = [first, *(part.strip() for part in rest)] + [""] * 3
    if name == "formatnum":
        return _digits(parts[0])
    if name == "#if":
        return parts[1] if parts[0] else parts[2]
    if name in ("#ifeq", "#ifexpr", "#ifexist", "#iferror"):
        return parts[2] if name == "#ifeq" and parts[0] == parts[1] else parts[3] if name == "#ifeq" else parts[1]
    if name in ("lc", "uc", "lcfirst", "ucfirst"):
        change = {"lc": str.lower, "uc": str.upper, "ucfirst": lambda t: t[:1].upper() + t[1:]}
        return change.get(name, lambda t: t[:1].lower() + t[1:])(parts[0])
    if name == "#tag":
        return keep(markup.math(parts[1], display=False)) if parts[0] == "math" else ""
    if name in ("pagename", "fullpagename"):
        return title
    if name in ("defaultsort", "기본정렬", "デフォルトソート", "displaytitle"):
        return ""
    if head.startswith("#"):
        report.name("templates_dropped", name)
        return ""
    return None


def _value(name: str, at: Sequence[str], named: Mapping[str, str], keep: Keep) -> str | None:
    """A template of running text, or None."""
    first, second = (*at, "", "")[:2]
    if name in _FIRST or name in _LISTED and len(at) == 1:
        return first
    if name in _LAST:
        return at[-1] if at else ""
    if name in _CURRENCIES or name in ("circa", "c."):
        return f"{_CURRENCIES.get(name, 'c. ')}{first}"
    if name in _SECOND:
        return second or named.get("text", first if len(at) == 1 else "")
    if re.fullmatch(r"lang-[a-z-]{2,10}|[a-z]{2}_lang", name):
        return first
    if name in (
        "formatnum",
        "formatnum2",
        "val",
        "수",
        "convert",
        "cvt",
        "변환",
        "단위_변환",
        "conv",
        "num",
        "nts",
        "mpf",
    ):
        return _convert(at, named) if name[0] in "c변단" else _val(at, named)
    if name in ("frac", "sfrac", "fraction", "분수", "tfrac"):
        return {1: f"1/{first}", 2: f"{first}/{second}"}.get(len(at), f"{first} {second}/{(*at, '', '', '')[2]}")
    if name in ("sup", "sub", "위첨자", "아래첨자"):
        return (markup.superscript if name in ("sup", "위첨자") else markup.subscript)(first)
    if name in ("su", "sub_sup"):
        return f"{markup.superscript(named.get('p', ''))}{markup.subscript(named.get('b', ''))}"
    if name in ("chem", "chem2", "화학식", "chemical_formula"):
        return _chemical("".join(at))
    if name in ("sqrt", "제곱근", "radic"):
        return f"√{first}" if len(first) < 2 else f"√({first})"
    if name in ("tmath", "math_block"):
        return keep(markup.math(first, display=name == "math_block"))
    if name in ("code", "syntaxhighlight", "codes", "inline_code", "소스"):
        return keep(markup.code_span(first))
    if name in _DATES:
        return _date(at, korean=not name.isascii())
    if name in ("as_of", "asof", "현재", "기준"):
        return f"As of {_date(at, False)}" if name.isascii() else f"{_date(at, True)} 현재"
    if name in _QUOTE:
        text = named.get("text") or named.get("quote") or named.get("인용문") or first
        author = named.get("author") or named.get("sign") or (second if named.get("text") is None else "")
        return f"\n\n> {' '.join(text.split())}" + (f" — {author}" if author else "") + "\n\n" if text else ""
    if name in _LISTED:
        mark = "#" if name == "ordered_list" else "*"
        return ", ".join(filter(None, at)) if name[0] == "h" else "\n" + "".join(f"{mark} {a}\n" for a in at if a)
    if name in ("numblk", "equation_box_1", "equationbox", "수식"):
        formula = named.get("equation") or (second if name == "numblk" else first)
        return f"\n:{formula}\n"
    if name in ("equationref", "equationnote", "eqnref"):
        return f"({second or first})"
    if name in (
        "nihongo",
        "일본어",
        "korean",
        "한국어",
        "zh",
        "중국어",
        "ko-hhrm",
        "kor",
        "読み仮名",
        "한자",
        "hanja",
        "cjkv",
    ):
        return _several(name, at, named)
    return None


def _several(name: str, at: Sequence[str], named: Mapping[str, str]) -> str:
    """A name in several scripts."""
    forms = [a for a in at if a] or [v for k, v in named.items() if v and k not in ("labels", "links", "out", "lead")]
    if name in ("nihongo", "일본어", "読み仮名") and len(forms) > 1:
        return f"{forms[0]} ({', '.join(forms[1:])})"
    return ", ".join(forms)


def _digits(number: str) -> str:
    """1234567.5 → 1,234,567.5"""
    bare = number.replace(",", "")
    found = re.fullmatch(r"([+−-]?)(\d{1,60})(\.\d{1,60})?", bare)
    if found is None or not bare.isascii():
        return number
    return f"{found[1]}{int(found[2]):,}{found[3] or ''}" if not found[2].startswith("0") else number


def _unit(unit: str) -> str:
    if unit in _UNITS:
        return _UNITS[unit]
    return re.sub(r"(?<=[A-Za-z])[23]$", lambda m: markup.superscript(m[0]), unit)


def _convert(at: Sequence[str], named: Mapping[str, str]) -> str:
    """`{{convert|5|-|10|km|mi}}` → 5–10 km: the values as the author gave them."""
    out: list[str] = []
    for i, part in enumerate(at):
        if re.match(r"[+−-]?[\d.,]*\d", part):
            out.append(_digits(part))
        elif part in _RANGES and i + 1 < len(at) and re.match(r"[+−-]?[\d.]", at[i + 1]):
            out.append(_RANGES[part])
        else:
            out.append(f" {_unit(part)}")
            following = at[i + 1 : i + 2]
            # A further number belongs to a value in two units: 5 ft 10 in.
            if not (following and re.fullmatch(r"[\d.]+", following[0]) and i == 1):
                break
            out.append(" ")
    return "".join(out)


def _val(at: Sequence[str], named: Mapping[str, str]) -> str:
    """`{{val|1.2|0.1|e=5|u=m/s}}` → 1.2 ± 0.1 × 10⁵ m/s"""
    number = _digits(at[0]) if at else ""
    if len(at) > 1 and at[1]:
        number += at[1] if at[1].startswith("(") else f" ± {at[1]}"
    if named.get("e"):
        number += f" × 10{markup.superscript(named['e'].replace('-', '−'))}"
    unit = _unit(named.get("u") or named.get("ul") or "")
    per = named.get("up") or named.get("upl") or ""
    unit += f"/{_unit(per)}" if per else ""
    return f"{number} {unit}".strip()


def _chemical(formula: str) -> str:
    formula = re.sub(r"(?<=[A-Za-z)\]])\d+", lambda m: markup.subscript(m[0]), formula)
    return re.sub(r"\^?(?<!\d)(\d*[+−-])$", lambda m: markup.superscript(m[1]), formula)


def _date(at: Sequence[str], korean: bool) -> str:
    numbers = [part for part in at if part.isdecimal() and len(part) < 5][:3]
    if not numbers or not re.fullmatch(r"\d{3,4}", numbers[0]):
        return at[0] if at else ""
    if korean:
        return " ".join(f"{int(n)}{unit}" for n, unit in zip(numbers, "년월일"))
    return "-".join([numbers[0], *(n.zfill(2) for n in numbers[1:])])
