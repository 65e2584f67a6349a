"""Lines for comparing tokenizers: Korean, Japanese, English and code, and what tokenizers stumble over."""

from kanana_jax.data import microworld

KINDS = ("news", "encyclopedia", "dialogue", "textbook", "code", "noise")
ODD = [
    " ",
    "  two  spaces and\ttabs \n\n\n three lines\r\n",
    "그는 1,234,567원(약 ￦1백만)을 냈다.   끝",
    "ﾊﾝｶｸ ｶﾅ、全角１２３４５６７８９０と㍿",
    "e\u0301 é \u1112\u1161\u11ab 한 \u200b\u200d👨‍👩‍👧‍👦 👍🏽 🇰🇷",
    "I'LL can't WE'VE it's 'tis rock'n'roll '뭐'라고",
    "x=0x1F;y=3.14e-10;/*…*/#include <stdio.h>\n\tif(a&&b||!c){return ~x;}",
    "\u2581 Ġ Ċ <0x41> <unk> <s> </s> ''''''''\"\"\"\"",
    "अनुच्छेद ١٢٣٤ ๑๒๓๔ Ⅻ ½ ²³ ①②③④ 〇一二三",
    "\x00\x07\x1b[0m\x7f\ufeff\ufffd",
    "a" * 500 + " " * 300 + "b" + "\n" * 100 + "9" * 100,
    "mixed한글とカナABC123가나다456",
]


def lines(count: int) -> list[str]:
    """At least `count` different lines."""
    found = dict.fromkeys(ODD)
    size = 40
    while len(found) < count:
        for lang in ("ko", "ja", "en"):
            for kind in KINDS:
                for row in microworld.parse_uri(f"microworld://{kind}/{lang}?count={size}&size=300"):
                    found.update(dict.fromkeys(line for line in row["text"].splitlines(keepends=True) if line))
        size *= 2
    return list(found)[:count]
