"""Published questions become items: every turn behind those before it, with its category, reference and checklist."""

import json

import pytest

from kanana_jax import cli
from kanana_jax.evaluation import judged_sets
from kanana_jax.evaluation.grading import requests

MT = {"question_id": 81, "category": "math", "turns": ["1 + 1?", "Twice that?"], "reference": ["2", "4"]}
LOGICKOR = {"id": 1, "category": "추론(Reasoning)", "questions": ["누구?", "왜?"], "references": ["나", None]}
WILD = {
    "session_id": "ab",
    "primary_tag": "Coding",
    "conversation_input": [
        {"role": "user", "content": "Sort."},
        {"role": "assistant", "content": "How?"},
        {"role": "user", "content": "Up."},
    ],
    "checklist": ["Does it sort?", "Is it stable?"],
}


def test_turns_stand_behind_the_models_own_answers():
    answers = judged_sets.answers_of({"question_id": 81, "choices": [{"index": 0, "turns": ["It is 2.", "4"]}]})
    first, second = judged_sets.items(MT, answers)
    assert (first.id, first.answer, first.reference, first.category) == ("81/1", "It is 2.", "2", "math")
    assert second.question == "user: 1 + 1?\nassistant: It is 2.\nuser: Twice that?" and second.reference == "4"
    first, second = judged_sets.items(
        LOGICKOR, judged_sets.answers_of({"id": 1, "outputs": ["나", "그냥"]}), ["너", "음"]
    )
    assert (first.reference, second.reference, second.other) == ("나", "", "음")
    first, second = judged_sets.items({"id": 2, "turns": ["a", "b"]}, ["x", "y"], references=["r", "s"])
    assert (first.reference, second.reference, first.category) == ("r", "s", "")


def test_a_checklist_is_shown_to_the_judge():
    (item,) = judged_sets.items(WILD, judged_sets.answers_of({"session_id": "ab", "output": ["sorted(x)"]}))
    assert item.question == "user: Sort.\nassistant: How?\nuser: Up." and item.category == "Coding"
    (text,) = requests(item)
    assert "Points to check:\n- Does it sort?\n- Is it stable?\n" in text and "A right answer" not in text


@pytest.mark.parametrize(
    "question, answer, words",
    [
        (MT, {"question_id": 81, "answer": "2"}, "question '81' has 2 turns, but 1 answers"),
        (MT, {"question_id": 80, "answers": ["2", "4"]}, "has no answer to question '81'"),
        (MT, {"answers": ["2", "4"]}, "line 1 has no id"),
        (MT, {"question_id": 81, "choices": []}, "line 1 has no list of texts as answers"),
        ({"id": 3, "text": "?"}, {"id": 3, "answer": "!"}, "has no list of texts as 'turns'"),
    ],
)
def test_refusals(tmp_path, capsys, question, answer, words):
    for name, row in (("q", question), ("a", answer)):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    words_of = ["judge", str(tmp_path / "a.jsonl"), "--questions", str(tmp_path / "q.jsonl")]
    code = cli.main([*words_of, "--url", "http://127.0.0.1:9/v1", "--model", "j", "--output", str(tmp_path / "o.json")])
    assert code == 2 and words in capsys.readouterr().err
