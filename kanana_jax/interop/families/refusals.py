"""Keys of `config.json` that change the logits in some family and are refused in families that do not support them."""

from collections.abc import Collection

from kanana_jax.errors import UserError
from kanana_jax.interop.foreign import Fields, short

_QUANTISED = ("quantization_config", "compression_config")
_FALSE = (
    "attention_bias", "qkv_bias", "use_qkv_bias", "use_bias", "bias", "mlp_bias", "use_sliding_window", "qk_norm",
    "use_qk_norm", "qk_layernorm", "use_post_norm", "use_bidirectional_attention", "attention_k_eq_v",
    "attn_output_gate", "attention_sinks", "is_encoder_decoder", "add_cross_attention", "use_mla",
    "layernorm_zero_centered_gamma",
)  # fmt: skip
_ONE = (
    "partial_rotary_factor", "logits_scaling", "logit_scale", "embedding_multiplier", "residual_multiplier",
    "scale_emb", "rope_ratio",
)  # fmt: skip
_ABSENT = (
    "sliding_window", "attention_multiplier", "final_logit_softcapping", "attn_logit_softcapping", "clip_qkv",
    "query_pre_attn_scalar", "no_rope_layers", "rope_local_base_freq", "rotary_dim", "attention_chunk_size",
    "scale_depth", "dim_model_base", "per_layer_config", "mlp_layer_types", "decoder_sparse_step", "q_lora_rank",
    "kv_lora_rank", "hidden_size_per_layer_input", "vision_config", "audio_config", "text_config", "layers_block_type",
    "block_configs", "alibi",
)  # fmt: skip
# Numbers of parts that Llama does not have; 0 is accepted.
_ZERO = (
    "num_local_experts", "num_experts", "n_routed_experts", "num_experts_per_tok", "num_kv_shared_layers",
    "num_mtp_layers", "num_nextn_predict_layers",
)  # fmt: skip
_PREFIXES = ("moe_", "altup_", "linear_key_", "linear_value_", "linear_num_", "linear_conv_", "mamba_", "ssm_")


def refuse_others(config: Fields, keys: Collection[str]) -> None:
    """Refuses keys that make other tools compute another function than the family's.

    Args:
      keys: keys that the family understands.

    Raises:
      UserError: there is such a key.
    """
    for key in _QUANTISED:
        if config.given(key) is not None:
            raise UserError(
                f"{config.where}: the weights are quantised ({key}), and their scales are not read: fetch or write the "
                "model in float32, bfloat16 or float16"
            )
    for key in _FALSE:
        if key not in keys and config.flag(key):
            raise config.refusal(key, "false")
    if config.given("is_causal") is False:
        raise config.refusal("is_causal", "true")
    for key in _ONE:
        value = config.given(key)
        if key not in keys and value is not None and (value != 1 or isinstance(value, bool)):
            raise config.refusal(key, "1")
    for key in (*_ABSENT, *_ZERO, *(key for key in config.values if key.startswith(_PREFIXES))):
        value = config.given(key)
        if key in keys or value is None or (key in _ZERO and type(value) is int and value == 0):
            continue
        # Some families write a window together with a flag that turns it off.
        if key == "sliding_window" and "use_sliding_window" in config.values:
            continue
        raise config.refusal(key, "left out")
    kinds = config.given("layer_types")
    if "layer_types" in keys or kinds is None:
        return
    if not isinstance(kinds, list) or any(kind not in ("full_attention", "attention") for kind in kinds):
        known = ("full_attention", "attention")
        other = next((kind for kind in kinds if kind not in known), kinds) if isinstance(kinds, list) else kinds
        raise UserError(
            f"{config.where}: a layer of type {short(other)} is not supported (layer_types): all must be "
            "'full_attention'"
        )
