"""Dropout of what the blocks of a model add: two passes over one text then give two different vectors of it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Dropout(NamedTuple):
    """Residual dropout: of what each attention and MLP adds (arXiv:1706.03762, §5.4).

    Attributes:
      rate: share of the numbers that become 0.
      keys: random keys `[B]`, one for each row: a row draws the same alone as in a batch.
    """

    rate: float
    keys: jax.Array

    def of(self, draw: jax.Array | int, x_BTD: jax.Array) -> jax.Array:
        """`x_BTD` with some numbers 0 and the others larger, by draw number `draw`."""

        def one(key: jax.Array, x_TD: jax.Array) -> jax.Array:
            kept = jax.random.bernoulli(jax.random.fold_in(key, draw), 1 - self.rate, x_TD.shape)
            return jnp.where(kept, x_TD * jnp.asarray(1 / (1 - self.rate), x_TD.dtype), jnp.zeros((), x_TD.dtype))

        return jax.vmap(one)(self.keys, x_BTD)
