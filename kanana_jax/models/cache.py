"""Keys and values of the tokens seen so far.

A layer without a window keeps a token in the slot in which it was read, including padding. A layer with a window of `W`
keeps the last `W` tokens of each row and no padding: token `p` of a text is in slot `p mod W`, where it replaces the
one that no later token sees.
"""

from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from kanana_jax.models.architecture import Architecture, LayerKind


class KVCache(NamedTuple):
    """The caches of a model, by the position of a layer in the period of layer kinds (one position if all are alike).

    Attributes:
      k: at each place, of the layers that stand there, `[L, B, K, h, S]`, rotated by RoPE.
      v: likewise, `[L, B, K, S, h]`. Each is laid out as attention reads it, which halves that time on a CPU.
      segment_ids: int32 `[B, S]`, by the slot in which a token was read; 0 for padding and empty slots.
      length: int32 scalar: number of slots written.
    """

    k: tuple[jax.Array, ...]
    v: tuple[jax.Array, ...]
    segment_ids: jax.Array
    length: jax.Array


class Reading(Protocol):
    """The facts about a forward pass that a cache needs (`transformer.Transformer`).

    Attributes:
      positions: int32 `[B, T]`.
      q_segments: int32 `[B, T]`, 0 for padding.
      q_offset: int32 scalar: the slot of the first token.
      tokens: int32 `[B]`: number of tokens read before.
    """

    @property
    def positions(self) -> jax.Array: ...

    @property
    def q_segments(self) -> jax.Array | None: ...

    @property
    def q_offset(self) -> jax.Array | int: ...

    @property
    def tokens(self) -> jax.Array | None: ...


class LayerCache(NamedTuple):
    """The caches of all layers at one position, and the index of the current one.

    Whole arrays go through the loop over layers, so that a step writes its few tokens in place.
    """

    k: jax.Array
    v: jax.Array
    layer: jax.Array | int

    @property
    def alone(self) -> bool:
        """Whether the arrays are of one layer, without an axis of layers (`apart`)."""
        return self.k.ndim == 4

    def extended(self, kind: LayerKind, reading: Reading, k_BTKh: jax.Array, v_BTKh: jax.Array):
        """Writes new keys and values.

        Returns:
          The cache; the keys and values that the new tokens may see, `[B, S, K, h]`; and which of them each does see,
          bool `[B, T, S]`, or None where they are in the order in which they were read.
        """
        if kind.window:
            return self._in_window(kind.window, reading, k_BTKh, v_BTKh)

        def write(whole, new, start):
            if self.alone:
                return jax.lax.dynamic_update_slice(whole, new.astype(whole.dtype), start)
            return jax.lax.dynamic_update_slice(whole, new[None].astype(whole.dtype), (self.layer, *start))

        k = write(self.k, k_BTKh.transpose(0, 2, 3, 1), (0, 0, 0, reading.q_offset))
        after = LayerCache(k, write(self.v, v_BTKh.swapaxes(1, 2), (0, 0, reading.q_offset, 0)), self.layer)
        return (after, *after._own(), None)

    def _own(self) -> tuple[jax.Array, jax.Array]:
        """Keys and values of the current layer, `[B, S, K, h]`."""
        own = (self.k, self.v)
        if not self.alone:
            own = tuple(jax.lax.dynamic_index_in_dim(x, self.layer, keepdims=False) for x in own)
        return own[0].transpose(0, 3, 1, 2), own[1].swapaxes(1, 2)

    def _in_window(self, window: int, reading: Reading, k_BTKh: jax.Array, v_BTKh: jax.Array):
        assert reading.tokens is not None and reading.q_segments is not None
        B, T = k_BTKh.shape[:2]
        slots, real_BT = self.v.shape[-2], reading.q_segments > 0
        count_B = reading.tokens + real_BT.sum(axis=1)
        # If two tokens have the same slot, only the later may be written.
        kept_BT = real_BT & (reading.positions >= count_B[:, None] - slots)
        slot_BT = jnp.where(kept_BT, reading.positions % slots, slots)  # out of bounds: dropped

        def write(whole, new_BTKh, *between):
            rows_B1 = jnp.arange(B)[:, None]
            place = (rows_B1, slice(None), *between, slot_BT)
            place = place if self.alone else (self.layer, *place)
            return whole.at[place].set(new_BTKh.astype(whole.dtype), mode="drop")

        after = LayerCache(write(self.k, k_BTKh, slice(None)), write(self.v, v_BTKh), self.layer)
        q_BT1 = reading.positions[:, :, None]
        if T == 1:  # the replaced entry is outside the window of the only query
            held_BS = _held(count_B, slots)
            seen_BTS = (held_BS >= 0)[:, None] & (held_BS[:, None] > q_BT1 - window) & real_BT[:, :, None]
            return (after, *after._own(), seen_BTS)
        held_BS = _held(reading.tokens, slots)
        old_BTS = (held_BS >= 0)[:, None] & (held_BS[:, None] > q_BT1 - window)
        index = jnp.arange(T)
        new_BTT = (index[:, None] >= index) & real_BT[:, None] & (reading.positions[:, None] > q_BT1 - window)
        seen_BTS = jnp.concatenate([old_BTS, new_BTT], axis=2) & real_BT[:, :, None]
        k, v = (
            jnp.concatenate([old, new.astype(old.dtype)], axis=1) for old, new in zip(self._own(), (k_BTKh, v_BTKh))
        )
        return after, k, v, seen_BTS


def _held(count_B: jax.Array, slots: int) -> jax.Array:
    """The position of the token in each slot after `count` tokens, int32 `[B, slots]`; negative for empty slots."""
    last_B1 = count_B[:, None] - 1
    return last_B1 - (last_B1 - jnp.arange(slots)) % slots


def empty_cache(a: Architecture, batch: int, slots: int, dtype: str) -> KVCache:
    """A cache for `slots` tokens per row."""

    def at(place: int, kind: LayerKind, keys: bool) -> jax.Array:
        layers, size = len(range(place, a.num_layers, len(a.period))), held(kind, slots)
        last = (a.head_dim, size) if keys else (size, a.head_dim)
        return jnp.zeros((layers, batch, a.num_kv_heads, *last), dtype)

    k, v = (tuple(at(place, kind, keys) for place, kind in enumerate(a.period)) for keys in (True, False))
    return KVCache(k, v, jnp.zeros((batch, slots), jnp.int32), jnp.zeros((), jnp.int32))


def held(kind: LayerKind, slots: int) -> int:
    """Slots of a layer in a cache of `slots`."""
    return min(kind.window, slots) if kind.window else slots


def apart(a: Architecture, cache: KVCache) -> KVCache:
    """Each layer's arrays in a position of their own, for a model whose `layer_pattern` names every layer.

    They have no axis of layers: XLA's CPU compiler would copy the whole cache four times per step to remove it.
    """
    p = len(a.period)

    def each(arrays: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        return tuple(arrays[i % p][i // p] for i in range(a.num_layers))

    return cache._replace(k=each(cache.k), v=each(cache.v))


def expanded(a: Architecture, cache: KVCache, rows: int, slots: int) -> KVCache:
    """Every row `rows` times, with room for `slots` more tokens."""
    total = cache.segment_ids.shape[1] + slots

    def wider(x: jax.Array, batch: int, sequence: int, size: int) -> jax.Array:
        widths = [(0, size - x.shape[axis] if axis == sequence else 0) for axis in range(x.ndim)]
        return jnp.pad(jnp.repeat(x, rows, axis=batch), widths)

    def all_places(arrays: tuple[jax.Array, ...], sequence: int) -> tuple[jax.Array, ...]:
        return tuple(wider(x, 1, sequence, held(kind, total)) for kind, x in zip(a.period, arrays))

    return KVCache(all_places(cache.k, 4), all_places(cache.v, 3), wider(cache.segment_ids, 0, 1, total), cache.length)
