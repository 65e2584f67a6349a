"""Names, shapes and layouts of Hugging Face's Llama against ours.

Hugging Face stores `nn.Linear` weights as `[out, in]` with the heads flattened; ours are
`[in, out…]` with heads and head_dim apart, layers stacked. RoPE pairs channel `i` with `i + h/2` in
both, so no channel moves.
"""

from typing import Any

import numpy as np

from kanana_jax.errors import UserError
from kanana_jax.interop.families.family import Family, Special, Tensor
from kanana_jax.interop.families.rope import rope_of
from kanana_jax.interop.foreign import Fields, short
from kanana_jax.models.architecture import Architecture

# Beyond any model that there is: a size that is a slip or a trap is refused before anything is made of it.
_MOST_WORDS, _MOST_WIDTH, _MOST_HEADS, _MOST_LAYERS = 1 << 24, 1 << 22, 1 << 16, 10_000
# Keys of descendants that change the logits: factors, and parts that Llama does not have.
_FACTORS = ("partial_rotary_factor", "logits_scaling", "logit_scale", "embedding_multiplier", "residual_multiplier")
_EXTRAS = (
    "sliding_window", "attention_multiplier", "final_logit_softcapping", "attn_logit_softcapping", "clip_qkv",
    "query_pre_attn_scalar", "no_rope_layers", "num_local_experts", "num_experts",
)  # fmt: skip


def _transposed(x: np.ndarray) -> np.ndarray:
    return x.T


def layer_tensors(a: Architecture, layer: int) -> list[Tensor]:
    D, F, h = a.embed_dim, a.mlp_dim, a.head_dim
    prefix = f"model.layers.{layer}"

    def projection(name: str, key: str, heads: int) -> Tensor:
        return Tensor(
            f"{prefix}.self_attn.{name}.weight",
            ("blocks", "attention", key),
            layer,
            (heads * h, D),
            lambda x: x.T.reshape(D, heads, h),
            lambda x: x.reshape(D, heads * h).T,
        )

    def matrix(name: str, key: str, shape: tuple[int, int]) -> Tensor:
        return Tensor(f"{prefix}.mlp.{name}.weight", ("blocks", "mlp", key), layer, shape, _transposed, _transposed)

    def norm(name: str, key: str) -> Tensor:
        return Tensor(f"{prefix}.{name}.weight", ("blocks", key, "scale"), layer, (D,))

    H = a.num_heads
    return [
        norm("input_layernorm", "attention_norm"),
        projection("q_proj", "q", H),
        projection("k_proj", "k", a.num_kv_heads),
        projection("v_proj", "v", a.num_kv_heads),
        Tensor(
            f"{prefix}.self_attn.o_proj.weight",
            ("blocks", "attention", "o"),
            layer,
            (D, H * h),
            lambda x: x.T.reshape(H, h, D),
            lambda x: x.reshape(H * h, D).T,
        ),
        norm("post_attention_layernorm", "mlp_norm"),
        matrix("gate_proj", "gate", (F, D)),
        matrix("up_proj", "up", (F, D)),
        matrix("down_proj", "down", (D, F)),
    ]


def outer_tensors(a: Architecture) -> list[Tensor]:
    """Embedding, final norm and (untied) output matrix."""
    V, D = a.vocab_size, a.embed_dim
    tensors = [
        Tensor("model.embed_tokens.weight", ("embedding",), None, (V, D)),
        Tensor("model.norm.weight", ("final_norm", "scale"), None, (D,)),
    ]
    if not a.tied_embeddings:
        tensors.append(Tensor("lm_head.weight", ("unembedding",), None, (V, D)))
    return tensors


def to_config(a: Architecture, dtype: str, special: Special) -> dict[str, Any]:
    """`config.json`; `special` holds bos_token_id, eos_token_id and pad_token_id."""
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": a.rope_theta}
    if a.rope_scaling is not None:
        s = a.rope_scaling
        rope = {"rope_type": s.type, "rope_theta": a.rope_theta, "factor": s.factor}
        rope["original_max_position_embeddings"] = s.original_max_position_embeddings
        if s.type == "llama3":
            rope |= {"low_freq_factor": s.low_freq_factor, "high_freq_factor": s.high_freq_factor}
        else:
            rope |= {"beta_fast": s.beta_fast, "beta_slow": s.beta_slow}
            if s.attention_factor is not None:
                rope["attention_factor"] = s.attention_factor
    # `rope_theta` and `rope_scaling` are the names of transformers 4, `rope_parameters` that of 5.
    scaling = None if a.rope_scaling is None else {k: v for k, v in rope.items() if k != "rope_theta"}
    return {
        "architectures": [FAMILY.class_name],
        "model_type": FAMILY.model_type,
        "vocab_size": a.vocab_size,
        "hidden_size": a.embed_dim,
        "intermediate_size": a.mlp_dim,
        "num_hidden_layers": a.num_layers,
        "num_attention_heads": a.num_heads,
        "num_key_value_heads": a.num_kv_heads,
        "head_dim": a.head_dim,
        "max_position_embeddings": a.max_seq_len,
        "rope_theta": a.rope_theta,
        "rope_scaling": scaling,
        "rope_parameters": rope,
        "rms_norm_eps": a.norm_eps,
        "initializer_range": a.init_std,
        "tie_word_embeddings": a.tied_embeddings,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "torch_dtype": dtype,
        "dtype": dtype,
        **special,
    }


def from_config(config: dict[str, Any], where: str) -> Architecture:
    """The architecture of a `config.json`.

    Raises:
      UserError: a variant whose logits we could not reproduce.
    """
    return read_config(Fields(config, where, {"max_position_embeddings": 2048}))


def read_config(config: Fields, **more: Any) -> Architecture:
    """An architecture from the keys that Llama and its descendants share; `more` of its fields are the family's.

    Raises:
      UserError: a key that contradicts another, is of another type or size than a model's, or belongs to a model that
        computes something else.
    """
    _refuse_others(config)
    heads, width = config.integer("num_attention_heads", _MOST_HEADS), config.integer("hidden_size", _MOST_WIDTH)
    head_dim = config.given("head_dim") or config.defaults.get("head_dim")
    if head_dim is None and width % heads:
        raise UserError(
            f"{config.where}: hidden_size {width} is no multiple of num_attention_heads {heads}: head_dim is needed"
        )
    max_seq_len = config.integer("max_position_embeddings", 2**31 - 1)
    theta, scaling = rope_of(config, max_seq_len)
    try:
        return Architecture(
            vocab_size=config.integer("vocab_size", _MOST_WORDS),
            embed_dim=width,
            mlp_dim=config.integer("intermediate_size", _MOST_WIDTH),
            num_layers=config.integer("num_hidden_layers", _MOST_LAYERS),
            num_heads=heads,
            num_kv_heads=config.integer("num_key_value_heads", _MOST_HEADS, heads, null=True),
            head_dim=config.integer("head_dim", _MOST_WIDTH, width // heads, null="head_dim" not in config.defaults),
            tied_embeddings=config.flag("tie_word_embeddings"),
            max_seq_len=max_seq_len,
            rope_theta=theta,
            rope_scaling=scaling,
            norm_eps=config.number("rms_norm_eps", 1e-6),
            init_std=config.number("initializer_range", 0.02),
            **more,
        )
    except ValueError as error:
        raise UserError(f"{config.where}: {error}") from error


def _refuse_others(config: Fields) -> None:
    """Raises UserError for a key that other tools read as another computation than ours."""
    for key in ("quantization_config", "compression_config"):
        if config.given(key) is not None:
            raise UserError(
                f"{config.where}: the weights are quantised ({key}), and their scales are not read: fetch or write the "
                "model in float32, bfloat16 or float16"
            )
    for key in ("attention_bias", "mlp_bias", "use_sliding_window", "use_qk_norm", "qk_layernorm"):
        if config.flag(key):
            raise config.refusal(key, "false")
    if config.values.get("hidden_act", "silu") not in ("silu", "swish"):
        raise config.refusal("hidden_act", "'silu'")
    for key in _FACTORS:
        value = config.given(key)
        if value is not None and (value != 1 or isinstance(value, bool)):
            raise config.refusal(key, "1")
    for key in _EXTRAS:
        # Some families write a window that a flag beside it turns off.
        if config.given(key) is not None and not (key == "sliding_window" and "use_sliding_window" in config.values):
            raise config.refusal(key, "left out")
    kinds = config.given("layer_types")
    if kinds is not None and (not isinstance(kinds, list) or any(kind != "full_attention" for kind in kinds)):
        other = next((kind for kind in kinds if kind != "full_attention"), kinds) if isinstance(kinds, list) else kinds
        raise UserError(
            f"{config.where}: a layer of type {short(other)} is not supported; all must be 'full_attention'"
        )


FAMILY = Family("llama", "LlamaForCausalLM", outer_tensors, layer_tensors, to_config, from_config)
