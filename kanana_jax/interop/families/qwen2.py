"""Qwen2 and 2.5 (arXiv:2412.15115, §2): biases of queries, keys and values, and a window in selected layers."""

from typing import Any

from kanana_jax.interop.families import layers
from kanana_jax.interop.families.family import ANY, Family
from kanana_jax.interop.families.names import PRE
from kanana_jax.interop.foreign import Fields
from kanana_jax.models.architecture import Architecture, LayerKind, pattern_of

WINDOW_KEYS = ("use_sliding_window", "sliding_window", "max_window_layers", "layer_types")
DEFAULTS = {"max_position_embeddings": 32_768, "num_key_value_heads": 32, "sliding_window": 4096}


def windows(config: Fields, shape: dict[str, Any]) -> tuple[LayerKind, ...]:
    """The pattern of layers that `WINDOW_KEYS` describe."""
    types = layers.switched_types(config, shape["num_layers"])
    window = layers.window_of(config, types)
    return pattern_of([LayerKind(window if kind == layers.SLIDING else 0) for kind in types])


def windows_to_config(a: Architecture) -> dict[str, Any]:
    """The values of `WINDOW_KEYS` for an architecture."""
    window = layers.window_to_config(a, None)
    first = next((i for i, kind in enumerate(a.kinds) if kind.window), a.num_layers)
    return {
        "use_sliding_window": window is not None,
        "sliding_window": window,
        "max_window_layers": first,
        "layer_types": layers.types_to_config(a),
    }


def read(config: Fields, shape: dict[str, Any]) -> dict[str, Any]:
    return {"attention_bias": "qkv", "layer_pattern": windows(config, shape)}


FAMILY = Family(
    model_type="qwen2",
    class_name="Qwen2ForCausalLM",
    norms=PRE,
    read=read,
    write=windows_to_config,
    fields={"attention_bias": ("qkv",), "layer_pattern": ANY},
    check=layers.windows_and_one_rope,
    keys=WINDOW_KEYS,
    defaults=DEFAULTS,
)
