"""Cross-entropy and z-loss from hidden states, as a fused loss (`losses/fused.py`)."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from kanana_jax.losses.fused import Vocabulary, fused


class CrossEntropy(NamedTuple):
    """Sums over the tokens that carry loss, and each token's own loss.

    Attributes:
      loss: float32 scalar, `nll + z_loss`: the value to differentiate.
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
    soft_cap: float = 0.0,
) -> CrossEntropy:
    """Weighted sums of the cross-entropy; divide by `weights.sum()` for the mean.

    Args:
      hidden: `[B, T, D]`, any float dtype.
      unembedding: `[V, D]`.
      targets: int32 `[B, T]`.
      weights: float32 `[B, T]`, 0 where a token carries no loss.
      z_loss: coefficient of the squared log-partition (Kanana, §2.2: 5e-6).
      chunk: tokens whose logits a device computes at once.
      soft_cap: cap of the model's logits (`fused`).

    Returns:
      `CrossEntropy`; only `loss` has a gradient (by `hidden` and `unembedding`).
    """
    tokens = {"targets": targets, "weights": weights}
    sums, by_token = fused(NextToken(z_loss), hidden, unembedding, tokens, {}, chunk=chunk, soft_cap=soft_cap)
    return CrossEntropy(sums["loss"], sums["nll"], sums["z_loss"], by_token["nll"])


@dataclasses.dataclass(frozen=True)
class NextToken:
    """−log p(target) + z · (log Z)² of a chunk, see `fused.ChunkLoss`."""

    z_loss: float

    def __call__(self, logits_CV, tokens, frozen, vocabulary: Vocabulary, differentiate: bool):
        targets_C, weights_C = tokens["targets"], tokens["weights"]
        exp_CV, total_C, log_z_C = vocabulary.exponentials(logits_CV)
        nll_C = (log_z_C - vocabulary.pick(logits_CV, targets_C)) * weights_C
        z_C = self.z_loss * jnp.square(log_z_C) * weights_C
        nll, z = nll_C.sum(), z_C.sum()
        sums = {"loss": nll + z, "nll": nll, "z_loss": z}
        if not differentiate:
            return sums, {"nll": nll_C}, None
        # d nll / d logits = softmax − onehot;  d z / d logits = 2·z·log Z · softmax.
        scale_C = weights_C * (1.0 + 2.0 * self.z_loss * log_z_C) / total_C
        d_logits_CV = exp_CV * scale_C[:, None] - jnp.where(vocabulary.onehot(targets_C), weights_C[:, None], 0.0)
        return sums, {"nll": nll_C}, d_logits_CV
