"""Function calls as a model writes them: the formats of chat templates, and calls read from a text.

| format | a call |
|---|---|
| `hermes` (ChatML, Qwen 2.5 and 3) | `<tool_call>⏎{"name": …, "arguments": {…}}⏎</tool_call>` |
| `llama3` (Llama 3.1 and later) | `{"name": …, "parameters": {…}}` and nothing else |
| `qwen-xml` (Qwen3-Coder) | `<tool_call>⏎<function=…>⏎<parameter=…>⏎value⏎</parameter>⏎</function>⏎</tool_call>` |

Several calls stand one behind the other; Llama 3's are separated by `;`. Nothing that is read here is ever executed.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from kanana_jax.errors import UserError

Name = Literal["hermes", "llama3", "qwen-xml"]
OPEN, CLOSE = "<tool_call>", "</tool_call>"
PYTHON_TAG = "<|python_tag|>"
MARKS = (OPEN, CLOSE, PYTHON_TAG)
Schema = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Call:
    """A call that a model asks for.

    Attributes:
      arguments: JSON, an object.
    """

    name: str
    arguments: Mapping[str, Any]

    def json(self) -> str:
        """The arguments as JSON text, as OpenAI's API has them."""
        return json.dumps(self.arguments, ensure_ascii=False)


@dataclasses.dataclass(frozen=True)
class Reply:
    """A turn of the assistant.

    Attributes:
      content: text beside the calls.
      broken: what began as a call and cannot be read as one, each as it was written.
      cut: whether the turn did not end within the tokens that it was given, so that its last call may be incomplete.
    """

    content: str
    calls: tuple[Call, ...] = ()
    broken: tuple[str, ...] = ()
    cut: bool = False


def format_of(template: str) -> Name:
    """The format in which a chat template writes calls.

    Raises:
      UserError: the template writes none of them.
    """
    if "<function=" in template:
        return "qwen-xml"
    if OPEN in template:
        return "hermes"
    if '"parameters"' in template and ("<|start_header_id|>" in template or PYTHON_TAG in template):
        return "llama3"
    raise UserError(
        "the chat template writes function calls in none of the formats that are read here (Hermes, Llama 3, Qwen's "
        "XML): give the model a template in one of them"
    )


def read(text: str, form: Name, tools: Mapping[str, Schema]) -> Reply:
    """The calls of a turn's text, in which special tokens are spelt out.

    Args:
      tools: schemas of the parameters by the function's name; a call of any other function is broken.
    """
    if form == "llama3":
        return _llama3(text, tools)
    reader = _xml if form == "qwen-xml" else _hermes
    content, calls, broken = [], [], []
    at, last = text.find(OPEN), 0
    while at >= 0:
        content.append(text[last:at])
        call, end = reader(text, at + len(OPEN), tools)
        if call is None:
            next = text.find(OPEN, at + len(OPEN))
            end = len(text) if next < 0 else next
            broken.append(text[at:end])
        else:
            calls.append(call)
            after = _blanks(text, end)
            end = after + len(CLOSE) if text.startswith(CLOSE, after) else end
        last, at = end, text.find(OPEN, end)
    content.append(text[last:])
    said = "".join(content)
    return Reply(said.rstrip() if calls or broken else said, tuple(calls), tuple(broken))


def begins(text: str, form: Name) -> int:
    """The place from which a text that is still being written may be a call; its length: none has begun."""
    if form == "llama3":
        inner = text.lstrip()
        return 0 if not inner or inner[0] == "{" or PYTHON_TAG.startswith(inner[: len(PYTHON_TAG)]) else len(text)
    at = text.find(OPEN)
    if at < 0:
        at = len(text) - next((n for n in range(len(OPEN) - 1, 0, -1) if text.endswith(OPEN[:n])), 0)
    return len(text[:at].rstrip()) if at < len(text) else at


def is_text(schema: Any) -> bool:
    """Whether a parameter is text alone, which Qwen's XML writes as it is; everything else is JSON there."""
    if not isinstance(schema, Mapping):
        return False
    if "enum" in schema or "const" in schema:
        values = schema["enum"] if "enum" in schema else [schema["const"]]
        return isinstance(values, list) and bool(values) and all(isinstance(value, str) for value in values)
    return schema.get("type") == "string"


def _blanks(text: str, at: int) -> int:
    """The place behind the blanks at a place."""
    while at < len(text) and text[at].isspace():
        at += 1
    return at


def _object(text: str, at: int) -> tuple[Mapping[str, Any] | None, int]:
    """The JSON object that stands at a place, behind blanks, and where it ends; None and the place: there is none."""
    try:
        value, end = _DECODER.raw_decode(text, _blanks(text, at))
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # half of a surrogate pair is not text
    except (ValueError, RecursionError):
        return None, at
    return (value, end) if isinstance(value, dict) else (None, at)


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_constant)


def _call(value: Mapping[str, Any] | None, tools: Mapping[str, Schema]) -> Call | None:
    """A call of an object with a name and arguments, which some models write as a text of JSON."""
    if value is None or not isinstance(value.get("name"), str) or value["name"] not in tools:
        return None
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):
        arguments, _ = _object(arguments, 0)
    return Call(value["name"], arguments) if isinstance(arguments, dict) else None


def _hermes(text: str, at: int, tools: Mapping[str, Schema]) -> tuple[Call | None, int]:
    value, end = _object(text, at)
    return _call(value, tools), end


def _llama3(text: str, tools: Mapping[str, Schema]) -> Reply:
    inner = text.strip()
    tagged = inner.startswith(PYTHON_TAG)
    inner = inner.removeprefix(PYTHON_TAG).lstrip()
    if not inner.startswith("{"):
        return Reply(text, (), (text,)) if tagged else Reply(text)
    calls, at = [], 0
    while at < len(inner):
        value, end = _object(inner, at)
        call = _call(value, tools)
        if call is None:
            # An object that names no function is an answer of JSON.
            answer = not tagged and not calls and value is not None and "name" not in value
            return Reply(text) if answer else Reply("", tuple(calls), (inner[at:],))
        calls.append(call)
        at = _blanks(inner, end)
        at = _blanks(inner, at + 1) if inner.startswith(";", at) else at
    return Reply("", tuple(calls))


def _xml(text: str, at: int, tools: Mapping[str, Schema]) -> tuple[Call | None, int]:
    name, at = _tag(text, at, "<function=")
    if name not in tools:
        return None, at
    properties, arguments = tools[name].get("properties", {}), {}
    while text.startswith("<parameter=", _blanks(text, at)):
        key, at = _tag(text, at, "<parameter=")
        at += text.startswith("\n", at)
        end = text.find("\n</parameter>\n", at)
        width = len("\n</parameter>\n")
        if end < 0:  # otherwise than templates write it
            end, width = text.find("</parameter>", at), len("</parameter>")
        if end < 0:
            return None, at
        value, at = text[at:end], end + width
        try:
            arguments[key] = value if is_text(properties.get(key)) else json.loads(value, parse_constant=_constant)
        except (ValueError, RecursionError):
            if key in properties:
                return None, at
            arguments[key] = value
    at = _blanks(text, at)
    if not text.startswith("</function>", at):
        return None, at
    return Call(name, arguments), at + len("</function>")


def _tag(text: str, at: int, begin: str) -> tuple[str, int]:
    """The name in a tag behind blanks, and the place behind it; "": there is none."""
    at = _blanks(text, at)
    end = text.find(">", at)
    if not text.startswith(begin, at) or end < 0:
        return "", at
    return text[at + len(begin) : end], end + 1


def schemas(tools: Sequence[Mapping[str, Any]]) -> dict[str, Schema]:
    """Schemas of the parameters by the function's name, of OpenAI's `tools`.

    A function without parameters gets a schema of none.

    Raises:
      UserError: a tool that is not a function, has no name, or has the name of another.
    """
    found: dict[str, Schema] = {}
    for number, tool in enumerate(tools):
        function = tool.get("function") if tool.get("type", "function") == "function" else None
        name = function.get("name") if isinstance(function, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(name, str) or not _is_name(name):
            raise UserError(
                f'tools[{number}] is not a function with a name: write {{"type": "function", "function": {{"name": …, '
                '"parameters": …}}, the name of letters, digits, _, - and . (64 at most)'
            )
        if name in found:
            raise UserError(f"tools[{number}] has the name of another, '{name}': give each function its own")
        parameters = function.get("parameters") or {"type": "object", "properties": {}}
        if not isinstance(parameters, Mapping):
            raise UserError(f"tools[{number}]: 'parameters' of '{name}' must be a JSON schema, an object")
        found[name] = parameters
    return found


def offered(value: Any) -> list[Any]:
    """The functions of a conversation: a list of objects, or JSON text of one, as tables and hub data sets hold it.

    Raises:
      ValueError: anything else.
    """
    found = _of_text(value)
    found = [_of_text(tool) for tool in found] if isinstance(found, list) else found
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(tool, Mapping) for tool in found):
        raise ValueError("'tools' is not a list of functions, each an object")
    return found


def made(value: Any) -> list[Any]:
    """The `tool_calls` of a message: each names its function, its arguments an object or JSON text of one.

    Raises:
      ValueError: a call of another form, which a template would write as something other than a call.
    """
    found = _of_text(value)
    if not isinstance(found, list):
        raise ValueError("'tool_calls' is not a list of calls")
    return [_made(call, number) for number, call in enumerate(found, 1)]


def _made(call: Any, number: int) -> dict[str, Any]:
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(name := function.get("name"), str) or not name:
        raise ValueError(f"call {number} of 'tool_calls' names no function")
    given = {} if function.get("arguments") in (None, "") else function["arguments"]
    value, end = _object(given, 0) if isinstance(given, str) else (given, 0)
    if not isinstance(value, Mapping) or (isinstance(given, str) and given[end:].strip()):
        raise ValueError(f"the arguments of call {number} of 'tool_calls', '{name[:64]}', are not a JSON object")
    function = {**function, "arguments": given}
    return {**call, "function": function} if "function" in call else function


def _of_text(value: Any) -> Any:
    """The value of a JSON text; anything else as it is."""
    try:
        return json.loads(value, parse_constant=_constant) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return value


def _is_name(name: str) -> bool:
    return 0 < len(name) <= 64 and all(letter.isalnum() or letter in "_-." for letter in name)


def for_template(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """A message with the arguments of its calls as objects, which templates write out themselves (as vLLM does)."""
    calls = message.get("tool_calls")
    if not isinstance(calls, (list, tuple)):
        return message
    return {**message, "tool_calls": [_with_object(call) for call in calls]}


def _with_object(call: Any) -> Any:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(text := function.get("arguments"), str):
        return call
    value, end = _object(text or "{}", 0)
    return call if value is None or text[end:].strip() else {**call, "function": {**function, "arguments": value}}
