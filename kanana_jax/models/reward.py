"""A reward model: a linear head maps the model's final states to one number, instead of the next token's logits.

Its parameters are the model's and the head's; everything that expects only the model's can be given
`without_head`. As in `…ForSequenceClassification` of transformers, the head has no bias and reads the states after the
final norm.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from kanana_jax.models.axes import Axes
from kanana_jax.models.model import Model, Packed
from kanana_jax.models.transformer import Params
from kanana_jax.parallel.sharding import spec

HEAD = "score"
AXES: Axes = ("embed",)


def without_head(params: Params) -> Params:
    """The parameters of the model without the head."""
    return {key: value for key, value in params.items() if key != HEAD}


def abstract_head(model: Model) -> jax.ShapeDtypeStruct:
    """Shape and dtype of a head, `[D]`."""
    return jax.ShapeDtypeStruct((model.architecture.embed_dim,), model.runtime.param_dtype)


def on_mesh(head: np.ndarray, mesh: Mesh) -> Params:
    """A head as part of a model's parameters, `{HEAD: [D]}`."""
    return {HEAD: jax.device_put(head, NamedSharding(mesh, spec(*AXES)))}


def scores(model: Model, params: Params, rows: Packed) -> jax.Array:
    """The head's value at every position, float32 `[B, T]`.

    Args:
      params: the model's, with the head's under `HEAD`.
    """
    hidden_BTD, _ = model(without_head(params), rows)
    return jnp.einsum("BTD,D->BT", hidden_BTD.astype(jnp.float32), params[HEAD].astype(jnp.float32))
