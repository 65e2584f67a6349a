"""Conversations about the embedded world: their own verifiers agree with them, and their forms are those of files."""

import collections

import numpy as np
import pytest

from kanana_jax.data.microworld import World, conversations, document, parse_uri
from kanana_jax.data.microworld.world import stable_random
from kanana_jax.data.read.conversations import conversation
from kanana_jax.errors import UserError
from kanana_jax.evaluation.verifiers import Question, verify

WORLD, COUNT = World.create(0, 400), 80
judge = verify({"record": 1.0})


def _judged(prompts, answers):
    questions = [
        Question(p["id"], np.zeros(0, np.int32), p["prompt"][-1]["content"], p["lang"], p["verifier"], p["answer"])
        for p in prompts
    ]
    return judge(questions, answers)


@pytest.mark.parametrize("lang", conversations.LANGUAGES)
@pytest.mark.parametrize("domain", conversations.DOMAINS)
def test_chosen_answers_are_right_and_rejected_ones_are_wrong(domain, lang):
    prompts, right, wrong = [], [], []
    for index in range(COUNT):
        draws = stable_random(domain, lang, index)
        task = conversations.DOMAINS[domain](WORLD, lang, draws)
        prompts.append(
            {
                "id": str(index),
                "prompt": [{"content": task.prompt}],
                "lang": lang,
                "verifier": task.verifier,
                "answer": task.expected,
            }
        )
        right.append(task.answer)
        wrong.append(task.wrong)
    assert _judged(prompts, right).all()
    assert not _judged(prompts, wrong).any()
    assert len(set(right)) > 5 and "<" not in "".join([*right, *wrong, *(p["prompt"][0]["content"] for p in prompts)])


@pytest.mark.parametrize("lang", conversations.LANGUAGES)
@pytest.mark.parametrize("kind", conversations.KINDS)
def test_records_have_the_form_of_files(kind, lang):
    domains = collections.Counter()
    for index in range(12):
        record = document(WORLD, kind, lang, index)
        assert conversation(record, "text") == {k: record[k] for k in record if k in conversation(record, "text")}
        assert record == document(WORLD, kind, lang, index) and record["text"]
        assert {"chat": "messages", "pairs": "chosen", "prompts": "verifier"}[kind.partition("-")[0]] in record
        domains[record["meta"]["domain"]] += 1
    assert set(domains.values()) == ({12} if "-" in kind else {3})


def test_an_address_and_its_languages():
    (record,) = parse_uri("microworld://pairs-format/ko?count=1")
    assert record["meta"] == {"kind": "pairs-format", "domain": "format"}
    with pytest.raises(UserError, match="no language 'ja'"):
        list(parse_uri("microworld://chat/ja"))
