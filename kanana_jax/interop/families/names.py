"""Conversion between Hugging Face's tensors and our parameters: names and layouts.

All families share the names below, except those of a block's norms: `post_attention_layernorm` is the norm before the
MLP in Llama, but the norm after attention in OLMo and Gemma. Hugging Face stores `nn.Linear` weights as `[out, in]`
with the heads flattened; ours are `[in, out…]` with separate axes for heads and head_dim, and with layers stacked. Both
let RoPE pair channel `i` with `i + h/2`, so channels keep their order.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from kanana_jax.models import axes as axis_names
from kanana_jax.models.architecture import Architecture
from kanana_jax.models.transformer import axes_by_path

Path = tuple[str, ...]
PRE = {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}
POST = {"attention_post_norm": "post_attention_layernorm", "mlp_post_norm": "post_feedforward_layernorm"}
SANDWICH = POST | {"attention_norm": "input_layernorm", "mlp_norm": "pre_feedforward_layernorm"}

_OUTER = {
    ("embedding",): "model.embed_tokens.weight",
    ("final_norm", "scale"): "model.norm.weight",
    ("unembedding",): "lm_head.weight",
}
# The order is that of model fingerprints; a model has a subset of these tensors.
_LAYER = {
    ("attention_norm", "scale"): "",
    ("attention", "q"): "self_attn.q_proj.weight",
    ("attention", "k"): "self_attn.k_proj.weight",
    ("attention", "v"): "self_attn.v_proj.weight",
    ("attention", "o"): "self_attn.o_proj.weight",
    ("mlp_norm", "scale"): "",
    ("mlp", "gate"): "mlp.gate_proj.weight",
    ("mlp", "up"): "mlp.up_proj.weight",
    ("mlp", "down"): "mlp.down_proj.weight",
    ("attention", "q_norm", "scale"): "self_attn.q_norm.weight",
    ("attention", "k_norm", "scale"): "self_attn.k_norm.weight",
    ("attention_post_norm", "scale"): "",
    ("mlp_post_norm", "scale"): "",
    ("attention", "q_bias"): "self_attn.q_proj.bias",
    ("attention", "k_bias"): "self_attn.k_proj.bias",
    ("attention", "v_bias"): "self_attn.v_proj.bias",
    ("attention", "o_bias"): "self_attn.o_proj.bias",
    ("mlp", "gate_bias"): "mlp.gate_proj.bias",
    ("mlp", "up_bias"): "mlp.up_proj.bias",
    ("mlp", "down_bias"): "mlp.down_proj.bias",
}
# Weight matrices → the number of leading axes that are contracted with the input.
_INPUTS = {"q": 1, "k": 1, "v": 1, "o": 2, "gate": 1, "up": 1, "down": 1}


def _same(x: np.ndarray) -> np.ndarray:
    return x


class Tensor(NamedTuple):
    """One tensor of a checkpoint.

    Attributes:
      name: Hugging Face's name.
      path: path in our tree of parameters.
      layer: index on the stacked layer axis, or None.
      shape: Hugging Face's shape.
      to_ours, to_theirs: convert the layout of a NumPy array, by views or exact permutations. Default: the identity.
    """

    name: str
    path: Path
    layer: int | None
    shape: tuple[int, ...]
    to_ours: Callable[[np.ndarray], np.ndarray] = _same
    to_theirs: Callable[[np.ndarray], np.ndarray] = _same


def name(path: Path, layer: int | None, norms: Mapping[str, str]) -> str:
    """Hugging Face's name of a parameter, in a family with these names of norms."""
    if layer is None:
        return _OUTER[path]
    own = _LAYER[path[1:]] or f"{norms[path[1]]}.weight"
    return f"model.layers.{layer}.{own}"


def outer_tensors(a: Architecture) -> list[Tensor]:
    """Embedding, final norm and (untied) output matrix."""
    axes = axes_by_path(a)
    found = [path for path in _OUTER if path in axes]
    return [Tensor(name(path, None, {}), path, None, axis_names.shape(a, axes[path])) for path in found]


def layer_tensors(a: Architecture, layer: int, norms: Mapping[str, str]) -> list[Tensor]:
    """Tensors of one block."""
    axes = axes_by_path(a)
    paths = [("blocks", *path) for path in _LAYER]
    return [_tensor(a, path, layer, axes[path][1:], norms) for path in paths if path in axes]


def _tensor(a: Architecture, path: Path, layer: int, axes: axis_names.Axes, norms: Mapping[str, str]) -> Tensor:
    ours, called = axis_names.shape(a, axes), name(path, layer, norms)
    inputs = _INPUTS.get(path[-1])
    if inputs is None:
        flat = (math.prod(ours),)
        return Tensor(called, path, layer, flat, lambda x: x.reshape(ours), lambda x: x.reshape(flat))
    turned = math.prod(ours[:inputs]), math.prod(ours[inputs:])
    return Tensor(called, path, layer, turned[::-1], lambda x: x.T.reshape(ours), lambda x: x.reshape(turned).T)
