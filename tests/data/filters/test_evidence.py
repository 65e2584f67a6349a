"""Marks in dropped documents: inside the text, in order, and as many characters as the signal says."""

import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from kanana_jax import config as config_lib
from kanana_jax.data import filters
from kanana_jax.data.arrays import characters
from kanana_jax.data.filters import evidence
from kanana_jax.data.filters.signals import NAMES, Lexicon, measure

ALL = filters.FilterConfig(
    unit="character",
    spam=("토토",),
    boilerplate=("로그인",),
    c4=filters.rules.C4Config(),
    language="ko",
    pii=True,
    rules={name: filters.Rule(name) for name in (*NAMES, "language", "pii")},
)
TEXT = """# 로그인 …
- 토토 토토 ㅋㅋㅋ 12345
가나다라마바사아자차카타파하 가나다라마바사아자차카타파하
같은 줄이다
같은 줄이다

{ lorem ipsum } ABC カタカナ ひらがな 漢字 010-1234-5678"""


def _signals(text, unit="character"):
    lexicon = Lexicon(spam=ALL.spam, boilerplate=ALL.boilerplate)
    return measure([text], unit, lexicon, ALL.c4)[0][0]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from("가나다 ab.!?#-…\n{1ㅋ카"), max_size=120).map("".join))
def test_marks_lie_in_the_text_in_order_without_overlap(text):
    text = characters.normalise(text)
    for rule in ALL.rules:
        end = 0
        for start, stop, label in evidence.spans(rule, text, ALL):
            assert end <= start <= stop <= len(text) and label == rule
            end = stop


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from("가나다라 \n"), max_size=80).map("".join))
def test_marked_characters_are_those_that_the_signal_counts(text):
    text = characters.normalise(text)
    measured = _signals(text)
    visible = sum(not c.isspace() for c in text)
    for n in (5, 7, 10):
        marked = [c for s, e, _ in evidence.spans(f"duplicate_{n}_gram", text, ALL) for c in text[s:e]]
        counted = getattr(measured, f"duplicate_{n}_gram") * max(len(text), 1)
        assert sum(not c.isspace() for c in marked) == pytest.approx(counted)
    marked = sum(e - s for s, e, _ in evidence.spans("hangul", text, ALL))
    assert marked == pytest.approx(measured.hangul * max(visible, 1))


@pytest.mark.parametrize(
    "rule, marked",
    [
        ("spam_words", ["토토", "토토"]),
        ("spam", ["토토", "토토"]),
        ("boilerplate", ["로그인"]),
        ("jamo", ["ㅋㅋㅋ"]),
        ("hashes_per_word", ["#"]),
        ("ellipses_per_word", ["…"]),
        ("ellipsis_lines", ["# 로그인 …"]),
        ("bullet_lines", ["- 토토 토토 ㅋㅋㅋ 12345"]),
        ("duplicate_lines", ["같은 줄이다"]),
        ("c4_curly_bracket", ["{"]),
        ("c4_lorem_ipsum", ["lorem ipsum"]),
        ("katakana", ["カタカナ"]),
        ("han", ["漢字"]),
        ("upper", ["ABC"]),
        ("pii", ["010-1234-5678"]),
        ("duplicate_10_gram", ["가나다라마바사아자차카타파하"]),
        ("words", []),
        ("language", []),
    ],
)
def test_each_rule_marks_its_places(rule, marked):
    assert [TEXT[s:e] for s, e, _ in evidence.spans(rule, TEXT, ALL)] == marked


def test_long_documents_are_shown_around_the_first_mark():
    text = "가" * 5000 + " 토토 " + "나" * 5000
    cut, spans = evidence.excerpt(text, evidence.spans("spam_words", text, ALL), 400)
    assert len(cut) == 400 and [cut[s:e] for s, e, _ in spans] == ["토토"]
    assert evidence.excerpt("짧다", (), 400) == ("짧다", [])


def test_every_rule_of_the_shipped_configs_is_marked_or_about_the_whole():
    whole = {
        "words",
        "mean_word_length",
        "stop_words",
        "stop_endings",
        "language",
        "different_words",
        "newlines_per_word",
    }
    whole |= {"ended_words", "stop_word_share", "hiragana_of_japanese", "mean_sentence", "compression", "characters"}
    for lang in ("ko", "ja", "en"):
        values = config_lib.read_config_file(str(ROOT / f"configs/data/{lang}.py")).filters[lang]
        config = config_lib.build(filters.FilterConfig, values, lang)
        for name, rule in config.rules.items():
            known = rule.signal in evidence._PLACES or "_gram" in rule.signal or rule.signal.startswith("c4_")
            assert known or rule.signal in whole, name


def test_marks_leave_code_out_and_lie_in_the_whole_text():
    text = "같은 줄이다\n```\n같은 줄이다\n# 표\n```\n# 로그인\n같은 줄이다"
    marked = [(start, text[start:end]) for start, end, _ in evidence.spans("duplicate_lines", text, ALL)]
    assert marked == [(text.rindex("같은"), "같은 줄이다")]
    assert [s for s, _, _ in evidence.spans("hashes_per_word", text, ALL)] == [text.rindex("#")]
