"""Rotary position embedding (arXiv:2104.09864) with the Llama-3, YaRN and linear scalings."""

import math

import jax.numpy as jnp
import numpy as np

from kanana_jax.models.architecture import Architecture, LayerKind, RopeScaling


def inverse_frequencies(architecture: Architecture, kind: LayerKind = LayerKind()) -> tuple[np.ndarray, float]:
    """Angular speed of each rotated pair of channels in layers of a kind, and the factor on sin and cos.

    Returns:
      float32 `[r/2]` radians per token, `r` the rotated channels of a head, and the attention factor (1 except for
      YaRN).
    """
    width, theta = architecture.rotary_dim, kind.rope_theta or architecture.rope_theta
    half = np.arange(0, width, 2, dtype=np.float32) / np.float32(width)
    speed = (1.0 / np.float32(theta) ** half).astype(np.float32)
    scaling = architecture.rope_scaling
    if scaling is None or not kind.rope_scaled:
        return speed, 1.0
    if scaling.type == "llama3":
        return _llama3(speed, scaling), 1.0
    if scaling.type == "linear":
        return (speed / np.float32(scaling.factor)).astype(np.float32), 1.0
    return _yarn(speed, scaling, width, theta)


def _llama3(speed: np.ndarray, scaling: RopeScaling) -> np.ndarray:
    """Llama 3.1: long waves are slowed by `factor`, short ones kept, the middle interpolated."""
    wavelength = 2 * math.pi / speed
    turns = scaling.original_max_position_embeddings / wavelength
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    smooth = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return ((1 - smooth) * speed / scaling.factor + smooth * speed).astype(np.float32)


def _yarn(speed: np.ndarray, scaling: RopeScaling, width: int, theta: float) -> tuple[np.ndarray, float]:
    """YaRN (arXiv:2309.00071): eq. 13's ramp over dimensions by their turns, §3.4's temperature."""

    def dimension(turns: float) -> float:
        length = scaling.original_max_position_embeddings
        log_turns = math.log(length / (turns * 2 * math.pi))
        return width * log_turns / (2 * math.log(theta))

    low = max(math.floor(dimension(scaling.beta_fast)), 0)
    high = min(math.ceil(dimension(scaling.beta_slow)), width - 1)
    ramp = np.clip((np.arange(len(speed), dtype=np.float32) - low) / max(high - low, 1e-3), 0, 1)
    scaled = speed / scaling.factor * ramp + speed * (1 - ramp)
    factor = scaling.attention_factor
    if factor is None:
        factor = 0.1 * math.log(scaling.factor) + 1.0
    return scaled.astype(np.float32), float(factor)


def rope_tables(
    positions: jnp.ndarray, architecture: Architecture, kind: LayerKind = LayerKind()
) -> tuple[jnp.ndarray, jnp.ndarray]:
    """Sine and cosine, float32 `[B, T, r/2]`, for int32 positions `[B, T]` in layers of a kind."""
    speed, factor = inverse_frequencies(architecture, kind)
    angle = positions[..., None].astype(jnp.float32) * speed
    return jnp.sin(angle) * factor, jnp.cos(angle) * factor


def apply_rope(x: jnp.ndarray, sin: jnp.ndarray, cos: jnp.ndarray) -> jnp.ndarray:
    """Rotates the first `r` channels of `[B, T, H, h]`; channel `i` is paired with `i + r/2` (Hugging Face's order)."""
    width = 2 * sin.shape[-1]
    rotated, rest = x[..., :width], x[..., width:]
    first, second = jnp.split(rotated.astype(jnp.float32), 2, axis=-1)
    sin, cos = sin[:, :, None, :], cos[:, :, None, :]
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)
    return turned if width == x.shape[-1] else jnp.concatenate([turned, rest], axis=-1)
