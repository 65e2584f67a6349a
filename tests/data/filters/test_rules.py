"""Verdicts: every broken rule, in order; texts normalised and cut; configs refused with their key."""

import dataclasses
import pickle
import unicodedata

import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from kanana_jax import config as config_lib
from kanana_jax.data import filters
from kanana_jax.data.filters import rules
from kanana_jax.errors import ConfigError

ENGLISH = config_lib.build(
    filters.FilterConfig, config_lib.read_config_file(str(ROOT / "configs/data/en.py")).filters.en, "filters.en"
)
PROSE = """The old harbour of the town was built with stone that the people of the valley had to carry over the hills.
For many years it was the only place where boats could stay in winter, and the market beside it was known for its fish.
A fire in the last century took most of the houses, but the wall and the tower of the church have been kept.
Visitors come to see the view from the tower, which is open from May to October and free on Sundays.
In the evening the lights of the fishing boats can be seen as far as the islands, and it is said that they never go out.
"""


def _record(text, **more):
    return {"id": "1", "text": text, "source": "s", **more}


def test_prose_is_kept_and_its_bad_lines_are_cut():
    judge = filters.Filter(ENGLISH)
    assert judge(_record(PROSE)).rules == ()
    assert judge(_record(PROSE)).record["text"] == PROSE.strip()
    verdict = judge(
        _record(PROSE + "Please turn on JavaScript to see this page in full.\nRead our Privacy Policy here.\n")
    )
    assert verdict.rules == () and verdict.record["text"] == PROSE.strip()
    assert [rule for _, _, rule in verdict.spans] == ["c4_javascript", "c4_policy"]


@pytest.mark.parametrize(
    "text,rule",
    [
        ("Too short a text.", "words"),
        (PROSE * 3, "duplicate_lines"),
        (PROSE + "lorem ipsum dolor sit amet", "c4_lorem_ipsum"),
        ("\n".join(f"- {line}" for line in PROSE.split("\n") if line), "bullet_lines"),
        ("\n".join(PROSE.split(" ")), "newlines_per_word"),
        (PROSE.replace("the ", "").replace("to ", "").replace("of ", "").replace("and ", "").replace("with ", "")
         .replace("that ", "").replace("have ", "").replace("be ", ""), "stop_words"),
        ("buy now " * 200, "top_2_gram"),
    ],
)  # fmt: skip
def test_each_kind_of_bad_text_is_named(text, rule):
    assert rule in filters.Filter(ENGLISH)(_record(text)).rules


def test_all_broken_rules_are_named_in_order_and_counted():
    made = {
        "short": filters.Rule("characters", min=10),
        "latin": filters.Rule("latin", min=0.5),
        "never": filters.Rule("characters", min=0),
    }
    judge = filters.Filter(filters.FilterConfig(rules=made))
    totals = {}
    for text in ("한글", "한글로 쓴 긴 글이다 정말로", "ab", "plain words here"):
        rules.count(totals, judge(_record(text)).rules)
    assert totals == {"short": [2, 1, 2], "latin": [2, 1, 1]}


def test_thresholds_can_be_tried_again_without_the_text():
    verdict = filters.Filter(filters.FilterConfig())(_record(PROSE))
    assert rules.broken_rules({"x": filters.Rule("words", min=10_000)}, verdict.signals, {}, verdict.record) == ("x",)


def test_numbers_of_the_record_itself():
    rule = {"edu": filters.Rule("meta.edu", min=3)}
    judge = filters.Filters({}).of("web", "ko", rule)
    assert judge(_record("글", meta={"edu": 3.5})).rules == ()
    assert judge(_record("글", meta={"edu": 2})).rules == ("select.edu",)
    for meta in ({}, {"edu": "5"}, {"edu": True}, {"edu": float("nan")}):
        assert judge(_record("글", meta=meta)).rules == ("select.edu",)
    assert filters.Rule("meta.edu", min=3, missing=True).passes(None)


def test_the_filter_of_a_source_then_of_its_language_then_the_default():
    made = {
        name: filters.FilterConfig(rules={name: filters.Rule("characters", min=9)}) for name in ("web", "ko", "default")
    }
    found = filters.Filters(made)
    assert found.of("web", "ko")(_record("x")).rules == ("web",)
    assert found.of("law", "ko")(_record("x")).rules == ("ko",)
    assert found.of("law", "en")(_record("x")).rules == ("default",)
    assert filters.Filters({}).of("law", "en") is filters.keep_all


@given(st.text(max_size=300), st.booleans())
@settings(max_examples=150, deadline=None)
def test_pure_picklable_and_the_same_for_decomposed_text(text, cut):
    config = dataclasses.replace(ENGLISH, cut_lines=cut)
    judge = filters.Filter(config)
    first = judge(_record(text))
    assert pickle.loads(pickle.dumps(judge))(_record(text)) == first
    decomposed = judge(_record(unicodedata.normalize("NFD", text)))
    composed = judge(_record(unicodedata.normalize("NFC", text)))
    assert decomposed == composed


@pytest.mark.parametrize(
    "section,words",
    [
        ({"rules": {"a": {"signal": "wrods"}}}, ["filters.ko.rules.a", "words"]),
        ({"rules": {"a": {"signal": "words", "min": 3.0, "max": 1.0}}}, ["filters.ko.rules.a", "above max"]),
        ({"rules": {"a": {"signal": "words", "least": 3.0}}}, ["rules.a.least"]),
        ({"unit": "eojeol"}, ["filters.ko.unit", "word"]),
        ({"stop_endings": ("은는",)}, ["filters.ko", "single characters"]),
    ],
)
def test_bad_configs(section, words):
    with pytest.raises(ConfigError) as error:
        config_lib.build(filters.FilterConfig, section, "filters.ko")
    assert all(word in str(error.value) for word in words)


def test_personal_data_are_replaced_in_what_is_kept():
    judge = filters.Filter(filters.FilterConfig(pii=True, rules={"short": filters.Rule("characters", min=10)}))
    verdict = judge(_record("문의는 010-1234-5678 또는 a@b.co.kr로 하세요."))
    assert verdict.record["text"] == "문의는 <PHONE> 또는 <EMAIL>로 하세요."
    assert verdict.pii == {"phone": 1, "email": 1}
    assert judge(_record("a@b.kr")).pii == {}


def test_a_filter_for_nobody():
    with pytest.raises(ConfigError, match="filters.kr.*ko"):
        filters.check_names({"kr": filters.FilterConfig()}, ("ko_web", "ko"), "filters")


def test_a_rule_is_asked_where_its_text_is_of_the_kind():
    made = {"ends": filters.Rule("line_punctuation", min=0.5, where={"lines": 3.0})}
    judge = filters.Filter(filters.FilterConfig(rules=made))
    assert judge(_record("제목\n끝에 마침표가 없는 한 줄")).rules == ()
    assert judge(_record("제목\n한 줄\n또 한 줄")).rules == ("ends",)
    with pytest.raises(ValueError, match="where 'lnes'"):
        filters.Rule("words", where={"lnes": 3.0})


def test_code_is_kept_whole_and_not_judged():
    code = "```js\nfor (;;) { x }\n}\n}\n}\nuse cookies\n```"
    verdict = filters.Filter(ENGLISH)(_record(f"{PROSE}\n{code}\n\nTwo words.\n{PROSE.splitlines()[0]}"))
    assert verdict.rules == () and code in verdict.record["text"] and "Two words." not in verdict.record["text"]
    (cut,) = verdict.spans
    assert cut[2] == "c4_few_words" and verdict.signals.duplicate_lines < 0.2
    assert "stop_words" in filters.Filter(ENGLISH)(_record("```\n" + PROSE * 3 + "```")).rules
