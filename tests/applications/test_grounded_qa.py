"""Questions and answers of passages by a scripted writer: every branch, its count, and what rows hold."""

import dataclasses

import numpy as np
import pytest

from kanana_jax.applications import rag
from kanana_jax.applications.grounded_qa import QaConfig, make, question_of
from kanana_jax.applications.passages import Passage

PASSAGES = [
    Passage(f"d{i}#1", text, f"d{i}.md") for i, text in enumerate(("가가", "나나", "다다", "라라", "마마", "바바"))
]
# By the passage that a text quotes: the question, answers, the second answer, the answer without the passage.
SCRIPT = {
    "가가": ("1. 가는 무엇?\n둘째 줄", "가이다 [1].", "", "틀린 답"),  # kept, with a pair
    "나나": ("나는 무엇?", "지어낸 답 [3]", "나이다.", "나이다."),  # kept once written again; no negative
    "다다": ("다는 무엇?", "지어낸 답", "또 지어낸 답", ""),  # ungrounded
    "라라": ("...", "", "", ""),  # no question
    "마마": ("마는 무엇?", "문서에서 답을 찾지 못했습니다.", "", ""),  # no answer
    "바바": ("바는 무엇?", " [1] ", "", ""),  # no answer
}
CONFIG = QaConfig(questions=1, distractors=2, unanswerable=1.0)


def _write(texts, step, cut):
    replies = []
    for text in texts:
        (key,) = [
            key for key, (question, *_) in SCRIPT.items() if key in text or (step == 3 and question[-6:] in text)
        ] or [next(k for k in SCRIPT if k[0] in text.split("질문: ")[-1])]
        replies.append(SCRIPT[key][step])
    return replies


def _ground(answers):
    return [float(answer.startswith(text[0])) for answer, text in answers]


def _make(config=CONFIG, seed=0):
    return make(PASSAGES, PASSAGES, config, _write, _ground, np.random.default_rng(seed))


def test_every_branch_is_counted():
    assert _make().counts == {
        "passages": 6, "asked": 6, "given": 0, "no_question": 1, "repeated": 0, "no_answer": 2, "ungrounded": 1, "kept": 2,
        "refined": 1, "unanswerable": 2, "pairs": 1, "negatives_grounded": 1,
    }  # fmt: skip


def test_rows_are_what_the_command_asks_with():
    made = _make()
    assert [row["id"] for row in made.conversations] == ["d0#1/1", "d0#1/1/nothing", "d1#1/1", "d1#1/1/nothing"]
    seen = set()
    for row, own, answer in zip(made.conversations[::2], ("가가", "나나"), ("가이다.", "나이다.")):
        prompt, said = (turn["content"] for turn in row["messages"])
        place = int(said.removeprefix(f"{answer} [").removesuffix("]"))
        number = [line.split("]")[0][1:] for line in prompt.splitlines() if line.startswith("[")]
        assert number == ["1", "2", "3"] and f"[{place}] d{'가나'.index(own[0])}.md\n<" in prompt and own in prompt
        assert rag.citations(said, 3) == ((place,), ())
        seen.add(place)
    for row in made.conversations[1::2]:
        prompt, said = (turn["content"] for turn in row["messages"])
        own = "가가" if row["id"].startswith("d0") else "나나"
        assert said == "문서에서 답을 찾지 못했습니다." and own not in prompt and "[2]" in prompt
    (pair,) = made.pairs
    assert pair["prompt"] == made.conversations[0]["messages"][:1]
    assert pair["chosen"] == made.conversations[0]["messages"][1:]
    assert pair["rejected"][0]["content"].startswith("틀린 답 [")


def test_the_same_seed_makes_the_same_rows_and_another_one_others():
    assert _make() == _make()
    assert any(_make(seed=seed).conversations != _make().conversations for seed in (1, 2, 3))
    alone = _make(dataclasses.replace(CONFIG, distractors=0, unanswerable=0.0))
    assert [row["messages"][1]["content"] for row in alone.conversations] == ["가이다. [1]", "나이다. [1]"]


def test_repeated_questions_are_counted():
    counts = _make(dataclasses.replace(CONFIG, questions=2)).counts
    assert counts["repeated"] == 5 and counts["no_question"] == 2 and counts["asked"] == 12


@pytest.mark.parametrize(
    "reply, question",
    [
        ("\n- **환불은 언제?**\n답", "환불은 언제?"),
        ("Question 1: How far is it?", "How far is it?"),
        ("質問：いつですか。", "いつですか。"),
        ("「いつ？」", "いつ？"),
        ("a" * 400, ""),
        ("--- \n", ""),
    ],
)
def test_questions_are_read_off_replies(reply, question):
    assert question_of(reply) == question


@pytest.mark.parametrize(
    "more, told",
    [
        ({"keep": 0.4}, "reject < keep"),
        ({"questions": 0}, "questions must be at least 1"),
        ({"distractors": 0}, "distractors"),
    ],
)
def test_values_that_contradict_each_other(more, told):
    with pytest.raises(ValueError, match=told):
        QaConfig(**more)


def test_no_distractor_has_the_answer():
    """Otherwise the sentence that nothing was found would be wrong, and a citation of one passage."""
    passages = [Passage(f"d0#{i}", f"{i}쪽: {days}일", "d0.md") for i, days in enumerate((7, 7, 8, 9))]
    own = dataclasses.replace(passages[0], questions=(("며칠?", "7일"),))
    config = QaConfig(questions=1, distractors=3, unanswerable=1.0, refine=0)
    made = make([own], passages, config, _nothing, lambda a: [1.0] * len(a), np.random.default_rng(0))
    with_it, without = (row["messages"][0]["content"] for row in made.conversations)
    assert with_it.count("7일") == 1 and "7일" not in without and "8일" in without and "9일" in without


def test_an_english_passage_with_a_korean_name_gets_english_questions():
    prompts = []

    def write(texts, step, cut):
        prompts.extend(texts)
        return [""] * len(texts)

    passage = Passage("d#1", "Kimchi (김치) is a dish of fermented vegetables that is eaten at most meals.", "d.md")
    make([passage], [passage], dataclasses.replace(CONFIG, refine=0), write, _ground, np.random.default_rng(0))
    assert prompts[0].startswith("Write one question in English")


def _nothing(texts, step, cut):
    return [""] * len(texts)


def test_questions_that_a_document_brings_are_not_written():
    """Their answers count as any other: one that the passage does not support is dropped."""
    own = [
        dataclasses.replace(PASSAGES[0], questions=(("가는 어디?", "가이다."), ("가는 누구?", "가이다."))),
        dataclasses.replace(PASSAGES[1], questions=(("나는 어디?", "틀렸다."),)),
    ]
    asked = []

    def write(texts, step, cut):
        asked.extend((step, text) for text in texts)
        return ["틀린 답"] * len(texts)

    config = dataclasses.replace(CONFIG, refine=0, unanswerable=0.0)
    made = make(own, PASSAGES, config, write, _ground, np.random.default_rng(0))
    assert [step for step, _ in asked] == [2]  # the answer without the passage alone
    assert (made.counts["asked"], made.counts["given"], made.counts["kept"], made.counts["ungrounded"]) == (2, 2, 1, 1)
    assert [row["id"] for row in made.conversations] == ["d0#1/1"]
    assert made.conversations[0]["messages"][0]["content"].endswith("가는 어디?")
    two = make(own[1:], PASSAGES, dataclasses.replace(config, questions=2), write, _ground, np.random.default_rng(0))
    assert (two.counts["asked"], two.counts["given"]) == (2, 1)
    assert [step for step, _ in asked[1:3]] == [0, 1]  # a question to the place that is left, and its answer
