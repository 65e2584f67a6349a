"""The Llama-3 chat format as token ids.

    BOS <|start_header_id|> role <|end_header_id|> \\n\\n text <|eot_id|> …

Specials are put in as ids, so that text that spells them stays text.
"""

from collections.abc import Mapping, Sequence

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
    begin, end, eot = (special_id(tokenizer, s) for s in ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"))

    def header(role: str) -> list[int]:
        return [begin, *tokenizer.encode(role), end, *tokenizer.encode("\n\n")]

    ids = [tokenizer.bos_id]
    for message in messages:
        if message["role"] not in ROLES:
            raise UserError(f"chat role '{message['role']}' is unknown; use one of {', '.join(ROLES)}")
        ids += [*header(message["role"]), *tokenizer.encode(message["content"].strip()), eot]
    return np.asarray([*ids, *header("assistant")], np.int32)
