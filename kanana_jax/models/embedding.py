"""Vectors of texts from a decoder's final states (LLM2Vec, arXiv:2404.05961, §2)."""

import dataclasses
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from kanana_jax import config as config_lib
from kanana_jax.models.dropout import Dropout
from kanana_jax.models.model import Model, Packed
from kanana_jax.models.transformer import Params

Pooling = Literal["mean", "last"]


@dataclasses.dataclass(frozen=True)
class Embedding:
    """The way in which a model makes text vectors; part of its `model.json`.

    Attributes:
      causal: whether a token sees only earlier ones.
      pooling: `mean` of the text's states, or the `last` token's.
      instruction: text put before queries; its tokens do not count.
      longest: most tokens of a text in training, including its instruction.
      dims: lengths of prefixes that are vectors of their own (Matryoshka).
      document: text put before texts that are not queries.
      counts_instruction: whether the tokens of `instruction` and `document` count after all, as in some models from
        elsewhere.
    """

    causal: bool = False
    pooling: Pooling = "mean"
    instruction: str = ""
    longest: int = 0
    dims: tuple[int, ...] = ()
    document: str = ""
    counts_instruction: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The JSON form; fields that only models from elsewhere use are left out if unset."""
        found = {**dataclasses.asdict(self), "dims": list(self.dims)}
        return {key: value for key, value in found.items() if value or key not in ("document", "counts_instruction")}

    @staticmethod
    def of_card(entry: Any, path: str = "model.json: embedding") -> "Embedding":
        """Reads a `model.json`'s entry; without one, the model was not trained for vectors and is used as it is.

        Raises:
          ConfigError: the entry is damaged.
        """
        return Embedding(causal=True) if entry is None else config_lib.build(Embedding, entry, path)


class Weighted(Packed, Protocol):
    """Packed rows with the tokens that count in a text's vector: float32 `[B, T]`, above 0."""

    @property
    def weights(self) -> jax.Array: ...


class _Rows(NamedTuple):
    """See `models.model.Packed`."""

    inputs: jax.Array
    positions: jax.Array
    segment_ids: jax.Array


def visible(segment_ids_BT: jax.Array, weights_BT: jax.Array, count: int) -> jax.Array:
    """Segment ids in which the tokens after a segment's last counting one are padding.

    Args:
      count: most segments of a row.
    """
    return jnp.where(_places(segment_ids_BT) <= _last(segment_ids_BT, weights_BT, count), segment_ids_BT, 0)


def _places(segment_ids_BT: jax.Array) -> jax.Array:
    return jnp.broadcast_to(jnp.arange(segment_ids_BT.shape[1]), segment_ids_BT.shape)


def _last(segment_ids_BT: jax.Array, weights_BT: jax.Array, count: int) -> jax.Array:
    """The position of the last counting token in each token's segment; −1 if there is none."""
    counted_BT = jnp.where((weights_BT > 0) & (segment_ids_BT > 0), _places(segment_ids_BT), -1)
    last_BS = jax.vmap(lambda places, ids: jax.ops.segment_max(places, ids, count + 1))(counted_BT, segment_ids_BT)
    return jnp.take_along_axis(jnp.maximum(last_BS, -1), segment_ids_BT, axis=1)


def members(segment_ids_BT: jax.Array, weights_BT: jax.Array, count: int) -> jax.Array:
    """Mask of the tokens that count in each segment, bool `[B, count, T]`."""
    own = segment_ids_BT[:, None, :] == 1 + jnp.arange(count)[None, :, None]
    return own & (weights_BT > 0)[:, None, :]


def pooled(
    hidden_BTD: jax.Array, segment_ids_BT: jax.Array, weights_BT: jax.Array, count: int, pooling: Pooling = "mean"
) -> jax.Array:
    """A vector of every segment, float32 `[B, count, D]`: the mean of the states that count, or the last of them.

    Zeros where a row has fewer segments, or a segment has no counting token.
    """
    if pooling == "last":
        last_BT = _last(segment_ids_BT, weights_BT, count)
        weights_BT = jnp.where(_places(segment_ids_BT) == last_BT, weights_BT, 0.0)
    own_BST = members(segment_ids_BT, weights_BT, count).astype(jnp.float32)
    sums_BSD = jnp.einsum("BST,BTD->BSD", own_BST, hidden_BTD.astype(jnp.float32))
    return sums_BSD / jnp.maximum(own_BST.sum(-1, keepdims=True), 1.0)


def embed(
    model: Model, params: Params, rows: Weighted, count: int, pooling: Pooling = "mean", dropout: Dropout | None = None
) -> jax.Array:
    """The vectors of packed texts, float32 `[B, count, D]`, not normalised (`pooled`).

    Args:
      count: most texts of a row.
    """
    ids_BT = visible(rows.segment_ids, rows.weights, count)
    hidden_BTD, _ = model(params, _Rows(rows.inputs, rows.positions, ids_BT), dropout=dropout)
    return pooled(hidden_BTD, ids_BT, rows.weights, count, pooling)
