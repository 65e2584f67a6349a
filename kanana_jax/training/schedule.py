"""Learning-rate schedules as multiples of the peak, counted in applied updates: a refused one does not count."""

import dataclasses
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class ScheduleConfig:
    """A schedule over `total` steps.

    Attributes:
      kind: `multi_step` (DeepSeek LLM, arXiv:2401.02954, §2.3): 1 for 80% of the steps, then 0.316;
        from 90% on, 0.1. `cosine`: down to `final`. `wsd`: constant, then linear to `final` over the
        last `decay` share (arXiv:2404.06395). `constant`.
      warmup_steps: linear from 0 (2,000 in DeepSeek LLM; 100 for Kanana's distillation).
      final: the last multiple of `cosine` and `wsd`.
      decay: share of the steps that `wsd` decays over.
      drops: (share of steps, multiple) pairs of `multi_step`.
    """

    kind: Literal["multi_step", "cosine", "wsd", "constant"] = "multi_step"
    warmup_steps: int = 2000
    final: float = 0.1
    decay: float = 0.1
    drops: tuple[tuple[float, float], ...] = ((0.8, 0.316), (0.9, 0.1))

    def __post_init__(self):
        if self.warmup_steps < 0:
            raise ValueError("warmup_steps must not be negative")
        if not 0 < self.decay <= 1:
            raise ValueError("decay must be a share in (0, 1]")


def make_schedule(config: ScheduleConfig, total: int) -> Callable[[jax.Array], jax.Array]:
    """Updates before a step → multiple of the peak learning rate, float32 scalar.

    The first step already learns: warm-up gives `(step + 1) / warmup_steps`.
    """

    def multiple(step: jax.Array) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        warmup = jnp.minimum(1.0, (step + 1) / max(config.warmup_steps, 1))
        if config.kind == "multi_step":
            value = jnp.float32(1.0)
            for share, factor in config.drops:
                value = jnp.where(step >= share * total, factor, value)
        elif config.kind == "cosine":
            span = max(total - config.warmup_steps, 1)
            progress = jnp.clip((step - config.warmup_steps) / span, 0.0, 1.0)
            value = config.final + (1 - config.final) * 0.5 * (1 + jnp.cos(jnp.pi * progress))
        elif config.kind == "wsd":
            start = total * (1 - config.decay)
            progress = jnp.clip((step - start) / max(total - start, 1.0), 0.0, 1.0)
            value = 1.0 + (config.final - 1.0) * progress
        else:
            value = jnp.float32(1.0)
        return (warmup * value).astype(jnp.float32)

    return multiple
