"""KTO: a loss on single answers labelled desirable or not (arXiv:2402.01306)."""

import dataclasses

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class KtoConfig:
    """The loss.

    Attributes:
      beta: β.
      desirable, undesirable: λ_D and λ_U. With different numbers of answers n_D and n_U, λ_D·n_D / (λ_U·n_U) is best
        between 1 and 1.5 (§4.2 there).
    """

    beta: float = 0.1
    desirable: float = 1.0
    undesirable: float = 1.0

    def __post_init__(self):
        if not (self.beta > 0 and self.desirable > 0 and self.undesirable > 0):
            raise ValueError("kto.beta, kto.desirable and kto.undesirable must be above 0")


def kto(config: KtoConfig, log_ratios: jax.Array, desirable: jax.Array, kl: jax.Array) -> jax.Array:
    """λ_y − v(x, y) by answer (arXiv:2402.01306, eq. 7 and 8), float32 `[…]`.

    Args:
      log_ratios: log π(y|x) − log ρ(y|x) of each answer.
      desirable: bool `[…]`.
      kl: z_0, the KL of policy to reference, which is not differentiated: see `kl_estimate`.
    """
    apart = config.beta * (log_ratios - jax.lax.stop_gradient(kl))
    return jnp.where(desirable, config.desirable * jax.nn.sigmoid(-apart), config.undesirable * jax.nn.sigmoid(apart))


def kl_estimate(log_ratios: jax.Array, there: jax.Array) -> jax.Array:
    """z_0, scalar: the mean log-ratio of answers to other prompts of the batch, at least 0 (§4.1 there).

    Args:
      log_ratios: log-ratios of mismatched answers.
      there: bool, which of them exist; without any, z_0 is 0.
    """
    total = jnp.where(there, log_ratios, 0.0).sum()
    return jax.lax.stop_gradient(jnp.maximum(total / jnp.maximum(there.sum(), 1), 0.0))
