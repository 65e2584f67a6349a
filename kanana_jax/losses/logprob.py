"""Log-probabilities of given tokens: the one function for policies, references and samplers.

The logits of all tokens never exist at once (`losses/fused.py`). Whatever is made of the log-probabilities can be
differentiated: the backward pass computes the logits of a chunk again and weights each token by its own gradient.
"""

import functools

import jax
import jax.numpy as jnp

from kanana_jax.losses.cross_entropy import NextToken
from kanana_jax.losses.fused import fused


def log_probs(
    hidden: jax.Array, unembedding: jax.Array, targets: jax.Array, *, chunk: int = 1024, soft_cap: float = 0.0
) -> jax.Array:
    """log p(target) at every position, float32 `[B, T]`, nats; differentiable by `hidden` and `unembedding`.

    Args:
      hidden: `[B, T, D]`, any float dtype.
      unembedding: `[V, D]`.
      targets: int32 `[B, T]`.
      chunk: tokens whose logits a device holds at once.
      soft_cap: of the model's logits, see `fused`.
    """
    return _log_probs(chunk, soft_cap, hidden, unembedding, targets)


def _weighted(chunk, soft_cap, hidden, unembedding, targets, weights):
    tokens = {"targets": targets, "weights": weights}
    return fused(NextToken(0.0), hidden, unembedding, tokens, {}, chunk=chunk, soft_cap=soft_cap)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _log_probs(chunk, soft_cap, hidden, unembedding, targets):
    ones = jnp.ones(targets.shape, jnp.float32)
    return -_weighted(chunk, soft_cap, hidden, unembedding, targets, ones)[1]["nll"]


def _forward(chunk, soft_cap, hidden, unembedding, targets):
    return _log_probs(chunk, soft_cap, hidden, unembedding, targets), (hidden, unembedding, targets)


def _backward(chunk, soft_cap, inputs, cotangent_BT):
    hidden, unembedding, targets = inputs

    def loss(hidden, unembedding):
        return _weighted(chunk, soft_cap, hidden, unembedding, targets, -cotangent_BT)[0]["loss"]

    return *jax.grad(loss, argnums=(0, 1))(hidden, unembedding), None


_log_probs.defvjp(_forward, _backward)
