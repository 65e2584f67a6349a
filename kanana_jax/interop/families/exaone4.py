"""EXAONE 4.0 (arXiv:2507.11407, §2): norms after attention and MLP, norms of each head's queries and keys, and two
kinds of layers: three of four have a window and RoPE, the fourth has neither.
"""

from typing import Any

from kanana_jax.errors import UserError
from kanana_jax.interop.families import layers
from kanana_jax.interop.families.family import ANY, Family
from kanana_jax.interop.families.names import POST
from kanana_jax.interop.foreign import Fields
from kanana_jax.models.architecture import Architecture, LayerKind, pattern_of


def read(config: Fields, shape: dict[str, Any]) -> dict[str, Any]:
    number = shape["num_layers"]
    windowed = config.values.get("sliding_window", config.defaults["sliding_window"]) is not None
    types = layers.types_of(config, number) or (_pattern(config, number) if windowed else [layers.FULL] * number)
    window = layers.window_of(config, types)
    # If the model has windows, its layers with full attention have no RoPE.
    kinds = [LayerKind(window) if kind == layers.SLIDING else LayerKind(rope=not windowed) for kind in types]
    return {"qk_norm": "head", "norm_placement": "post", "layer_pattern": pattern_of(kinds)}


def _pattern(config: Fields, number: int) -> list[str]:
    """Types of layers from `sliding_window_pattern`: a period, or a string of L (local) and G (global)."""
    value = config.values.get("sliding_window_pattern", 4)
    if not isinstance(value, str):
        return layers.every(number, config.integer("sliding_window_pattern", number + 4, 4))
    if not value or set(value) - {"L", "G"}:
        raise config.refusal("sliding_window_pattern", "a period, or a word of L and G")
    if number % len(value):  # implementations disagree on whether the last layer is then global
        raise UserError(
            f"{config.where}: num_hidden_layers {number} is not a multiple of sliding_window_pattern '{value}': write "
            "layer_types"
        )
    return [layers.SLIDING if value[i % len(value)] == "L" else layers.FULL for i in range(number)]


def write(a: Architecture) -> dict[str, Any]:
    window = layers.window_to_config(a, None if all(kind.rope for kind in a.kinds) else layers.UNUSED_WINDOW)
    return {"sliding_window": window, "layer_types": layers.types_to_config(a)}


def check(a: Architecture) -> str:
    kinds = set(a.kinds)
    windowed = any(kind.window for kind in kinds) or not all(kind.rope for kind in kinds)
    if any(kind != (LayerKind(kind.window) if kind.window else LayerKind(rope=not windowed)) for kind in kinds):
        return "layer_pattern with RoPE in other layers than those with a window"
    return layers.one_window(a)


FAMILY = Family(
    model_type="exaone4",
    class_name="Exaone4ForCausalLM",
    norms=POST,
    read=read,
    write=write,
    fields={"qk_norm": ("head",), "norm_placement": ("post",), "layer_pattern": ANY},
    check=check,
    keys=("sliding_window", "layer_types"),
    defaults={
        "max_position_embeddings": 2048,
        "num_key_value_heads": 32,
        "rms_norm_eps": 1e-5,
        "sliding_window": 4096,
    },
)
