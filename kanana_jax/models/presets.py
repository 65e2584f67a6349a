"""All models of the Kanana report (arXiv:2502.18934, Table 3 and §3), later Kanana models, and sizes for two CPU cores.

Marked *chosen*: the report gives the parameter count but no shape. These presets keep the family's ratios
(head_dim 128, 8 KV heads, 32 layers where pruning only narrows; Llama-like width to MLP) and meet the
count. Everything else is stated in the report, in the public configuration of Kanana Nano, or follows
from the count by arithmetic.
"""

import dataclasses

from kanana_jax.models.architecture import Architecture, LayerKind, RopeScaling

LLAMA3_VOCAB = 128_256


def _kanana(embed_dim: int, mlp_dim: int, num_heads: int, *, tied: bool = False, num_layers: int = 32) -> Architecture:
    return Architecture(
        vocab_size=LLAMA3_VOCAB,
        embed_dim=embed_dim,
        mlp_dim=mlp_dim,
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=8,
        head_dim=128,
        tied_embeddings=tied,
    )


def essence_8b() -> Architecture:
    """8.030B, from scratch: Llama-3-8B's shape."""
    return _kanana(4096, 14336, 32)


def essence_9_8b() -> Architecture:
    """9.775B: the 8B up-scaled from 32 to 40 layers."""
    return _kanana(4096, 14336, 32, num_layers=40)


def flag_26_8b() -> Architecture:
    """26.8B, from scratch (*chosen*)."""
    return _kanana(6144, 23680, 48, num_layers=48)


def flag_32_5b() -> Architecture:
    """32.5B: the 26.8B up-scaled (*chosen* with it)."""
    return _kanana(6144, 23680, 48, num_layers=59)


def nano_4_5b() -> Architecture:
    """4.513B, pruned from the 8B."""
    return _kanana(3072, 9216, 32)


def nano_3b() -> Architecture:
    """3.0B, pruned from the 4.5B (*chosen*)."""
    return _kanana(2304, 8192, 24)


def nano_2_1b() -> Architecture:
    """2.087B, Kanana Nano: public configuration, tied."""
    return _kanana(1792, 8064, 24, tied=True)


def nano_1_3b() -> Architecture:
    """1.292B."""
    return _kanana(1536, 5376, 16, tied=True)


def nano_635m() -> Architecture:
    """0.635B."""
    return _kanana(1024, 3072, 16, tied=True)


def nano_385m() -> Architecture:
    """0.385B (*chosen*)."""
    return _kanana(768, 2560, 8, tied=True)


def nano_192m() -> Architecture:
    """0.192B (*chosen*)."""
    return _kanana(512, 1216, 8, tied=True)


def kanana_1_5_2_1b(*, long: bool = False) -> Architecture:
    """Kanana 1.5, 2.1B: Nano's shape with 32K of context (model card); `long`: YaRN to 128K.

    *Not stated here*: its RoPE's base, kept at Nano's.
    """
    return _kanana_1_5(nano_2_1b(), long)


def kanana_1_5_8b(*, long: bool = False) -> Architecture:
    """Kanana 1.5, 8B: the first 8B's shape with 32K of context (model card); otherwise like `kanana_1_5_2_1b`."""
    return _kanana_1_5(essence_8b(), long)


def _kanana_1_5(a: Architecture, long: bool) -> Architecture:
    scaling = RopeScaling("yarn", 4.0, 32_768) if long else None
    return dataclasses.replace(a, max_seq_len=131_072 if long else 32_768, rope_scaling=scaling)


# For both models of Kanana-2: RoPE as published with converted checkpoints.
_YARN_40 = RopeScaling("yarn", 40.0, 4096)
# Three layers with a window for each one without; only the latter's RoPE is scaled.
SLM_PATTERN = (*(LayerKind(1024, rope_scaled=False),) * 3, LayerKind())


def kanana_2_3b() -> Architecture:
    """Kanana-2 3B, from scratch: 3,508,972,032 parameters, of Qwen3's class (converted checkpoints).

    *Inferred* from the exact count: width, MLP, layers, query heads, untied embeddings. KV heads: a published size of
    the cache. The norms' epsilon is that of Qwen3's class, *not stated*.
    """
    a = dataclasses.replace(_kanana(2560, 8192, 32), qk_norm="head", norm_eps=1e-6)
    return dataclasses.replace(a, max_seq_len=32_768, rope_theta=10_000.0, rope_scaling=_YARN_40)


def kanana_2_1_3b() -> Architecture:
    """Kanana-2 1.3B, pruned from the 3B: 1,291,478,272 parameters, no output matrix, windows (converted checkpoints).

    *Inferred* from the exact count: width, MLP, layers, heads. The windows' size and order: the published cut of the KV
    cache by 72.7% at 32K.
    """
    shape = dict(embed_dim=1280, mlp_dim=5760, tied_embeddings=True, layer_pattern=SLM_PATTERN)
    return dataclasses.replace(kanana_2_3b(), **shape)


def tiny(
    vocab_size: int,
    *,
    embed_dim: int = 256,
    mlp_dim: int = 768,
    num_layers: int = 6,
    num_heads: int = 8,
    num_kv_heads: int = 4,
    head_dim: int = 32,
    tied: bool = True,
    max_seq_len: int = 1024,
) -> Architecture:
    """A few million parameters: minutes on two CPU cores, the same code."""
    return Architecture(
        vocab_size=vocab_size,
        embed_dim=embed_dim,
        mlp_dim=mlp_dim,
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        tied_embeddings=tied,
        max_seq_len=max_seq_len,
        rope_theta=10_000.0,
    )


PAPER = {
    "essence_8b": (essence_8b, 8.030e9),
    "essence_9_8b": (essence_9_8b, 9.775e9),
    "flag_26_8b": (flag_26_8b, 26.8e9),
    "flag_32_5b": (flag_32_5b, 32.5e9),
    "nano_4_5b": (nano_4_5b, 4.513e9),
    "nano_3b": (nano_3b, 3.0e9),
    "nano_2_1b": (nano_2_1b, 2.087e9),
    "nano_1_3b": (nano_1_3b, 1.292e9),
    "nano_635m": (nano_635m, 0.635e9),
    "nano_385m": (nano_385m, 0.385e9),
    "nano_192m": (nano_192m, 0.192e9),
}
# Models after the report, with their exact number of parameters.
LATER = {
    "kanana_1_5_2_1b": (kanana_1_5_2_1b, 2_086_979_328),
    "kanana_1_5_8b": (kanana_1_5_8b, 8_030_261_248),
    "kanana_2_3b": (kanana_2_3b, 3_508_972_032),
    "kanana_2_1_3b": (kanana_2_1_3b, 1_291_478_272),
}
