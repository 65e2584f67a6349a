"""A loss on logits without a `[B, T, V]` tensor.

The output layer and the loss are one function with its own VJP: a loop over chunks of tokens computes the logits of a
chunk, its loss and (when differentiating) its gradients at once, so that the backward pass only scales them: three
matrix products instead of the four of recomputation. Under a mesh each device works on its own tokens and its own part
of the vocabulary; one collective at the end sums the gradient of the output matrix.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from kanana_jax.parallel.sharding import RULES, spec

Arrays = Mapping[str, jax.Array]


class Vocabulary(NamedTuple):
    """A device's part of the vocabulary.

    Attributes:
      first: its first token id.
      size: number of its tokens, `v`.
      sum, max: combine the results of the devices elementwise.
      gather: joins the results of the devices along the last axis, in the order of the parts.
    """

    first: jax.Array | int
    size: int
    sum: Callable[[jax.Array], jax.Array]
    max: Callable[[jax.Array], jax.Array]
    gather: Callable[[jax.Array], jax.Array]

    def exponentials(self, logits_CV: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """exp(logits − their maximum) `[C, v]`; its sum and log Σ exp over the whole vocabulary, `[C]`."""
        top_C = self.max(jnp.max(logits_CV, axis=-1))
        exp_CV = jnp.exp(logits_CV - top_C[:, None])
        total_C = self.sum(jnp.sum(exp_CV, axis=-1))
        return exp_CV, total_C, top_C + jnp.log(total_C)

    def log_z(self, logits_CV: jax.Array) -> jax.Array:
        """log Σ exp over the whole vocabulary, `[C]`."""
        return self.exponentials(logits_CV)[2]

    def pick(self, values_CV: jax.Array, ids: jax.Array) -> jax.Array:
        """Values of token ids `[C]` or `[C, k]`, on whichever device."""
        flat = ids.reshape(ids.shape[0], -1) - self.first
        mine = (flat >= 0) & (flat < self.size)
        found = jnp.take_along_axis(values_CV, jnp.clip(flat, 0, self.size - 1), axis=-1)
        return self.sum(jnp.where(mine, found, 0.0)).reshape(ids.shape)

    def top(self, values_CV: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
        """The k highest values `[C, k]`, descending, and their token ids; among equals, the lower id comes first."""
        values_Ck, places_Ck = jax.lax.top_k(values_CV, min(k, self.size))
        all_values, all_ids = self.gather(values_Ck), self.gather(places_Ck + self.first)
        top_Ck, at_Ck = jax.lax.top_k(all_values, k)
        return top_Ck, jnp.take_along_axis(all_ids, at_Ck, axis=-1)

    def below(self, count: int) -> jax.Array:
        """Returns whether a token id is below a number, bool `[v]`."""
        return jnp.arange(self.size) + self.first < count

    def onehot(self, ids_C: jax.Array) -> jax.Array:
        """bool `[C, v]`."""
        return jnp.arange(self.size)[None, :] == (ids_C - self.first)[:, None]


class ChunkLoss(Protocol):
    """A hashable function of one chunk.

    Args:
      logits_CV: float32 `[C, v]` of this device's part of the vocabulary.
      tokens: arrays `[C, …]` of the chunk's tokens.
      frozen: matrices `[v, …]`, sharded over the vocabulary like the logits.
      vocabulary: combines the parts.
      differentiate: whether to compute gradients.

    Returns:
      Sums by name (float32 scalars; `loss` is differentiated), values by token `[C, …]` by name, and
      the gradient of `loss` by the logits `[C, v]` (None unless `differentiate`).
    """

    def __call__(
        self, logits_CV: jax.Array, tokens: Arrays, frozen: Arrays, vocabulary: Vocabulary, differentiate: bool
    ) -> tuple[dict[str, jax.Array], dict[str, jax.Array], jax.Array | None]: ...


@dataclasses.dataclass(frozen=True)
class SoftCapped:
    """A loss of c·tanh(x/c) in place of the logits x."""

    of: ChunkLoss
    cap: float

    def __call__(self, logits_CV, tokens, frozen, vocabulary: Vocabulary, differentiate: bool):
        shares_CV = jnp.tanh(logits_CV / self.cap)
        sums, by_token, d_logits_CV = self.of(self.cap * shares_CV, tokens, frozen, vocabulary, differentiate)
        return sums, by_token, None if d_logits_CV is None else d_logits_CV * (1 - jnp.square(shares_CV))


def fused(
    chunk_loss: ChunkLoss,
    hidden: jax.Array,
    unembedding: jax.Array,
    tokens: Arrays,
    frozen: Arrays,
    *,
    chunk: int,
    soft_cap: float = 0.0,
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """Sums and values by token of a loss over all tokens.

    Args:
      hidden: `[B, T, D]`.
      unembedding: `[V, D]`.
      tokens: arrays `[B, T, …]`.
      frozen: arrays `[V, …]`.
      chunk: tokens whose logits a device computes at once.
      soft_cap: c in c·tanh(x/c) of the logits (Gemma 2, arXiv:2408.00118, §2); 0: none.

    Returns:
      Only `sums['loss']` has a gradient (by `hidden` and `unembedding`).
    """
    chunk_loss = SoftCapped(chunk_loss, soft_cap) if soft_cap else chunk_loss
    return _fused(chunk_loss, chunk, hidden, unembedding, dict(tokens), dict(frozen))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _fused(chunk_loss, chunk, hidden, unembedding, tokens, frozen):
    return _sharded(chunk_loss, chunk, hidden, unembedding, tokens, frozen, differentiate=False)


def _forward(chunk_loss, chunk, hidden, unembedding, tokens, frozen):
    outputs, (d_hidden, d_unembedding) = _sharded(
        chunk_loss, chunk, hidden, unembedding, tokens, frozen, differentiate=True
    )
    return outputs, (d_hidden, d_unembedding.astype(unembedding.dtype))


def _backward(chunk_loss, chunk, gradients, cotangent):
    d_hidden, d_unembedding = gradients
    scale = cotangent[0]["loss"]
    return d_hidden * scale.astype(d_hidden.dtype), d_unembedding * scale.astype(d_unembedding.dtype), None, None


_fused.defvjp(_forward, _backward)


def _sharded(chunk_loss, chunk, hidden, unembedding, tokens, frozen, *, differentiate):
    """Runs `_local` on every device's share of tokens and vocabulary."""
    # Cast first: under FSDP the matrix is then gathered in the compute dtype.
    unembedding = unembedding.astype(hidden.dtype)
    local = functools.partial(_local, chunk_loss=chunk_loss, chunk=chunk, differentiate=differentiate)
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return local(hidden, unembedding, tokens, frozen, vocab_axis=None, token_axes=(), fsdp_axis=None)
    (vocab_axis,), (fsdp_axis,) = RULES["vocab"], RULES["embed"]
    token_axes = (*RULES["batch"], *RULES["sequence"])
    hidden_spec = spec("batch", "sequence", None)
    alone = functools.partial(_local, chunk_loss=chunk_loss, chunk=chunk, differentiate=False)
    sums, by_token = jax.eval_shape(
        functools.partial(alone, vocab_axis=None, token_axes=(), fsdp_axis=None), hidden, unembedding, tokens, frozen
    )
    outputs = (
        jax.tree.map(lambda _: PartitionSpec(), sums),
        jax.tree.map(lambda _: spec("batch", "sequence"), by_token),
    )
    return jax.shard_map(
        functools.partial(local, vocab_axis=vocab_axis, token_axes=token_axes, fsdp_axis=fsdp_axis),
        mesh=mesh,
        in_specs=(
            hidden_spec,
            spec("vocab", None),
            jax.tree.map(lambda _: spec("batch", "sequence"), tokens),
            jax.tree.map(lambda _: spec("vocab"), frozen),
        ),
        out_specs=(outputs, (hidden_spec, spec("vocab", "embed"))) if differentiate else outputs,
        check_vma=False,
    )(hidden, unembedding, tokens, frozen)


def _local(hidden, unembedding, tokens, frozen, *, chunk_loss, chunk, differentiate, vocab_axis, token_axes, fsdp_axis):
    """One device: `hidden [b, t, D]`, `unembedding [v, D]` with `v` its part of the vocabulary."""
    b, t, D = hidden.shape
    v = unembedding.shape[0]
    count = b * t
    chunk = min(chunk, count)
    chunks = -(-count // chunk)
    padding = chunks * chunk - count

    def cut(x):
        x = x.reshape(count, *x.shape[2:])
        x = jnp.pad(x, [(0, padding)] + [(0, 0)] * (x.ndim - 1)) if padding else x
        return x.reshape(chunks, chunk, *x.shape[1:])

    if vocab_axis is None:
        vocabulary = Vocabulary(0, v, *(lambda x: x,) * 3)
    else:
        over = functools.partial(jax.lax.psum, axis_name=vocab_axis)
        top = functools.partial(jax.lax.pmax, axis_name=vocab_axis)
        join = functools.partial(jax.lax.all_gather, axis_name=vocab_axis, axis=1, tiled=True)
        vocabulary = Vocabulary(jax.lax.axis_index(vocab_axis) * v, v, over, top, join)

    def step(d_matrix, inputs):
        x_CD, chunk_tokens = inputs
        logits_CV = jnp.einsum("CD,VD->CV", x_CD, unembedding, preferred_element_type=jnp.float32)
        sums, by_token, d_logits_CV = chunk_loss(logits_CV, chunk_tokens, frozen, vocabulary, differentiate)
        outputs: tuple[Any, ...] = (sums, by_token)
        if differentiate:
            d_logits_CV = d_logits_CV.astype(hidden.dtype)
            d_x_CD = jnp.einsum("CV,VD->CD", d_logits_CV, unembedding, preferred_element_type=jnp.float32)
            d_matrix = d_matrix + jnp.einsum("CV,CD->VD", d_logits_CV, x_CD, preferred_element_type=jnp.float32)
            outputs += (vocabulary.sum(d_x_CD).astype(hidden.dtype),)
        return d_matrix, outputs

    d_matrix = jnp.zeros((v, D), jnp.float32) if differentiate else None
    d_matrix, outputs = jax.lax.scan(step, d_matrix, (cut(hidden), jax.tree.map(cut, tokens)))
    sums = jax.tree.map(lambda x: x.sum(axis=0), outputs[0])
    by_token = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:count].reshape(b, t, *x.shape[2:]), outputs[1])
    if token_axes:
        sums = jax.lax.psum(sums, token_axes)
    if not differentiate:
        return sums, by_token
    d_hidden = outputs[2].reshape(-1, D)[:count].reshape(b, t, D)
    if token_axes:
        d_matrix = jax.lax.psum(d_matrix, tuple(a for a in token_axes if a != fsdp_axis))
        d_matrix = jax.lax.psum_scatter(d_matrix, fsdp_axis, scatter_dimension=1, tiled=True)
    return (sums, by_token), (d_hidden, d_matrix)
