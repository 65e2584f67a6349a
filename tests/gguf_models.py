"""Small random models of every architecture that llama.cpp and we share, with a vocabulary that was trained here."""

import dataclasses
import math
import pathlib

import jax
import numpy as np

from kanana_jax.data import microworld
from kanana_jax.data.tokens.tokenizer import load_tokenizer
from kanana_jax.data.tokens.training import TokenizerConfig, train_tokenizer
from kanana_jax.interop import model_folder
from kanana_jax.models.architecture import Architecture, LayerKind, RopeScaling, Runtime
from kanana_jax.models.transformer import Params, abstract_params

TOKENS = 300
YARN = RopeScaling("yarn", 4.0, 32)
BASE = Architecture(
    vocab_size=TOKENS + 4, embed_dim=32, mlp_dim=64, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8,
    max_seq_len=128, rope_theta=10_000.0,
)  # fmt: skip
POST = dict(norm_placement="post")
GEMMA = dict(
    norm_placement="both", norm_unit_offset=True, activation="gelu_tanh", embedding_multiplier=math.sqrt(32),
    tied_embeddings=True,
)  # fmt: skip


def _windows(period: int, layers: int, sliding: LayerKind = LayerKind(8), full: LayerKind = LayerKind()) -> dict:
    kinds = tuple(full if i % period == period - 1 else sliding for i in range(period))
    return dict(layer_pattern=kinds, num_layers=layers)


def _of(**fields) -> Architecture:
    return dataclasses.replace(BASE, **fields)


# Name → the architecture of llama.cpp, and ours.
MODELS: dict[str, tuple[str, Architecture]] = {
    "llama with biases": ("llama", _of(attention_bias="qkvo", mlp_bias=True, head_dim=16)),
    "llama 3": (
        "llama",
        _of(rope_scaling=RopeScaling("llama3", 8.0, 32, 1.0, 4.0), tied_embeddings=True, rope_theta=5e5),
    ),
    "llama with yarn": ("llama", _of(rope_scaling=YARN)),
    "llama slowed": ("llama", _of(rope_scaling=RopeScaling("linear", 2.0, 128))),
    "qwen2": ("qwen2", _of(attention_bias="qkv")),
    "qwen3": (
        "qwen3",
        _of(qk_norm="head", head_dim=16, rope_scaling=dataclasses.replace(YARN, attention_factor=1.3)),
    ),
    "smollm3": (
        "smollm3",
        _of(num_layers=4, layer_pattern=(LayerKind(),) * 3 + (LayerKind(rope=False),), tied_embeddings=True),
    ),
    "olmo2": ("olmo2", _of(qk_norm="width", **POST)),
    "olmo3": (
        "olmo2",
        _of(qk_norm="width", rope_scaling=YARN, **POST, **_windows(4, 5, LayerKind(8, rope_scaled=False))),
    ),
    "exaone4": ("exaone4", _of(qk_norm="head", tied_embeddings=True, **POST)),
    "exaone4 of 64 layers": (
        "exaone4",
        _of(qk_norm="head", **POST, **_windows(4, 64, LayerKind(8), LayerKind(rope=False))),
    ),
    "gemma2": ("gemma2", _of(**GEMMA, attention_softcap=5.0, logits_softcap=9.0, **_windows(2, 3))),
    "gemma2 without windows": ("gemma2", _of(**GEMMA, attention_softcap=5.0, logits_softcap=9.0)),
    "gemma3": (
        "gemma3",
        _of(
            **GEMMA, qk_norm="head", rope_theta=1e6, rope_scaling=RopeScaling("linear", 8.0, 128),
            **_windows(6, 7, LayerKind(8, True, 1e4, rope_scaled=False)),
        ),
    ),
    "hyperclovax": (
        "granite",
        _of(embedding_multiplier=3.0, residual_multiplier=0.5, logits_multiplier=2.0, attention_multiplier=0.2),
    ),
    "kanana2_tiny": (
        "mellum",
        _of(
            qk_norm="head", head_dim=16, tied_embeddings=True, rope_scaling=YARN,
            **_windows(4, 5, LayerKind(8, rope_scaled=False)),
        ),
    ),
    "windows first": (
        "mellum",
        _of(qk_norm="head", num_layers=3, layer_pattern=(LayerKind(), LayerKind(8), LayerKind(8))),
    ),
}  # fmt: skip


def tokenizer(folder: pathlib.Path) -> pathlib.Path:
    """The folder of a byte-level vocabulary of `TOKENS` pieces, as they are trained here."""
    texts = {lang: [r["text"] for r in microworld.parse_uri(f"microworld://news/{lang}?count=40&size=200")]
             for lang in ("ko", "en")}  # fmt: skip
    train_tokenizer(texts, TokenizerConfig(vocab_size=TOKENS, model_type="bpe", train_bytes=20_000), folder)
    return folder


def params(a: Architecture, seed: int = 0) -> Params:
    """Random weights, gains about 1 (or 0, where they are stored so)."""
    rng = np.random.default_rng(seed)
    gain = 0.0 if a.norm_unit_offset else 1.0

    def draw(path, x) -> np.ndarray:
        if path[-1].key == "scale":
            return (gain + 0.2 * rng.normal(size=x.shape)).astype(np.float32)
        width = 0.3 if path[-1].key.endswith("_bias") or x.ndim < 3 else x.shape[1] ** -0.5
        return (width * rng.normal(size=x.shape)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, abstract_params(a, Runtime()))


def write(folder: pathlib.Path, a: Architecture, words: pathlib.Path) -> Params:
    """Writes a model folder with a tokenizer; its weights."""
    found = params(a)
    tokens = load_tokenizer(words)
    special = {"bos_token_id": tokens.bos_id, "eos_token_id": tokens.eos_id}
    model_folder.write(folder, a, found, model_folder.card(a), words, special)
    return found
