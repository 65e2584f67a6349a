"""Names of Qwen3 (arXiv:2505.09388) against ours: Llama's, and the gains of each head's queries and keys."""

from typing import Any

from kanana_jax.interop.families import llama
from kanana_jax.interop.families.family import Family, Special, Tensor
from kanana_jax.interop.foreign import Fields
from kanana_jax.models.architecture import Architecture


def layer_tensors(a: Architecture, layer: int) -> list[Tensor]:
    def gain(name: str) -> Tensor:
        path = ("blocks", "attention", name, "scale")
        return Tensor(f"model.layers.{layer}.self_attn.{name}.weight", path, layer, (a.head_dim,))

    return [*llama.layer_tensors(a, layer), gain("q_norm"), gain("k_norm")]


def to_config(a: Architecture, dtype: str, special: Special) -> dict[str, Any]:
    config = llama.to_config(a, dtype, special)
    del config["mlp_bias"]
    own = {"architectures": [FAMILY.class_name], "model_type": FAMILY.model_type, "use_sliding_window": False}
    return config | own


def from_config(config: dict[str, Any], where: str) -> Architecture:
    """The architecture of a `config.json`.

    Raises:
      UserError: a variant whose logits we could not reproduce.
    """
    # Qwen3's defaults, whatever the width.
    defaults = {"head_dim": 128, "num_key_value_heads": 32, "max_position_embeddings": 32768}
    return llama.read_config(Fields(config, where, defaults), qk_norm="head")


FAMILY = Family("qwen3", "Qwen3ForCausalLM", llama.outer_tensors, layer_tensors, to_config, from_config)
