"""Phrasings of answers, written by hand, with what they say; rules of the module; filters as tasks apply them."""

import json
import pathlib
from fractions import Fraction

import pytest

pytest.importorskip("lm_eval")

from kanana_jax.evaluation import answers, metrics, numerals, tasks  # noqa: E402

DATA = pathlib.Path(__file__).parents[1] / "data/evaluation"


def _rows(name):
    return [json.loads(line) for line in (DATA / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("row", _rows("letters"), ids=lambda row: row["text"][:24])
def test_letters(row):
    assert answers.letter(row["text"]) == row["answer"]


@pytest.mark.parametrize("row", _rows("numbers"), ids=lambda row: row["text"][:24])
def test_numbers(row):
    assert answers.number(row["text"]) == row["answer"]


def test_phrasings_that_came_later():
    """What other wordings showed: those above were written before the code."""
    wrong = [row for row in _rows("later_letters") if answers.letter(row["text"]) != row["answer"]]
    wrong += [row for row in _rows("later_numbers") if answers.number(row["text"]) != row["answer"]]
    assert not wrong


@pytest.mark.parametrize(
    "text, letter",
    [
        ("정답은 A도 B도 아닌 C입니다", "C"),
        ("정답은 B, C는 틀렸습니다.", "B"),
        ("정답은 C가 아니다. A이다.", "A"),
        ("B가 옳습니다. 그러나 정답은 D입니다.", "D"),
        ("그러므로 B가 옳습니다.", "B"),
        ("정답은 보기 중 C", "C"),
        ("정답은 다음과 같습니다.\n\nD", "D"),
        ("오답은 C", None),
        ("따라서, 정답은: X. X는 A, B, C, D 가운데 하나입니다.", None),
        ("정답은 A급 태풍입니다", None),
        ("정답은 E입니다", None),
        ("正解はAでもBでもなくCです", "C"),
        ("答えはBです。Aは誤りです。", "B"),
        ("正解はAまたはBです", None),
        ("The answer is neither A nor B but C", "C"),
        ("The answer isn't A; it's B.", "B"),
        ("It might be A, but the answer is B", "B"),
        ("A is not the correct answer. B is the correct answer", "B"),
        ("The answer is C++", None),
        ("<answer>C</answer>", "C"),
        ("C", "C"),
        ("I compare them.\n(B)", "B"),
        ("A. No.\nB. No.\nI do not know", None),
    ],
)
def test_the_last_statement_counts(text, letter):
    assert answers.letter(text) == letter


def test_five_choices_where_a_task_has_them():
    assert answers.letter("정답은 (E)입니다", "ABCDE") == "E"
    assert answers.letter("⑤번이 정답이다", "ABCDE") == "E" and answers.letter("⑤번이 정답이다") is None


def test_what_is_no_plain_number():
    for text, number in (
        ("정답은 5+3=8입니다", "8"),
        ("답은 12 - 5 = 7개", "7"),
        ("\\boxed{2\\times 3 = 6}", "6"),
        ("3만5000원이 정답입니다", "35000"),
        ("정답은 1억 2천만 원입니다", "120000000"),
        ("The answer is 1.5 million dollars", "1500000"),
        ("\\boxed{-\\frac{3}{4}}", "-0.75"),
        ("答えは－４です", "-4"),
        ("1" * 5000, None),
    ):
        assert answers.number(text) == number
    assert answers.number("She has 3, then 12. So 1,234 m² in all.", anywhere=True) == "1234"
    assert answers.number("全部で１，２００円", anywhere=True) == "1200"
    for value in (Fraction(1, 3), Fraction(-7, 2), Fraction(10**9), Fraction(1, 125)):
        assert numerals.parse(numerals.canonical(value)) == value
    assert numerals.parse("1,042.0") == 1042 and numerals.parse("12 apples") is None


def test_long_texts_end():
    """Each pattern of words once more than a thousand times: none of them is tried again from every place."""
    for part in ("정답은 ", "the answer to ", "A ", "1,", "\\boxed{", "정답은 A가 아니라 ", "答えは", "**", "a\n"):
        answers.letter(part * 8000)
        answers.number(part * 8000, anywhere=True)


def test_boxes():
    assert answers.boxed("so \\boxed{1} or \\boxed{\\frac{1}{2}}.") == "\\frac{1}{2}"
    assert answers.boxed("no") is None and answers.boxed("\\boxed{1") is None
    right = {"answer": "So\n#### 1,042"}
    for text, score in (
        ("\\boxed{1042}", 1),
        ("\\boxed{\\$1,042.00}", 1),
        ("따라서 답은 \\boxed{１，０４２원}입니다", 1),
        ("정답은 1,042개입니다", 1),
        ("1042", 0),
        ("\\boxed{104}", 0),
        ("\\boxed{x}", 0),
    ):
        assert metrics.boxed_number(right, [text]) == {"exact_match": score}
    assert metrics.boxed_formula({"answer": "\\frac12"}, ["\\boxed{\\dfrac{1}{2}}"]) == {"exact_match": 1.0}
    assert metrics.boxed_formula({"answer": "2"}, ["2"]) == {"exact_match": 0.0}


@pytest.mark.parametrize(
    "name, text, answer",
    [
        ("mmlu_cot", "Therefore, the answer is: **C**", "C"),
        ("kmmlu_cot", "따라서, 정답은: D입니다.", "D"),
        ("haerae_cot", "정답은 (E)입니다.", "E"),
        ("mgsm_ja", "5に3を足すと、全部で８個。", "8"),
        ("mgsm_en", "So 1,200 in all. The answer is 7 for each of 2.", "7"),
        ("gsm8k", "정답은 3만 원이다. 사람은 4명이다.", "30000"),
        ("mmlu_cot", "I do not know", answers.INVALID),
    ],
)
def test_filters_of_tasks(name, text, answer):
    last = tasks.load_yaml(tasks.known()[name], resolve_func=True)["filter_list"][-1]["filter"]
    assert [step["function"] for step in last] == ["custom", "take_first"]
    assert last[0]["filter_fn"]([[text], ["-"]], [{}, {}])[0] == [answer]
