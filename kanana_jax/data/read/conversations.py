"""Conversations and preference pairs, in the forms in which they are published.

| form | fields |
|---|---|
| messages | `messages`: `{"role", "content", …}` |
| ShareGPT | `conversations`: `{"from", "value"}` |
| Alpaca | `instruction`, `input`?, `output`, `system`?, `history`? |
| prompt and completion | `prompt`, `completion`, texts or messages |
| pair | `prompt`?, `chosen`, `rejected`, texts or messages; without a prompt, that is what both begin with |
| prompt alone | `prompt`, a text or messages; `answer`?, any JSON; `verifier`?, its name |
| question and answer | `question`, `answer`, as in GSM8K; `verifier`? |
| texts that belong together | `anchor`, `positive`, and `negatives`?, a list of texts, or `negative`?, one |

All become `{"messages": […]}`, `{"prompt": […], "chosen": […], "rejected": […]}` or `{"prompt": […], "answer"?,
"verifier"?}` (by which a model's own answers are judged), with `tools` if there are any. Messages keep what a chat
template may read (`tool_calls`, `name`, `reasoning_content` …). Lists of messages and `tools` may be JSON text, as
tables hold them. Texts that belong together become `{"anchor": "…", "positive": "…", "negatives": […]}`, for embedding
models.
"""

import re
from collections.abc import Mapping
from typing import Any

from kanana_jax.data.read import jsonl
from kanana_jax.data.tokens import calls

# The fields of a record that is a conversation, a pair or a prompt.
_JUDGED_BY = ("answer", "verifier")
_TOGETHER = ("anchor", "positive", "negatives")
FIELDS = ("messages", "tools", "prompt", "chosen", "rejected", *_JUDGED_BY, *_TOGETHER)
# ShareGPT's names of who speaks.
_SPEAKERS = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
}
# Transcripts of one text, as in HH-RLHF (arXiv:2204.05862).
_TRANSCRIPT = re.compile(r"(?:^|\n\n)(Human|Assistant):[ \t]?")
# Fields that hold messages or a text, and a list of messages in a text: as JSON, or as Python prints it.
_EITHER = ("prompt", "completion", "chosen", "rejected")
_MESSAGES = re.compile(r"""\s*\[\s*\{\s*(["'])(?:role|content)\1\s*:.*\}\s*\]\s*\Z""", re.DOTALL)
_CONSUMED = ("conversations", "instruction", "input", "output", "system", "history", "completion", "question")

Turns = list[dict[str, Any]]


def conversation(raw: Mapping[str, Any], text_field: str) -> dict[str, Any] | None:
    """The fields `FIELDS` of a JSON object, or None if it has none of the forms.

    Args:
      text_field: if present, the object is a text, unless it has turns in the form of our records.

    Raises:
      ValueError: the object has one of the forms, but an invalid field.
    """
    found = _of_form(raw, text_field)
    if found is not None and raw.get("tools") and (tools := calls.offered(raw["tools"])):
        found["tools"] = tools
    return found


def of_table(row: Any) -> Any:
    """A row of a table whose conversation has only the keys that its writer gave.

    The type of an Arrow struct holds the keys of all its values, so that each value has null for those of the others
    (`"enum": null` in the schema of every parameter). Null items of lists and JSON in a text are values and stay.
    """
    if not isinstance(row, Mapping):
        return row
    turns = {*FIELDS, *_CONSUMED}
    return {field: _given(value, jsonl.MAX_DEPTH) if field in turns else value for field, value in row.items()}


def _given(value: Any, depth: int) -> Any:
    """A value without the null fields of its structs, down to the depth beyond which records are refused."""
    if depth < 0:
        return value
    if isinstance(value, Mapping):
        return {key: _given(item, depth - 1) for key, item in value.items() if item is not None}
    return [_given(item, depth - 1) for item in value] if isinstance(value, list) else value


def consumed(raw: Mapping[str, Any], found: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The fields of an object that are in its conversation already."""
    if found is None:
        return ()
    if "anchor" in found:
        return (*_TOGETHER, "negative")
    turns = (field for field in FIELDS if field not in (*_JUDGED_BY, *_TOGETHER))
    return (*turns, *(() if "messages" in raw else _CONSUMED))


def text(found: Mapping[str, Any]) -> str:
    """The text of a conversation, turn by turn; of a pair with its chosen answer; of an anchor and its positive."""
    if "anchor" in found:
        return f"{found['anchor']}\n\n{found['positive']}"
    turns = found["messages"] if "messages" in found else [*found["prompt"], *found.get("chosen", ())]
    return "\n\n".join(turn["content"] for turn in turns if turn.get("content"))


def _of_form(raw: Mapping[str, Any], text_field: str) -> dict[str, Any] | None:
    if raw.get("messages") is not None:
        return {"messages": _turns(_of_text(raw["messages"], "messages"), "messages")}
    if "chosen" in raw and "rejected" in raw:
        return _pair(raw)
    if isinstance(raw.get("anchor"), str) and "positive" in raw and not isinstance(raw.get(text_field), str):
        return _together(raw)
    if isinstance(raw.get(text_field), str) and not isinstance(raw.get("prompt"), list):
        return None
    if raw.get("conversations") is not None:
        return {"messages": _with_system(raw, _share_gpt(_of_text(raw["conversations"], "conversations")))}
    if raw.get("prompt") is not None:
        prompt = _said(raw["prompt"], "prompt", "user")
        if "completion" not in raw:
            return {"prompt": prompt, **_judged_by(raw)}
        return {"messages": [*prompt, *_said(raw["completion"], "completion", "assistant")]}
    if "instruction" in raw and "output" in raw:
        return {"messages": _with_system(raw, _alpaca(raw))}
    if isinstance(raw.get("question"), str) and "answer" in raw:
        return {"prompt": _said(raw["question"], "question", "user"), **_judged_by(raw)}
    return None


def _together(raw: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(raw["positive"], str):
        raise ValueError("field 'positive' is not text")
    negatives = raw.get("negatives")
    if negatives is None:
        negatives = [] if raw.get("negative") is None else [raw["negative"]]
    if not isinstance(negatives, list) or not all(isinstance(text, str) for text in negatives):
        raise ValueError("field 'negatives' is not a list of texts")
    return {"anchor": raw["anchor"], "positive": raw["positive"], "negatives": negatives}


def _judged_by(raw: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(raw.get("verifier", ""), str):
        raise ValueError("field 'verifier' is not a name")
    return {key: raw[key] for key in _JUDGED_BY if raw.get(key) is not None}


def _of_text(value: Any, field: str) -> Any:
    """Turns that a table's column of texts holds as JSON; anything else as it is."""
    try:
        return jsonl.parse(value) if isinstance(value, str) else value
    except ValueError as error:
        raise ValueError(f"'{field}' is not a list of turns, nor JSON text of one ({str(error)[:80]})") from error


def _turns(value: Any, field: str) -> Turns:
    if not isinstance(value, list) or not value:
        raise ValueError(f"'{field}' is not a list of turns")
    return [_turn(message, number, field) for number, message in enumerate(value, 1)]


def _turn(message: Any, number: int, field: str) -> dict[str, Any]:
    where = f"turn {number} of '{field}'"
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise ValueError(f"{where} has no 'role', or it is not text")
    content, turn = message.get("content"), dict(message)
    if turn.get("tool_calls"):
        try:
            turn["tool_calls"] = calls.made(turn["tool_calls"])
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
    if isinstance(content, list):
        return {**turn, "content": _joined(content, where)}
    if not isinstance(content, str) and not (content is None and turn.get("tool_calls")):
        raise ValueError(f"{where} has no 'content', or it is not text")
    return turn


def _joined(parts: list[Any], where: str) -> str:
    """The text of a content of parts."""
    texts = [part.get("text") if isinstance(part, Mapping) and part.get("type") == "text" else None for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{where} has something other than text in its 'content'")
    return "".join(text for text in texts if text)


def _share_gpt(value: Any) -> Turns:
    if isinstance(value, list) and value and all(isinstance(turn, Mapping) and "role" in turn for turn in value):
        return _turns(value, "conversations")
    if not isinstance(value, list) or not value:
        raise ValueError("'conversations' is not a list of turns")
    turns = []
    for number, turn in enumerate(value, 1):
        speaker = turn.get("from") if isinstance(turn, Mapping) else None
        if not isinstance(speaker, str) or speaker not in _SPEAKERS:
            raise ValueError(f"turn {number} of 'conversations' is from {speaker!r}, not one of {', '.join(_SPEAKERS)}")
        if not isinstance(turn.get("value"), str):
            raise ValueError(f"turn {number} of 'conversations' has no 'value', or it is not text")
        turns.append({"role": _SPEAKERS[speaker], "content": turn["value"]})
    return turns


def _alpaca(raw: Mapping[str, Any]) -> Turns:
    turns: Turns = []
    history = raw.get("history") or []
    if not isinstance(history, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in history):
        raise ValueError("field 'history' is not a list of pairs of texts")
    for asked, answered in history:
        turns += _said(asked, "history", "user") + _said(answered, "history", "assistant")
    question = "\n".join(part for part in (_string(raw, "instruction"), _string(raw, "input")) if part.strip())
    return turns + _said(question, "instruction", "user") + _said(raw["output"], "output", "assistant")


def _string(raw: Mapping[str, Any], field: str) -> str:
    value = raw.get(field)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"field '{field}' is not text")
    return value or ""


def _with_system(raw: Mapping[str, Any], turns: Turns) -> Turns:
    system = _string(raw, "system")
    known = turns and turns[0]["role"] == "system"
    return [{"role": "system", "content": system}, *turns] if system.strip() and not known else turns


def _said(value: Any, field: str, role: str) -> Turns:
    """Turns from messages, from JSON text of messages, or from a text that one side says.

    Messages in the form in which Python prints them are refused: read as a text, they would teach the model this form.
    """
    if field in _EITHER and isinstance(value, str) and _MESSAGES.match(value):
        value = _of_text(value, field)
    if isinstance(value, list):
        return _turns(value, field)
    if not isinstance(value, str):
        raise ValueError(f"field '{field}' is neither a text nor a list of turns")
    return [{"role": role, "content": value}]


def _pair(raw: Mapping[str, Any]) -> dict[str, Any]:
    chosen, rejected = (_answers(raw[field], field) for field in ("chosen", "rejected"))
    if raw.get("prompt") is not None:
        prompt = _said(raw["prompt"], "prompt", "user")
        chosen, rejected = _after(prompt, chosen), _after(prompt, rejected)
    else:
        shared, last = 0, min(len(chosen), len(rejected)) - 1
        while shared < last and chosen[shared] == rejected[shared]:
            shared += 1
        prompt, chosen, rejected = chosen[:shared], chosen[shared:], rejected[shared:]
        if not prompt:
            raise ValueError("'chosen' and 'rejected' begin with different turns, and there is no 'prompt'")
    for field, turns in (("chosen", chosen), ("rejected", rejected)):
        if not turns or turns[0]["role"] != "assistant":
            raise ValueError(f"field '{field}' does not begin with a turn of the assistant after the prompt")
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def _after(prompt: Turns, turns: Turns) -> Turns:
    """An answer without the prompt, which some sets repeat in it."""
    return turns[len(prompt) :] if turns[: len(prompt)] == prompt else turns


def _answers(value: Any, field: str) -> Turns:
    if isinstance(value, str) and (parts := _TRANSCRIPT.split(value)) and len(parts) > 2 and not parts[0].strip():
        roles = ("user" if speaker == "Human" else "assistant" for speaker in parts[1::2])
        return [{"role": role, "content": said.strip()} for role, said in zip(roles, parts[2::2])]
    return _said(value, field, "assistant")
