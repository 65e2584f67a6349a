"""Calls read from what a model wrote, right and broken, and messages with calls in a chat template."""

import pytest

from kanana_jax.data.tokens import calls
from kanana_jax.data.tokens.calls import Call, Reply
from kanana_jax.errors import UserError

TOOLS = {"f": {"properties": {"n": {"type": "integer"}, "s": {"type": "string"}}}, "g": {}}
ONE = '<tool_call>\n{"name": "f", "arguments": {"n": 1}}\n</tool_call>'


@pytest.mark.parametrize(
    "form, text, expected",
    [
        ("hermes", "안녕", Reply("안녕")),
        ("hermes", f"볼게요.\n{ONE}\n{ONE}", Reply("볼게요.", (Call("f", {"n": 1}),) * 2)),
        ("hermes", '<tool_call>{"name": "f", "arguments": "{\\"n\\": 1}"}', Reply("", (Call("f", {"n": 1}),))),
        (
            "hermes",
            '<tool_call>{"name": "f", "arguments": {"n":',
            Reply("", (), ('<tool_call>{"name": "f", "arguments": {"n":',)),
        ),
        (
            "hermes",
            '<tool_call>{"name": "h", "arguments": {}}',
            Reply("", (), ('<tool_call>{"name": "h", "arguments": {}}',)),
        ),
        (
            "hermes",
            '<tool_call>{"name": "f", "arguments": {"n": NaN}}',
            Reply("", (), ('<tool_call>{"name": "f", "arguments": {"n": NaN}}',)),
        ),
        (
            "hermes",
            '<tool_call>{"name": "f", "arguments": {"s": "\\ud800"}}',
            Reply("", (), ('<tool_call>{"name": "f", "arguments": {"s": "\\ud800"}}',)),
        ),
        ("llama3", ' {"name": "f", "parameters": {"n": 1}}', Reply("", (Call("f", {"n": 1}),))),
        ("llama3", '<|python_tag|>{"name": "g", "parameters": {}}', Reply("", (Call("g", {}),))),
        ("llama3", '{"n": 1}', Reply('{"n": 1}')),
        ("llama3", '{"name": "f", "parameters": {}}; {"name"', Reply("", (Call("f", {}),), ('{"name"',))),
        (
            "qwen-xml",
            "<tool_call>\n<function=f>\n<parameter=n>\n1\n</parameter>\n<parameter=s>\n1\n2\n</parameter>\n</function>\n</tool_call>",
            Reply("", (Call("f", {"n": 1, "s": "1\n2"}),)),
        ),
        (
            "qwen-xml",
            "<tool_call>\n<function=f>\n<parameter=n>\none\n</parameter>\n</function>\n</tool_call>",
            Reply("", (), ("<tool_call>\n<function=f>\n<parameter=n>\none\n</parameter>\n</function>\n</tool_call>",)),
        ),
    ],
)
def test_what_a_model_wrote_is_read(form, text, expected):
    assert calls.read(text, form, TOOLS) == expected


@pytest.mark.parametrize("form", ["hermes", "llama3", "qwen-xml"])
@pytest.mark.parametrize(
    "text", ["{" * 5000, "<tool_call>" * 500, "[" * 9999, '<tool_call>{"name": ' + "[" * 9999, "<|python_tag|>"]
)
def test_text_made_to_break_readers_gives_no_call(form, text):
    assert calls.read(text, form, TOOLS).calls == ()


def test_text_is_shown_up_to_what_may_be_a_call():
    assert [calls.begins(text, "hermes") for text in ("", "ab", "ab <tool", "ab\n<tool_call>x", "a < b")] == [
        0,
        2,
        2,
        2,
        5,
    ]
    assert [calls.begins(text, "llama3") for text in ("", " {", "<|py", "ab {")] == [0, 0, 0, 4]


def test_arguments_reach_a_template_as_an_object():
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"s": "서울"}'}}
    found = calls.for_template({"role": "assistant", "tool_calls": [call]})
    assert found["tool_calls"][0]["function"]["arguments"] == {"s": "서울"} and call["function"]["arguments"][0] == "{"
    broken = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}
    assert calls.for_template(broken) == broken


@pytest.mark.parametrize(
    "tool",
    [
        {},
        {"type": "web"},
        {"function": {}},
        {"function": {"name": 'a"b'}},
        {"function": {"name": "f", "parameters": 1}},
    ],
)
def test_a_tool_that_is_none_is_refused(tool):
    with pytest.raises(UserError, match=r"tools\[0\]"):
        calls.schemas([tool])
