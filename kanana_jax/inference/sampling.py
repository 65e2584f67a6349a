"""Choosing the next token from logits."""

import dataclasses
import math

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
    """Attributes: temperature (0: greedy), top_k (0: all), top_p (1: all; arXiv:1904.09751)."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self):
        # Below 1e-6 logits would be divided to infinity.
        if not (self.temperature == 0 or 1e-6 <= self.temperature < math.inf):
            raise ValueError(f"temperature must be 0 (greedy) or a number of at least 1e-6, not {self.temperature}")
        if self.top_k < 0 or not 0 < self.top_p <= 1:
            raise ValueError(f"sampling needs top_k >= 0 and 0 < top_p <= 1, not {self.top_k} and {self.top_p}")


@dataclasses.dataclass(frozen=True)
class SamplesConfig:
    """Prompts by language that every finished stage continues, for the report."""

    prompts: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    max_new_tokens: int = 64
    sampling: SamplingConfig = SamplingConfig(temperature=0.7, top_p=0.9)

    def __post_init__(self):
        if self.max_new_tokens < 0:
            raise ValueError(f"max_new_tokens must be at least 0, not {self.max_new_tokens}")


def sample(logits_BV: jax.Array, key: jax.Array, config: SamplingConfig) -> jax.Array:
    """Token ids, int32 `[B]`, from float32 logits `[B, V]`.

    `top_k` is applied before `top_p`; of equal logits the smaller id is the better.
    """
    if config.temperature == 0:
        return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
    logits_BV = logits_BV / config.temperature
    if config.top_k or config.top_p < 1:
        order_BV = jnp.argsort(-logits_BV, axis=-1, stable=True)
        sorted_BV = jnp.take_along_axis(logits_BV, order_BV, axis=-1)
        keep_BV = jnp.ones(sorted_BV.shape, bool)
        if config.top_k:
            keep_BV &= jnp.arange(sorted_BV.shape[-1]) < config.top_k
        probabilities_BV = jax.nn.softmax(jnp.where(keep_BV, sorted_BV, -jnp.inf), axis=-1)
        # The smallest set whose probability reaches top_p: what lies before a token must be less.
        keep_BV &= jnp.cumsum(probabilities_BV, axis=-1) - probabilities_BV < config.top_p
        choice_B = jax.random.categorical(key, jnp.where(keep_BV, sorted_BV, -jnp.inf), axis=-1)
        return jnp.take_along_axis(order_BV, choice_B[:, None], axis=-1)[:, 0].astype(jnp.int32)
    return jax.random.categorical(key, logits_BV, axis=-1).astype(jnp.int32)
