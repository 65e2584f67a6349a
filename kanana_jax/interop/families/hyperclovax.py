"""HyperCLOVA X (2025): Llama with muP's multipliers (arXiv:2203.03466) and, optionally, norms on both sides."""

from typing import Any

from kanana_jax.interop.families.family import ANY, Family
from kanana_jax.interop.families.names import PRE
from kanana_jax.interop.families.shape import bias_of
from kanana_jax.interop.foreign import Fields
from kanana_jax.models.architecture import Architecture

# The norm before the MLP keeps Llama's name; those after attention and MLP have names of their own.
_NORMS = PRE | {"attention_post_norm": "post_norm1", "mlp_post_norm": "post_norm2"}


def read(config: Fields, shape: dict[str, Any]) -> dict[str, Any]:
    own = config.given("attention_multiplier") is None
    scale = 0.0 if own else config.number("attention_multiplier", above=True)
    return {
        "attention_bias": bias_of(config),
        "mlp_bias": config.flag("mlp_bias"),
        "norm_placement": "both" if config.flag("use_post_norm") else "pre",
        "embedding_multiplier": config.number("embedding_multiplier", 1.0, above=True),
        "residual_multiplier": config.number("residual_multiplier", 1.0, above=True),
        "logits_multiplier": config.number("logits_scaling", 1.0, above=True),
        "attention_multiplier": 0.0 if scale == shape["head_dim"] ** -0.5 else scale,
    }


def write(a: Architecture) -> dict[str, Any]:
    return {
        "attention_bias": a.attention_bias == "qkvo",
        "mlp_bias": a.mlp_bias,
        "use_post_norm": a.norm_placement == "both",
        "embedding_multiplier": a.embedding_multiplier,
        "residual_multiplier": a.residual_multiplier,
        "logits_scaling": a.logits_multiplier,
        "attention_multiplier": a.attention_scale,
    }


FAMILY = Family(
    model_type="hyperclovax",
    class_name="HyperCLOVAXForCausalLM",
    norms=_NORMS,
    read=read,
    write=write,
    fields={
        "attention_bias": ("none", "qkvo"),
        "mlp_bias": (False, True),
        "norm_placement": ("pre", "both"),
        "embedding_multiplier": ANY,
        "residual_multiplier": ANY,
        "logits_multiplier": ANY,
        "attention_multiplier": ANY,
    },
    keys=(
        "attention_bias", "mlp_bias", "use_post_norm", "embedding_multiplier", "residual_multiplier", "logits_scaling",
        "attention_multiplier",
    ),
    defaults={"max_position_embeddings": 2048, "use_post_norm": True},
    whole_heads=True,
)  # fmt: skip
