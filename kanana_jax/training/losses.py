"""Cross-entropy and z-loss from hidden states, without a `[B, T, V]` tensor.

The output layer and the loss are one function with its own VJP: a loop over chunks of tokens computes
the logits of a chunk, its loss and (when differentiating) its gradients at once, so that the backward
pass only scales them: three matrix products instead of the four of recomputation. Under a mesh each
device works on its own tokens and its own part of the vocabulary; one collective at the end sums the
gradient of the output matrix.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from kanana_jax.parallel.sharding import RULES, spec


class CrossEntropy(NamedTuple):
    """Sums over the tokens that carry loss, and each token's own loss.

    Attributes:
      loss: float32 scalar, `nll + z_loss`: what is differentiated.
      nll: float32 scalar, −Σ log p(target), nats.
      z_loss: float32 scalar, `z · Σ (log Z)²` (PaLM, arXiv:2204.02311, §5).
      token_nll: float32 `[B, T]`, nats; 0 where the weight is 0.
    """

    loss: jax.Array
    nll: jax.Array
    z_loss: jax.Array
    token_nll: jax.Array


def cross_entropy(
    hidden: jax.Array,
    unembedding: jax.Array,
    targets: jax.Array,
    weights: jax.Array,
    *,
    z_loss: float = 0.0,
    chunk: int = 1024,
) -> CrossEntropy:
    """Weighted sums of the cross-entropy; divide by `weights.sum()` for the mean.

    Args:
      hidden: `[B, T, D]`, any float dtype.
      unembedding: `[V, D]`.
      targets: int32 `[B, T]`.
      weights: float32 `[B, T]`, 0 where a token carries no loss.
      z_loss: coefficient of the squared log-partition (Kanana, §2.2: 5e-6).
      chunk: tokens a device holds logits of at once.

    Returns:
      `CrossEntropy`; only `loss` has a gradient (by `hidden` and `unembedding`).
    """
    return _cross_entropy(hidden, unembedding, targets, weights, z_loss, chunk)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _cross_entropy(hidden, unembedding, targets, weights, z_loss, chunk):
    return _sharded(hidden, unembedding, targets, weights, z_loss, chunk, differentiate=False)


def _forward(hidden, unembedding, targets, weights, z_loss, chunk):
    result, (d_hidden, d_unembedding) = _sharded(
        hidden, unembedding, targets, weights, z_loss, chunk, differentiate=True
    )
    return result, (d_hidden, d_unembedding.astype(unembedding.dtype))


def _backward(z_loss, chunk, gradients, cotangent):
    d_hidden, d_unembedding = gradients
    scale = cotangent.loss
    return (d_hidden * scale.astype(d_hidden.dtype), d_unembedding * scale.astype(d_unembedding.dtype), None, None)


_cross_entropy.defvjp(_forward, _backward)


def _sharded(hidden, unembedding, targets, weights, z_loss, chunk, *, differentiate):
    """Runs `_local` on every device's share of tokens and vocabulary."""
    # Cast first: under FSDP the matrix is then gathered in the compute dtype.
    unembedding = unembedding.astype(hidden.dtype)
    local = functools.partial(_local, z_loss=z_loss, chunk=chunk, differentiate=differentiate)
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return local(hidden, unembedding, targets, weights, vocab_axis=None, token_axes=(), fsdp_axis=None)
    (vocab_axis,), (fsdp_axis,) = RULES["vocab"], RULES["embed"]
    token_axes = (*RULES["batch"], *RULES["sequence"])
    tokens = spec("batch", "sequence")
    hidden_spec = spec("batch", "sequence", None)
    sums = CrossEntropy(PartitionSpec(), PartitionSpec(), PartitionSpec(), tokens)
    return jax.shard_map(
        functools.partial(local, vocab_axis=vocab_axis, token_axes=token_axes, fsdp_axis=fsdp_axis),
        mesh=mesh,
        in_specs=(hidden_spec, spec("vocab", None), tokens, tokens),
        out_specs=(sums, (hidden_spec, spec("vocab", "embed"))) if differentiate else sums,
        check_vma=False,
    )(hidden, unembedding, targets, weights)


def _local(hidden, unembedding, targets, weights, *, z_loss, chunk, differentiate, vocab_axis, token_axes, fsdp_axis):
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

    first = 0 if vocab_axis is None else jax.lax.axis_index(vocab_axis) * v
    over_vocab = (lambda x: x) if vocab_axis is None else functools.partial(jax.lax.psum, axis_name=vocab_axis)

    def step(carry, inputs):
        x_CD, target_C, weight_C = inputs
        logits_CV = jnp.einsum("CD,VD->CV", x_CD, unembedding, preferred_element_type=jnp.float32)
        top_C = jnp.max(logits_CV, axis=-1)
        if vocab_axis is not None:
            top_C = jax.lax.pmax(top_C, vocab_axis)
        exp_CV = jnp.exp(logits_CV - top_C[:, None])
        total_C = over_vocab(jnp.sum(exp_CV, axis=-1))
        log_z_C = top_C + jnp.log(total_C)
        local_C = target_C - first
        mine_C = (local_C >= 0) & (local_C < v)
        picked_C = jnp.take_along_axis(logits_CV, jnp.clip(local_C, 0, v - 1)[:, None], axis=-1)[:, 0]
        target_logit_C = over_vocab(jnp.where(mine_C, picked_C, 0.0))
        nll_C = (log_z_C - target_logit_C) * weight_C
        z_C = z_loss * jnp.square(log_z_C) * weight_C
        nll_sum, z_sum, d_matrix = carry
        outputs = (nll_C,)
        if differentiate:
            # d nll / d logits = softmax − onehot;  d z / d logits = 2·z·log Z · softmax.
            scale_C = weight_C * (1.0 + 2.0 * z_loss * log_z_C) / total_C
            onehot_CV = jnp.arange(v)[None, :] == local_C[:, None]
            d_logits_CV = exp_CV * scale_C[:, None] - jnp.where(onehot_CV, weight_C[:, None], 0.0)
            d_logits_CV = d_logits_CV.astype(hidden.dtype)
            d_x_CD = jnp.einsum("CV,VD->CD", d_logits_CV, unembedding, preferred_element_type=jnp.float32)
            d_matrix = d_matrix + jnp.einsum("CV,CD->VD", d_logits_CV, x_CD, preferred_element_type=jnp.float32)
            outputs += (over_vocab(d_x_CD).astype(hidden.dtype),)
        return (nll_sum + nll_C.sum(), z_sum + z_C.sum(), d_matrix), outputs

    d_matrix = jnp.zeros((v, D), jnp.float32) if differentiate else None
    zero = jnp.zeros((), jnp.float32)
    (nll, z, d_matrix), outputs = jax.lax.scan(step, (zero, zero, d_matrix), (cut(hidden), cut(targets), cut(weights)))
    token_nll = outputs[0].reshape(-1)[:count].reshape(b, t)
    if token_axes:
        nll, z = jax.lax.psum((nll, z), token_axes)
    result = CrossEntropy(nll + z, nll, z, token_nll)
    if not differentiate:
        return result
    d_hidden = outputs[1].reshape(-1, D)[:count].reshape(b, t, D)
    if token_axes:
        d_matrix = jax.lax.psum(d_matrix, tuple(a for a in token_axes if a != fsdp_axis))
        d_matrix = jax.lax.psum_scatter(d_matrix, fsdp_axis, scatter_dimension=1, tiled=True)
    return result, (d_hidden, d_matrix)
