"""Published forms of conversations and pairs become one form; what is broken is named by its field."""

import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kanana_jax.data.read import record


def _normalised(raw, text_field="text"):
    return record.normalise(copy.deepcopy(raw), text_field=text_field, source="s", lang="ko", default_id="d")


def _user(text):
    return {"role": "user", "content": text}


def _assistant(text):
    return {"role": "assistant", "content": text}


SYSTEM = {"role": "system", "content": "짧게."}
CALL = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
HH = "\n\nHuman: 3+4?\n\nAssistant: 7\n\nHuman: sure?\n\nAssistant: "
MESSAGES = [
    ({"messages": [_user("a"), _assistant("b")]}, [_user("a"), _assistant("b")]),
    (
        {"messages": [_user("a"), CALL, {"role": "tool", "content": "3"}]},
        [_user("a"), CALL, {"role": "tool", "content": "3"}],
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]},
        [_user("ab")],
    ),
    (
        {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "system": "짧게."},
        [SYSTEM, _user("a"), _assistant("b")],
    ),
    (
        {"conversations": [{"from": "system", "value": "짧게."}, {"from": "human", "value": "a"}], "system": "long"},
        [SYSTEM, _user("a")],
    ),
    ({"conversations": [_user("a"), _assistant("b")]}, [_user("a"), _assistant("b")]),
    ({"instruction": "번역하라", "input": "dog", "output": "개"}, [_user("번역하라\ndog"), _assistant("개")]),
    (
        {"instruction": "c", "input": "", "output": "d", "history": [["a", "b"]]},
        [_user("a"), _assistant("b"), _user("c"), _assistant("d")],
    ),
    ({"prompt": "a", "completion": "b"}, [_user("a"), _assistant("b")]),
    ({"prompt": [SYSTEM, _user("a")], "completion": [_assistant("b")]}, [SYSTEM, _user("a"), _assistant("b")]),
]


@pytest.mark.parametrize("raw, messages", MESSAGES)
def test_conversations(raw, messages):
    found = _normalised({**raw, "topic": "x"})
    assert found["messages"] == messages and found["meta"] == {"topic": "x"}
    assert found["text"] == "\n\n".join(turn["content"] for turn in messages if turn["content"])
    assert _normalised(found) == found


FUNCTIONS = [{"type": "function", "function": {"name": "f"}}]


@pytest.mark.parametrize(
    "tools, expected",
    [
        (FUNCTIONS, FUNCTIONS),
        ('[{"type": "function", "function": {"name": "f"}}]', FUNCTIONS),  # as columns of tables hold it
        (['{"type": "function", "function": {"name": "f"}}'], FUNCTIONS),
        ("[]", None),
        ("null", None),
    ],
)
def test_functions_as_tables_hold_them(tools, expected):
    found = _normalised({"messages": [_user("a"), _assistant("b")], "tools": tools})
    assert found.get("tools") == expected and "meta" not in found and _normalised(found) == found


@pytest.mark.parametrize(
    "calls, expected",
    [
        ([{"function": {"name": "f", "arguments": {"n": 1}}}], [{"function": {"name": "f", "arguments": {"n": 1}}}]),
        ([{"name": "f", "arguments": '{"n": 1}'}], [{"name": "f", "arguments": '{"n": 1}'}]),
        ([{"function": {"name": "f"}}], [{"function": {"name": "f", "arguments": {}}}]),
        ('[{"function": {"name": "f", "arguments": null}}]', [{"function": {"name": "f", "arguments": {}}}]),
    ],
)
def test_calls_are_what_a_template_can_write(calls, expected):
    found = _normalised({"messages": [_user("a"), {"role": "assistant", "content": None, "tool_calls": calls}]})
    assert found["messages"][1]["tool_calls"] == expected and _normalised(found) == found


PAIR = {"prompt": [_user("a")], "chosen": [_assistant("b")], "rejected": [_assistant("c")]}
PAIRS = [
    ({"prompt": "a", "chosen": "b", "rejected": "c"}, PAIR),
    (PAIR, PAIR),
    ({"prompt": "a", "chosen": [_user("a"), _assistant("b")], "rejected": [_user("a"), _assistant("c")]}, PAIR),
    ({"chosen": [_user("a"), _assistant("b")], "rejected": [_user("a"), _assistant("c")]}, PAIR),
    (
        {"chosen": [_user("a"), _assistant("b")], "rejected": [_user("a"), _assistant("b")]},
        PAIR | {"rejected": PAIR["chosen"]},
    ),
    (
        {"chosen": HH + "yes, 7", "rejected": HH + "no"},
        {
            "prompt": [_user("3+4?"), _assistant("7"), _user("sure?")],
            "chosen": [_assistant("yes, 7")],
            "rejected": [_assistant("no")],
        },
    ),
]


@pytest.mark.parametrize("raw, pair", PAIRS)
def test_pairs(raw, pair):
    found = _normalised({**raw, "score_chosen": 8.5})
    assert {key: found[key] for key in pair} == pair and found["meta"] == {"score_chosen": 8.5}
    assert found["text"] == "\n\n".join(turn["content"] for turn in [*pair["prompt"], *pair["chosen"]])
    assert _normalised(found) == found


@pytest.mark.parametrize(
    "raw, negatives",
    [({}, []), ({"negatives": ["c", "d"]}, ["c", "d"]), ({"negative": "c"}, ["c"]), ({"negatives": None}, [])],
)
def test_texts_that_belong_together(raw, negatives):
    found = _normalised({"anchor": "a", "positive": "b", "instruction": "i", **raw})
    told = {key: found[key] for key in ("anchor", "positive", "negatives", "text", "meta")}
    assert told == {
        "anchor": "a", "positive": "b", "negatives": negatives, "text": "a\n\nb", "meta": {"instruction": "i"},
    }  # fmt: skip
    assert record.form_of(found) == "anchor"
    assert record.form_of(_normalised({"anchor": "a", "positive": "b", "text": "c"})) == "text"
    assert record.form_of(_normalised({"messages": [_user("a")], "anchor": "a", "positive": "b"})) == "messages"
    for field in ("negatives", "positive"):
        with pytest.raises(ValueError, match=f"field '{field}' is not"):
            _normalised({"anchor": "a", "positive": "b", field: 3})


def test_prompts_alone_and_texts_with_such_fields():
    found = _normalised({"prompt": "a", "tools": [{"name": "f"}]})
    assert found["prompt"] == [_user("a")] and found["tools"] == [{"name": "f"}] and "meta" not in found
    assert _normalised(found) == found
    text = _normalised({"text": "saws", "prompt": "a saw", "instruction": "cut", "output": "wood"})
    assert text["meta"] == {"prompt": "a saw", "instruction": "cut", "output": "wood"} and "messages" not in text


def test_messages_as_a_column_of_texts_holds_them():
    turns = {"prompt": [_user("가?")], "chosen": [_assistant("b")], "rejected": [_assistant("c")]}
    told = {key: json.dumps(value, ensure_ascii=key == "prompt", indent=2) for key, value in turns.items()}
    assert _normalised(told) == _normalised(turns)
    whole = {key: json.dumps(turns["prompt"] + turns[key]) for key in ("chosen", "rejected")}
    assert _normalised(whole) == _normalised(turns)
    asked = _normalised({"prompt": told["prompt"], "completion": told["chosen"]})
    assert asked["messages"] == turns["prompt"] + turns["chosen"]
    for text in ('[{"role": "user", "content": "a"}] is a chat.', '[{"name": "a"}]', '{"role": "user", "content": "a"}'):
        assert _normalised({"prompt": text})["prompt"] == [_user(text)]
    code = {"instruction": "a chat as JSON", "output": told["chosen"]}
    assert _normalised(code)["messages"][1] == _assistant(told["chosen"])


def test_prompts_with_what_their_answers_are_judged_by():
    found = _normalised({"prompt": "a", "answer": {"max": 3}, "verifier": "length", "level": 2})
    assert (found["prompt"], found["answer"], found["verifier"]) == ([_user("a")], {"max": 3}, "length")
    assert found["meta"] == {"level": 2} and _normalised(found) == found
    asked = _normalised({"question": "1 + 1?", "answer": "two\n#### 2"})
    assert asked["prompt"] == [_user("1 + 1?")] and asked["answer"] == "two\n#### 2" and "meta" not in asked
    chat = _normalised({"messages": [_user("a"), _assistant("b")], "answer": 3, "verifier": "number"})
    assert chat["meta"] == {"answer": 3, "verifier": "number"} and "answer" not in chat


BROKEN = [
    ({"prompt": "a", "answer": 3, "verifier": 4}, "field 'verifier' is not a name"),
    ({"messages": []}, "'messages' is not a list of turns"),
    ({"messages": [{"content": "a"}]}, "turn 1 of 'messages' has no 'role'"),
    ({"messages": [_user("a"), _assistant(3)]}, "turn 2 of 'messages' has no 'content'"),
    ({"messages": [_user("a"), {"role": "assistant", "content": None}]}, "turn 2 of 'messages' has no 'content'"),
    ({"messages": [{"role": "user", "content": [{"type": "image", "url": "x"}]}]}, "turn 1 .* other than text"),
    ({"conversations": [{"from": "alien", "value": "a"}]}, "turn 1 of 'conversations' is from 'alien'"),
    ({"conversations": [{"from": [], "value": "a"}]}, r"turn 1 of 'conversations' is from \[\]"),
    ({"conversations": [{"from": "human", "value": None}]}, "turn 1 of 'conversations' has no 'value'"),
    ({"conversations": "a"}, "'conversations' is not a list"),
    ({"instruction": 3, "output": "b"}, "field 'instruction' is not text"),
    ({"instruction": "a", "output": None}, "field 'output' is neither"),
    ({"instruction": "a", "output": "b", "history": ["a"]}, "field 'history' is not"),
    ({"prompt": "a", "completion": 3}, "field 'completion' is neither"),
    ({"prompt": "a", "chosen": "b", "rejected": None}, "field 'rejected' is neither"),
    (
        {"chosen": [_user("a"), _assistant("b")], "rejected": [_user("x"), _assistant("c")]},
        "begin with different turns",
    ),
    ({"chosen": "b", "rejected": "c"}, "there is no 'prompt'"),
    ({"prompt": "a", "chosen": str([_assistant("b")]), "rejected": "c"}, "'chosen' is not a list of turns, nor JSON"),
    ({"prompt": json.dumps([{"role": "user"}]), "completion": "b"}, "turn 1 of 'prompt' has no 'content'"),
    ({"prompt": "a", "chosen": [_user("b")], "rejected": [_assistant("c")]}, "'chosen' does not begin with a turn"),
    ({"messages": [CALL]}, "field 'text' is empty"),
    *(
        ({"messages": [_user("a")], "tools": tools}, "'tools' is not a list of functions")
        for tools in ("f", {"name": "f"}, ["f"], [3], 3)
    ),
    *(
        ({"messages": [_user("a"), {**_assistant("b"), "tool_calls": calls}]}, f"turn 2 of 'messages': {words}")
        for calls, words in (
            ("f", "'tool_calls' is not a list"),
            ({"function": {}}, "'tool_calls' is not a list"),
            (["f"], "call 1 of 'tool_calls' names no function"),
            ([{"function": {"name": ""}}], "call 1 of 'tool_calls' names no function"),
            ([{"function": {"name": "f", "arguments": "{n"}}], "the arguments of call 1 of 'tool_calls', 'f', are no"),
            ([{"function": {"name": "f", "arguments": "{} {}"}}], "the arguments of call 1"),
            ([{"function": {"name": "f", "arguments": [1]}}], "the arguments of call 1"),
        )
    ),
]


@pytest.mark.parametrize("raw, words", BROKEN)
def test_what_is_broken_is_named(raw, words):
    with pytest.raises(ValueError, match=words):
        _normalised(raw)


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "from", "value", "type", "text"]), inner, max_size=4)
    ),
    max_leaves=12,
)
_fields = st.sampled_from(
    [
        "text",
        "messages",
        "conversations",
        "prompt",
        "completion",
        "chosen",
        "rejected",
        "instruction",
        "output",
        "tools",
    ]
)


@given(st.dictionaries(_fields, _json, max_size=4))
@settings(max_examples=300, deadline=None)
def test_any_object_is_a_record_or_a_value_error(raw):
    try:
        found = _normalised(raw)
    except ValueError:
        return
    assert found["text"].strip() and _normalised(found) == found
