"""Encoders: from a record to the sequences of tokens that a stage trains on.

A stage names its encoder; packing, held-out rows, teacher caches and a plan's abstract batches follow from it. A text
is one sequence in which every token counts; a conversation is one in which only the assistant's tokens count.
Filter rules judge a conversation by its text; parts that they cut from that text stay in its messages.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from kanana_jax.data.read.record import Record
from kanana_jax.data.tokens import chat
from kanana_jax.data.tokens.tokenizer import Tokenizer, encode_document, rows_fingerprint
from kanana_jax.errors import UserError


class Example(NamedTuple):
    """A sequence to train on.

    Attributes:
      tokens: int32 `[n]`.
      weights: float32 `[n]`, of each token's loss as a target; None: 1 for all.
    """

    tokens: np.ndarray
    weights: np.ndarray | None = None


class Encoder(Protocol):
    """Record → its sequences; pure, picklable.

    Attributes:
      whole: whether the sequences of a record stay together in one row (`packing.Packer`).
    """

    @property
    def whole(self) -> bool: ...

    def __call__(self, record: Record) -> Sequence[Example]: ...


class TextEncoder(NamedTuple):
    """A document: its text as the tokenizer puts it (BOS only where it adds one), and EOS."""

    tokenizer: Tokenizer
    whole: bool = False

    @property
    def fingerprint(self) -> str:
        """A hash of all that decides a document's tokens."""
        return rows_fingerprint(self.tokenizer)

    def __call__(self, record: Record) -> Sequence[Example]:
        return (Example(encode_document(self.tokenizer, record["text"])),)


class ConversationEncoder(NamedTuple):
    """A conversation in the chat format; only what the assistant says carries loss, with the end of its turn."""

    tokenizer: Tokenizer
    whole: bool = True

    def __call__(self, record: Record) -> Sequence[Example]:
        if "messages" not in record:
            raise UserError(
                f"record '{record['id']}' has no 'messages', which a stage that trains on conversations reads: name "
                "other sources in its mixture"
            )
        try:
            return (Example(*chat.encode_conversation(self.tokenizer, record["messages"], record.get("tools"))),)
        except UserError as error:
            raise UserError(f"record '{record['id']}': {error}") from error
