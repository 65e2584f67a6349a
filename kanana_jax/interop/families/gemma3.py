"""Gemma 3 (arXiv:2503.19786, §2): Gemma 2 with norms of each head's queries and keys instead of caps, and two RoPEs.

`TEXT` is the class of the text model; `FAMILY` is the class for text and images, of which only the text model is read.
"""

import dataclasses
from typing import Any

from kanana_jax.interop.families import gemma2, layers
from kanana_jax.interop.families.family import Family
from kanana_jax.interop.families.names import SANDWICH
from kanana_jax.interop.foreign import Fields
from kanana_jax.models.architecture import Architecture

_THETAS = (1_000_000.0, 10_000.0)


def read(config: Fields, shape: dict[str, Any]) -> dict[str, Any]:
    number = shape["num_layers"]
    types = layers.types_of(config, number) or layers.every(number, layers.interval_of(config, 6))
    found = layers.rope_and_pattern(config, shape["max_seq_len"], types, _THETAS, "rope_local_base_freq")
    return gemma2.common(config, shape) | found | {"qk_norm": "head"}


def write(a: Architecture) -> dict[str, Any]:
    ropes = layers.ropes_to_config(a)
    return gemma2.common_to_config(a) | {"attn_logit_softcapping": None, "rope_parameters": ropes}


TEXT = Family(
    model_type="gemma3_text",
    class_name="Gemma3ForCausalLM",
    norms=SANDWICH,
    read=read,
    write=write,
    fields=gemma2.FIELDS | {"qk_norm": ("head",)},
    check=lambda a: gemma2.common_check(a) or layers.rope_by_type(a),
    keys=(*gemma2.KEYS, "rope_local_base_freq"),
    defaults=gemma2.DEFAULTS | {"max_position_embeddings": 131_072},
    whole_heads=True,
    activation_key="hidden_activation",
)
FAMILY = dataclasses.replace(
    TEXT,
    model_type="gemma3",
    class_name="Gemma3ForConditionalGeneration",
    public=False,
    inner="text_config",
    # Published folders only contain the keys that differ from the class's defaults.
    defaults={
        **TEXT.defaults,
        "vocab_size": 262_208,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
    },
    aliases=(
        ("language_model.model.", "model."),
        ("model.language_model.", "model."),
        ("language_model.lm_head.", "lm_head."),
    ),
    skipped=("vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector."),
)
