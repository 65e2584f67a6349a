"""Templates that only change the appearance of a piece of running text, and show that text."""

import re
from collections.abc import Mapping, Sequence

from kanana_jax.data.extract import markup
from kanana_jax.data.extract.markup import words

# Templates that show their first, their last, or their second argument.
_FIRST = words(
    "nowrap nobr nobreak no_wrap nowrapend mvar math big small smaller larger em strong u s b i del ins strike sic "
    "unicode "
    "mono tt var kbd samp 작게 크게 as-is linktext plainlist flatlist block_indent center centre columns-list col-list "
    "not_a_typo not_typo proper_name noitalic noitalics normal nobold italic bold bold_italic nbhyph honorific abbr "
    "abbrlink tooltip 약어 dfn 강조 highlight smallcaps sc small_caps sc2 allcaps caps overline underline overbar "
    "vec bar hat "
    "tilde dot2 visible_anchor vanchor visanc anchored keyword pre poem 시 verse intmath xt mxt !xt green red blue "
    "citation_needed_span cn_span fact_span clarify_span dubious_span specify_span when_span who_span "
    "verify_source_span disputed_span 출처_필요_범위 출처_필요_문장 要出典範囲 要検証範囲 要追加記述範囲 独自研究範囲 "
    "疑問点範囲 誰範囲 いつ範囲 読み 太字 斜体 下線 取り消し線 밑줄 취소선 굵게 기울임 기울임꼴 안깨짐 줄바꿈_방지 "
    "작은_글씨 큰_글씨 "
    "작은글씨 큰글씨 위줄 補助漢字フォント jis2004フォント cp932フォント jis2000フォント 拡張漢字 縦書き フォント 外字 "
    "hebrew arabic script_hebrew lang-font jfonts koreanfont arabfont lit_text nihongo3 readable 가독 세로쓰기 "
    "ruby-text "
    "gloss lw 루비 ruby rubi ruby-ja ruby-zh-b ruby-zh-p ルビ ふりがな furigana 독음 주음 仮リンク ill ill2 "
    "언어_링크 링크 링크-en "
    "interlanguage_link interlanguage_link_multi 임시_링크 임시링크 red_link 빨간_링크 link-interwiki illm llink "
    "다국어_링크 "
    "vertical_text no_bold nohtml noflip 本文 nobel 글씨체 upright roman_text normaltext hover_text 설명문 툴팁 "
    "도움말풍선"
)
_LAST = words(
    "transl transliteration tlit ipa ipa2 ipa_all ipa-all font_color 글자색 글꼴색 fontcolour background_color "
    "배경색 bgcolor "
    "w wp wikipedia_link wikt wiktionary_link wikilink lj lang_text color_box_text 글자_배경 float_right font_size "
    "글자크기 글자_크기 글씨크기 글씨_크기 fontsize font-size resize size rotate rotate_text 정렬 align aligned hs2 "
    "color_text"
)
_SECOND = words(
    "lang llang lang-x langx color 색 글씨색 글자_색 글씨_색 色 文字色 colour fontcolor 폰트 글꼴 rtl-lang bg "
    "stylize style "
    "wikt-lang h:title htitle script sort 정렬키 sortname-text ソート langwithname 언어표시 언어 lang-label font 서체 "
    "glossary_link hidden 숨김 접기 collapse_text class css span div abbr2 tooltip2 文字サイズ"
)
_OPTIONS = words(
    "text italic i nocat cat size rtl proto links label lt style script fn sort class title 크기 기울임 라벨"
)
_LANG = re.compile(r"lang-[a-z-]{2,16}|[a-z]{2}_lang|llang-[a-z]{2,3}")
_SHOWN_NAMES = ("text", "label", "lt", "display", "content", "내용", "표시", "글", "1")
_QUOTE = words(
    "quote blockquote cquote quotation 인용문 인용문2 인용구 quotebox quote_box 인용_상자 인용 centered_pull_quote "
    "poemquote "
    "pull_quote rquote quote_frame 引用 引用文 talkquote"
)
_LISTED = words("ubl unbulleted_list bulleted_list ordered_list hlist 수평_목록 목록 ublist plain_list_items 箇条書き")
_NAMES = words(
    "nihongo nihongo2 일본어 korean 한국어 zh 중국어 ko-hhrm kor 読み仮名 한자 hanja cjkv 중국어_표기 nihongo_foot "
    "읽기 언어명 "
    "読み仮名_ruby不使用 chinese 베트남어 読み仮名2"
)


def render(name: str, at: Sequence[str], named: Mapping[str, str], whole: str = "") -> str | None:
    """The text of a template that marks up text; None for other templates.

    Args:
      whole: the arguments as written, since `a=b` within text is not a named argument.
    """
    if name in _FIRST or name.startswith(("script/", "smallcaps")) or name in _LISTED and len(at) == 1:
        return named.get("lt") or named.get("label") or (at[0] if at else _unnamed(named, whole))
    if name in _LAST or name.startswith("ipa-") and name != "ipa-c":
        return next((a for a in reversed(at) if a), "") or _unnamed(named, whole)
    if name in _SECOND:
        if len(at) == 1 and len(named) == 1 and not _OPTIONS & named.keys():  # the text contains `=`
            return whole.partition("|")[2]
        return (
            (at[1] if len(at) > 1 else "") or named.get("text") or (at[0] if len(at) == 1 else _unnamed(named, whole))
        )
    if _LANG.fullmatch(name):
        return (at or ("",))[0] or _unnamed(named, whole)
    if name in _QUOTE:
        return _quote(at, named)
    if name in _LISTED:
        if name in ("hlist", "수평_목록"):
            return ", ".join(filter(None, at))
        mark = "#" if name == "ordered_list" else "*"
        return "\n" + "".join(f"{mark} {a}\n" for a in at if a)
    if name in _NAMES:
        return _several(name, at, named)
    return _pieces(name, at, named)


def _unnamed(named: Mapping[str, str], whole: str) -> str:
    """The text of a template without positional arguments: a named argument, or text that contains `=`."""
    found = next((named[key] for key in _SHOWN_NAMES if named.get(key)), None)
    return found if found is not None else whole if len(named) == 1 else ""


def _pieces(name: str, at: Sequence[str], named: Mapping[str, str]) -> str | None:
    """Templates that join their arguments."""
    first, second = (*at, "", "")[:2]
    if name in ("keypress", "key_press", "key", "단축키", "키보드", "keys", "key2"):
        return "+".join(filter(None, at))
    if name in ("button", "menu", "menu_path", "click"):
        return " > ".join(filter(None, at))
    if name in ("sortname", "이름_정렬"):
        return named.get("text") or " ".join(filter(None, at[:2]))
    if name in ("respell", "respelling"):
        return "-".join(filter(None, at))
    if name in ("lit", "literally", "literal_translation", "직역"):
        return f"lit. ‘{first}’"
    if name in ("para", "param"):
        return markup.code_span(f"|{first}={second}")
    if name in ("tl", "tlx", "tlc", "틀", "t1"):
        return markup.code_span("{{" + "|".join(filter(None, at)) + "}}")
    if name in ("multiple_image", "복수_그림", "여러_그림", "multiple_images", "wide_image", "annotated_image"):
        captions = [
            v for k, v in named.items() if v and re.match(r"(?:caption|설명|캡션|footer|header|제목)\d{0,2}$", k)
        ]
        captions += at[2:3] if name == "wide_image" else []
        return "\n" + "".join(f"\n{caption}\n" for caption in captions)
    if name in (
        "sup",
        "sub",
        "위첨자",
        "아래첨자",
        "위_첨자",
        "아래_첨자",
        "윗첨자",
        "첨자",
        "上付き",
        "下付き",
        "smallsup",
        "smallsub",
    ):
        below = name in ("sub", "아래첨자", "아래_첨자", "下付き", "smallsub")
        return (markup.subscript if below else markup.superscript)(first)
    return None


def _quote(at: Sequence[str], named: Mapping[str, str]) -> str:
    text = named.get("text") or named.get("quote") or named.get("인용문") or (at or ("",))[0]
    given = named.get("text") is None and len(at) > 1
    author = named.get("author") or named.get("sign") or named.get("source") or (at[1] if given else "")
    return f"\n\n> {' '.join(text.split())}" + (f" — {author}" if author else "") + "\n\n" if text else ""


def _several(name: str, at: Sequence[str], named: Mapping[str, str]) -> str:
    """A name in several scripts."""
    forms = [a for a in at if a] or [v for k, v in named.items() if v and k not in ("labels", "links", "out", "lead")]
    if name in ("nihongo", "일본어", "読み仮名", "nihongo_foot") and len(forms) > 1:
        return f"{forms[0]} ({', '.join(forms[1:])})"
    return ", ".join(forms)
