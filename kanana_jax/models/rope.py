"""Rotary position embedding (arXiv:2104.09864) with the Llama-3 and YaRN scalings."""

import math

import jax.numpy as jnp
import numpy as np

from kanana_jax.models.architecture import Architecture, RopeScaling


def inverse_frequencies(architecture: Architecture) -> tuple[np.ndarray, float]:
    """Angular speed of each pair of channels, and the factor on sin and cos.

    Returns:
      float32 `[h/2]` radians per token, and the attention factor (1 except for YaRN).
    """
    half = np.arange(0, architecture.head_dim, 2, dtype=np.float32) / np.float32(architecture.head_dim)
    speed = (1.0 / np.float32(architecture.rope_theta) ** half).astype(np.float32)
    scaling = architecture.rope_scaling
    if scaling is None:
        return speed, 1.0
    if scaling.type == "llama3":
        return _llama3(speed, scaling), 1.0
    return _yarn(speed, scaling, architecture)


def _llama3(speed: np.ndarray, scaling: RopeScaling) -> np.ndarray:
    """Llama 3.1: long waves are slowed by `factor`, short ones kept, the middle interpolated."""
    wavelength = 2 * math.pi / speed
    turns = scaling.original_max_position_embeddings / wavelength
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    smooth = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return ((1 - smooth) * speed / scaling.factor + smooth * speed).astype(np.float32)


def _yarn(speed: np.ndarray, scaling: RopeScaling, architecture: Architecture) -> tuple[np.ndarray, float]:
    """YaRN (arXiv:2309.00071): eq. 13's ramp over dimensions by their turns, §3.4's temperature."""

    def dimension(turns: float) -> float:
        length = scaling.original_max_position_embeddings
        log_turns = math.log(length / (turns * 2 * math.pi))
        return architecture.head_dim * log_turns / (2 * math.log(architecture.rope_theta))

    low = max(math.floor(dimension(scaling.beta_fast)), 0)
    high = min(math.ceil(dimension(scaling.beta_slow)), architecture.head_dim - 1)
    ramp = np.clip((np.arange(len(speed), dtype=np.float32) - low) / max(high - low, 1e-3), 0, 1)
    scaled = speed / scaling.factor * ramp + speed * (1 - ramp)
    factor = scaling.attention_factor
    if factor is None:
        factor = 0.1 * math.log(scaling.factor) + 1.0
    return scaled.astype(np.float32), float(factor)


def rope_tables(positions: jnp.ndarray, architecture: Architecture) -> tuple[jnp.ndarray, jnp.ndarray]:
    """Sine and cosine, float32 `[B, T, h/2]`, for int32 positions `[B, T]`."""
    speed, factor = inverse_frequencies(architecture)
    angle = positions[..., None].astype(jnp.float32) * speed
    return jnp.sin(angle) * factor, jnp.cos(angle) * factor


def apply_rope(x: jnp.ndarray, sin: jnp.ndarray, cos: jnp.ndarray) -> jnp.ndarray:
    """Turns `[B, T, H, h]`; channel `i` is paired with `i + h/2` (Hugging Face's order)."""
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    sin, cos = sin[:, :, None, :], cos[:, :, None, :]
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x.dtype)
