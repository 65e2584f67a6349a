"""DeepSeek LLM's laws for learning rate and batch size (arXiv:2401.02954, §3.1, eq. 1).

    lr = 0.3118 · C^−0.1250        batch = 0.2920 · C^0.3271 tokens        C = M · D

with `M = 72·L·d² + 12·L·d·T` in the paper, the non-embedding FLOPs of one token; here
`M = 6·N + 12·L·d_attn·T` with `N` the non-embedding parameters and `d_attn = H·h`, which is the same
for their shape and right for GQA and explicit head dims.
"""

from typing import NamedTuple

from kanana_jax.models import counts
from kanana_jax.models.architecture import Architecture


class Recommendation(NamedTuple):
    """Attributes: compute (FLOPs), learning_rate, batch_tokens (tokens a step)."""

    compute: float
    learning_rate: float
    batch_tokens: float


def non_embedding_flops_per_token(a: Architecture, seq_len: int) -> float:
    """`M`: 6 FLOPs a non-embedding parameter, plus attention counted over the full square."""
    non_embedding = counts.parameters(a) - counts.embedding_parameters(a)
    return 6.0 * non_embedding + 12.0 * a.num_layers * a.num_heads * a.head_dim * seq_len


def recommend(a: Architecture, tokens: float, seq_len: int) -> Recommendation:
    """Peak learning rate and batch for training `a` on `tokens` tokens of sequences of `seq_len`."""
    compute = non_embedding_flops_per_token(a, seq_len) * tokens
    return Recommendation(compute, 0.3118 * compute**-0.1250, 0.2920 * compute**0.3271)
