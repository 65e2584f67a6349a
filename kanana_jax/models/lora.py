"""Low-rank adapters of a frozen model: W + (α/r)·A·B (LoRA, arXiv:2106.09685, §4.1).

A tree of adapters follows that of the parameters: `blocks/attention/q/{a, b}`, stacked over layers in the same way. The
model applies them next to its weights (`linear.project`), so no adapted weight exists during training; `merge`
creates it for evaluation and export.
"""

import dataclasses
import math
from typing import Literal

import jax
import jax.numpy as jnp
from flax import traverse_util

from kanana_jax.models import counts
from kanana_jax.models.architecture import Architecture, DType
from kanana_jax.models.axes import Axes, shape
from kanana_jax.models.linear import ADAPTERS
from kanana_jax.models.transformer import Params, axes_by_path

Target = Literal["q", "k", "v", "o", "gate", "up", "down"]
ALL: tuple[Target, ...] = ("q", "k", "v", "o", "gate", "up", "down")
RANK = "rank"  # the name of the axis between A and B
# Axes that a weight contracts with its input; 1 for those not listed.
_INPUTS = {"o": 2}


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Adapters that are trained instead of the model's own weights.

    Attributes:
      rank: r.
      alpha: α; the product is scaled by α / r.
      targets: the weights that get an adapter.
      init: the factor that starts at zero, so that the model starts as its base; the other is uniform in ±1/√(its
        inputs). With `b_zero` the first step of Adam moves B by the signs of tiny gradients, which differ between
        meshes; `a_zero` does not have this.
      base_dtype: dtype in which the base is stored; None: the runtime's compute_dtype.
      adapter: a folder of the `peft` library whose adapters are trained further; empty: new ones.
    """

    rank: int = 16
    alpha: float = 32.0
    targets: tuple[Target, ...] = ALL
    init: Literal["a_zero", "b_zero"] = "b_zero"
    base_dtype: DType | None = None
    adapter: str = ""

    def __post_init__(self):
        if self.rank < 1 or not self.alpha > 0:
            raise ValueError(f"lora.rank must be at least 1 and lora.alpha above 0, not {self.rank} and {self.alpha}")
        if not self.targets or len(set(self.targets)) < len(self.targets):
            raise ValueError("lora.targets must name at least one weight, and each only once")

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


def adapted(config: LoraConfig, base: Params, adapters: Params) -> Params:
    """Parameters of a base that is not differentiated, with its scaled adapters as a further entry of the tree."""
    flat = traverse_util.flatten_dict(adapters)
    scaled = {path: value * config.scale if path[-1] == "b" else value for path, value in flat.items()}
    return {**jax.lax.stop_gradient(base), ADAPTERS: traverse_util.unflatten_dict(scaled)}


def _factors(config: LoraConfig, a: Architecture) -> dict[tuple[str, ...], Axes]:
    """The axes of both factors of every adapter, by path."""
    found: dict[tuple[str, ...], Axes] = {}
    for path, (layers, *axes) in sorted(axes_by_path(a).items()):
        if path[-1] in config.targets:
            inputs = _INPUTS.get(path[-1], 1)
            found[*path, "a"] = (layers, *axes[:inputs], RANK)
            found[*path, "b"] = (layers, RANK, *axes[inputs:])
    return found


def _shape(config: LoraConfig, a: Architecture, axes: Axes) -> tuple[int, ...]:
    return tuple(config.rank if axis == RANK else shape(a, (axis,))[0] for axis in axes)


def shapes(config: LoraConfig, a: Architecture) -> dict[tuple[str, ...], tuple[int, ...]]:
    """The shapes of both factors of every adapter, stacked over layers, by path."""
    return {path: _shape(config, a, axes) for path, axes in _factors(config, a).items()}


def logical_axes(config: LoraConfig, a: Architecture) -> Params:
    """The names of the adapters' axes, as a tree like them."""
    return traverse_util.unflatten_dict(_factors(config, a))


def init_adapters(config: LoraConfig, a: Architecture, dtype: DType, key: jax.Array) -> Params:
    """New adapters, which change nothing yet."""
    made = {}
    for number, (path, axes) in enumerate(_factors(config, a).items()):
        size = _shape(config, a, axes)
        if path[-1] == config.init[0]:
            made[path] = jnp.zeros(size, dtype)
        else:
            inputs = math.prod(size[1 : axes.index(RANK)]) if path[-1] == "a" else config.rank
            draw = jax.random.uniform(jax.random.fold_in(key, number), size, jnp.float32, -1.0, 1.0)
            made[path] = (draw / math.sqrt(inputs)).astype(dtype)
    return traverse_util.unflatten_dict(made)


def merge(config: LoraConfig, base: Params, adapters: Params) -> Params:
    """The whole model's parameters: product and sum are computed in float32, then cast to the base's dtype."""
    whole, flat = traverse_util.flatten_dict(base), traverse_util.flatten_dict(adapters)
    for path in {path[:-1] for path in flat}:
        weight, a, b = whole[path], flat[*path, "a"], flat[*path, "b"]
        layers, rank = weight.shape[0], config.rank
        product = jnp.einsum(
            "lir,lro->lio",
            a.reshape(layers, -1, rank).astype(jnp.float32),
            b.reshape(layers, rank, -1).astype(jnp.float32),
            preferred_element_type=jnp.float32,
        )
        whole[path] = (weight.astype(jnp.float32) + config.scale * product.reshape(weight.shape)).astype(weight.dtype)
    return traverse_util.unflatten_dict(whole)


def parameters(config: LoraConfig, a: Architecture) -> int:
    """The number of trained parameters."""
    return sum(math.prod(_shape(config, a, axes)) for axes in _factors(config, a).values())


def train_flops_per_token(config: LoraConfig, a: Architecture, seq_len: int) -> float:
    """Like `counts.train_flops_per_token`, without gradients of the base's weights, but with the adapters' products."""
    attention = counts.attention_flops_per_token(a, seq_len)
    return 4.0 * counts.matmul_parameters(a) + 3.0 * attention + 6.0 * parameters(config, a)
