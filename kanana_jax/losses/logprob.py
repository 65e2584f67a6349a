"""Log-probabilities of given tokens: the one function for policies, references and samplers.

The logits of all tokens never exist at once (`losses/fused.py`). Any function of the log-probabilities can be
differentiated: the backward pass computes the logits of a chunk again and weights each token by its own gradient.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from kanana_jax.losses.cross_entropy import NextToken
from kanana_jax.losses.fused import ChunkLoss, Vocabulary, fused

_NEVER = -1e30  # a logit whose exponential is 0


@dataclasses.dataclass(frozen=True)
class Drawn:
    """The distribution that tokens were sampled from, if it is not the model's own.

    Attributes:
      temperature: divisor of the logits.
      tokens: sampled ids are below this (a padded vocabulary has more); 0: no limit.
    """

    temperature: float = 1.0
    tokens: int = 0


def log_probs(
    hidden: jax.Array,
    unembedding: jax.Array,
    targets: jax.Array,
    *,
    chunk: int = 1024,
    soft_cap: float = 0.0,
    drawn: Drawn | None = None,
    cuts: jax.Array | None = None,
) -> jax.Array:
    """log p(target) at every position, float32 `[B, T]`, nats; differentiable by `hidden` and `unembedding`.

    Args:
      hidden: `[B, T, D]`, any float dtype.
      unembedding: `[V, D]`.
      targets: int32 `[B, T]`.
      chunk: tokens whose logits a device computes at once.
      soft_cap: cap of the model's logits (`fused`).
      drawn: settings of the sampler whose log p is computed; None: the model's own.
      cuts: float `[B, T]`: the sampler only drew from tokens with log-probabilities above this (top-p, top-k; see
        `sampling.Draw`); log p is renormalised over the tokens that are above it now, and the target. This set is
        not differentiated. None: from all tokens.
    """
    kind = NextToken(0.0) if drawn is None else SampledToken(drawn, cuts is not None)
    return _log_probs(kind, chunk, soft_cap, hidden, unembedding, targets, {} if cuts is None else {"cuts": cuts})


@dataclasses.dataclass(frozen=True)
class SampledToken:
    """−log p(target) under the distribution of a sampler, see `fused.ChunkLoss`.

    With z the logits over the temperature and S what is drawn from: log Σ_S exp z − z(target), whose derivative by the
    logits is (softmax over S − onehot) / temperature.
    """

    drawn: Drawn
    cut: bool

    def __call__(self, logits_CV, tokens, frozen, vocabulary: Vocabulary, differentiate: bool):
        target_CV = vocabulary.onehot(tokens["targets"])
        z_CV = logits_CV / self.drawn.temperature
        if self.drawn.tokens:
            z_CV = jnp.where(vocabulary.below(self.drawn.tokens) | target_CV, z_CV, _NEVER)
        log_z_C = vocabulary.log_z(z_CV)
        if self.cut:
            kept_CV = (z_CV - log_z_C[:, None] > tokens["cuts"][:, None]) | target_CV
            z_CV = jnp.where(kept_CV, z_CV, _NEVER)
            log_z_C = vocabulary.log_z(z_CV)
        nll_C = (log_z_C - vocabulary.pick(z_CV, tokens["targets"])) * tokens["weights"]
        if not differentiate:
            return {"loss": nll_C.sum()}, {"nll": nll_C}, None
        scale_C1 = (tokens["weights"] / self.drawn.temperature)[:, None]
        d_logits_CV = (jnp.exp(z_CV - log_z_C[:, None]) - target_CV) * scale_C1
        return {"loss": nll_C.sum()}, {"nll": nll_C}, d_logits_CV


def _weighted(kind: ChunkLoss, chunk, soft_cap, hidden, unembedding, targets, weights, more):
    tokens = {"targets": targets, "weights": weights, **more}
    return fused(kind, hidden, unembedding, tokens, {}, chunk=chunk, soft_cap=soft_cap)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _log_probs(kind, chunk, soft_cap, hidden, unembedding, targets, more):
    ones = jnp.ones(targets.shape, jnp.float32)
    return -_weighted(kind, chunk, soft_cap, hidden, unembedding, targets, ones, more)[1]["nll"]


def _forward(kind, chunk, soft_cap, hidden, unembedding, targets, more):
    found = _log_probs(kind, chunk, soft_cap, hidden, unembedding, targets, more)
    return found, (hidden, unembedding, targets, more)


def _backward(kind, chunk, soft_cap, inputs, cotangent_BT):
    hidden, unembedding, targets, more = inputs

    def loss(hidden, unembedding):
        return _weighted(kind, chunk, soft_cap, hidden, unembedding, targets, -cotangent_BT, more)[0]["loss"]

    # Cuts are constants: their cotangent is 0.
    return *jax.grad(loss, argnums=(0, 1))(hidden, unembedding), None, jax.tree.map(jnp.zeros_like, more)


_log_probs.defvjp(_forward, _backward)
