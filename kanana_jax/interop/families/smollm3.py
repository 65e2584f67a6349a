"""SmolLM3 (2025): Llama without RoPE in selected layers, by default every fourth (arXiv:2501.18795)."""

from typing import Any

from kanana_jax.errors import UserError
from kanana_jax.interop.families import layers
from kanana_jax.interop.families.family import ANY, Family
from kanana_jax.interop.families.names import PRE
from kanana_jax.interop.families.shape import MOST_LAYERS, bias_of
from kanana_jax.interop.foreign import Fields, short
from kanana_jax.models.architecture import Architecture, LayerKind, pattern_of


def read(config: Fields, shape: dict[str, Any]) -> dict[str, Any]:
    number = shape["num_layers"]
    rotated = _rotated(config, number)
    on = config.flag("use_sliding_window") and config.given("sliding_window") is not None
    if config.given("layer_types") is not None:
        types = layers.switched_types(config, number)
    else:
        types = [layers.SLIDING if on and not rope else layers.FULL for rope in rotated]
    window = layers.window_of(config, types)
    kinds = [LayerKind(window if t == layers.SLIDING else 0, rope) for t, rope in zip(types, rotated)]
    biases = {"attention_bias": bias_of(config), "mlp_bias": config.flag("mlp_bias")}
    return biases | {"layer_pattern": pattern_of(kinds)}


def _rotated(config: Fields, number: int) -> list[bool]:
    """Whether each layer has RoPE; despite its name, `no_rope_layers` holds 1 for layers with RoPE."""
    values = config.given("no_rope_layers")
    if values is None:
        interval = config.integer("no_rope_layer_interval", MOST_LAYERS, 4)
        return [(i + 1) % interval != 0 for i in range(number)]
    if not isinstance(values, list) or any(type(v) is not int or v not in (0, 1) for v in values):
        raise config.refusal("no_rope_layers", "a list of 1 (with RoPE) and 0")
    if len(values) != number:
        raise UserError(
            f"{config.where}: no_rope_layers {short(values)} names {len(values)} layers, and num_hidden_layers says "
            f"{number}: correct the one that is wrong"
        )
    return [v == 1 for v in values]


def write(a: Architecture) -> dict[str, Any]:
    window = layers.window_to_config(a, None)
    return {
        "attention_bias": a.attention_bias == "qkvo",
        "mlp_bias": a.mlp_bias,
        "no_rope_layers": [int(kind.rope) for kind in a.kinds],
        "layer_types": layers.types_to_config(a),
        "use_sliding_window": window is not None,
        "sliding_window": window,
    }


def check(a: Architecture) -> str:
    if any(kind != LayerKind(kind.window, kind.rope) for kind in a.kinds):
        return "layer_pattern with another RoPE"
    return layers.one_window(a)


FAMILY = Family(
    model_type="smollm3",
    class_name="SmolLM3ForCausalLM",
    norms=PRE,
    read=read,
    write=write,
    fields={"attention_bias": ("none", "qkvo"), "mlp_bias": (False, True), "layer_pattern": ANY},
    check=check,
    keys=("attention_bias", "mlp_bias", "no_rope_layers", "use_sliding_window", "sliding_window", "layer_types"),
    defaults={
        "max_position_embeddings": 32_768,
        "num_key_value_heads": 4,
        "rope_theta": 2_000_000.0,
        "tie_word_embeddings": True,
    },
)
