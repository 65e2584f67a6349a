"""Mistral (arXiv:2310.06825, §2): Llama with the same window in every layer, or no window."""

from typing import Any

from kanana_jax.errors import UserError
from kanana_jax.interop.families import layers
from kanana_jax.interop.families.family import ANY, Family
from kanana_jax.interop.families.names import PRE
from kanana_jax.interop.foreign import Fields
from kanana_jax.models.architecture import Architecture, LayerKind, pattern_of


def read(config: Fields, shape: dict[str, Any]) -> dict[str, Any]:
    number = shape["num_layers"]
    none = config.values.get("sliding_window", 0) is None
    types = [layers.FULL if none else layers.SLIDING] * number
    if layers.types_of(config, number) not in (None, types):
        raise UserError(
            f"{config.where}: layer_types contradicts sliding_window, which holds for every layer of this class: "
            "remove layer_types"
        )
    return {"layer_pattern": pattern_of([LayerKind(layers.window_of(config, types))] * number)}


def write(a: Architecture) -> dict[str, Any]:
    return {"sliding_window": layers.window_to_config(a, None)}


def check(a: Architecture) -> str:
    mixed = len({kind.window for kind in a.kinds}) > 1
    return "layer_pattern with layers of several windows" if mixed else layers.one_rope(a)


FAMILY = Family(
    model_type="mistral",
    class_name="MistralForCausalLM",
    norms=PRE,
    read=read,
    write=write,
    fields={"layer_pattern": ANY},
    check=check,
    keys=("sliding_window", "layer_types"),
    defaults={"max_position_embeddings": 131_072, "num_key_value_heads": 8, "sliding_window": 4096},
)
