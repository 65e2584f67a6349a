"""OLMo 3 (2025): OLMo 2 with windows in three of four layers, and RoPE scaling only in the others."""

from typing import Any

from kanana_jax.errors import UserError
from kanana_jax.interop.families import layers, olmo2
from kanana_jax.interop.families.family import ANY, Family
from kanana_jax.interop.families.names import POST
from kanana_jax.interop.foreign import Fields
from kanana_jax.models.architecture import Architecture

_THETA = 500_000.0


def read(config: Fields, shape: dict[str, Any]) -> dict[str, Any]:
    types = layers.types_of(config, shape["num_layers"]) or layers.every(shape["num_layers"], 4)
    found = layers.rope_and_pattern(config, shape["max_seq_len"], types, (_THETA, _THETA))
    # The class applies the older key only to layers with full attention.
    of_sliding = config.table("rope_parameters").get(layers.SLIDING)
    if layers.SLIDING in types and not of_sliding and config.given("rope_theta") not in (None, _THETA):
        raise UserError(
            f"{config.where}: rope_theta does not apply to the layers with a window: write rope_parameters with "
            f"a table for each of {layers.FULL} and {layers.SLIDING}"
        )
    return olmo2.read(config, shape) | found


def write(a: Architecture) -> dict[str, Any]:
    return {
        **olmo2.write(a),
        "layer_types": layers.types_to_config(a),
        "sliding_window": layers.window_to_config(a),
        "rope_parameters": layers.ropes_to_config(a),
    }


FAMILY = Family(
    model_type="olmo3",
    class_name="Olmo3ForCausalLM",
    norms=POST,
    read=read,
    write=write,
    fields=olmo2.FIELDS | {"layer_pattern": ANY},
    check=layers.rope_by_type,
    keys=("attention_bias", "sliding_window", "layer_types"),
    defaults=olmo2.DEFAULTS | {"sliding_window": 4096},
)
