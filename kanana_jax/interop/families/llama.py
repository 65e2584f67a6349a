"""Llama (arXiv:2407.21783, §3.2): Llama 3, SmolLM2, Swallow, Kanana 1 and 1.5."""

from typing import Any

from kanana_jax.interop.families.family import Family
from kanana_jax.interop.families.names import PRE
from kanana_jax.interop.families.shape import bias_of
from kanana_jax.interop.foreign import Fields
from kanana_jax.models.architecture import Architecture


def read(config: Fields, shape: dict[str, Any]) -> dict[str, Any]:
    del shape
    return {"attention_bias": bias_of(config), "mlp_bias": config.flag("mlp_bias")}


def write(a: Architecture) -> dict[str, Any]:
    return {"attention_bias": a.attention_bias == "qkvo", "mlp_bias": a.mlp_bias}


FAMILY = Family(
    model_type="llama",
    class_name="LlamaForCausalLM",
    norms=PRE,
    read=read,
    write=write,
    fields={"attention_bias": ("none", "qkvo"), "mlp_bias": (False, True)},
    keys=("attention_bias", "mlp_bias"),
    defaults={"max_position_embeddings": 2048},
    whole_heads=True,
)
