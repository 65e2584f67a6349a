"""Records become sequences: conversations weigh what the assistant says, and stay whole in one row."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kanana_jax.data import microworld
from kanana_jax.data.read import records
from kanana_jax.data.read.record import Broken
from kanana_jax.data.stream import packing
from kanana_jax.data.stream.encode import (
    ConversationEncoder,
    Example,
    PairEncoder,
    PromptEncoder,
    Refused,
    TextEncoder,
    fields_of,
)
from kanana_jax.data.tokens import training
from kanana_jax.data.tokens.chat import encode_chat
from kanana_jax.errors import UserError

TURNS = [
    {"role": "system", "content": "짧게 답한다."},
    {"role": "user", "content": "3 더하기 4는?"},
    {"role": "assistant", "content": "7이다."},
    {"role": "user", "content": "And in English?"},
    {"role": "assistant", "content": "Seven."},
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    texts = {
        "ko": [
            document["text"] for document in microworld.documents(microworld.World.create(0, 100), "news", "ko", 200)
        ]
    }
    config = training.TokenizerConfig(vocab_size=700, train_bytes=20_000)
    return training.train_tokenizer(texts, config, tmp_path_factory.mktemp("tokenizer"))


def test_only_what_the_assistant_says_carries_loss(tokenizer):
    (example,) = ConversationEncoder(tokenizer)({"id": "1", "messages": TURNS})
    assert example.weights is not None
    eot = tokenizer.token_id("<|eot_id|>")
    said = np.split(example.tokens[example.weights > 0], np.flatnonzero(example.tokens[example.weights > 0] == eot) + 1)
    assert [tokenizer.decode(part) for part in said if len(part)] == ["7이다.", "Seven."]
    assert sum(example.tokens == eot) == len(TURNS) and example.tokens[0] == tokenizer.bos_id
    # What is trained on begins as what a model is asked with.
    prompt = encode_chat(tokenizer, TURNS[:2])
    np.testing.assert_array_equal(example.tokens[: len(prompt)], prompt)
    assert not example.weights[: len(prompt)].any() and example.weights[len(prompt)] == 1


def test_a_text_is_no_conversation(tokenizer):
    with pytest.raises(UserError, match="record 'a:1' has no 'messages'"):
        ConversationEncoder(tokenizer)({"id": "a:1", "text": "x"})
    (example,) = TextEncoder(tokenizer)({"id": "1", "text": "Seven."})
    assert example.weights is None and example.tokens[0] == tokenizer.bos_id and example.tokens[-1] == tokenizer.eos_id


def test_a_prompt_fills_its_row_with_what_judges_its_answers(tokenizer):
    encode = PromptEncoder(tokenizer, 160, 120)
    records = [
        {
            "id": f"한:{i}",
            "lang": "ko",
            "prompt": TURNS[:2],
            "answer": {"n": i * 1000, "글": "가"},
            "verifier": "length",
        }
        for i in range(3)
    ]
    rows = packing.pack([encode(record) for record in records], 160, whole=True)
    assert rows.inputs.shape == (3, 160) and not rows.weights.any()
    for record, *row in zip(records, rows.inputs, rows.targets, rows.segment_ids):
        ids, fields = fields_of(*row)
        np.testing.assert_array_equal(ids, encode_chat(tokenizer, TURNS[:2]))
        assert fields == {key: record[key] for key in ("id", "lang", "answer", "verifier")} | {
            "text": TURNS[1]["content"]
        }
    asked = {"id": "1", "prompt": TURNS[:2]}
    assert PromptEncoder(tokenizer, 160, 5)(asked) == Refused("prompt_longer_than_row")
    assert encode(asked | {"answer": "긴" * 300}) == Refused("answer_longer_than_row")
    long = [{"role": "user", "content": "말" * 60 + " 끝?"}]
    count = len(encode_chat(tokenizer, long))
    examples = PromptEncoder(tokenizer, count + 30, count)({"id": "1" * 30, "prompt": long})
    (row,) = zip(*packing.pack([examples], count + 30, whole=True)[:3])
    shown = fields_of(*row)[1]["text"]  # as much of its end as there is room for
    assert long[0]["content"].endswith(shown) and 3 < len(shown) < 60
    with pytest.raises(UserError, match="record 'a:1' has no 'prompt', which a stage that trains on prompts needs"):
        encode({"id": "a:1", "text": "x"})


def _answer(text):
    return [{"role": "assistant", "content": text}]


def test_a_pair_weighs_its_answers_alone(tokenizer):
    prompt = TURNS[:4]  # with an answer of an earlier turn, which belongs to the prompt
    record = {"id": "1", "prompt": prompt, "chosen": _answer("Seven."), "rejected": _answer("It is eight.")}
    examples = PairEncoder(tokenizer, 512)(record)
    asked = encode_chat(tokenizer, prompt)
    assert len(examples) == 2
    for example, text in zip(examples, ("Seven.", "It is eight.")):
        np.testing.assert_array_equal(example.tokens[: len(asked)], asked)
        assert not example.weights[: len(asked)].any()
        assert tokenizer.decode(example.tokens[example.weights > 0]) == text
    rows = packing.pack([examples] * 3, 512, whole=True)
    assert rows.segment_ids.max() == 4  # odd: chosen, even: rejected
    length = [len(example.tokens) for example in examples]
    assert [int((rows.segment_ids[0] == i).sum()) for i in (1, 2, 3, 4)] == length * 2


REFUSED = [
    (dict(chosen=_answer("Yes."), rejected=_answer("Yes.")), 512, "identical_answers"),
    (dict(chosen=_answer("Yes."), rejected=_answer(" ")), 512, "empty_answer"),
    (dict(chosen=_answer("Yes."), rejected=_answer("No. " * 90)), 60, "pair_longer_than_row"),
    (dict(chosen=[{"role": "user", "content": "Yes."}], rejected=_answer("No.")), 512, "no_answer"),
]


@pytest.mark.parametrize("answers, seq_len, reason", REFUSED, ids=[reason for *_, reason in REFUSED])
def test_pairs_that_teach_nothing_are_refused_with_a_reason(tokenizer, answers, seq_len, reason):
    record = {"id": "1", "prompt": TURNS[:2], **answers}
    assert PairEncoder(tokenizer, seq_len)(record) == Refused(reason)


def test_conversations_without_an_answer_in_the_row_are_refused(tokenizer):
    encode = ConversationEncoder(tokenizer, 40)
    assert encode({"id": "1", "messages": TURNS[:2]}) == Refused("no_answer")
    long = [{"role": "user", "content": "3 더하기 4는? " * 20}, TURNS[2]]
    assert encode({"id": "1", "messages": long}) == Refused("prompt_longer_than_row")
    assert not isinstance(ConversationEncoder(tokenizer)({"id": "1", "messages": long}), Refused)
    with pytest.raises(UserError, match="record '7' has no 'prompt', which a stage that trains on preference pairs"):
        PairEncoder(tokenizer, 40)({"id": "7", "text": "x"})


def test_conversations_are_read_with_a_text_of_their_own(tmp_path):
    path = tmp_path / "chat.jsonl"
    bad = ([], [{"role": "user"}], [{"role": "user", "content": 3}], "hello", ["hello"])
    lines = [{"messages": TURNS, "tools": [{"name": "f"}], "topic": "sums"}, *({"messages": m} for m in bad)]
    path.write_text("\n".join(json.dumps(line) for line in lines))
    good, *others = records.read(str(path), source="chat")
    assert isinstance(good, dict) and good["messages"] == TURNS and good["tools"] == [{"name": "f"}]
    assert good["text"].split("\n\n") == [turn["content"] for turn in TURNS] and good["meta"] == {"topic": "sums"}
    assert len(others) == len(bad) and all(isinstance(item, Broken) for item in others)
    path.write_text(json.dumps({"text": "A saw.", "tools": ["saw"]}))
    (text,) = records.read(str(path), source="chat")
    assert isinstance(text, dict) and text["meta"] == {"tools": ["saw"]}


# Records of one to three sequences, with weights in tenths.
_sequence = st.lists(st.tuples(st.integers(3, 50), st.integers(0, 10)), min_size=2, max_size=9)
_records = st.lists(st.lists(_sequence, min_size=1, max_size=3), min_size=1, max_size=12)


def _examples(record):
    return [
        Example(np.array([t for t, _ in sequence], np.int32), np.array([w / 10 for _, w in sequence], np.float32))
        for sequence in record
    ]


@given(_records, st.integers(4, 30))
@settings(max_examples=200, deadline=None)
def test_whole_records_stay_together_with_their_weights(made, T):
    made = [record for record in made if sum(map(len, record)) <= T + 1]  # a longer one is cut at its row's end
    rows = packing.pack([_examples(record) for record in made], T, whole=True)
    found = []
    for inputs, targets, segments, weights in zip(rows.inputs, rows.targets, rows.segment_ids, rows.weights):
        for segment in range(1, segments.max() + 1):
            at = np.flatnonzero(segments == segment)
            assert (targets[at[:-1]] == inputs[at[1:]]).all()
            found.append((inputs[at].tolist(), weights[at]))
    want = [sequence for record in made for sequence in record]
    assert len(found) == len(want)
    for (inputs, weights), sequence in zip(found, want):
        tokens, values = zip(*sequence)
        # The last token of a full row is a target alone.
        assert inputs in (list(tokens), list(tokens[:-1]))
        np.testing.assert_allclose(weights[: len(tokens) - 1], np.array(values[1:]) / 10, atol=1e-6)
        assert not weights[len(tokens) - 1 :].any()


@pytest.mark.parametrize("records_stay_whole", [True, False])
@given(made=_records, T=st.integers(4, 30), stop=st.integers(0, 20))
@settings(max_examples=200, deadline=None)
def test_a_packer_resumes_after_any_row(records_stay_whole, made, T, stop):
    def rows_of(start, offset=0):
        packer = packing.Packer(T, whole=records_stay_whole)
        for key in range(start, len(made)):
            packer.add(key, _examples(made[key]), offset if key == start else 0)
            while packer.ready():
                yield packer.take(), packer.position(), packer.taken

    whole = list(rows_of(0))
    if not whole:
        return
    stop = min(stop, len(whole) - 1)
    position = whole[stop][1]
    assert position is not None and (position[1] == 0 or not records_stay_whole)
    again, rest = list(rows_of(*position)), whole[stop + 1 :]
    assert len(again) == len(rest)
    for (a, _, taken), (b, _, wanted) in zip(again, rest):
        assert taken == wanted
        for x, y in zip(a, b):
            np.testing.assert_array_equal(x, y)


def test_a_batchs_shapes_are_what_a_packer_gives():
    rows = packing.pack([[Example(np.arange(9, dtype=np.int32))]] * 4, 8)
    for ours, theirs in zip(packing.shapes(*rows.inputs.shape), rows):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype and ours.strides == (0,) * ours.ndim
