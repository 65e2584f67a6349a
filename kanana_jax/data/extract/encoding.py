"""Decodes bytes of unknown encoding to clean text: strict decoders compete, and the most plausible result wins.

Instead of a trained detector, a few rules over characters decide, with the same result on every machine.
"""

import codecs
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator

from kanana_jax.data.extract.markup import Report

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Encodings that web pages mean by these names (https://encoding.spec.whatwg.org/#names-and-labels).
_MEANT = {
    "ks_c_5601-1987": "cp949", "ksc5601": "cp949", "ks_c_5601": "cp949", "ksc_5601": "cp949", "korean": "cp949",
    "euc-kr": "cp949", "euc_kr": "cp949", "windows-949": "cp949", "x-windows-949": "cp949", "uhc": "cp949",
    "shift_jis": "cp932", "shift-jis": "cp932", "sjis": "cp932", "x-sjis": "cp932", "windows-31j": "cp932",
    "cp51932": "euc_jp", "eucjp-ms": "euc_jp", "eucjp-win": "euc_jp", "x-euc-jp": "euc_jp", "x-euc": "euc_jp",
    "iso-8859-1": "cp1252", "latin1": "cp1252", "us-ascii": "cp1252", "ascii": "cp1252",
    "gb2312": "gb18030", "gbk": "gb18030", "x-gbk": "gb18030", "gb_2312-80": "gb18030", "euc-cn": "gb18030",
    "big5": "big5hkscs", "x-x-big5": "big5hkscs", "cp950": "big5hkscs", "hz-gb-2312": "hz",
    "ksc5601-1992": "johab", "ks_c_5601-1992": "johab", "cp1361": "johab", "x-johab": "johab", "windows-1361": "johab",
    "windows-874": "cp874", "unicode": "utf-8", "utf8": "utf-8",
}  # fmt: skip
# Supersets, for characters outside the codec of that name: `①` in EUC-JP, half-width katakana in ISO-2022-JP.
_WIDER = {"euc_jp": ("euc_jis_2004",)}
_ESCAPED = ("iso2022_jp_2", "iso2022_jp_ext", "iso2022_jp_2004", "iso2022_kr")
_CANDIDATES = ("cp949", "cp932", "euc_jp", "cp1252")
_LANGUAGE = {
    **dict.fromkeys(("cp949", "johab"), "ko"),
    **dict.fromkeys(("cp932", "euc_jp", "euc_jis_2004"), "ja"),
    **dict.fromkeys(("gb18030", "big5hkscs"), "zh"),
}
# Characters that are scored: enough to distinguish encodings.
_SAMPLE = 1 << 18
# A declared encoding is rejected only if its score is worse by this much, or by more if it decodes to typical
# characters of its language, which bytes in another encoding rarely do.
_TRUST = 0.3
_TRUST_IN_SCRIPT = 2.0
# With fewer characters than this, Chinese cannot be distinguished from Korean that was decoded as Chinese.
_LEAST_HANZI = 12


def decode(data: bytes, report: Report, *declared: str | None) -> str:
    """Decodes, repairs and cleans `data`; the result is NFC. Never fails; replacements are reported.

    Args:
      declared: the encodings named by an HTTP header, a `<meta>` or an XML declaration, the most authoritative first.
    """
    text, name = _decode(data, declared)
    if name not in ("utf-8", "ascii"):
        report.name("decoded", name)
    report.count("undecodable", text.count("\ufffd"))
    # Normalise first, so that repairs do not depend on the Unicode form; `clean` normalises once more afterwards.
    return clean(mend(unicodedata.normalize("NFC", text), report), report)


def _decode(data: bytes, declared: tuple[str | None, ...]) -> tuple[str, str]:
    for bom, name in _BOMS:
        if data.startswith(bom):
            return data[len(bom) :].decode(name, "replace"), name
    wide = _utf16_without_bom(data)
    if wide:
        return data.decode(wide, "replace"), wide
    meant = tuple(dict.fromkeys(name for one in declared if (name := _known(one))))
    if b"\x1b$" in data:
        for name in (*(name for name in meant if name.startswith("iso2022")), *_ESCAPED):
            if (text := _strict(data, name)) is not None:
                return text, name
    if "hz" in meant and b"~{" in data and (text := _strict(data, "hz")) is not None:
        return text, "hz"
    if (text := _strict(data, "utf-8")) is not None:
        return text, "utf-8"
    names = tuple(dict.fromkeys([*meant, *_CANDIDATES]))
    texts = [(name, text) for name in names if (text := _first_strict(data, name)) is not None]
    best = _best(texts, meant) if texts else None
    if best is None or best[0] < 0.1:
        # A stray byte, or a page cut within a character, makes every strict decoder fail.
        best = _best([(name, data.decode(name, "replace")) for name in dict.fromkeys(["utf-8", *names])], meant)
    return best[2], best[1]


def _best(texts: list[tuple[str, str]], meant: tuple[str, ...]) -> tuple[float, str, str]:
    scored = []
    for name, text in texts:
        sample = text[:_SAMPLE]
        trust = _trust(sample, _LANGUAGE.get(name)) if name in meant else 0.0
        scored.append((plausibility(sample) + trust, name, text))
    # max() returns the first of equals, so the order of candidates breaks ties.
    return max(scored, key=lambda item: item[0])


def _trust(text: str, language: str | None) -> float:
    """Confidence in a declared encoding: high if it decodes to characters of the declared language.

    Japanese text contains kana. Chinese text does not, but repeats a few characters. Korean text consists of syllables
    and modern jamo (ㅋㅋ), whereas kana decoded as Korean include archaic jamo.
    """
    wide = Counter(c for c in text if c >= "\u3041" and c != "\ufffd")
    total = wide.total()
    if language is None or not total:
        return _TRUST

    def share(first: str, last: str) -> float:
        return sum(n for c, n in wide.items() if first <= c <= last) / total

    kana = share("\u3041", "\u30fe")
    if language == "ja":
        in_script = kana >= 0.05 and share("\uff61", "\uff9f") < 0.2
    elif language == "ko":
        modern = share("\uac00", "\ud7a3") + share("\u3131", "\u3163")
        in_script = modern >= 0.5 and share("\u3164", "\u318e") < 0.02
    else:
        if kana >= 0.05:
            return 0.0
        in_script = total >= _LEAST_HANZI and sum(wide[c] for c in _COMMON_HANZI) >= 0.05 * total
    return _TRUST_IN_SCRIPT if in_script else _TRUST


def _first_strict(data: bytes, name: str) -> str | None:
    for codec in (name, *_WIDER.get(name, ())):
        if (text := _strict(data, codec)) is not None:
            return text
    return None


def _strict(data: bytes, name: str) -> str | None:
    try:
        return data.decode(name)
    except (UnicodeError, LookupError):
        return None


def _known(declared: str | None) -> str | None:
    if not declared:
        return None
    name = _MEANT.get(declared.strip().lower(), declared.strip().lower())
    try:
        # `codecs` also knows byte-to-byte transforms (zlib, hex), which are not encodings of text.
        codec = codecs.lookup(name)
        return codec.name if codec._is_text_encoding else None
    except (LookupError, ValueError):
        return None


def _utf16_without_bom(data: bytes) -> str | None:
    head = data[:4096]
    even, odd = head[0::2].count(0), head[1::2].count(0)
    if len(head) >= 8 and max(even, odd) > 0.4 * len(head) / 2 and min(even, odd) < 0.02 * len(head):
        return "utf-16-be" if even > odd else "utf-16-le"
    return None


# Half of Korean text is written with these syllables, which wrong decodings hit no more often than others.
_COMMON_HANGUL = frozenset(
    "이다는의에을하가고를지은로한기사도리어서자인시나과대정아해일스있그수부제전주보으라만들여성장조"
)
# The most frequent characters of Chinese, simplified and traditional: a third of running text.
_COMMON_HANZI = frozenset("的一是不了在有人我他这這个個们們中来來上大为為和国國地到以说說时時要就会會可也你对對能")
_COMMON_HANJA = frozenset("日一大人年中国本会上事出生者行分時後見前月下思今部間場方的自入学高文理法最新地法")


def plausibility(text: str) -> float:
    """Plausibility (−3 … 1) of a text's non-ASCII characters as Korean, Japanese, Chinese or European text."""
    counts = Counter(c for c in text if c > "\x7f")
    total = sum(counts.values())
    if not total:
        return 0.0
    score = sum(_weight(c) * n for c, n in counts.items())
    # Accented letters occur singly among ASCII letters; a run of them is text in another encoding.
    rows = sum(len(run) for run in re.findall(r"[\x80-\u024f‚„…†‡ˆ‰‹‘’“”•–—˜™›€ƒ]{3,}", text))
    # ㅋㅋㅋ is laughter in Korean; せせせ has the same bytes.
    laughs = sum(len(run[0]) for run in re.finditer(r"([\u3131-\u3163])\1+", text))
    stutters = sum(len(run[0]) for run in re.finditer(r"([\u304b-\u308e])\1{2,}", text))
    return (score - 2.0 * rows + 0.9 * laughs - 1.7 * stutters) / total


def _weight(c: str) -> float:
    if "\uac00" <= c <= "\ud7a3":
        if c in _COMMON_HANGUL:
            return 1.0
        # Syllables outside KS X 1001 (most of those in CP949) are rare in text.
        try:
            c.encode("euc_kr")
            return 0.5
        except UnicodeEncodeError:
            return -1.0
    if "\u3041" <= c <= "\u3096":
        return 1.0
    if "\u30a1" <= c <= "\u30fc":
        return 0.7
    if "\u4e00" <= c <= "\u9fff":
        return 0.6 if c in _COMMON_HANJA else 0.15
    if c in "、。「」『』・ー　！？（）〜…―－“”‘’《》〈〉【】·→○●■□△※":
        return 0.6
    if "\uff10" <= c <= "\uff5a":
        return 0.3
    if "\uff61" <= c <= "\uff9f" or "\u3131" <= c <= "\u318e":  # half-width katakana, lone jamo
        return -0.7
    if c == "\ufffd":
        return -3.0
    category = unicodedata.category(c)
    if category in ("Cc", "Co", "Cn"):
        return -2.0
    return 0.4 if c <= "\u017f" and category in ("Ll", "Lu") else 0.0


# cp1252 with its five undefined bytes mapped to C1 controls, as browsers and broken exports do.
_BYTE = {bytes([b]).decode("cp1252", "ignore") or chr(b): b for b in range(0x80, 0x100)}
_BYTE |= {chr(b): b for b in range(0x80, 0x100)}
_LATIN_RUN = re.compile("[" + re.escape("".join(sorted(_BYTE))) + "]{2,}")


def mend(text: str, report: Report) -> str:
    """Repairs UTF-8 that was decoded as Latin-1, CP1252, CP949 or CP932, where that is certain.

    For Latin-1 and CP1252, certain means: a character of three bytes or more, `Ã` before a symbol, or at least three
    other byte pairs that decode to letters, without counter-evidence. For CP949 and CP932: a whole line that decodes as
    UTF-8 and contains at least three Hangul, kana or Chinese characters.
    """
    for _ in range(2):  # text is sometimes garbled twice
        mended = _mend_latin(text, report)
        if mended == text:
            break
        text = mended
    if text.isascii():
        return text
    return "".join(_mended_lines(text, report))


def _mend_latin(text: str, report: Report) -> str:
    if not any(lead in text for lead in "ÂÃÄÅâãäåæçèéêëìíîïð"):
        return text
    undone = {run: _undo_latin(run) for run in set(_LATIN_RUN.findall(text))}
    sure = {run for run, back in undone.items() if back is not None and _certain(run, back)}
    likely = {run for run, back in undone.items() if back is not None and all(c <= "\u017f" for c in back)} - sure
    if len(sure) + len(likely) == len(undone) and (sure or sum(text.count(run) for run in likely) >= 3):
        sure |= likely
    if not sure:
        return text

    def undo(found: re.Match[str]) -> str:
        back = undone[found[0]]
        if back is None or found[0] not in sure:
            return found[0]
        report.count("mojibake_mended")
        return back

    return _LATIN_RUN.sub(undo, text)


def _undo_latin(run: str) -> str | None:
    try:
        return bytes(_BYTE[c] for c in run).decode("utf-8")
    except UnicodeDecodeError:
        return None


def _certain(run: str, back: str) -> bool:
    return any(c > "\u07ff" for c in back) or re.search("Ã[¡-ª¬-º¼-¿]", run) is not None


def _mended_lines(text: str, report: Report) -> Iterator[str]:
    for line in text.splitlines(keepends=True):
        yield line if line.isascii() else _mended_line(line, report)


def _mended_line(line: str, report: Report) -> str:
    for name in ("cp949", "cp932"):
        try:
            undone = line.encode(name).decode("utf-8")
        except UnicodeError:
            continue
        if sum("\u3041" <= c <= "\ud7a3" for c in undone) >= 3 and plausibility(undone) > plausibility(line):
            report.count("mojibake_mended")
            return undone
    return line


_LINE_ENDS = re.compile("\r\n|[\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
# Controls, direction marks, invisible separators, non-characters. Joiners (200C, 200D) carry meaning.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x1f\x7f\x80-\x9f\u00ad\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064"
    "\u2066-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff]"
)
_SURROGATE = re.compile("[\ud800-\udfff]")


def clean(text: str, report: Report) -> str:
    """Normalises to NFC and `\\n` line ends; removes control and invisible characters, replaces lone surrogates."""
    text = _LINE_ENDS.sub("\n", text)
    text, removed = _INVISIBLE.subn("", text)
    report.count("invisible_removed", removed)
    text, replaced = _SURROGATE.subn("\ufffd", text)
    report.count("surrogates_replaced", replaced)
    return unicodedata.normalize("NFC", text)
