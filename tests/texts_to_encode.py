"""Texts that tokenizers disagree on: languages, code, emoji, decomposed letters, spelt symbols, odd spaces."""

import unicodedata

TEXTS = [
    "한빛시의 도서관은 2024년 5월 3일에 문을 열었다. 값은 3,000원이다. ㅋㅋㅋ ㅠㅠ",
    "図書館は五月三日に開いた。ガラス １２３ ｶﾞ 々〆 「東京」へ行く。",
    "The cat sat; it's fine, isn't it? Naïve café — 3.14 and 10,000.",
    "def f(x):\n    return {'a': x[0] ** 2}  # <0x41>\n\n\tif x != 0:\r\n        pass\n",
    "👍🏽 👨‍👩‍👧 e\u0301 \u200b\u3000\ufeff 🇰🇷",
    unicodedata.normalize("NFD", "가람시의 값은 얼마인가? ガ é"),
    "<s> a <unk></s><|im_start|>user\n<|im_end|> <think>x</think> the [가격] is concat cat. ﬁne",
    "  two  spaces \n\n\n and a tab\t.",
    "",
    " ",
    "\u2581low ▁▁",
    "𠮷野家 \U0001f9ff ỗ ß ŉ Ω",
]
