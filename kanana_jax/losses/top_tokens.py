"""A model's k most probable next tokens, as a function of chunks of logits (`losses/fused.py`)."""

import dataclasses
from typing import NamedTuple

import jax

from kanana_jax.losses.fused import Vocabulary, fused


class TopTokens(NamedTuple):
    """The k most probable tokens at every place, descending.

    Attributes:
      ids: `[B, T, k]`.
      log_probs: `[B, T, k]`, natural logarithms, of the whole vocabulary's softmax: nothing is renormalised.
    """

    ids: jax.Array
    log_probs: jax.Array


def top_tokens(
    hidden: jax.Array,
    unembedding: jax.Array,
    k: int,
    *,
    ids_dtype: str = "int32",
    log_probs_dtype: str = "float32",
    chunk: int = 1024,
) -> TopTokens:
    """The top-k tokens that a teacher cache stores.

    Args:
      hidden: `[B, T, D]`.
      unembedding: `[V, D]`.
      k: 1 … V.
      chunk: tokens whose logits a device holds at once.
    """
    _, found = fused(_Top(k, ids_dtype, log_probs_dtype), hidden, unembedding, {}, {}, chunk=chunk)
    return TopTokens(found["ids"], found["log_probs"])


@dataclasses.dataclass(frozen=True)
class _Top:
    """See `fused.ChunkLoss`; there is no loss."""

    k: int
    ids_dtype: str
    log_probs_dtype: str

    def __call__(self, logits_CV, tokens, frozen, vocabulary: Vocabulary, differentiate: bool):
        logits_Ck, ids_Ck = vocabulary.top(logits_CV, self.k)
        log_p_Ck = logits_Ck - vocabulary.log_z(logits_CV)[:, None]
        return {}, {"ids": ids_Ck.astype(self.ids_dtype), "log_probs": log_p_Ck.astype(self.log_probs_dtype)}, None
