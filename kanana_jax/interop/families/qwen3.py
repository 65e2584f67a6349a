"""Qwen3 (arXiv:2505.09388, §2) and Kanana-2 3B: norms of each head's queries and keys, a window in selected layers."""

from typing import Any

from kanana_jax.interop.families import layers, qwen2
from kanana_jax.interop.families.family import ANY, Family
from kanana_jax.interop.families.names import PRE
from kanana_jax.interop.families.shape import bias_of
from kanana_jax.interop.foreign import Fields
from kanana_jax.models.architecture import Architecture


def read(config: Fields, shape: dict[str, Any]) -> dict[str, Any]:
    return {"qk_norm": "head", "attention_bias": bias_of(config), "layer_pattern": qwen2.windows(config, shape)}


def write(a: Architecture) -> dict[str, Any]:
    return {"attention_bias": a.attention_bias == "qkvo", **qwen2.windows_to_config(a)}


FAMILY = Family(
    model_type="qwen3",
    class_name="Qwen3ForCausalLM",
    norms=PRE,
    read=read,
    write=write,
    fields={"qk_norm": ("head",), "attention_bias": ("none", "qkvo"), "layer_pattern": ANY},
    check=layers.windows_and_one_rope,
    keys=("attention_bias", *qwen2.WINDOW_KEYS),
    defaults=qwen2.DEFAULTS | {"head_dim": 128},  # independent of the width
)
