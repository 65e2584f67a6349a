"""Choosing the next token from logits."""

import dataclasses
import math
from typing import NamedTuple

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
    """Prompts by language, which every finished stage continues for the report."""

    prompts: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    max_new_tokens: int = 64
    sampling: SamplingConfig = SamplingConfig(temperature=0.7, top_p=0.9)

    def __post_init__(self):
        if self.max_new_tokens < 0:
            raise ValueError(f"max_new_tokens must be at least 0, not {self.max_new_tokens}")


class Draw(NamedTuple):
    """Sampled tokens and their distributions: the softmax at the temperature, cut and renormalised.

    Attributes:
      token: int32 `[B]`.
      log_prob: float32 `[B]`, nats, under that distribution; 0 for greedy choices.
      cut: float32 `[B]`: tokens whose log-probability before the cut is above this belong to it; −∞ if all do. It
        lies midway between the least probable kept token and the next one, so that rounding moves none across.
    """

    token: jax.Array
    log_prob: jax.Array
    cut: jax.Array


def sample(logits_BV: jax.Array, key: jax.Array, config: SamplingConfig) -> jax.Array:
    """Token ids, int32 `[B]`, from float32 logits `[B, V]`.

    `top_k` is applied before `top_p`; among equal logits the smaller id wins.
    """
    return draw(logits_BV, key, config).token


def draw(logits_BV: jax.Array, key: jax.Array, config: SamplingConfig) -> Draw:
    """`sample`, with the log-probability of the sampled token."""
    if config.temperature == 0:
        token_B = jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
        zero_B = jnp.zeros(token_B.shape, jnp.float32)
        return Draw(token_B, zero_B, zero_B + jnp.inf)
    logits_BV = logits_BV / config.temperature
    if config.top_k or config.top_p < 1:
        order_BV = jnp.argsort(-logits_BV, axis=-1, stable=True)
        sorted_BV = jnp.take_along_axis(logits_BV, order_BV, axis=-1)
        keep_BV = jnp.ones(sorted_BV.shape, bool)
        if config.top_k:
            keep_BV &= jnp.arange(sorted_BV.shape[-1]) < config.top_k
        probabilities_BV = jax.nn.softmax(jnp.where(keep_BV, sorted_BV, -jnp.inf), axis=-1)
        # The smallest set whose probability reaches top_p: the tokens before a kept one must sum to less.
        keep_BV &= jnp.cumsum(probabilities_BV, axis=-1) - probabilities_BV < config.top_p
        kept_BV = jnp.where(keep_BV, sorted_BV, -jnp.inf)
        choice_B1 = jax.random.categorical(key, kept_BV, axis=-1)[:, None]
        token_B = jnp.take_along_axis(order_BV, choice_B1, axis=-1)[:, 0].astype(jnp.int32)
        log_prob_B = _picked(jax.nn.log_softmax(kept_BV, axis=-1), choice_B1)
        before_BV = jax.nn.log_softmax(sorted_BV, axis=-1)
        last_B1 = keep_BV.sum(axis=-1, keepdims=True) - 1
        next_B = _picked(before_BV, jnp.minimum(last_B1 + 1, logits_BV.shape[-1] - 1))
        cut_B = jnp.where(keep_BV[:, -1], -jnp.inf, (_picked(before_BV, last_B1) + next_B) / 2)
        return Draw(token_B, log_prob_B, cut_B)
    token_B = jax.random.categorical(key, logits_BV, axis=-1).astype(jnp.int32)
    log_prob_B = _picked(jax.nn.log_softmax(logits_BV, axis=-1), token_B[:, None])
    return Draw(token_B, log_prob_B, jnp.full(token_B.shape, -jnp.inf))


def _picked(values_BV: jax.Array, at_B1: jax.Array) -> jax.Array:
    return jnp.take_along_axis(values_BV, at_B1, axis=-1)[:, 0]
