"""The tokens of a text of which a vector is made, with an instruction before it that is read but not counted."""

from typing import NamedTuple

import numpy as np

from kanana_jax.data.tokens.tokenizer import Tokenizer


class Instructed(NamedTuple):
    """A text behind its instruction.

    Attributes:
      ids: int32 `[n]`, with what the tokenizer puts around a text.
      skipped: tokens at the beginning that are the instruction's, BOS among them; 0 without an instruction. As
        `include_prompt = False` of sentence-transformers has it.
      left_out: tokens at the text's end that there was no room for.
    """

    ids: np.ndarray
    skipped: int
    left_out: int

    @property
    def counted(self) -> int:
        """Tokens of the text itself."""
        return len(self.ids) - self.skipped


def instructed(tokenizer: Tokenizer, text: str, instruction: str = "", longest: int = 0) -> Instructed:
    """A text's tokens.

    A token that holds letters of both belongs to the text: the instruction's are those that it begins with alone, too.

    Args:
      instruction: stands before the text, as it is (`Instruct: …\\nQuery:\\n`).
      longest: tokens, beyond which the text's end is left out, but not what the tokenizer puts behind it; 0: none is.
    """
    alone = tokenizer.encode(instruction) if instruction else None
    return of_ids(tokenizer, tokenizer.encode(instruction + text), alone, longest)


def of_ids(tokenizer: Tokenizer, own: np.ndarray, alone: np.ndarray | None = None, longest: int = 0) -> Instructed:
    """The same from ids.

    Args:
      own: of the instruction and the text, encoded together.
      alone: of the instruction by itself; None: there is none.
    """
    ids, suffix = np.asarray([*tokenizer.prefix, *own], np.int32), np.asarray(tokenizer.suffix, np.int32)
    skipped = 0
    if alone is not None:
        before = np.asarray([*tokenizer.prefix, *alone], np.int32)
        n = min(len(before), len(ids))
        other = np.flatnonzero(before[:n] != ids[:n])
        skipped = int(other[0]) if len(other) else n
    left_out = max(len(ids) + len(suffix) - longest, 0) if longest else 0
    ids = np.concatenate([ids[: max(len(ids) - left_out, 0)], suffix])
    return Instructed(ids, min(skipped, len(ids)), left_out)
