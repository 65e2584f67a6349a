"""Products with weights, and look-ups in tables: their computation and their gradients."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from kanana_jax.parallel.sharding import axis_size

# Low-rank adapters of weights, by the keys that lead to them; see `lora.py`.
Adapters = Mapping[str, Any]
ADAPTERS = "adapters"  # their key in the parameters


def project(x: jax.Array, w: jax.Array, inputs: int = 1, adapter: Adapters | None = None) -> jax.Array:
    """Contracts the last `inputs` axes of `x [B, T, in…]` with the first of `w [in…, out…]`.

    With an adapter (`lora.py`), a low-rank product is added: `a [in…, r]`, `b [r, out…]`.

    If the sequence is not sharded, tokens are flattened to one axis: the gradient of `w` is
    then a plain matrix product, and no backend transposes its operands first (XLA on CPU: 1.5 × faster).
    """
    if adapter is not None:
        return project(x, w, inputs) + project(project(x, adapter["a"], inputs), adapter["b"])
    if axis_size("sequence") > 1:
        return jax.lax.dot_general(x, w, ((tuple(range(x.ndim - inputs, x.ndim)), tuple(range(inputs))), ((), ())))
    rows = x.reshape(math.prod(x.shape[:2]), math.prod(x.shape[2:]))
    columns = w.reshape(rows.shape[1], math.prod(w.shape[inputs:]))
    return (rows @ columns).reshape(*x.shape[:2], *w.shape[inputs:])


@jax.custom_vjp
def look_up(table_VD: jax.Array, tokens_BT: jax.Array) -> jax.Array:
    """Rows of a table; the gradient is summed in float32, since in bfloat16 a frequent token's would stop growing."""
    return jnp.take(table_VD, tokens_BT, axis=0)


def _look_up_forward(table_VD, tokens_BT):
    return look_up(table_VD, tokens_BT), (table_VD, tokens_BT)


def _look_up_backward(saved, d_x_BTD):
    table_VD, tokens_BT = saved
    wide = jax.ShapeDtypeStruct(table_VD.shape, jnp.float32)
    (d_table_VD,) = jax.linear_transpose(lambda table: jnp.take(table, tokens_BT, axis=0), wide)(
        d_x_BTD.astype(jnp.float32)
    )
    return d_table_VD.astype(table_VD.dtype), None


look_up.defvjp(_look_up_forward, _look_up_backward)
