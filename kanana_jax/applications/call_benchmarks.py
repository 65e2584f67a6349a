"""FunctionChat-Bench and BFCL: batched replies of a model, scored, with results in the format of `evaluation.run`."""

import logging
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kanana_jax.applications.function_calling import Caller, Tools
from kanana_jax.data.tokens import chat
from kanana_jax.data.tokens.calls import Reply
from kanana_jax.errors import UserError
from kanana_jax.evaluation import function_calls
from kanana_jax.evaluation.function_calls import Item
from kanana_jax.inference.session import Session

log = logging.getLogger("kanana")
Json = dict[str, Any]
LONGEST = 256  # tokens per reply


def find(names: Sequence[str], folder: pathlib.Path, limit: int | None = None) -> dict[str, list[Item]]:
    """The items of each set; with a limit, at most that many per set, evenly spaced over it.

    Args:
      names: names of sets.
      folder: where their files are.

    Raises:
      ConfigError, UserError: see `function_calls.items`.
    """
    found = {name: function_calls.items(name, folder) for name in names}
    if limit is None:
        return found
    return {
        name: [items[i * len(items) // limit] for i in range(min(limit, len(items)))] if limit < len(items) else items
        for name, items in found.items()
    }


def evaluate(
    session: Session, asked: Mapping[str, Sequence[Item]], *, batch_size: int = 16, constrained: bool = True
) -> Json:
    """Scores greedy replies to the items of each set.

    An item counts as wrong if the grammar cannot guarantee its schema or if it is too long for the model; the number of
    such items is reported as `refused`.

    Args:
      constrained: whether the grammar constrains calls.

    Returns:
      `{"results": {set or set/kind: {accuracy, accuracy_stderr, broken, cut, refused, n, prompts}},
      "documents", "samples"}`, as in `evaluation.run.evaluate`.
    """
    caller = Caller(session)
    results: dict[str, Json] = {}
    documents: dict[str, Json] = {}
    samples: list[Json] = []
    for name, items in asked.items():
        replies = _replies(caller, items, batch_size, constrained)
        refused = [told for _, told in replies if told]
        if refused:
            sentence = "%d of the %d items of %s could not be asked and count as wrong; the first: %s"
            log.warning(sentence, len(refused), len(items), name, refused[0])
        judged = [(item, reply) for item, (reply, _) in zip(items, replies)]
        for part, scores in function_calls.summary(judged).items():
            kind = part.partition("/")[2]
            results[f"{name}/{kind}" if kind else name] = scores
        right = [function_calls.score(*each) for each in judged]
        documents[name] = {"accuracy": right}
        samples += [_line(name, *each) for each in zip(items, replies, right)]
    return {"results": results, "documents": documents, "samples": samples}


def _line(name: str, item: Item, reply: tuple[Reply | None, str], right: float) -> Json:
    said, told = reply[0] or Reply(""), reply[1]
    return {
        "task": name,
        "id": item.id,
        "kind": item.kind,
        "messages": item.messages,
        "tools": [tool.get("function", tool).get("name") for tool in item.tools],
        "expected": [{"name": call, "arguments": values} for call, values in item.expected],
        "content": said.content,
        "calls": [{"name": call.name, "arguments": call.arguments} for call in said.calls],
        "broken": said.broken,
        "cut": said.cut,
        "refused": told,
        "accuracy": right,
    }


def _replies(caller: Caller, items: Sequence[Item], rows: int, constrained: bool) -> list[tuple[Reply | None, str]]:
    """The reply to each item, generated in batches of similar length, or None with the reason for not asking it."""
    found: dict[int, tuple[Reply | None, str]] = {}
    asked: dict[int, tuple[np.ndarray, Tools]] = {}
    for i, item in enumerate(items):
        try:
            tools = caller.tools(item.tools)
            prompt = chat.encode_chat(caller.session.tokenizer, item.messages, item.tools)
            if len(prompt) + LONGEST > caller.session.model.architecture.max_seq_len:
                raise UserError(f"the prompt has {len(prompt)} tokens, too many for the model")
            asked[i] = prompt, tools
        except UserError as error:
            found[i] = (None, str(error))
    order = sorted(asked, key=lambda i: (len(asked[i][0]), i))
    for begin in range(0, len(order), rows):
        numbers = order[begin : begin + rows]
        replies = caller.replies([asked[i] for i in numbers], max_new_tokens=LONGEST, constrained=constrained)
        found |= {i: (reply, "") for i, reply in zip(numbers, replies)}
    return [found[i] for i in range(len(items))]
