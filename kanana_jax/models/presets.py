"""Every model of the Kanana report (arXiv:2502.18934, Table 3 and §3), and sizes for two CPU cores.

Marked *chosen*: the report gives the parameter count but no shape. Those keep the family's ratios
(head_dim 128, 8 KV heads, 32 layers where pruning only narrows; Llama-like width to MLP) and meet the
count. Everything else is stated in the report, in the public configuration of Kanana Nano, or follows
from the count by arithmetic.
"""

from kanana_jax.models.architecture import Architecture

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
