"""The text of templates: numbers, countries, marked-up spans and dates; notes and boxes are dropped.

Only templates within running text are rendered. The others are counted (by name if unknown) and replaced by a marker
(`HOLE`), so that sentences with a missing part can be recognised.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence

from kanana_jax.data.extract import markup
from kanana_jax.data.extract.markup import Report, words
from kanana_jax.data.extract.wikitext import countries, numbers, spans

# Replaces an unknown template.
HOLE = "\x03"

_DATES = words(
    "start_date end_date birth_date death_date birth_date_and_age death_date_and_age bda dda dob 시작_날짜 종료_날짜 "
    "출생일 출생일과_나이 사망일 사망일과_나이 생년월일 生年月日と年齢 死亡年月日と没年齢 生年月日 release_date "
    "film_date 일자 날짜 date dts"
)
# Notes to editors and readers, navigation, and lists of sources, which are not content. English names match whole
# words; Japanese and Korean names may continue without a break.
_NOISE = re.compile(
    r"(?:(?:main|see(?:_also)?|further|about|redirect|distinguish|for|other_uses|hatnote|authority_control|commons|"
    r"wiki|portal|reflist|notelist|refbegin|refend|refn|efn|sfn\w?|sfnp|harvn?b?|harv\w*|cite|citation|fact|cn|citation_needed|"
    r"coord|short_description|use|good_article|featured_article|\w*stub|pp|defaultsort|toc|clear|anchor|audio|listen|otheruses|"
    r"notetags|r|spaces?|rp|isbn|issn|doi|oclc|pmid|jstor|webarchive|dead_link|col|multicol|div_col|div_col_end|end|s|"
    r"succession|family_name|isp|ipac|commonscat|wikiquote|wikisource|wiktionary|sister_project|spoken_wikipedia|"
    r"italic_title|lowercase_title|displaytitle|who|when|clarify|according_to_whom|better_source\w*|verify\w*|page_needed|"
    r"nowrap_begin|nowrap_end|refimprove|unreferenced|more_citations_needed|infobox_\w+|navbox\w*)(?:[-_ \d].*)?|"
    r"-|"
    r"(?:본문|참고|다른_뜻|구별|둘러보기|넘어옴|전거_통제|위키|포털|각주|주석|웹_인용|뉴스_인용|서적_인용|저널_인용|출처|좌표|알찬_글|"
    r"좋은_글|토막글|보호|기본정렬|목차|앵커|出典|脚注|参照|要出典|깨진|위키공용|언론_인용|인용_필요|더_알아보기|注釈|分類|節stub|"
    r"要ページ番号|公用文).*)",
)
_BOX = re.compile(r"infobox|.{0,80}정보(?:_상자)?(?:_.{0,40})?$|정보_상자|基礎情報|taxobox|생물_분류|speciesbox|"
                  r"chembox|drugbox|automatic_taxobox|geobox|화합물|ウィキ座標|生物分類表|性格")  # fmt: skip
_FIXED = {
    "!": "|", "=": "=", "(": "{", ")": "}", "((": "{{", "))": "}}", "'": "'", "snd": " – ", "spnd": " – ",
    "spaced_ndash": " – ", "ndash": "–", "en_dash": "–", "mdash": "—", "em_dash": "—", "nbsp": " ",
    "·": " · ", "•": " • ", "dot": " · ", "pi": "π", "minus": "−", "times": "×", "sdot": "·", "degree": "°",
    "deg": "°", "euro": "€",
    "yen": "¥", "won": "₩", "pound": "£", "ellipsis": "…", "shy": "", "wbr": "", "zwj": "", "hairsp": " ",
    "thinsp": " ", "ohm": "Ω", "angstrom": "Å", "micro": "μ", "permil": "‰", "°": "°", "′": "′", "″": "″", "0": "",
    "—": "—",
    "–": "–", "approx": "≈", "≈": "≈", "ge": "≥", "le": "≤", "ne": "≠", "to": "→", "larr": "←", "rarr": "→", "∞": "∞",
    "1/2": "½", "celsius": "°C", "×": "×", "·_": " · ", "fact_mark": "", "num": "№", "!!": "||", "!-": "|-", "(!": "{|",
    "!)": "|}", "ㆍ": "·", "가운뎃점": "·", "中黒": "・", "spaces": " ", "bull": "•", "bullet": "•", "middot": "·",
    "pipe": "|", "ic": "", "break": "\n", "br": "\n",
    "crlf": "\n",
    "half": "½", "frac12": "½", "hr": "", "prime": "′", "pprime": "″", "infty": "∞", "plusmn": "±",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Page:
    """Facts about the page that its templates need.

    Attributes:
      title: the page's title, for `{{PAGENAME}}`.
      text: the page's text, which determines its language (one of `countries.LANGUAGES`) for names of countries.
      keep: stores text that must not be parsed again and returns its placeholder.
    """

    title: str
    text: str
    keep: Callable[[str], str]
    report: Report

    def language(self) -> str:
        return countries.language_of(f"{self.title}\n{self.text}")


def render_template(parts: Sequence[str], page: Page) -> str:
    """The text that `{{parts[0]|parts[1]|…}}` shows.

    Args:
      parts: the parts between pipes, already rendered; the first is the name.
    """
    report = page.report
    parts = [part.replace(HOLE, "") for part in parts]
    head = parts[0].strip()
    if head.startswith("#") or ":" in head[:20]:
        rendered = _function(head, parts[1:], page)
        if rendered is not None:
            return rendered
        head = re.sub(r"^(?:template|틀|テンプレート):\s*", "", head, flags=re.IGNORECASE)
    name = re.sub(r"[\s_]+", "_", head).lower()
    named, positional = _arguments(parts[1:])
    if name in _FIXED:
        return _FIXED[name]
    if name in ("pagename", "fullpagename", "subpagename"):
        return page.title
    if _BOX.match(name):
        report.count("infoboxes_dropped")
        report.count("infobox_values", sum(bool(value) for value in named.values()))
        return ""
    # {{kor|…}} is a name in several scripts; {{KOR}} is a country.
    rendered = None if name == "kor" and positional else countries.render(head, name, positional, named, page.language)
    if rendered is None:
        rendered = numbers.render(name, positional, named)
    if rendered is None:
        rendered = spans.render(name, positional, named, "|".join(parts[1:]))
    if rendered is None:
        rendered = _value(name, positional, named, page.keep)
    if rendered is not None:
        report.count("templates_rendered")
        return rendered
    if _NOISE.fullmatch(name):
        report.count("references_dropped" if name.startswith(("cite", "sfn", "efn", "harv")) else "notes_dropped")
        return ""
    report.name("templates_dropped", name)
    return HOLE


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


def _function(head: str, rest: Sequence[str], page: Page) -> str | None:
    """Parser functions such as `#if:` and `formatnum:`; None for others."""
    name, _, first = head.partition(":")
    name, first = name.strip().lower(), first.strip()
    parts = [first, *(part.strip() for part in rest)] + [""] * 3
    if name == "formatnum":
        return numbers.digits(parts[0])
    if name == "#if":
        return parts[1] if parts[0] else parts[2]
    if name in ("#ifeq", "#ifexpr", "#ifexist", "#iferror"):
        return parts[2] if name == "#ifeq" and parts[0] == parts[1] else parts[3] if name == "#ifeq" else parts[1]
    if name in ("lc", "uc", "lcfirst", "ucfirst"):
        change = {"lc": str.lower, "uc": str.upper, "ucfirst": lambda t: t[:1].upper() + t[1:]}
        return change.get(name, lambda t: t[:1].lower() + t[1:])(parts[0])
    if name == "#tag":
        return page.keep(markup.math(parts[1], display=False)) if parts[0] == "math" else ""
    if name in ("pagename", "fullpagename"):
        return page.title
    if name in ("defaultsort", "기본정렬", "デフォルトソート", "displaytitle"):
        return ""
    if head.startswith("#"):
        page.report.name("templates_dropped", name)
        return HOLE
    return None


def _value(name: str, at: Sequence[str], named: Mapping[str, str], keep: Callable[[str], str]) -> str | None:
    """The text of templates for formulas, code and dates; None for other templates."""
    first, second = (*at, "", "")[:2]
    if name in ("chem", "chem2", "화학식", "chemical_formula", "化学式"):
        return _chemical("".join(at))
    if name in ("tmath", "math_block"):
        return keep(markup.math(first, display=name == "math_block"))
    if name in ("code", "syntaxhighlight", "codes", "inline_code", "소스"):
        return keep(markup.code_span(first))
    if name in _DATES:
        return _date(at, korean=not name.isascii())
    if name in ("as_of", "asof", "현재", "기준"):
        return f"As of {_date(at, False)}" if name.isascii() else f"{_date(at, True)} 현재"
    if (
        name in ("age", "나이", "만_나이", "年齢")
        and len(at) >= 6
        and all(a.isdecimal() and len(a) < 5 for a in at[:6])
    ):
        born, then = [tuple(int(a) for a in at[k : k + 3]) for k in (0, 3)]
        return str(then[0] - born[0] - (then[1:] < born[1:]))
    if name in ("numblk", "equation_box_1", "equationbox", "수식"):
        formula = named.get("equation") or (second if name == "numblk" else first)
        return f"\n:{formula}\n"
    if name in ("equationref", "equationnote", "eqnref"):
        return f"({second or first})"
    return None


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
