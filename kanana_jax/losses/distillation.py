"""Divergences between a teacher's and a student's next-token distributions, as a fused loss (`losses/fused.py`).

With p the teacher and q the student, both at temperature τ, and d/dz the derivative by the student's logits:

    forward   KL(p‖q) = Σ p (log p − log q)                    τ²·d/dz = τ (q − p)
    reverse   KL(q‖p)                                          τ²·d/dz = τ q (log q/p − KL(q‖p))
    mixed     f KL(p‖q) + (1 − f) KL(q‖p)                       f, 1 − f of both
    jsd       β KL(p‖m) + (1 − β) KL(q‖m), m = β p + (1 − β) q  τ²·d/dz = τ (1 − β) q (log q/m − KL(q‖m))

The factor τ² keeps gradients equally large at any temperature (Hinton et al. 2015, arXiv:1503.02531, §2). Kanana
distils with forward KL on the final logits only (arXiv:2502.18934, §2.3).
"""

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from kanana_jax.losses.fused import Vocabulary, fused

Divergence = Literal["forward", "reverse", "mixed", "jsd"]


@dataclasses.dataclass(frozen=True)
class DistillationConfig:
    """The minimised loss: (1 − ce_weight) · τ² · divergence + ce_weight · cross-entropy.

    Attributes:
      divergence: see above.
      temperature: τ.
      jsd_beta: β.
      forward_share: f.
      ce_weight: weight of the cross-entropy on the text itself.
    """

    divergence: Divergence = "forward"
    temperature: float = 1.0
    jsd_beta: float = 0.5
    forward_share: float = 0.5
    ce_weight: float = 0.0

    def __post_init__(self):
        if self.temperature <= 0:
            raise ValueError(f"temperature must be positive, not {self.temperature}")
        if not 0 < self.jsd_beta < 1 or not 0 <= self.ce_weight <= 1 or not 0 <= self.forward_share <= 1:
            raise ValueError("0 < jsd_beta < 1, 0 <= forward_share <= 1 and 0 <= ce_weight <= 1 must hold")


class Distillation(NamedTuple):
    """Sums over the tokens that carry loss.

    Attributes:
      loss: float32 scalar: the value to differentiate.
      divergence: nats, without τ² and weight.
      nll: −Σ log q(target) at τ = 1, nats: the student's cross-entropy, whether trained on or not.
    """

    loss: jax.Array
    divergence: jax.Array
    nll: jax.Array


def distillation(
    hidden: jax.Array,
    unembedding: jax.Array,
    teacher_hidden: jax.Array,
    teacher_unembedding: jax.Array,
    targets: jax.Array,
    weights: jax.Array,
    *,
    config: DistillationConfig,
    chunk: int = 1024,
    soft_cap: float = 0.0,
    teacher_soft_cap: float = 0.0,
) -> Distillation:
    """Distils from a teacher that has run on the same tokens.

    Args:
      hidden, unembedding: the student's, `[B, T, D]`, `[V, D]`.
      teacher_hidden, teacher_unembedding: `[B, T, D']`, `[V', D']`; without gradients. If both vocabularies are
        the tokenizer's with unlike padding, ids that only the teacher has are left out of its softmax; those that only
        the student has get teacher probability 0 (e⁻²⁰ where its logarithm is needed), and so decrease.
      targets, weights: `[B, T]`.
      chunk: rows of logits that a device computes at once; half of them are the teacher's.
      soft_cap, teacher_soft_cap: caps of the logits of each (`fused`).

    Returns:
      Only `loss` has a gradient (by `hidden` and `unembedding`).
    """
    tokens = {"targets": targets, "weights": weights, "teacher": jax.lax.stop_gradient(teacher_hidden)}
    # The teacher's matrix in the dtype of its states: it is read once per chunk.
    matrix = jax.lax.stop_gradient(teacher_unembedding).astype(teacher_hidden.dtype)
    known = None
    if len(matrix) != len(unembedding):
        known = min(len(matrix), len(unembedding))
        matrix = jnp.pad(matrix[:known], ((0, len(unembedding) - known), (0, 0)))
    kind, frozen = FullTeacher(config, known, teacher_soft_cap), {"teacher": matrix}
    sums, _ = fused(kind, hidden, unembedding, tokens, frozen, chunk=max(1, chunk // 2), soft_cap=soft_cap)
    return Distillation(sums["loss"], sums["divergence"], sums["nll"])


def cached_distillation(
    hidden: jax.Array,
    unembedding: jax.Array,
    ids: jax.Array,
    log_probs: jax.Array,
    targets: jax.Array,
    weights: jax.Array,
    *,
    config: DistillationConfig,
    chunk: int = 1024,
    soft_cap: float = 0.0,
) -> Distillation:
    """Distils from the teacher's k most probable tokens and its remaining probability.

    All other tokens are one event: with S the k tokens, t = 1 − Σ_S p and u = 1 − Σ_S q the loss is
    Σ_S p (log p − log q) + t (log t − log u), which is a lower bound of KL(p‖q) and equal to it for k = V. Nothing is
    renormalised. Its gradient is q − p in S and q − t q/u elsewhere, where q/u is the student's softmax over the other
    tokens: it holds however small u is.

    Args:
      ids: any integer dtype, `[B, T, k]`.
      log_probs: float `[B, T, k]`, the teacher's at τ = 1; any finite value where the weight is 0.
      soft_cap: cap of the student's logits (`fused`).

    Raises:
      ValueError: a divergence other than forward or a temperature other than 1, which the cache cannot provide.
    """
    if config.divergence != "forward" or config.temperature != 1.0:
        raise ValueError("cached teachers only work with divergence 'forward' at temperature 1")
    tokens = {"targets": targets, "weights": weights, "ids": ids, "log_probs": log_probs}
    sums, _ = fused(CachedTeacher(config), hidden, unembedding, tokens, {}, chunk=chunk, soft_cap=soft_cap)
    return Distillation(sums["loss"], sums["divergence"], sums["nll"])


def _total(config, divergence_C, nll_C, weights_C):
    squared = config.temperature**2
    divergence, nll = (divergence_C * weights_C).sum(), (nll_C * weights_C).sum()
    loss = (1 - config.ce_weight) * squared * divergence + config.ce_weight * nll
    return {"loss": loss, "divergence": divergence, "nll": nll}


def _gradient(config, d_divergence_CV, softmax_CV, tokens, vocabulary):
    """d loss / d logits; `d_divergence_CV` is that of τ² · divergence."""
    d = (1 - config.ce_weight) * d_divergence_CV
    if config.ce_weight:
        d = d + config.ce_weight * (softmax_CV - vocabulary.onehot(tokens["targets"]))
    return d * tokens["weights"][:, None]


_NEVER = -1e30  # a logit whose exponential is 0
_UNKNOWN = -20.0  # log p of an id that the teacher does not have


@dataclasses.dataclass(frozen=True)
class FullTeacher:
    """The full distribution of a teacher whose hidden states are available, see `fused.ChunkLoss`.

    Attributes:
      known: number of ids that the teacher has; None: all.
      soft_cap: cap of the teacher's logits; 0: none.
    """

    config: DistillationConfig
    known: int | None = None
    soft_cap: float = 0.0

    def __call__(self, logits_CV, tokens, frozen, vocabulary: Vocabulary, differentiate: bool):
        c, tau = self.config, self.config.temperature
        teacher_CV = jnp.einsum("CD,VD->CV", tokens["teacher"], frozen["teacher"], preferred_element_type=jnp.float32)
        if self.soft_cap:
            teacher_CV = self.soft_cap * jnp.tanh(teacher_CV / self.soft_cap)

        def distribution(logits_CV):
            exp_CV, total_C, log_z_C = vocabulary.exponentials(logits_CV)
            # A CPU would recompute the exponentials for each use; on an accelerator computing is cheaper than storing.
            exp_CV = jax.lax.platform_dependent(exp_CV, cpu=jax.lax.optimization_barrier, default=lambda x: x)
            return exp_CV * (1 / total_C)[:, None], logits_CV - log_z_C[:, None], log_z_C

        q_CV, log_q_CV, log_z_C = distribution(logits_CV / tau)
        if self.known is None:
            p_CV, log_p_CV, _ = distribution(teacher_CV / tau)
        else:
            known_V = vocabulary.below(self.known)
            p_CV, log_p_CV, _ = distribution(jnp.where(known_V, teacher_CV / tau, _NEVER))
            log_p_CV = jnp.where(known_V, log_p_CV, _UNKNOWN)
        if tau != 1.0:
            log_z_C = vocabulary.log_z(logits_CV)
        nll_C = log_z_C - vocabulary.pick(logits_CV, tokens["targets"])

        def expected(weight_CV, value_CV):
            return vocabulary.sum(jnp.sum(weight_CV * value_CV, axis=-1))

        if c.divergence == "forward":
            divergence_C = expected(p_CV, log_p_CV - log_q_CV)
            d_CV = tau * (q_CV - p_CV)
        elif c.divergence in ("reverse", "mixed"):
            ratio_CV = log_q_CV - log_p_CV
            divergence_C = expected(q_CV, ratio_CV)
            d_CV = tau * q_CV * (ratio_CV - divergence_C[:, None])
            if c.divergence == "mixed":
                f = c.forward_share
                divergence_C = f * expected(p_CV, -ratio_CV) + (1 - f) * divergence_C
                d_CV = f * tau * (q_CV - p_CV) + (1 - f) * d_CV
        else:
            b = c.jsd_beta
            log_m_CV = jnp.logaddexp(jnp.log(b) + log_p_CV, jnp.log1p(-b) + log_q_CV)
            of_student_C = expected(q_CV, log_q_CV - log_m_CV)
            divergence_C = b * expected(p_CV, log_p_CV - log_m_CV) + (1 - b) * of_student_C
            d_CV = tau * (1 - b) * q_CV * (log_q_CV - log_m_CV - of_student_C[:, None])
        sums = _total(c, divergence_C, nll_C, tokens["weights"])
        if not differentiate:
            return sums, {}, None
        softmax_CV = q_CV if tau == 1.0 else jnp.exp(logits_CV - log_z_C[:, None])
        return sums, {}, _gradient(c, d_CV, softmax_CV, tokens, vocabulary)


@dataclasses.dataclass(frozen=True)
class CachedTeacher:
    """The k most probable tokens and the rest as one event, see `cached_distillation`."""

    config: DistillationConfig

    def __call__(self, logits_CV, tokens, frozen, vocabulary: Vocabulary, differentiate: bool):
        ids_Ck, log_p_Ck = tokens["ids"].astype(jnp.int32), tokens["log_probs"].astype(jnp.float32)
        log_z_C = vocabulary.log_z(logits_CV)
        nll_C = log_z_C - vocabulary.pick(logits_CV, tokens["targets"])
        log_q_Ck = vocabulary.pick(logits_CV, ids_Ck) - log_z_C[:, None]
        p_Ck, q_Ck = jnp.exp(log_p_Ck), jnp.exp(log_q_Ck)
        # The student's remainder is summed over the other tokens, relative to their own maximum: 1 − Σ q would be noise
        # below 1e-7, and so would be its gradient.
        local_Ck = ids_Ck - vocabulary.first
        mine_Ck = (local_Ck >= 0) & (local_Ck < vocabulary.size)
        rows, at_Ck = jnp.arange(ids_Ck.shape[0])[:, None], jnp.where(mine_Ck, local_Ck, vocabulary.size)
        exp_CV, total_C, log_rest_C = vocabulary.exponentials(logits_CV.at[rows, at_Ck].set(_NEVER, mode="drop"))
        log_u_C = log_rest_C - log_z_C
        t_C = jnp.clip(1 - p_Ck.sum(axis=-1), 0.0, 1.0)
        # With all tokens cached nothing remains, except for the rounding of t.
        some_C = (t_C > 0) & (log_rest_C > 0.5 * _NEVER)
        rest_C = jnp.where(some_C, t_C * (jnp.log(jnp.where(some_C, t_C, 1.0)) - log_u_C), 0.0)
        divergence_C = (p_Ck * (log_p_Ck - log_q_Ck)).sum(axis=-1) + rest_C
        sums = _total(self.config, divergence_C, nll_C, tokens["weights"])
        if not differentiate:
            return sums, {}, None
        d_CV = exp_CV * ((jnp.exp(log_u_C) - t_C) / total_C)[:, None]
        d_CV = d_CV.at[rows, at_Ck].set(q_Ck - p_Ck, mode="drop")
        softmax_CV = jnp.exp(logits_CV - log_z_C[:, None])
        return sums, {}, _gradient(self.config, d_CV, softmax_CV, tokens, vocabulary)
