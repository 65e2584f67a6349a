"""Policy gradients on answers that the model wrote itself: GRPO, RLOO and their relatives, by group of answers.

With r the rewards of a group (the answers to one prompt), A an answer's advantage, π the model being trained, μ the
distribution that a token was sampled from, ρ the reference, and x = log π − log μ:

    group           A = r − mean r                    over their standard deviation: GRPO (arXiv:2402.03300, §4.1.2)
    leave_one_out   A = r − mean of the others        RLOO (arXiv:2402.14740, eq. 7)
    clipped         −min(eˣ A, clip(eˣ, 1 − ε_low, 1 + ε_high) A)        clip-higher: DAPO (arXiv:2503.14476, eq. 8)
    truncated       −sg(min(eˣ, cap)) A log π         truncated importance sampling (IMPALA, arXiv:1802.01561, §4)
    sequence ratio  x is its mean over the answer     GSPO (arXiv:2507.18071, eq. 7)
    k3              e^(log ρ − log π) − 1 − (log ρ − log π), a token's estimate of KL(π‖ρ) (GRPO, eq. 4)
"""

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_LEAST_STD = 1e-6  # standard deviation of rewards below which a group teaches nothing


@dataclasses.dataclass(frozen=True)
class PolicyConfig:
    """A policy-gradient loss.

    Attributes:
      baseline: the value subtracted from an answer's reward.
      scale: whether advantages are divided by the standard deviation of their group (Dr. GRPO, arXiv:2503.20783,
        leaves it out).
      importance: the correction for π not being μ.
      clip_low, clip_high: ε of `clipped`.
      cap: largest ratio with `truncated`.
      ratio: one ratio per token, or one for the whole answer.
      average: over all tokens of a batch (DAPO, eq. 8), or over the means of the answers (GRPO).
      kl_weight: weight of k3.
      unfinished: whether to learn from answers cut off by their length (DAPO, §3.4, leaves them out).
    """

    baseline: Literal["group", "leave_one_out"] = "group"
    scale: bool = True
    importance: Literal["clipped", "truncated"] = "clipped"
    clip_low: float = 0.2
    clip_high: float = 0.28
    cap: float = 2.0
    ratio: Literal["token", "sequence"] = "token"
    average: Literal["token", "answer"] = "token"
    kl_weight: float = 0.0
    unfinished: bool = True

    def __post_init__(self):
        if not 0 < self.clip_low <= 1 or not self.clip_high > 0:
            raise ValueError("policy needs 0 < clip_low <= 1 and clip_high > 0")
        if not self.cap >= 1:
            raise ValueError(
                f"policy.cap must be at least 1, not {self.cap}: a ratio of 1 means the sampler's own model"
            )
        if not self.kl_weight >= 0:
            raise ValueError(f"policy.kl_weight must not be negative, not {self.kl_weight}")
        if self.ratio == "sequence" and self.average == "token":
            raise ValueError("a sequence ratio applies to whole answers: set policy.average='answer'")


def advantages(config: PolicyConfig, rewards_PN: np.ndarray) -> np.ndarray:
    """Advantages of the answers to each prompt, float32 `[P, N]`; 0 in groups where all rewards are equal."""
    r = np.asarray(rewards_PN, np.float64)
    count = r.shape[1]
    centred = r - r.mean(axis=1, keepdims=True)
    found = centred * count / (count - 1) if config.baseline == "leave_one_out" else centred
    std = r.std(axis=1, keepdims=True)
    if config.scale:
        found = found / np.maximum(std, _LEAST_STD)
    return np.where(std > _LEAST_STD, found, 0.0).astype(np.float32)


def k3(log_probs: jax.Array, reference: jax.Array) -> jax.Array:
    """The estimate of a policy's KL from its reference at each sampled token, nats, not negative."""
    y = reference - log_probs
    return jnp.expm1(y) - y


class PolicyLoss(NamedTuple):
    """Sums over a batch, float32 scalars.

    Attributes:
      loss: the value to differentiate.
      weight: number of tokens or answers, by which the loss is divided.
      metrics: sums over the same, to be divided likewise. `ratio`: eˣ; `clipped`:
        share of tokens whose gradient the clip or the cap changes; `mismatch`: |x|; `kl`: k3.
    """

    loss: jax.Array
    weight: jax.Array
    metrics: dict[str, jax.Array]


def policy_loss(
    config: PolicyConfig,
    log_probs_BT: jax.Array,
    sampled_BT: jax.Array,
    reference_BT: jax.Array | None,
    advantages_BT: jax.Array,
    weights_BT: jax.Array,
    segment_ids_BT: jax.Array,
) -> PolicyLoss:
    """The loss of a batch of answers, each with its prompt in its own segment.

    Args:
      log_probs_BT: log π of the tokens, differentiable.
      sampled_BT: log μ.
      reference_BT: log ρ; None: no KL.
      advantages_BT: the advantage of the answer that a token belongs to.
      weights_BT: 1 for tokens of an answer, else 0.
    """
    weights_BT = weights_BT.astype(jnp.float32)
    counts_BT = jnp.maximum(_over_answer(weights_BT, segment_ids_BT), 1.0)
    # Outside answers nothing was sampled: both are treated as equal.
    x_BT = jnp.where(weights_BT > 0, log_probs_BT - jax.lax.stop_gradient(sampled_BT), 0.0)
    own_BT = x_BT
    if config.ratio == "sequence":
        own_BT = _over_answer(x_BT * weights_BT, segment_ids_BT) / counts_BT
    ratio_BT = jnp.exp(own_BT)
    if config.importance == "clipped":
        bounded_BT = jnp.clip(ratio_BT, 1 - config.clip_low, 1 + config.clip_high)
        loss_BT = -jnp.minimum(ratio_BT * advantages_BT, bounded_BT * advantages_BT)
        bound_BT = bounded_BT * advantages_BT < ratio_BT * advantages_BT
    else:
        # own − sg(own) is 0 with the derivative of log π.
        capped_BT = jax.lax.stop_gradient(jnp.minimum(ratio_BT, config.cap))
        loss_BT = -capped_BT * advantages_BT * jnp.exp(own_BT - jax.lax.stop_gradient(own_BT))
        bound_BT = ratio_BT > config.cap
    metrics = {"ratio": ratio_BT, "clipped": bound_BT.astype(jnp.float32), "mismatch": jnp.abs(x_BT)}
    if reference_BT is not None:
        there_BT = jnp.where(weights_BT > 0, jax.lax.stop_gradient(reference_BT), log_probs_BT)
        metrics["kl"] = k3(log_probs_BT, there_BT)
        loss_BT = loss_BT + config.kl_weight * metrics["kl"]
    share_BT = weights_BT if config.average == "token" else weights_BT / counts_BT
    sums = {name: (value * share_BT).sum() for name, value in metrics.items()}
    return PolicyLoss((loss_BT * share_BT).sum(), share_BT.sum(), jax.lax.stop_gradient(sums))


def _over_answer(values_BT: jax.Array, segment_ids_BT: jax.Array) -> jax.Array:
    """For each token, the sum over all tokens of its segment, `[B, T]`."""
    count = segment_ids_BT.shape[1] + 1

    def of_row(values_T: jax.Array, ids_T: jax.Array) -> jax.Array:
        return jax.ops.segment_sum(values_T, ids_T, count)[ids_T]

    return jax.vmap(of_row)(values_BT, segment_ids_BT)
