"""Dropout on the outputs of a model's blocks: two passes over a text then give two different vectors."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Dropout(NamedTuple):
    """Residual dropout, on the outputs of attention and MLP (arXiv:1706.03762, §5.4).

    Attributes:
      rate: share of the values set to 0.
      keys: random keys `[B]`, one for each row: a row gets the same dropout alone as in a batch.
    """

    rate: float
    keys: jax.Array

    def of(self, draw: jax.Array | int, x_BTD: jax.Array) -> jax.Array:
        """`x_BTD` with some values set to 0 and the others scaled up, for draw number `draw`."""

        def one(key: jax.Array, x_TD: jax.Array) -> jax.Array:
            kept = jax.random.bernoulli(jax.random.fold_in(key, draw), 1 - self.rate, x_TD.shape)
            return jnp.where(kept, x_TD * jnp.asarray(1 / (1 - self.rate), x_TD.dtype), jnp.zeros((), x_TD.dtype))

        return jax.vmap(one)(self.keys, x_BTD)
