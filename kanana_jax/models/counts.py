"""Parameters and FLOPs of an architecture, by formula.

Two FLOP counts, never mixed: `six_n_d` is the paper's (6 · parameters · tokens, arXiv:2001.08361);
`matmul_flops` counts every multiply-add of the matrix products and of causal attention, and is what
MFU is measured with.
"""

from kanana_jax.models.architecture import Architecture


def layer_parameters(a: Architecture) -> int:
    """Parameters of one block: q, k, v, o; gate, up, down; two norms."""
    attention = a.embed_dim * a.head_dim * (2 * a.num_heads + 2 * a.num_kv_heads)
    return attention + 3 * a.embed_dim * a.mlp_dim + 2 * a.embed_dim


def embedding_parameters(a: Architecture) -> int:
    return a.vocab_size * a.embed_dim * (1 if a.tied_embeddings else 2)


def parameters(a: Architecture) -> int:
    return a.num_layers * layer_parameters(a) + a.embed_dim + embedding_parameters(a)


def matmul_parameters(a: Architecture) -> int:
    """Parameters that stand in a matrix product for every token: all but the lookup and the norms."""
    return a.num_layers * (layer_parameters(a) - 2 * a.embed_dim) + a.vocab_size * a.embed_dim


def attention_flops_per_token(a: Architecture, seq_len: int) -> float:
    """Forward FLOPs of q·kᵀ and weights·v for one token, causal: half of `4·H·h·T` a layer."""
    return 2.0 * a.num_layers * a.num_heads * a.head_dim * seq_len


def forward_flops_per_token(a: Architecture, seq_len: int) -> float:
    return 2.0 * matmul_parameters(a) + attention_flops_per_token(a, seq_len)


def train_flops_per_token(a: Architecture, seq_len: int) -> float:
    """Forward and backward (twice the forward); rematerialisation is not counted.

    `6·N_matmul + 6·L·T·H·h`: the causal convention.
    """
    return 3.0 * forward_flops_per_token(a, seq_len)


def six_n_d(a: Architecture, tokens: float) -> float:
    return 6.0 * parameters(a) * tokens
