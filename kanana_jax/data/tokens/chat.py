"""The Llama-3 chat format as token ids.

    BOS <|start_header_id|> role <|end_header_id|> \\n\\n text <|eot_id|> …

Specials are put in as ids, so that text that spells them stays text.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from kanana_jax.data.tokens.tokenizer import Tokenizer
from kanana_jax.errors import UserError

ROLES = ("system", "user", "assistant")


def special_id(tokenizer: Tokenizer, piece: str) -> int:
    """The id of a chat symbol.

    Raises:
      UserError: the vocabulary has none.
    """
    index = tokenizer.token_id(piece)
    if index is None:
        raise UserError(f"the tokenizer has no {piece}: train one with 'kanana tokenizer train', or use Llama 3's")
    return index


def encode_chat(tokenizer: Tokenizer, messages: Sequence[Mapping[str, str]]) -> np.ndarray:
    """int32 ids of a conversation, up to the header of the assistant's next turn.

    Args:
      messages: `{"role": "system" | "user" | "assistant", "content": text}`.

    Raises:
      UserError: an unknown role, or a tokenizer without chat symbols.
    """
    turns = [ids for header, content, _ in _turns(tokenizer, messages) for ids in (header, content)]
    ids = [tokenizer.bos_id, *(i for part in turns for i in part), *_header(tokenizer, "assistant")]
    return np.asarray(ids, np.int32)


def encode_conversation(tokenizer: Tokenizer, messages: Sequence[Mapping[str, str]]) -> tuple[np.ndarray, np.ndarray]:
    """A whole conversation, to train on.

    Returns:
      int32 ids `[n]`, and float32 weights `[n]`: 1 for the assistant's content and the end of its turn, else 0.

    Raises:
      UserError: as `encode_chat`.
    """
    ids, weights = [tokenizer.bos_id], [0.0]
    for header, content, role in _turns(tokenizer, messages):
        ids += [*header, *content]
        weights += [0.0] * len(header) + [float(role == "assistant")] * len(content)
    return np.asarray(ids, np.int32), np.asarray(weights, np.float32)


def _header(tokenizer: Tokenizer, role: str) -> list[int]:
    begin, end = (special_id(tokenizer, s) for s in ("<|start_header_id|>", "<|end_header_id|>"))
    return [begin, *tokenizer.encode(role), end, *tokenizer.encode("\n\n")]


def _turns(tokenizer: Tokenizer, messages: Sequence[Mapping[str, str]]) -> Iterator[tuple[list[int], list[int], str]]:
    """Each turn's header, its content up to the end of the turn, and its role."""
    eot = special_id(tokenizer, "<|eot_id|>")
    for message in messages:
        if message["role"] not in ROLES:
            raise UserError(f"chat role '{message['role']}' is unknown; use one of {', '.join(ROLES)}")
        content = [*tokenizer.encode(message["content"].strip()), eot]
        yield _header(tokenizer, message["role"]), content, message["role"]
