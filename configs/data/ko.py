"""The Korean web filter: the English rules with thresholds fitted to eojeol, and rules of Korean's own.

    kanana filter --config configs/data/ko.py --input 'web/*.jsonl.gz' --lang ko --output filtered

FineWeb2's published Korean thresholds assume morphemes. Those in `ko_thresholds.json` are for eojeol; how and on what
text they were fitted stands beside them (`kanana thresholds` makes the file). As FineWeb2 does, C4's rules, short
lines and paragraphs are left out. The Korean lists and the bound on Hangul follow EleutherAI's dps and KOREAN-WEBTEXT.
"""

import pathlib
from collections.abc import Collection

from kanana_jax.configs.data import en
from ml_collections import ConfigDict

from kanana_jax.files import load_json

THRESHOLDS = pathlib.Path(__file__).with_name("ko_thresholds.json")
LEFT_OUT = ("duplicate_paragraphs", "duplicate_paragraph_characters", "short_lines", "stop_words", "language", *en.C4)
# Particles and endings: two different ones are in any Korean sentence or two.
ENDINGS = tuple("은는이가을를에의로도와과고다서며면요지")
SPAM = (
    "카지노",
    "토토",
    "바카라",
    "먹튀",
    "홀덤",
    "슬롯",
    "출장안마",
    "출장샵",
    "대출상담",
    "성인용품",
    "비아그라",
    "시알리스",
    "조건만남",
    "최저가 보장",
)
FOOTERS = ("무단전재", "무단 전재", "재배포 금지", "저작권자", "ⓒ", "copyright", "all rights reserved", "이용약관",
           "개인정보처리방침", "개인정보 취급방침", "로그인", "회원가입", "기사제보", "구독하기", "좋아요", "공유하기",
           "이전글", "다음글", "목록보기")  # fmt: skip


def english_rules(left_out: Collection[str] = LEFT_OUT) -> ConfigDict:
    """The rules that are fitted: the English ones but for some."""
    rules = en.get_config().filters.en.rules
    kept = ConfigDict(sort_keys=False)
    for name in rules:
        if name not in left_out:
            kept[name] = rules[name]
    return kept


def fitted(rules: ConfigDict, file: pathlib.Path) -> ConfigDict:
    """The rules with their fitted bounds, where the file is there."""
    if file.is_file():
        for name, bounds in load_json(file)["rules"].items():
            rules[name] = dict(signal=name, **{k: float(v) for k, v in bounds.items() if v is not None})
    return rules


def get_config():
    c = ConfigDict()
    rules = fitted(english_rules(), THRESHOLDS)
    # Documentation says nothing about these two: 0.6 lets 99% of Korean statutes pass, 0.1 is FineWeb2's.
    rules.alphabetic_words = dict(signal="alphabetic_words", min=0.6)
    rules.fineweb_duplicate_line_characters = dict(signal="fineweb_duplicate_line_characters", max=0.1)
    rules.stop_endings = dict(signal="stop_endings", min=2.0)
    rules.hangul = dict(signal="hangul", min=0.25)
    rules.jamo = dict(signal="jamo", max=0.02)
    rules.spam_words = dict(signal="spam_words", max=2.0)
    rules.boilerplate = dict(signal="boilerplate", max=0.4)
    # Share of the text: documentation that is half code must pass, other languages not.
    rules.language = dict(signal="language", min=0.2)
    c.filters = dict(
        ko=dict(unit="word", stop_endings=ENDINGS, spam=SPAM, boilerplate=FOOTERS, language="ko", pii=True, rules=rules)
    )
    return c
