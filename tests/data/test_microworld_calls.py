"""Conversations with calls: every call fits its function, and every value in it was said."""

import json

import pytest

from kanana_jax.data import microworld
from kanana_jax.data.microworld import calls as made
from kanana_jax.data.tokens import byte_level, calls, chat
from kanana_jax.data.tokens.tokenizer import load_tokenizer

jsonschema = pytest.importorskip("jsonschema")
WORLD = microworld.World.create(0, 100)


@pytest.mark.parametrize("lang", made.LANGUAGES)
@pytest.mark.parametrize("kind", made.KINDS)
def test_calls_fit_and_their_values_were_said(kind, lang):
    for record in microworld.documents(WORLD, kind, lang, 40):
        schemas, said = calls.schemas(record["tools"]), ""
        for turn in record["messages"]:
            assert "{" not in (turn["content"] or "") or turn["role"] == "tool"
            assert "<" not in (turn["content"] or "")
            said += (turn["content"] or "") + "\n"
            for call in turn.get("tool_calls", ()):
                arguments = json.loads(call["function"]["arguments"])
                jsonschema.validate(arguments, schemas[call["function"]["name"]])
                assert all(str(value) in said for value in arguments.values())
        assert record == microworld.document(WORLD, kind, lang, int(record["id"].rpartition("/")[2]))


def test_a_model_learns_what_is_read_as_calls(tmp_path):
    records = [r for lang in made.LANGUAGES for r in microworld.documents(WORLD, "calls-parallel", lang, 5)]
    for name, data in byte_level.train([record["text"] for record in records], 300).items():
        (tmp_path / name).write_bytes(data)
    tokenizer = load_tokenizer(tmp_path)
    form = calls.format_of(tokenizer.chat.template(True))
    for record in records:
        ((ids, weights),) = chat.encode_answers(tokenizer, record["messages"], record["tools"])
        learnt = calls.read(tokenizer.decode(ids[weights > 0]), form, calls.schemas(record["tools"]))
        expected = [call["function"] for call in record["messages"][-1]["tool_calls"]]
        assert [(c.name, c.arguments) for c in learnt.calls] == [
            (c["name"], json.loads(c["arguments"])) for c in expected
        ]
        assert not learnt.broken and not learnt.content
