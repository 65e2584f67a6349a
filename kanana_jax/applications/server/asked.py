"""Parsing of requests: the JSON of OpenAI's `/v1/completions` and `/v1/chat/completions`, checked.

See https://platform.openai.com/docs/api-reference. A key that would change the answer and is not supported is refused
by name; keys that only describe the request are ignored.
"""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from kanana_jax.applications.function_calling import Choice
from kanana_jax.data.read import jsonl
from kanana_jax.data.tokens import calls
from kanana_jax.inference.sampling import SamplingConfig

MOST_PROMPTS, MOST_STOPS = 64, 16
# Unsupported keys that would change an answer, with the values that change nothing.
_WITHOUT: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("logprobs", "echo"), (False, 0)),
    **dict.fromkeys(("presence_penalty", "frequency_penalty"), (0,)),
    **dict.fromkeys(("n", "best_of"), (1,)),
    **dict.fromkeys(("logit_bias", "functions", "modalities"), ({}, [], ["text"])),
    **dict.fromkeys(("suffix", "prediction", "audio"), ("",)),
    "top_logprobs": (0,),
    "response_format": ({"type": "text"},),
}
# Variables of a chat template that a request gives in keys of its own, or that a client may not set.
_NO_VARIABLES = ("tokenizer", "messages", "tools", "conversations", "prompts", "continued", "marks", "_marks")


class BadRequest(ValueError):
    """A request that cannot be answered; the message is one sentence for the client.

    Attributes:
      status: HTTP status.
    """

    def __init__(self, message: str, status: int = 400):
        super().__init__(message)
        self.status = status


@dataclasses.dataclass(frozen=True)
class Defaults:
    """Default values for a request.

    Attributes:
      max_tokens: maximum number of tokens per answer.
    """

    max_tokens: int = 512
    temperature: float = 0.7
    top_k: int = 0
    top_p: float = 0.9


@dataclasses.dataclass(frozen=True)
class Asked:
    """A parsed request.

    Attributes:
      model: name of the requested model; "": none is named.
      texts: prompts to continue; empty for a chat.
      messages, tools: messages and functions of a chat.
      choice: whether functions may or must be called.
      more: additional variables for the chat template.
      max_tokens: maximum number of tokens per answer; None: the default, limited to the rest of the context length.
      seed: seed of sampling; None: any. A sampled request with a seed runs in a batch of its own, so that its answer
        does not depend on other requests.
      stops: texts that end an answer and are not part of it.
      stream: whether the answer is sent while it is generated.
      usage: whether a stream ends with the numbers of tokens.
      strip_thinking: whether `<think>…</think>` is removed.
    """

    model: str
    texts: tuple[str, ...]
    messages: tuple[Mapping[str, Any], ...]
    tools: tuple[Mapping[str, Any], ...]
    choice: Choice
    more: Mapping[str, Any]
    max_tokens: int | None
    sampling: SamplingConfig
    seed: int | None
    stops: tuple[str, ...]
    stream: bool
    usage: bool
    strip_thinking: bool


def parse(body: bytes, *, chat: bool, defaults: Defaults) -> Asked:
    """Parses the body of a request.

    Args:
      chat: whether it is a request for a chat completion.
      defaults: values of options that the request does not set.

    Raises:
      BadRequest: the body is not JSON, a value has the wrong type or is out of range, or a key is not supported.
    """
    try:
        values = jsonl.parse(body)
        json.dumps(values, ensure_ascii=False).encode()  # half of a surrogate pair is not text
    except ValueError as error:
        raise BadRequest(f"the body is not JSON ({' '.join(str(error).split())[:150]})") from error
    if not isinstance(values, dict):
        raise BadRequest("the body must be a JSON object")
    values = {key: value for key, value in values.items() if value is not None}
    for key, allowed in _WITHOUT.items():
        if key in values and values[key] not in allowed:
            raise BadRequest(f"'{key}' is not supported: leave it out")
    limit = "max_completion_tokens" if "max_completion_tokens" in values else "max_tokens"
    stops = values.get("stop", ())
    texts, messages = ((), _messages(values)) if chat else (_texts(values), ())
    options = _typed(values, "stream_options", dict, {})
    choice = _choice(values) if chat else Choice()
    return Asked(
        model=_typed(values, "model", str, ""),
        texts=texts,
        messages=messages,
        tools=tuple(_objects(values, "tools")) if chat and choice.kind != "none" else (),
        choice=choice,
        more=_variables(values) if chat else {},
        max_tokens=_integer(values, limit, 1, 1 << 30) if limit in values else None,
        sampling=_sampling(values, defaults),
        seed=_integer(values, "seed", 0, 2**32 - 1) if "seed" in values else None,
        stops=_stops([stops] if isinstance(stops, str) else stops),
        stream=_typed(values, "stream", bool, False),
        usage=bool(options.get("include_usage", False)),
        strip_thinking=_typed(values, "strip_thinking", bool, False),
    )


def _variables(values: Mapping[str, Any]) -> dict[str, Any]:
    found = _typed(values, "chat_template_kwargs", dict, {})
    if reserved := next((key for key in _NO_VARIABLES if key in found), None):
        raise BadRequest(f"'chat_template_kwargs.{reserved}' is not a variable that a request may set: leave it out")
    return found


def _choice(values: Mapping[str, Any]) -> Choice:
    """The meaning of `tool_choice` and `parallel_tool_calls`."""
    kind, parallel = values.get("tool_choice", "auto"), _typed(values, "parallel_tool_calls", bool, True)
    if isinstance(kind, dict) and kind.get("type") == "function":
        function = kind.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if isinstance(name, str) and name:
            found = Choice("required", name, parallel)
        else:
            raise BadRequest("'tool_choice.function.name' must be the name of a function")
    elif kind in ("auto", "none", "required"):
        found = Choice(kind, "", parallel)
    else:
        raise BadRequest("'tool_choice' must be 'auto', 'none', 'required' or a function")
    if found.kind == "required" and not values.get("tools"):
        raise BadRequest("'tool_choice' requires a call, but there are no 'tools'")
    return found


def _typed(values: Mapping[str, Any], key: str, kind: type, default: Any) -> Any:
    value = values.get(key, default)
    if type(value) is not kind:
        names: dict[type, str] = {str: "a text", bool: "true or false", dict: "an object", list: "a list"}
        raise BadRequest(f"'{key}' must be {names[kind]}")
    return value


def _integer(values: Mapping[str, Any], key: str, least: int, most: int) -> int:
    value = values[key]
    if type(value) is not int or not least <= value <= most:
        raise BadRequest(f"'{key}' must be an integer between {least} and {most}")
    return value


def _number(values: Mapping[str, Any], key: str, default: float) -> float:
    value = values.get(key, default)
    if type(value) not in (int, float) or not math.isfinite(value):
        raise BadRequest(f"'{key}' must be a number")
    return float(value)


def _sampling(values: Mapping[str, Any], defaults: Defaults) -> SamplingConfig:
    top_k = _integer(values, "top_k", -1, 1 << 30) if "top_k" in values else defaults.top_k
    temperature = _number(values, "temperature", defaults.temperature)
    try:
        return SamplingConfig(temperature, max(top_k, 0), _number(values, "top_p", defaults.top_p))
    except ValueError as error:
        raise BadRequest(str(error)) from error


def _stops(stops: Any) -> tuple[str, ...]:
    if not isinstance(stops, (list, tuple)) or not all(isinstance(stop, str) and stop for stop in stops):
        raise BadRequest("'stop' must be a text or a list of texts, none of them empty")
    if len(stops) > MOST_STOPS:
        raise BadRequest(f"'stop' has {len(stops)} texts, of which {MOST_STOPS} are allowed")
    return tuple(stops)


def _texts(values: Mapping[str, Any]) -> tuple[str, ...]:
    prompts = values.get("prompt", ())
    prompts = [prompts] if isinstance(prompts, str) else prompts
    if not isinstance(prompts, list) or not prompts or not all(isinstance(text, str) for text in prompts):
        raise BadRequest("'prompt' must be a text or a list of texts (token ids are not supported)")
    if len(prompts) > MOST_PROMPTS:
        raise BadRequest(f"'prompt' has {len(prompts)} texts, of which {MOST_PROMPTS} are allowed in one request")
    return tuple(prompts)


def _objects(values: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    found = values.get(key, [])
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise BadRequest(f"'{key}' must be a list of objects")
    return found


def _messages(values: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    found = _objects(values, "messages")
    if not found:
        raise BadRequest("'messages' must hold at least one message")
    return tuple({**message, **_content(i, message)} for i, message in enumerate(found))


def _content(number: int, message: Mapping[str, Any]) -> dict[str, Any]:
    """The text of a message, with its parts joined; checks the role."""
    where = f"messages[{number}]"
    if not isinstance(message.get("role"), str):
        raise BadRequest(f"'{where}.role' must be a text")
    content, made = message.get("content"), {}
    if message.get("tool_calls"):
        try:
            made = {"tool_calls": calls.made(message["tool_calls"])}
        except ValueError as error:
            raise BadRequest(f"{where}: {error}") from error
    if isinstance(content, Sequence) and not isinstance(content, str):
        if not all(isinstance(p, dict) and p.get("type") == "text" and isinstance(p.get("text"), str) for p in content):
            raise BadRequest(f"'{where}.content' may only have parts of type 'text'")
        return {"content": "".join(part["text"] for part in content), **made}
    if isinstance(content, str) or (content is None and made):
        return {"content": content or "", **made}
    raise BadRequest(f"'{where}.content' must be a text")
