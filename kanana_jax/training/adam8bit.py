"""Adam with moments of 8 bits and one scale per block (Dettmers et al., arXiv:2110.02861).

A block is up to 256 neighbours along a parameter's last axis, so no block spans two rows (two words of an embedding).
Codes have their parameter's shape and sharding; there is one scale per block. As in §2.2 of the paper, a code is
a float with an exponent of varying length: it covers seven decades below the block's largest magnitude for the first
moment and eight for the second, with the finest steps in the largest decade.

Two things differ from the paper. The second moment is stored as its square root, the quantity that updates are
divided by: one of its decades spans two of the moment's. And a root that is not zero never becomes zero, so rounding
makes the update of a small gradient smaller, not huge. Thanks to both, and to blocks within one row, embeddings are
kept in 8 bits too.

optax has no such transformation (0.2.8), and other JAX libraries with 8-bit states bring their own training loop.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from kanana_jax.models.transformer import Params

BLOCK = 256
# Smaller parameters (gains, biases; a thousandth of a model) keep float32 moments.
SMALLEST = 4096


class Quantised(NamedTuple):
    """One moment of all parameters.

    Attributes:
      codes: a tree like the parameters: int8 (first moment) or uint8 (second); float32 values for small parameters.
      scales: a tree like the parameters, float32: the largest magnitude of each block, `[…, n / block]`; `[1]` and
        unused for small parameters.
    """

    codes: Params
    scales: Params


class Adam8bitState(NamedTuple):
    """Attributes: count (int32, updates), mu, nu (first moment, square root of the second)."""

    count: jax.Array
    mu: Quantised
    nu: Quantised


def block_size(shape: tuple[int, ...]) -> int:
    """The largest divisor of the last axis up to 256; 0: the parameter is small and its moments stay float32."""
    if int(np.prod(shape)) < SMALLEST:
        return 0
    return max(n for n in range(1, min(BLOCK, shape[-1]) + 1) if shape[-1] % n == 0)


def state_bytes(shape: tuple[int, ...]) -> int:
    """Bytes of both moments of a parameter: `2·n·(1 + 4/block)`, or `8·n + 8` for a small one."""
    count, block = int(np.prod(shape)), block_size(shape)
    return 2 * (count + 4 * (count // block)) if block else 8 * count + 8


def scale_by_adam8bit(b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """`optax.scale_by_adam` with 8-bit moments; updates and parameters are float32."""

    def init(params: Any) -> Adam8bitState:
        def empty(dtype: Any) -> Quantised:
            codes = jax.tree.map(lambda p: jnp.zeros(p.shape, dtype if block_size(p.shape) else jnp.float32), params)
            return Quantised(codes, jax.tree.map(lambda p: jnp.zeros(_scales_shape(p.shape), jnp.float32), params))

        return Adam8bitState(jnp.zeros((), jnp.int32), empty(jnp.int8), empty(jnp.uint8))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Adam8bitState]:
        del params
        count = jnp.asarray(optax.safe_increment(state.count))
        first, second = 1 - b1**count, 1 - b2**count

        def leaf(g, m_codes, m_scales, r_codes, r_scales):
            m = b1 * dequantise(m_codes, m_scales) + (1 - b1) * g
            v = b2 * dequantise(r_codes, r_scales) ** 2 + (1 - b2) * g * g
            r = jnp.sqrt(v)
            # As in the paper, updates use the exact moments; only the stored moments are rounded.
            made = (m / first) / (r / jnp.sqrt(second) + eps)
            if not block_size(g.shape):
                return made, m, m_scales, r, r_scales
            return (made, *quantise(m, signed=True), *quantise(r, signed=False))

        moments = (*state.mu, *state.nu)
        made = jax.tree.map(leaf, updates, *moments)
        outer, inner = jax.tree.structure(updates), jax.tree.structure((0,) * 5)
        new, m_codes, m_scales, r_codes, r_scales = jax.tree.transpose(outer, inner, made)
        return new, Adam8bitState(count, Quantised(m_codes, m_scales), Quantised(r_codes, r_scales))

    return optax.GradientTransformation(init, update)


def _scales_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    block = block_size(shape)
    return (*shape[:-1], shape[-1] // block) if block else (1,)


def quantise(x: jax.Array, *, signed: bool) -> tuple[jax.Array, jax.Array]:
    """Codes and scales of a moment of a large parameter: int8 or (unsigned) uint8 like `x`, float32 `[…, n / block]`.

    Code `c` is in decade `k = ⌊log₂ c⌋`, which has `2^k` equal steps between a tenth and the whole of `10^(k − K)`,
    where `K` is 6 if signed, else 7: the dynamic tree of §2.2. The largest magnitude of a block is exact.
    """
    top = 6 if signed else 7
    block = block_size(x.shape)
    blocks = x.reshape(*x.shape[:-1], x.shape[-1] // block, block)
    scales = jnp.abs(blocks).max(axis=-1)
    share = jnp.abs(blocks) / jnp.maximum(scales, jnp.finfo(jnp.float32).tiny)[..., None]
    decade = jnp.clip(jnp.ceil(jnp.log10(jnp.maximum(share, 1e-30))), -top, 0)
    steps = jnp.exp2(decade + top)
    place = jnp.clip(jnp.floor((share * 10.0**-decade - 0.1) / 0.9 * steps), 0, steps - 1)
    # A signed number below half the smallest step becomes zero; a root only if it is exactly zero.
    least = 0.5 * _values(top)[1] if signed else 0.0
    codes = jnp.where(share > least, steps + place, 0.0)
    if signed:
        codes = jnp.where(blocks < 0, -codes, codes)
    return codes.astype(jnp.int8 if signed else jnp.uint8).reshape(x.shape), scales


def dequantise(codes: jax.Array, scales: jax.Array) -> jax.Array:
    """The moment that codes and scales represent, float32; for a small parameter, the codes themselves."""
    if codes.dtype == jnp.float32:
        return codes
    signed = codes.dtype == jnp.int8
    wide = codes.astype(jnp.int32)
    share = jnp.asarray(_values(6 if signed else 7))[jnp.abs(wide)] * jnp.sign(wide)
    blocks = share.reshape(*scales.shape, codes.shape[-1] // scales.shape[-1])
    return (blocks * scales[..., None]).reshape(codes.shape)


def _values(top: int) -> np.ndarray:
    """The share of the block's largest magnitude that each non-negative code stands for, float32 `[2^(top + 1)]`."""
    codes = np.arange(1, 2 ** (top + 1))
    decade = np.floor(np.log2(codes))
    steps = 2.0**decade
    middle = 10.0 ** (decade - top) * (0.1 + 0.9 * (codes - steps + 0.5) / steps)
    return np.concatenate([[0.0], middle[:-1], [1.0]]).astype(np.float32)
