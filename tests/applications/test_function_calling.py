"""Calls under a grammar: every one that is written fits its schema, in each format, whatever a model would rather say."""

import json

import call_fuzz
import hypothesis
import jsonschema
import numpy as np
import pytest

from kanana_jax.applications import call_grammar
from kanana_jax.data.tokens import byte_level, calls
from kanana_jax.data.tokens.tokenizer import load_tokenizer
from kanana_jax.errors import UserError

pytest.importorskip("llguidance")
from kanana_jax.inference.constrained import Constraint, Vocabulary, followed  # noqa: E402

FORMS = ("hermes", "llama3", "qwen-xml")
BEGIN = np.asarray([1], np.int32)
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    text = '가람시의 도서관 <tool_call>\n{"name": "get", "arguments": {"city": "서울"}}\n</tool_call> <think> </think>'
    for name, data in byte_level.train([text] * 4, 300).items():
        (folder / name).write_bytes(data)
    tokenizer = load_tokenizer(folder)
    return Vocabulary.of(tokenizer, tokenizer.end_ids)


def _grammar(form, schema, name="get", **how):
    return call_grammar.grammar(form, {name: schema}, [], **{"required": True, "parallel": False, **how})


def _take(vocabulary, constraint, text):
    """Whether a text may be written, token by token."""
    words = np.zeros(-(-vocabulary.size // 32), np.int32)
    for token in vocabulary.tokenizer.encode(text).tolist():
        constraint.allowed(words)
        if constraint.error or not words.view(np.uint32)[token // 32] >> (token % 32) & 1:
            return False
        constraint.take(token)
    return True


def _may_end(vocabulary, constraint):
    words = np.zeros(-(-vocabulary.size // 32), np.int32)
    constraint.allowed(words)
    return any(words.view(np.uint32)[end // 32] >> (end % 32) & 1 for end in vocabulary.ends)


@pytest.mark.parametrize("form", FORMS)
@hypothesis.given(schema=call_fuzz.SCHEMAS, seed=hypothesis.strategies.integers(0, 2**32 - 1))
@hypothesis.settings(max_examples=8, deadline=None, derandomize=True, database=None)
def test_whatever_is_drawn_fits_the_schema(vocabulary, form, schema, seed):
    try:
        grammar = _grammar(form, schema)
    except UserError as error:
        # Text with rules of its own is not for XML, which writes it without quotes.
        assert form == "qwen-xml" and any(f"'{key}'" in str(error) for key in call_grammar._OF_TEXT)
        return
    ids = call_fuzz.write(Constraint(vocabulary, grammar, BEGIN), vocabulary, seed)
    assert ids is not None
    reply = calls.read(vocabulary.tokenizer.decode(ids), form, {"get": schema})
    assert len(reply.calls) == 1 and not reply.broken and not reply.content
    jsonschema.validate(dict(reply.calls[0].arguments), schema)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "value", ["서울", "\u1109\u1165\u110b\u116e\u11af", "👩‍👩‍👧 ok", '"quoted" \\ /', "a</tool_call>b{"]
)
def test_any_text_can_be_an_argument(vocabulary, form, value):
    written = {
        "hermes": '<tool_call>\n{"name": "get", "arguments": %s}\n</tool_call>',
        "llama3": '{"name": "get", "parameters": %s}',
        "qwen-xml": "<tool_call>\n<function=get>\n<parameter=city>\n%s\n</parameter>\n</function>\n</tool_call>",
    }[form]
    text = written % (value if form == "qwen-xml" else json.dumps({"city": value}, ensure_ascii=False))
    constraint = Constraint(vocabulary, _grammar(form, CITY), BEGIN)
    assert _take(vocabulary, constraint, text) and _may_end(vocabulary, constraint)
    assert calls.read(text, form, {"get": CITY}) == calls.Reply("", (calls.Call("get", {"city": value}),))


@pytest.mark.parametrize("form", FORMS)
def test_text_alone_and_several_calls_are_turns_too(vocabulary, form):
    how = dict(required=False, parallel=True)
    said = Constraint(vocabulary, _grammar(form, CITY, **how), BEGIN)
    assert _take(vocabulary, said, "어느 도시인가요?") and _may_end(vocabulary, said)
    required = Constraint(vocabulary, _grammar(form, CITY), BEGIN)
    assert not _take(vocabulary, required, "어느 도시인가요?")
    one, between = {
        "hermes": ('<tool_call>\n{"name": "get", "arguments": {"city": "x"}}\n</tool_call>', "\n"),
        "llama3": ('{"name": "get", "parameters": {"city": "x"}}', "; "),
        "qwen-xml": (
            "<tool_call>\n<function=get>\n<parameter=city>\nx\n</parameter>\n</function>\n</tool_call>",
            "\n",
        ),
    }[form]
    for parallel in (True, False):
        constraint = Constraint(vocabulary, _grammar(form, CITY, required=False, parallel=parallel), BEGIN)
        assert _take(vocabulary, constraint, one + between + one) == parallel
    assert len(calls.read(one + between + one, form, {"get": CITY}).calls) == 2
    other = Constraint(vocabulary, _grammar(form, CITY, **how), BEGIN)
    assert not _take(vocabulary, other, one.replace("get", "put"))


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("required", [True, False])
def test_marks_that_are_tokens_of_their_own(vocabulary, tmp_path, special, required):
    """As `<tool_call>` is one in Qwen's vocabularies, where it is no special token, and text in others."""
    vocabulary.tokenizer.save(tmp_path)
    file = tmp_path / "tokenizer.json"
    told = json.loads(file.read_text(encoding="utf-8"))
    for index, mark in enumerate((calls.OPEN, calls.CLOSE), vocabulary.size):
        told["added_tokens"].append({**told["added_tokens"][0], "id": index, "content": mark, "special": special})
    file.write_text(json.dumps(told), encoding="utf-8")
    tokenizer = load_tokenizer(tmp_path)
    added = Vocabulary.of(tokenizer, tokenizer.end_ids)
    symbols = added.symbols(calls.MARKS)
    assert symbols == [calls.OPEN, calls.CLOSE] and not vocabulary.symbols(calls.MARKS)
    how = dict(required=required, parallel=True)
    constraint = Constraint(added, call_grammar.grammar("hermes", {"get": CITY}, symbols, **how), BEGIN)
    words = np.zeros(-(-added.size // 32), np.int32)
    one = '<tool_call>\n{"name": "get", "arguments": {"city": "서울"}}\n</tool_call>'
    ids = tokenizer.encode_with_symbols(f"{one}\n{one}").tolist()
    assert ids.count(vocabulary.size) == 2
    for token in ids:
        constraint.allowed(words)
        assert words.view(np.uint32)[token // 32] >> (token % 32) & 1 and not constraint.error
        constraint.take(token)
    assert _may_end(added, constraint) and not constraint.error


def test_blanks_have_no_loop_and_extra_keys_no_place(vocabulary):
    for text in ('{"name": "get", "parameters": { ', '{"name": "get", "parameters": {"town"', '{"name":  '):
        assert not _take(vocabulary, Constraint(vocabulary, _grammar("llama3", CITY), BEGIN), text)


def test_thinking_is_free_and_the_grammar_begins_behind_it(vocabulary):
    free = '<think>{"name": <tool_call> anything </think>'
    constraint = Constraint(vocabulary, _grammar("hermes", CITY, required=False), BEGIN)
    assert _take(vocabulary, constraint, free + '<tool_call>\n{"name": "get", "arguments": {"city": "')
    assert not _take(vocabulary, constraint, '", "town')
    opened = np.asarray([1, *vocabulary.tokenizer.encode("<think>")], np.int32)
    constraint = Constraint(vocabulary, _grammar("hermes", CITY), opened)
    assert _take(vocabulary, constraint, "any") and not _may_end(vocabulary, constraint)
    assert _take(vocabulary, constraint, "thing</think>") and not _take(vocabulary, constraint, "anything")


def test_one_token_may_close_the_thinking_and_begin_the_call(tmp_path):
    files = byte_level.train(['a</think><tool_call>\n{"name": "get", "arguments": {"city": "x"}}'] * 4, 300)
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    tokenizer = load_tokenizer(tmp_path)
    vocabulary = Vocabulary.of(tokenizer, tokenizer.end_ids)
    assert any("><" in tokenizer.decode([i]) for i in tokenizer.encode("</think><tool_call>"))
    opened = np.asarray([1, *tokenizer.encode("<think>")], np.int32)
    for prompt, begin, required in ((opened, "", True), (BEGIN, "<think>", False)):
        constraint = Constraint(vocabulary, _grammar("hermes", CITY, required=required), prompt)
        assert _take(vocabulary, constraint, begin + 'a</think><tool_call>\n{"name": "get", "arguments": {"city": "')
        assert not _take(vocabulary, constraint, '", "town')
    # Where the call begins otherwise, the token is not to be drawn there, but elsewhere.
    constraint = Constraint(vocabulary, _grammar("llama3", CITY), opened)
    assert _take(vocabulary, constraint, "a><a") and not _take(vocabulary, constraint, "</think><tool_call>")
    assert not constraint.error and _take(vocabulary, constraint, "</think>")


def test_the_words_of_a_batch_are_those_of_its_rows(vocabulary):
    rows = [Constraint(vocabulary, _grammar("llama3", CITY), BEGIN), None]
    allowed = followed(rows, vocabulary.size)
    words = allowed(None)
    first = int(vocabulary.tokenizer.encode('{"name": "')[0])
    assert words.shape == (2, -(-vocabulary.size // 32)) and (words[1] == -1).all()
    bits = np.unpackbits(words[0].view(np.uint8), bitorder="little")
    may = set(np.flatnonzero(bits).tolist())
    starts = {i for i in range(vocabulary.size) if '{"name": '.startswith(vocabulary.tokenizer.decode([i]) or "\0")}
    assert first in may and may <= starts
    assert (allowed(np.asarray([-1, -1], np.int32)) == -1).all()


@pytest.mark.parametrize(
    "schema, told",
    [
        ({"properties": {"a": {"not": {}}}}, "'not' (properties/a)"),
        ({"patternProperties": {"^a": {}}}, "'patternProperties'"),
        ({"properties": {"a": {"type": "array", "uniqueItems": True}}}, "'uniqueItems'"),
        ({"properties": {"a": {"$ref": "#/properties/a"}}, "required": ["a"]}, "'$ref'"),
        ({"properties": {"a": {"$ref": "#"}}, "required": ["a"]}, "'$ref'"),
        ({"properties": {"a": {"$ref": "https://example.org/s"}}}, "example.org"),
        ({"properties": {"a": {"$ref": "#/$defs/none"}}}, "/$defs/none"),
        ({"properties": {"a": {"type": "string", "format": "korean"}}}, "korean"),
        ({"properties": {"a": {"type": "string", "pattern": "(?=a)"}}}, "look-around"),
        ({"properties": {"a": {"enum": []}}, "required": ["a"]}, "Unsatisfiable"),
        ({"type": "string"}, "'object'"),
        ({"properties": {"a": 1}}, "properties/a"),
        ({"required": 1}, "required must be a list"),
    ],
)
def test_a_schema_that_cannot_be_guaranteed_is_refused_by_its_keyword(schema, told):
    with pytest.raises(UserError) as refused:
        call_grammar.checked("get", schema)
    assert told in str(refused.value) and "'get'" in str(refused.value)


@pytest.mark.parametrize(
    "schema, told",
    [
        ({"anyOf": [{"required": ["a"]}, {}]}, "'anyOf' (of all parameters"),
        ({"minProperties": 1}, "'minProperties' (of all parameters"),
        ({"additionalProperties": True, "required": ["b"]}, "'required' ('b'"),
        ({"properties": {"a": {"type": "string", "pattern": "^x$"}}}, "'pattern' (properties/a"),
        ({"properties": {"a": {"enum": ["x", "\n</parameter>\n"]}}}, "'enum' (properties/a"),
        ({"properties": {"a": {"type": "object", "properties": {"b": {"$ref": "#"}}}}}, "'$ref' ('#'"),
        ({"properties": {"a>": {"type": "string"}}}, "'a>' cannot be written"),
    ],
)
def test_what_only_json_can_guarantee_is_refused_in_xml(schema, told):
    _grammar("hermes", {"properties": {"a": {"type": "string"}}, **schema})
    with pytest.raises(UserError) as refused:
        _grammar("qwen-xml", {"properties": {"a": {"type": "string"}}, **schema})
    assert told in str(refused.value)


def test_a_property_may_be_named_as_a_keyword():
    closed = call_grammar.checked("get", {"properties": {"not": {"type": "string"}, "title": {"type": "integer"}}})
    assert set(closed["properties"]) == {"not", "title"} and closed["additionalProperties"] is False
