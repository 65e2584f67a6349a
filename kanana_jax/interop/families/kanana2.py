"""Kanana-2 1.3B (`Kanana2TinyForCausalLM`): Qwen3's block; three of four layers have a window and a RoPE of their own.

`transformers` does not have the class, but Mellum's class computes the same function if all its MLPs are dense.
"""

from typing import Any

from kanana_jax.errors import UserError
from kanana_jax.interop.families import layers
from kanana_jax.interop.families.family import ANY, Family
from kanana_jax.interop.families.names import PRE
from kanana_jax.interop.families.shape import bias_of
from kanana_jax.interop.foreign import Fields
from kanana_jax.models.architecture import Architecture

_FIELDS = {"qk_norm": ("head",), "layer_pattern": ANY}


def read(config: Fields, shape: dict[str, Any]) -> dict[str, Any]:
    types = layers.types_of(config, shape["num_layers"])
    if types is None:
        raise UserError(f"{config.where}: key 'layer_types' is missing; is this a complete config.json?")
    tables = config.table("rope_parameters")
    absent = [kind for kind in sorted(set(types)) if not tables.get(kind)]
    if absent or config.given("rope_scaling"):
        wanted = f"a table for '{absent[0]}'" if absent else "no rope_scaling beside it"
        raise UserError(f"{config.where}: rope_parameters must have {wanted}: write RoPE by type of layer")
    found = layers.rope_and_pattern(config, shape["max_seq_len"], types, (10_000.0, 10_000.0))
    return {"qk_norm": "head"} | found


def write(a: Architecture) -> dict[str, Any]:
    return {
        "attention_bias": False,
        "layer_types": layers.types_to_config(a),
        "sliding_window": layers.window_to_config(a),
        "rope_parameters": layers.ropes_to_config(a),
    }


FAMILY = Family(
    model_type="kanana2_tiny",
    class_name="Kanana2TinyForCausalLM",
    norms=PRE,
    read=read,
    write=write,
    fields=_FIELDS,
    check=layers.rope_by_type,
    keys=("sliding_window", "layer_types"),
    defaults={"max_position_embeddings": 32_768, "tie_word_embeddings": True},
)


def read_mellum(config: Fields, shape: dict[str, Any]) -> dict[str, Any]:
    if config.given("mlp_layer_types") != ["dense"] * shape["num_layers"]:
        raise config.refusal("mlp_layer_types", "'dense' for each layer")
    return read(config, shape) | {"attention_bias": bias_of(config)}


def write_mellum(a: Architecture) -> dict[str, Any]:
    biases = a.attention_bias == "qkvo"
    return write(a) | {"attention_bias": biases, "mlp_layer_types": ["dense"] * a.num_layers}


MELLUM = Family(
    model_type="mellum",
    class_name="MellumForCausalLM",
    norms=PRE,
    read=read_mellum,
    write=write_mellum,
    fields=_FIELDS | {"attention_bias": ("none", "qkvo")},
    check=layers.rope_by_type,
    # The keys for experts are accepted because no layer has any.
    keys=(
        "attention_bias", "sliding_window", "layer_types", "mlp_layer_types", "num_local_experts", "num_experts",
        "num_experts_per_tok", "moe_intermediate_size",
    ),
    defaults={"max_position_embeddings": 131_072, "num_key_value_heads": 4, "head_dim": 128, "sliding_window": 1024},
)  # fmt: skip
