"""Programmatic rewards on hand-labelled answers; what cannot be judged, in a sentence."""

import re

import numpy as np
import pytest

from kanana_jax.errors import UserError
from kanana_jax.evaluation import verifiers
from kanana_jax.evaluation.verifiers import Question, checked, language_share, verify

IDS = np.zeros(1, np.int32)
# verifier, answer, text → reward
CASES = [
    ("number", 42, "3 + 39 = 42입니다. 따라서 정답은 42입니다.", 1),
    ("number", "39 + 3을 더하면\n#### 42", "The answer is 42.", 1),
    ("number", "1,200", "答えは1200円です", 1),
    ("number", 42, "정답은 43입니다.", 0),
    ("number", 42, "", 0),
    ("number", 42, "<think>정답은 42</think> 모르겠습니다", 0),
    ("letter", "B", "따라서, 정답은: B", 1),
    ("letter", "b", "정답은 C입니다", 0),
    ("letter", "(B)", "정답은 B입니다", 1),
    ("exact", "서울", " 서울. ", 1),
    ("exact", ["Seoul", "서울"], "서울특별시", 0),
    ("contains", ["Seoul", "서울"], "대한민국의 수도는 서울특별시이다.", 1),
    ("contains", "서울", "부산", 0),
    ("boxed", None, r"$\boxed{3}$", 1),
    ("boxed", "3", r"$\boxed{4}$", 0),
    ("boxed", "3", "3", 0),
    ("regex", r"\d+개", "12개", 1),
    ("regex", r"\d+개", "모두 12개", 0),
    ("length", {"max": 5}, "12345", 1),
    ("length", {"min": 2, "max": 3, "unit": "words"}, "하나", 0),
    ("length", {"min": 2, "unit": "lines"}, "하나\n\n둘", 1),
    ("json", None, '```json\n{"a": 1}\n```', 1),
    ("json", ["a", "b"], '{"a": 1}', 0),
    ("json", None, "[" * 100_000, 0),
    ("language", "ko", "안녕하세요", 1),
    ("language", "ko", "안녕 hello", 2 / 7),
    ("language", "ja", "今日は天気がいい", 1),
    ("language", "ja", "中国很大", 0),
    ("language", "en", "Hello!", 1),
    ("language", None, "12", 1),
    ("language", None, "", 0),
]


@pytest.mark.parametrize(("name", "answer", "text", "reward"), CASES)
def test_an_answer_gets_what_it_deserves(name, answer, text, reward):
    question = Question("1", IDS, "?", "ko", name, answer)
    assert checked(verify({"record": 1.0}), [question], [text])[0] == pytest.approx(reward)


def test_weights_are_added_and_a_number_needs_no_name():
    questions = [Question("1", IDS, "?", "ko", "", 42), Question("2", IDS, "?", "ko", "exact", "네")]
    found = checked(verify({"record": 1.0, "language": 0.5}), questions, ["정답은 42입니다", "yes"])
    assert found.tolist() == [1.5, 0.0]


def test_the_language_of_a_text():
    assert language_share("안녕, world 12", "kor_Hang") == pytest.approx(2 / 7)
    assert language_share("今日は", "ja") == 1 and language_share("今日", "zh") == 1
    assert language_share("12 + 3", "ko") is None and language_share("hello", "") is None


@pytest.mark.parametrize(
    ("question", "told"),
    [
        (Question("a", IDS, "?", "ko", "taste", 1), "record 'a' names the verifier 'taste': write one of number,"),
        (Question("a", IDS, "?", "ko", "", "네"), "record 'a' names no 'verifier', and its 'answer' is not a number"),
        (Question("a", IDS, "?", "ko", "number", "many"), "verifier 'number' cannot judge by the answer \"many\""),
        (Question("a", IDS, "?", "ko", "length", 3), "verifier 'length' cannot judge by the answer 3"),
        (Question("a", IDS, "?", "ko", "letter", "서울"), "a letter from A to E is expected"),
        *((Question("a", IDS, "?", "ko", name, "…"), "a text with a letter") for name in ("exact", "contains", "boxed")),
        (Question("a", IDS, "?", "ko", "length", {"min": 9, "max": 3}), "'min' is above 'max'"),
        (Question("a", IDS, "?", "ko", "regex", "("), "no pattern"),
        (Question("a", IDS, "?", "ko", "regex", "(a|aa)+[^a]"), "the pattern takes more than 0.05 s"),
        (Question("a", IDS, "?", "", "language"), "a language is expected, or the record's 'lang'"),
    ],
)
def test_a_record_that_cannot_be_judged_is_named(question, told, monkeypatch):
    monkeypatch.setattr(verifiers, "_SECONDS", 0.05)
    with pytest.raises(UserError, match=re.escape(told)):
        checked(verify({"record": 1.0}), [question], ["a" * 64])


@pytest.mark.parametrize(
    ("rewards", "told"),
    [([1.0], r"2 answers got rewards of shape \[1\]"), ([1.0, np.nan], "record 'b' is nan, which is not finite")],
)
def test_rewards_of_another_length_or_no_numbers(rewards, told):
    questions = [Question(name, IDS, "?") for name in "ab"]
    with pytest.raises(UserError, match=told):
        checked(lambda questions, texts: np.array(rewards), questions, ["x", "y"])


def test_names_are_checked_at_once():
    with pytest.raises(ValueError, match="'taste' is not a verifier: name some of record, number"):
        verify({"taste": 1.0})
