"""Small random models on disk with vocabularies as they are trained here."""

import pathlib

import jax

from kanana_jax.data import microworld
from kanana_jax.data.tokens.training import TokenizerConfig, train_tokenizer
from kanana_jax.interop import model_folder
from kanana_jax.models.architecture import Architecture, Runtime
from kanana_jax.models.transformer import init_params

# SentencePiece needs room for every letter of the texts and of the keyboard.
VOCABULARIES = {"bpe": 400, "unigram": 800}


def write(folder: pathlib.Path, kind: str, world: microworld.World, max_seq_len: int = 512) -> pathlib.Path:
    """`folder/model`, as a stage leaves it, with a vocabulary of `kind` in `folder/tokenizer`."""
    texts = {lang: [d["text"] for d in microworld.documents(world, "news", lang, 60)] for lang in ("ko", "en")}
    config = TokenizerConfig(vocab_size=VOCABULARIES[kind], model_type=kind, train_bytes=60_000)
    tokenizer = train_tokenizer(texts, config, folder / "tokenizer")
    a = Architecture(
        vocab_size=tokenizer.vocab_size, embed_dim=32, mlp_dim=48, num_layers=2, num_heads=4, num_kv_heads=2,
        head_dim=8, max_seq_len=max_seq_len, init_std=0.25, rope_theta=10_000.0,
    )  # fmt: skip
    params = jax.device_get(init_params(a, Runtime(), jax.random.key(1)))
    special = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id}
    model_folder.write(folder / "model", a, params, model_folder.card(a), folder / "tokenizer", special)
    return folder / "model"
