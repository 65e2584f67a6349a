"""Sets of function calls: read as they are published, and replies judged by the rules of each."""

import json

import pytest

from kanana_jax.data.tokens.calls import Call, Reply
from kanana_jax.errors import ConfigError, UserError
from kanana_jax.evaluation import function_calls

TOOL = {"type": "function", "function": {"name": "pay", "parameters": {"type": "object", "properties": {}}}}


def _write(folder, name, *rows):
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")


@pytest.fixture
def chat(tmp_path):
    called = {"tool_calls": [{"function": {"name": "pay", "arguments": '{"to": "김 민수", "won": 3000}'}}]}
    turns = [
        {"serial_num": 1, "query": [], "ground_truth": {"content": "누구에게요?"}, "type_of_output": "slot"},
        {"serial_num": 2, "query": [], "ground_truth": called, "type_of_output": "call"},
    ]
    accepted = (None, '{"to": ["민수"], "won": 3000.0, "note": null}')
    turns = [{**turn, "acceptable_arguments": more} for turn, more in zip(turns, accepted)]
    _write(tmp_path, "dialog.jsonl", {"tools": [TOOL], "turns": turns})
    return function_calls.items("functionchat_dialog", tmp_path)


def _reply(**arguments):
    return Reply("", (Call("pay", arguments),))


@pytest.mark.parametrize(
    "reply, right",
    [
        (_reply(to="김민수", won=3000), True),
        (_reply(to="민수", won=3000.0, note="hi"), False),
        (_reply(to="민수", won=3001), False),
        (_reply(to="민수", won="3000"), False),
        (_reply(to="민수"), False),
        (_reply(to="민수", won=3000, more=1), False),
        (Reply("", (Call("send", {"to": "민수", "won": 3000}),)), False),
        (Reply("", _reply(to="민수", won=3000).calls * 2), False),
        (Reply("", _reply(to="민수", won=3000).calls, ("{",)), False),
        (Reply("네"), False),
    ],
)
def test_a_call_of_functionchat(chat, reply, right):
    assert function_calls.is_right(chat[1], reply) == right


def test_a_turn_that_asks_back_makes_no_call(chat):
    said = [Reply("누구에게요?"), Reply(""), _reply(to="민수")]
    assert [function_calls.is_right(chat[0], each) for each in said] == [True, False, False]


@pytest.fixture
def bfcl(tmp_path):
    schema = {"type": "dict", "properties": {"x": {"type": "float"}, "t": {"type": "tuple", "items": {"type": "any"}}}}
    function = {"name": "pay", "parameters": schema}
    _write(tmp_path, "BFCL_v4_parallel.json", {"id": "p", "question": [[{"role": "user"}]], "function": [function]})
    truth = [
        {"pay": {"x": [1.0], "t": [["New York", 2]], "o": [{"k": ["a", "b"], "l": [""]}, ""]}},
        {"pay": {"x": [1.0, 2.0], "t": [[], ""], "o": [""]}},
    ]
    _write(tmp_path, "possible_answer/BFCL_v4_parallel.json", {"id": "p", "ground_truth": truth})
    (item,) = function_calls.items("bfcl_parallel", tmp_path)
    return item


@pytest.mark.parametrize(
    "first, second, right",
    [
        ({"x": 1, "t": ["new york", 2], "o": {"k": "B"}}, {"x": 2}, True),
        ({"x": 2}, {"x": 1, "t": ["New-York", 2]}, True),
        ({"x": 1}, {"x": 1, "t": ["New York", 2]}, True),
        ({"x": 1}, {"x": 1}, False),
        ({"x": 2}, {"x": 1, "t": ["New York", 2], "o": {"k": "c"}}, False),
        ({"x": 2}, {"x": 1, "t": ["New York", 2], "o": {"k": "a", "z": 1}}, False),
        ({"x": 2}, {"x": True, "t": ["New York", 2]}, False),
    ],
)
def test_calls_of_bfcl_in_any_order(bfcl, first, second, right):
    reply = Reply("", (Call("pay", first), Call("pay", second)))
    assert function_calls.is_right(bfcl, reply) == right
    assert bfcl.tools[0]["function"]["parameters"]["properties"] == {
        "x": {"type": "number"},
        "t": {"type": "array", "items": {}},
    }


def test_sets_that_are_not_there_are_told(tmp_path):
    with pytest.raises(ConfigError, match="bfcl_multiple"):
        function_calls.items("bfcl_multipel", tmp_path)
    with pytest.raises(UserError, match="has no singlecall.jsonl"):
        function_calls.items("functionchat_singlecall", tmp_path)
    _write(tmp_path, "singlecall.jsonl", {"query": 1})
    with pytest.raises(UserError, match="not as published"):
        function_calls.items("functionchat_singlecall", tmp_path)


def test_scores_are_means_by_kind(chat):
    found = function_calls.summary([(chat[0], Reply("네?")), (chat[1], Reply("네?")), (chat[1], Reply("", (), ("{",)))])
    assert found["dialog"]["accuracy"] == pytest.approx(1 / 3) and found["dialog"]["n"] == 3
    assert found["dialog/slot"]["accuracy"] == 1
    prompts = found["dialog/call"].pop("prompts")
    assert found["dialog/call"] == {"accuracy": 0, "accuracy_stderr": 0, "broken": 1, "cut": 0, "refused": 0, "n": 2}
    unasked = function_calls.summary([(chat[0], Reply("네?")), (chat[1], None)])["dialog"]
    assert (unasked["accuracy"], unasked["broken"], unasked["refused"]) == (0.5, 0, 1)
    cut = function_calls.summary([(chat[1], Reply("", (), ("{",), cut=True)), (chat[0], Reply("네", cut=True))])["dialog"]
    assert (cut["accuracy"], cut["broken"], cut["cut"]) == (0.5, 0, 1)
    # The hash is of what was asked, not of what was said.
    again = function_calls.summary([(chat[1], _reply())] * 2)["dialog/call"]["prompts"]
    assert prompts == again != found["dialog/slot"]["prompts"]
