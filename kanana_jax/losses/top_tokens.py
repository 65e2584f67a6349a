"""A model's k most probable next tokens, as a function of chunks of logits (`losses/fused.py`)."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from kanana_jax.losses.fused import Vocabulary, fused


class TopTokens(NamedTuple):
    """The k most probable tokens at every position, descending.

    Attributes:
      ids: `[B, T, k]`.
      log_probs: `[B, T, k]`, natural logarithms, under the softmax over the whole vocabulary, not renormalised.
    """

    ids: jax.Array
    log_probs: jax.Array


def top_tokens(
    hidden: jax.Array,
    unembedding: jax.Array,
    k: int,
    *,
    tokens: int | None = None,
    ids_dtype: str = "int32",
    log_probs_dtype: str = "float32",
    chunk: int = 1024,
    soft_cap: float = 0.0,
) -> TopTokens:
    """The top-k tokens that a teacher cache stores.

    Args:
      hidden: `[B, T, D]`.
      unembedding: `[V, D]`.
      k: 1 … the number of tokens.
      tokens: number of the tokenizer's tokens; rows beyond are in the softmax but never among the k. Default: V.
      chunk: tokens whose logits a device computes at once.
      soft_cap: cap of the model's logits (`fused`).
    """
    _, found = fused(
        _Top(k, tokens, ids_dtype, log_probs_dtype),
        hidden,
        unembedding,
        {},
        {},
        chunk=chunk,
        soft_cap=soft_cap,
    )
    return TopTokens(found["ids"], found["log_probs"])


@dataclasses.dataclass(frozen=True)
class _Top:
    """See `fused.ChunkLoss`; there is no loss."""

    k: int
    tokens: int | None
    ids_dtype: str
    log_probs_dtype: str

    def __call__(self, logits_CV, tokens, frozen, vocabulary: Vocabulary, differentiate: bool):
        meant_CV = logits_CV
        if self.tokens is not None:
            meant_CV = jnp.where(vocabulary.below(self.tokens), logits_CV, -jnp.inf)
        logits_Ck, ids_Ck = vocabulary.top(meant_CV, self.k)
        log_p_Ck = logits_Ck - vocabulary.log_z(logits_CV)[:, None]
        return {}, {"ids": ids_Ck.astype(self.ids_dtype), "log_probs": log_p_Ck.astype(self.log_probs_dtype)}, None
