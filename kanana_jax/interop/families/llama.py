"""Names, shapes and layouts of Hugging Face's Llama against ours.

Hugging Face stores `nn.Linear` weights as `[out, in]` with the heads flattened; ours are
`[in, out…]` with heads and head_dim apart, layers stacked. RoPE pairs channel `i` with `i + h/2` in
both, so no channel moves.
"""

from typing import Any

import numpy as np

from kanana_jax.errors import UserError
from kanana_jax.interop.families.family import Family, Special, Tensor
from kanana_jax.models.architecture import Architecture, RopeScaling


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
    refuse_others(config, where, {"attention_bias": False, "mlp_bias": False, "hidden_act": "silu"})
    return read_config(config, where)


def refuse_others(config: dict[str, Any], where: str, wanted: dict[str, Any]) -> None:
    """Raises UserError if a key that decides logits has another value than the only one that we compute."""
    for key, value in wanted.items():
        if config.get(key, value) != value:
            raise UserError(f"{where}: {key} = {config[key]!r} is not supported; the architecture needs {value!r}")


def read_config(config: dict[str, Any], where: str, **more: Any) -> Architecture:
    """An architecture from the keys that Llama and its descendants share; `more` of its fields are the family's."""
    try:
        heads, width = config["num_attention_heads"], config["hidden_size"]
        rope = config.get("rope_parameters") or {}
        return Architecture(
            vocab_size=config["vocab_size"],
            embed_dim=width,
            mlp_dim=config["intermediate_size"],
            num_layers=config["num_hidden_layers"],
            num_heads=heads,
            num_kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or width // heads,
            tied_embeddings=bool(config.get("tie_word_embeddings", False)),
            max_seq_len=config.get("max_position_embeddings", 2048),
            rope_theta=float(rope.get("rope_theta") or config.get("rope_theta") or 10_000.0),
            rope_scaling=_scaling(rope or config.get("rope_scaling") or {}, where),
            norm_eps=float(config.get("rms_norm_eps", 1e-6)),
            init_std=float(config.get("initializer_range", 0.02)),
            **more,
        )
    except KeyError as error:
        raise UserError(f"{where}: key {error} is missing; is this a complete config.json?") from error
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error


def _scaling(rope: dict[str, Any], where: str) -> RopeScaling | None:
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind == "default":
        return None
    if kind not in ("llama3", "yarn"):
        raise UserError(f"{where}: RoPE scaling '{kind}' is not supported; known are llama3 and yarn")
    unsupported = [k for k in ("mscale", "mscale_all_dim", "truncate") if rope.get(k) not in (None, True)]
    if unsupported:
        raise UserError(f"{where}: RoPE scaling key '{unsupported[0]}' is not supported")
    names = (
        "factor",
        "original_max_position_embeddings",
        "low_freq_factor",
        "high_freq_factor",
        "beta_fast",
        "beta_slow",
        "attention_factor",
    )
    values = {name: rope[name] for name in names if rope.get(name) is not None}
    missing = [name for name in names[:2] if name not in values]
    if missing:
        raise UserError(f"{where}: RoPE scaling '{kind}' needs the key '{missing[0]}'")
    return RopeScaling(type=kind, **values)


FAMILY = Family("llama", "LlamaForCausalLM", outer_tensors, layer_tensors, to_config, from_config)
