"""OLMo 2 (arXiv:2501.00656, §3.2): norms after attention and MLP, and of queries and keys over their whole width."""

from typing import Any

from kanana_jax.interop.families.family import Family
from kanana_jax.interop.families.names import POST
from kanana_jax.interop.families.shape import bias_of
from kanana_jax.interop.foreign import Fields
from kanana_jax.models.architecture import Architecture

DEFAULTS = {"max_position_embeddings": 2048, "rms_norm_eps": 1e-5}
FIELDS = {"qk_norm": ("width",), "norm_placement": ("post",), "attention_bias": ("none", "qkvo")}


def read(config: Fields, shape: dict[str, Any]) -> dict[str, Any]:
    del shape
    return {"qk_norm": "width", "norm_placement": "post", "attention_bias": bias_of(config)}


def write(a: Architecture) -> dict[str, Any]:
    return {"attention_bias": a.attention_bias == "qkvo"}


FAMILY = Family(
    model_type="olmo2",
    class_name="Olmo2ForCausalLM",
    norms=POST,
    read=read,
    write=write,
    fields=FIELDS,
    keys=("attention_bias",),
    defaults=DEFAULTS,
)
