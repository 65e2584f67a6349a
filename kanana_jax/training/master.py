"""Low-precision parameters, trained through a float32 copy: the master.

bfloat16 has 8 bits of mantissa: an update below 1/256 of a parameter would be lost, and a gain of 1 would never
move (arXiv:1710.03740, §3.1). The optimizer therefore works on the master, which is part of its state (and so of
checkpoints, sharded like the parameters); the parameters that the model reads are always its rounding.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from kanana_jax.models.transformer import Params


class WithMaster(NamedTuple):
    """The state of an optimizer that works on a master.

    Attributes:
      master: float32, a tree like the parameters.
      inner: the optimizer's own state.
    """

    master: Params
    inner: optax.OptState


def begin(optimizer: optax.GradientTransformation, params: Params) -> optax.OptState:
    """The state before the first update, with a master if any parameter has fewer bits than float32."""
    if all(leaf.dtype.itemsize >= 4 for leaf in jax.tree.leaves(params)):
        return optimizer.init(params)
    master = jax.tree.map(lambda p: p.astype(jnp.float32), params)
    return WithMaster(master, optimizer.init(master))


def advance(optimizer: optax.GradientTransformation, grads: Params, state: Any, params: Params) -> tuple[Params, Any]:
    """The parameters and the state after an update with float32 gradients."""
    if not isinstance(state, WithMaster):
        updates, state = optimizer.update(grads, state, params)
        return _moved(params, updates), state
    updates, inner = optimizer.update(grads, state.inner, state.master)
    master = _moved(state.master, updates)
    return jax.tree.map(lambda m, p: m.astype(p.dtype), master, params), WithMaster(master, inner)


def _moved(params: Params, updates: Any) -> Params:
    return jax.tree.map(lambda p, u: p + u, params, updates)
