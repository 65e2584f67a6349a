"""Questions about documents, with replies by a script: each share is of the cases that it is about."""

import json

import pytest

from kanana_jax.applications import document_questions, rag
from kanana_jax.applications.document_questions import evaluate, items
from kanana_jax.errors import UserError


def test_each_question_is_asked_with_its_passage_and_without():
    asked = items("microworld://faq/ko?size=100&count=20", 6)
    assert len(asked) == 12
    places = set()
    for told, untold in zip(asked[::2], asked[1::2], strict=True):
        assert (told.question, told.answer) == (untold.question, untold.answer) and untold.right == 0
        assert told.answer in told.shown[told.right - 1].text
        assert [told.answer in passage.text for passage in told.shown].count(True) == 1
        assert len({passage.document for passage in untold.shown}) == 2
        assert not any(told.answer in passage.text for passage in untold.shown)
        places.add(told.right)
    assert places == {1, 2}


def test_shares_are_those_of_the_replies(monkeypatch):
    asked = items("microworld://faq/ko?size=100&count=20", 4)
    nothing = rag.nothing_found(asked[0].question)
    told = [f"{asked[0].answer} [{asked[0].right}]", f"{asked[2].answer} [{3 - asked[2].right}]", nothing, "모른다."]
    untold = [nothing, nothing, f"{nothing} [1]", "지어낸 답"]
    replies = [reply for pair in zip(told, untold) for reply in pair]
    monkeypatch.setattr(document_questions, "_replies", lambda *_: [(reply, reply == nothing) for reply in replies])
    evaluated = evaluate(None, asked)
    assert [sample["reply"] for sample in evaluated["samples"]] == replies
    assert all((sample["answer"] in sample["passages"][sample["right"] - 1]) for sample in evaluated["samples"][::2])
    found = evaluated["results"]
    shares = {key: value for key, value in found.items() if not key.endswith("_stderr")}
    assert shares == {"n": 4, "answered": 0.5, "cited": 0.25, "refused": 0.75, "refused_wrongly": 0.25, "cut": 3}
    assert found["answered_stderr"] == pytest.approx((0.25 / 3) ** 0.5)


def test_documents_without_questions_are_a_sentence(tmp_path):
    with pytest.raises(UserError, match="no document with a question"):
        items("microworld://news/ko?size=100&count=5", 2)
    (tmp_path / "a.jsonl").write_text(json.dumps({"id": "a", "text": "하나"}) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match="fewer than three documents"):
        items(str(tmp_path), 2)
