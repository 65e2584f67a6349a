"""Gemma 2 (arXiv:2408.00118, §2): (1 + w) norms on both sides, tanh-GELU, soft caps, a window in every other layer."""

import math
from typing import Any

from kanana_jax.errors import UserError
from kanana_jax.interop.families import layers
from kanana_jax.interop.families.family import ANY, Family
from kanana_jax.interop.families.names import SANDWICH
from kanana_jax.interop.families.shape import bias_of
from kanana_jax.interop.foreign import Fields
from kanana_jax.models.architecture import Architecture, LayerKind, pattern_of

FIELDS = {
    "norm_placement": ("both",),
    "norm_unit_offset": (True,),
    "attention_bias": ("none", "qkvo"),
    "layer_pattern": ANY,
    "embedding_multiplier": ANY,
    "attention_multiplier": ANY,
    "logits_softcap": ANY,
}
KEYS = (
    "attention_bias", "sliding_window", "layer_types", "query_pre_attn_scalar", "final_logit_softcapping",
)  # fmt: skip
DEFAULTS = {
    "hidden_activation": "gelu_pytorch_tanh",
    "head_dim": 256,
    "num_key_value_heads": 4,
    "sliding_window": 4096,
    "query_pre_attn_scalar": 256,
    "tie_word_embeddings": True,
}


def common(config: Fields, shape: dict[str, Any]) -> dict[str, Any]:
    """The fields that Gemma 2 and 3 share."""
    scalar, head_dim = config.number("query_pre_attn_scalar", above=True), shape["head_dim"]
    return {
        "norm_placement": "both",
        "norm_unit_offset": True,
        "attention_bias": bias_of(config),
        "embedding_multiplier": math.sqrt(shape["embed_dim"]),
        "attention_multiplier": 0.0 if scalar == head_dim else scalar**-0.5,
        "logits_softcap": cap(config, "final_logit_softcapping"),
    }


def cap(config: Fields, key: str) -> float:
    """A soft cap; 0 for null, which means none."""
    if config.values.get(key, config.defaults.get(key)) is None:
        return 0.0
    return config.number(key, above=True)


def common_to_config(a: Architecture) -> dict[str, Any]:
    """The keys that Gemma 2 and 3 share."""
    return {
        "attention_bias": a.attention_bias == "qkvo",
        "query_pre_attn_scalar": _scalar(a),
        "final_logit_softcapping": a.logits_softcap or None,
        "layer_types": layers.types_to_config(a),
        "sliding_window": layers.window_to_config(a),
    }


def common_check(a: Architecture) -> str:
    """The reason to refuse factors other than those that both classes derive from sizes; empty: there is none."""
    if a.embedding_multiplier != math.sqrt(a.embed_dim):
        return f"embedding_multiplier {a.embedding_multiplier:g} where √embed_dim is {a.embed_dim**0.5:g}"
    if a.attention_multiplier and _scalar(a) ** -0.5 != a.attention_multiplier:
        return f"attention_multiplier {a.attention_multiplier:g}, which is not 1/√n of an integer n"
    return ""


def _scalar(a: Architecture) -> int:
    return round(a.attention_multiplier**-2) if a.attention_multiplier else a.head_dim


def read(config: Fields, shape: dict[str, Any]) -> dict[str, Any]:
    types = layers.types_of(config, shape["num_layers"]) or layers.every(shape["num_layers"], 2)
    if config.values.get("sliding_window", 0) is None:
        raise UserError(f"{config.where}: sliding_window is null, and the class needs one: write 4096")
    window = layers.window_of(config, types)
    kinds = [LayerKind(window if kind == layers.SLIDING else 0) for kind in types]
    return common(config, shape) | {
        "layer_pattern": pattern_of(kinds),
        "attention_softcap": cap(config, "attn_logit_softcapping"),
    }


def write(a: Architecture) -> dict[str, Any]:
    return common_to_config(a) | {"attn_logit_softcapping": a.attention_softcap or None}


FAMILY = Family(
    model_type="gemma2",
    class_name="Gemma2ForCausalLM",
    norms=SANDWICH,
    read=read,
    write=write,
    fields=FIELDS | {"attention_softcap": ANY},
    check=lambda a: common_check(a) or layers.windows_and_one_rope(a),
    keys=(*KEYS, "attn_logit_softcapping"),
    defaults=DEFAULTS
    | {"max_position_embeddings": 8192, "final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0},
    whole_heads=True,
    activation_key="hidden_activation",
)
