"""FunctionChat-Bench and BFCL: reading of the items, and scoring of the calls in a reply. Nothing is executed.

| set | part | file in the data folder |
|---|---|---|
| FunctionChat-Bench (arXiv:2411.14054) | `singlecall`, `dialog`, `calldecision` | `singlecall.jsonl` … (or `.gz`) |
| BFCL v4 (the package bfcl-eval, `data/`) | `BFCL` below | `BFCL_v4_<part>.json`, and in `possible_answer/` |

BFCL's parts that run code or use services (multi_turn, memory, web_search, exec) are not included, nor `simple_java`
and `simple_javascript`, whose values are expressions of those languages. FunctionChat is scored by its exact stage
only: a call must match by name and arguments; where text is expected, there must be text and no call. The published
second stage, in which a judge reads the texts and differently worded calls, is not implemented.
"""

import dataclasses
import gzip
import hashlib
import json
import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from kanana_jax.data.tokens.calls import Call, Reply
from kanana_jax.errors import ConfigError, UserError, nearest

Json = dict[str, Any]
FUNCTIONCHAT = {
    "singlecall": "FunctionChat-Bench, single calls: a Korean request, one right call.",
    "dialog": "FunctionChat-Bench, dialogues: a call, a question for what is missing, or text.",
    "calldecision": "FunctionChat-Bench, call decision: whether to call a function.",
}
_SINGLE = ("simple_python", "multiple", "live_simple", "live_multiple")
_PARALLEL = ("parallel", "parallel_multiple", "live_parallel", "live_parallel_multiple")
_DECISIONS = ("irrelevance", "live_irrelevance", "live_relevance")
BFCL = (*_SINGLE, *_PARALLEL, *_DECISIONS)
_BFCL_ASKS = ("calls by name and arguments", "whether to call a function")
# BFCL's names of types, which are Python's → JSON Schema's.
_TYPES = {"dict": "object", "float": "number", "tuple": "array"}


@dataclasses.dataclass(frozen=True)
class Item:
    """An assistant's turn to generate and score.

    Attributes:
      messages: the conversation so far.
      tools: the functions on offer.
      kind: `call`: calls are expected; `completion`, `slot`, `relevance`: text of this kind is expected; `some`: any
        call, right or wrong.
      expected: (name, {argument: accepted values}) of the calls, in any order; an argument may be omitted if "" is
        among its values.
      exact: whether values are compared as in FunctionChat (ignoring only spaces and case) or as in BFCL.
    """

    id: str
    part: str
    messages: tuple[Json, ...]
    tools: tuple[Json, ...]
    kind: Literal["call", "completion", "slot", "relevance", "some"]
    expected: tuple[tuple[str, Mapping[str, Sequence[Any]]], ...] = ()
    exact: bool = False


class Set(NamedTuple):
    """A set of items that can be evaluated.

    Attributes:
      summary: one sentence for people.
      files: patterns of its files within the data folder.
    """

    summary: str
    files: tuple[str, ...]


def sets() -> dict[str, Set]:
    """All sets by name, `functionchat_<part>` or `bfcl_<part>`."""
    found = {f"functionchat_{part}": Set(summary, (f"{part}.jsonl*",)) for part, summary in FUNCTIONCHAT.items()}
    for part in BFCL:
        files = (f"BFCL_v4_{part}.json", *(() if part in _DECISIONS else (f"possible_answer/BFCL_v4_{part}.json",)))
        found[f"bfcl_{part}"] = Set(f"BFCL v4, {part}: {_BFCL_ASKS[part in _DECISIONS]}.", files)
    return found


def items(name: str, folder: pathlib.Path) -> list[Item]:
    """The items of `functionchat_<part>` or `bfcl_<part>`.

    Raises:
      ConfigError: there is no such set.
      UserError: its file does not exist, or is not in the published format.
    """
    if name not in (known := sets()):
        raise ConfigError(f"there is no set of function calls '{name}': {nearest(name, list(known))}")
    family, _, part = name.partition("_")
    try:
        made = _BY_PART[part](folder) if family == "functionchat" else _bfcl(folder, part)
        return list(made)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        told = " ".join(f"{type(error).__name__}: {error}".split())[:100]
        raise UserError(f"{folder}: {name} is not as published ({told}): fetch it again") from error


def of_conversation(record: Json, part: str) -> Item:
    """The last turn of a conversation as an item, which expects the assistant's calls there, or text if it makes none.

    Args:
      record: `{"id", "messages", "tools"}`, in the format of training data.

    Raises:
      UserError: the record has no functions, or does not end with a turn of the assistant.
    """
    *before, last = record.get("messages") or [{}]
    if not record.get("tools") or last.get("role") != "assistant" or not before:
        raise UserError(
            f"record '{record['id']}' is not a conversation with 'tools' that ends with a turn of the assistant: "
            "leave it out"
        )
    called = [call.get("function", call) for call in last.get("tool_calls") or ()]
    expected = tuple(_exactly(call, None) for call in called)
    kind: Any = "call" if called else "completion"
    return Item(str(record["id"]), part, tuple(before), tuple(record["tools"]), kind, expected, True)


def is_right(item: Item, reply: Reply) -> bool:
    """Whether a reply satisfies an item."""
    if item.kind == "some":
        return bool(reply.calls) and not reply.broken
    if item.kind != "call":
        return not reply.calls and not reply.broken and (not item.exact or bool(reply.content.strip()))
    if reply.broken or len(reply.calls) != len(item.expected):
        return False
    same = _same_exactly if item.exact else _same
    return _matched([[_fits(call, wanted, same) for wanted in item.expected] for call in reply.calls])


def summary(found: Sequence[tuple[Item, Reply | None]]) -> Json:
    """`{part or part/kind: {"accuracy", "accuracy_stderr", "broken", "cut", "refused", "n", "prompts"}}` of one set.

    `cut` counts turns with a call that did not end within its tokens, `broken` those with any other unreadable call.

    Args:
      found: items and their replies; None if an item could not be asked, which counts as wrong.
    """
    groups: dict[str, list[tuple[Item, Reply | None]]] = {}
    for item, reply in found:
        groups.setdefault(item.part, []).append((item, reply))
        groups.setdefault(f"{item.part}/{item.kind}", []).append((item, reply))
    return {name: _scores(group) for name, group in groups.items()}


def score(item: Item, reply: Reply | None) -> float:
    """1 if the reply is right, else 0."""
    return float(reply is not None and is_right(item, reply))


def _scores(found: Sequence[tuple[Item, Reply | None]]) -> Json:
    right, n = [score(*each) for each in found], len(found)
    mean = sum(right) / n
    error = math.sqrt(sum((r - mean) ** 2 for r in right) / (n - 1) / n) if n > 1 else 0.0
    asked = json.dumps([dataclasses.astuple(item) for item, _ in found], ensure_ascii=False).encode()
    return {
        "accuracy": mean,
        "accuracy_stderr": error,
        "broken": sum(reply is not None and bool(reply.broken) and not reply.cut for _, reply in found),
        "cut": sum(reply is not None and bool(reply.broken) and reply.cut for _, reply in found),
        "refused": sum(reply is None for _, reply in found),
        "n": n,
        "prompts": hashlib.sha256(asked).hexdigest()[:16],  # results with the same hash are comparable
    }


def _matched(fits: list[list[bool]]) -> bool:
    """Whether every row can be matched with a different column that fits (Kuhn's algorithm)."""
    owner: dict[int, int] = {}

    def placed(row: int, seen: set[int]) -> bool:
        for column, fit in enumerate(fits[row]):
            if fit and column not in seen:
                seen.add(column)
                if column not in owner or placed(owner[column], seen):
                    owner[column] = row
                    return True
        return False

    return all(placed(row, set()) for row in range(len(fits)))


def _fits(call: Call, wanted: tuple[str, Mapping[str, Sequence[Any]]], same: Any) -> bool:
    name, values = wanted
    if call.name != name or any(key not in values for key in call.arguments):
        return False
    return all(
        any(same(call.arguments[key], value) for value in right) if key in call.arguments else "" in right
        for key, right in values.items()
    )


def _same_exactly(value: Any, right: Any) -> bool:
    """FunctionChat's comparison: ignores spaces and case in texts, and compares numbers by value."""
    if isinstance(value, str) and isinstance(right, str):
        return "".join(value.split()).lower() == "".join(right.split()).lower()
    if isinstance(value, bool) or isinstance(right, bool):
        return value is right
    return value == right


def _same(value: Any, right: Any) -> bool:
    """BFCL's comparison. In `right`, an object lists the accepted values of each key, also if it is in a list."""
    if isinstance(value, dict) and isinstance(right, dict):
        return all(key in right for key in value) and all(
            any(_equal(value[key], each) for each in ways) if key in value else "" in ways
            for key, ways in right.items()
        )
    if isinstance(value, list) and isinstance(right, list) and any(isinstance(each, dict) for each in right):
        return len(value) == len(right) and all(map(_same, value, right))
    return _equal(value, right)


def _equal(value: Any, right: Any) -> bool:
    """Whether values are equal, ignoring spaces, case and `,./-_*^` in texts; 1 equals 1.0."""
    if isinstance(value, str) and isinstance(right, str):
        return _plain(value) == _plain(right)
    if isinstance(value, bool) or isinstance(right, bool):
        return value is right
    if isinstance(value, list) and isinstance(right, list):
        return len(value) == len(right) and all(map(_equal, value, right))
    if isinstance(value, dict) and isinstance(right, dict):
        return value.keys() == right.keys() and all(_equal(value[key], right[key]) for key in right)
    return value == right


def _plain(text: str) -> str:
    return text.translate(str.maketrans("'", '"', " ,./-_*^")).lower()


def _rows(folder: pathlib.Path, name: str) -> list[Json]:
    for file in (folder / name, folder / f"{name}.gz"):
        if file.is_file():
            data = file.read_bytes()
            text = (gzip.decompress(data) if file.suffix == ".gz" else data).decode("utf-8-sig")
            return [json.loads(line) for line in text.split("\n") if line.strip()]
    raise UserError(f"{folder} has no {name}: name the folder of the set by --data-dir")


def _exactly(call: Json, more: Any) -> tuple[str, dict[str, list[Any]]]:
    """The name of a FunctionChat call, and the accepted values of each argument.

    Args:
      more: further accepted values by argument, as an object or its JSON text; null: the argument may be omitted. Any
        other text is ignored.
    """
    arguments = json.loads(call["arguments"]) if isinstance(call["arguments"], str) else call["arguments"]
    if isinstance(more, str):
        more = json.loads(more) if more.lstrip().startswith("{") else None
    values = {key: [value] for key, value in arguments.items()}
    for key, others in (more or {}).items():
        others = others if isinstance(others, list) else [others]
        values.setdefault(key, [""]).extend("" if other is None else other for other in others)
    return call["name"], values


def _single(folder: pathlib.Path) -> Iterator[Item]:
    for row in _rows(folder, "singlecall.jsonl"):
        for asked, truth, more in zip(row["query"], row["ground_truth"], row["acceptable_arguments"], strict=True):
            expected = (_exactly(json.loads(truth["content"]), more["content"]),)
            for tools in row["tools"]:
                messages = ({"role": "user", "content": asked["content"]},)
                where = f"singlecall/{asked['serial_num']}/{tools['type']}"
                yield Item(where, "singlecall", messages, tuple(tools["content"]), "call", expected, True)


def _turn(identity: str, part: str, messages: Any, tools: Any, row: Json) -> Item:
    truth = row["ground_truth"]
    called = [call["function"] for call in truth.get("tool_calls") or ()]
    expected = tuple(_exactly(call, row["acceptable_arguments"]) for call in called)
    return Item(identity, part, tuple(messages), tuple(tools), row["type_of_output"], expected, True)


def _dialog(folder: pathlib.Path) -> Iterator[Item]:
    for row in _rows(folder, "dialog.jsonl"):
        for turn in row["turns"]:
            yield _turn(f"dialog/{turn['serial_num']}", "dialog", turn["query"], row["tools"], turn)


def _decision(folder: pathlib.Path) -> Iterator[Item]:
    for row in _rows(folder, "calldecision.jsonl"):
        where = f"calldecision/{row['category']}/{row['serial_num']}"
        yield _turn(where, "calldecision", row["input_messages"], row["input_tools"], row)


_BY_PART = {"singlecall": _single, "dialog": _dialog, "calldecision": _decision}


def _bfcl(folder: pathlib.Path, part: str) -> Iterator[Item]:
    answers = {}
    if part not in _DECISIONS:
        answers = {row["id"]: row["ground_truth"] for row in _rows(folder / "possible_answer", f"BFCL_v4_{part}.json")}
    kind: Any = "call" if part in answers or part not in _DECISIONS else "relevance"
    kind = "some" if part == "live_relevance" else kind
    for row in _rows(folder, f"BFCL_v4_{part}.json"):
        tools = tuple({"type": "function", "function": _of_json_schema(each)} for each in row["function"])
        expected = tuple(next(iter(call.items())) for call in answers.get(row["id"], ()))
        yield Item(row["id"], part, tuple(row["question"][0]), tools, kind, expected)


def _of_json_schema(function: Json) -> Json:
    return {**function, "parameters": _schema(function["parameters"])}


def _schema(schema: Any) -> Any:
    """A schema with JSON Schema's names of types instead of Python's."""
    if not isinstance(schema, dict):
        return schema
    found = {key: value for key, value in schema.items() if key not in ("type", "properties", "items", "optional")}
    kind = schema.get("type")
    if isinstance(kind, str) and kind != "any":
        found["type"] = _TYPES.get(kind, kind)
    if isinstance(schema.get("properties"), dict):
        found["properties"] = {name: _schema(part) for name, part in schema["properties"].items()}
    if "items" in schema:
        found["items"] = _schema(schema["items"])
    return found
