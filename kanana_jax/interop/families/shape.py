"""The keys of `config.json` that all families share."""

from collections.abc import Callable, Collection
from typing import Any

from kanana_jax.errors import UserError
from kanana_jax.interop.families import refusals
from kanana_jax.interop.families.rope import rope_of
from kanana_jax.interop.foreign import Fields
from kanana_jax.models.architecture import Architecture

# Limits far beyond any existing model: an absurd size is refused before memory is allocated for it.
MOST_LAYERS = 10_000
_MOST_WORDS, _MOST_WIDTH, _MOST_HEADS, _MOST_TOKENS = 1 << 24, 1 << 22, 1 << 16, 2**31 - 1
MOST = {
    "vocab_size": _MOST_WORDS, "embed_dim": _MOST_WIDTH, "mlp_dim": _MOST_WIDTH, "num_layers": MOST_LAYERS,
    "num_heads": _MOST_HEADS, "num_kv_heads": _MOST_HEADS, "head_dim": _MOST_WIDTH, "max_seq_len": _MOST_TOKENS,
}  # fmt: skip
_ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
}
_WRITTEN = {"silu": "silu", "gelu_tanh": "gelu_pytorch_tanh"}


def read(
    config: Fields,
    keys: Collection[str],
    activation_key: str,
    more: Callable[[Fields, dict[str, Any]], dict[str, Any]],
) -> Architecture:
    """Reads an architecture from the common keys and the family's own.

    Args:
      config: contents of config.json, with the family's defaults.
      keys: keys that the family understands, among those that are otherwise refused.
      activation_key: key of the MLP's activation.
      more: from the keys and the common fields, makes further fields or overrides common ones.

    Raises:
      UserError: a key contradicts another, has an invalid type or size, or belongs to a model that computes something
        else.
    """
    refusals.refuse_others(config, keys)
    activation = config.values.get(activation_key, config.defaults.get(activation_key, "silu"))
    if not isinstance(activation, str) or activation not in _ACTIVATIONS:
        raise config.refusal(activation_key, f"one of {', '.join(_ACTIVATIONS)}")
    heads, width = config.integer("num_attention_heads", _MOST_HEADS), config.integer("hidden_size", _MOST_WIDTH)
    head_dim = config.given("head_dim") or config.defaults.get("head_dim")
    if head_dim is None and width % heads:
        raise UserError(
            f"{config.where}: hidden_size {width} is not a multiple of num_attention_heads {heads}: give head_dim"
        )
    max_seq_len = config.integer("max_position_embeddings", _MOST_TOKENS)
    shape: dict[str, Any] = dict(
        vocab_size=config.integer("vocab_size", _MOST_WORDS),
        embed_dim=width,
        mlp_dim=config.integer("intermediate_size", _MOST_WIDTH),
        num_layers=config.integer("num_hidden_layers", MOST_LAYERS),
        num_heads=heads,
        num_kv_heads=config.integer("num_key_value_heads", _MOST_HEADS, heads, null=True),
        head_dim=config.integer("head_dim", _MOST_WIDTH, width // heads, null="head_dim" not in config.defaults),
        tied_embeddings=config.flag("tie_word_embeddings"),
        max_seq_len=max_seq_len,
        norm_eps=config.number("rms_norm_eps", 1e-6),
        init_std=config.number("initializer_range", 0.02),
        activation=_ACTIVATIONS[activation],
    )
    found = more(config, shape)
    if "rope_theta" not in found:
        found["rope_theta"], found["rope_scaling"] = rope_of(config, max_seq_len)
    try:
        return Architecture(**(shape | found))
    except ValueError as error:
        raise UserError(f"{config.where}: {error}") from error


def write(a: Architecture, dtype: str, activation_key: str) -> dict[str, Any]:
    """The common keys, except those for RoPE."""
    return {
        "vocab_size": a.vocab_size,
        "hidden_size": a.embed_dim,
        "intermediate_size": a.mlp_dim,
        "num_hidden_layers": a.num_layers,
        "num_attention_heads": a.num_heads,
        "num_key_value_heads": a.num_kv_heads,
        "head_dim": a.head_dim,
        "max_position_embeddings": a.max_seq_len,
        "rms_norm_eps": a.norm_eps,
        "initializer_range": a.init_std,
        "tie_word_embeddings": a.tied_embeddings,
        activation_key: _WRITTEN[a.activation],
        "torch_dtype": dtype,
        "dtype": dtype,
    }


def bias_of(config: Fields) -> str:
    """The biases that `attention_bias` stands for: those of all four projections, or none."""
    return "qkvo" if config.flag("attention_bias") else "none"
