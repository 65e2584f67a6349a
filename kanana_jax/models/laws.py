"""Published laws: learning rate and batch size by compute (DeepSeek LLM), and the loss of a distilled student (Apple).

**DeepSeek LLM** (arXiv:2401.02954, §3.1, eq. 1):

    lr = 0.3118 · C^−0.1250        batch = 0.2920 · C^0.3271 tokens        C = M · D

with `M = 72·L·d² + 12·L·d·T` in the paper, the non-embedding FLOPs of one token; here
`M = 6·N + 12·L·d_attn·T` with `N` the non-embedding parameters and `d_attn = H·h`, which is the same
for their shape and right for GQA and explicit head dims.

**Apple's distillation scaling law** (arXiv:2502.08606): the loss of a student, given its size, tokens and teacher.
Losses are nats per token on web text; sizes are non-embedding parameters. Fitted for students of 143M to 12.6B: far
below that only the direction holds.
"""

from typing import NamedTuple

from kanana_jax.models import counts
from kanana_jax.models.architecture import Architecture


class Recommendation(NamedTuple):
    """Attributes: compute (FLOPs), learning_rate, batch_tokens (tokens per step)."""

    compute: float
    learning_rate: float
    batch_tokens: float


def non_embedding_flops_per_token(a: Architecture, seq_len: int) -> float:
    """`M`: 6 FLOPs per non-embedding parameter, plus attention counted over the full square."""
    non_embedding = counts.parameters(a) - counts.embedding_parameters(a)
    return 6.0 * non_embedding + 12.0 * a.num_layers * a.num_heads * a.head_dim * seq_len


def recommend(a: Architecture, tokens: float, seq_len: int) -> Recommendation:
    """Peak learning rate and batch for training `a` on `tokens` tokens of sequences of `seq_len`."""
    compute = non_embedding_flops_per_token(a, seq_len) * tokens
    return Recommendation(compute, 0.3118 * compute**-0.1250, 0.2920 * compute**0.3271)


def supervised_loss(parameters: float, tokens: float) -> float:
    """L̃(N, D) of a model trained on text (the supervised law, with the constants fitted there)."""
    return 1.220 + (3355 / parameters**0.408 + 18186 / tokens**0.431) ** 0.452


def distilled_loss(parameters: float, tokens: float, teacher_loss: float) -> float:
    """L_S(N, D, L_T) of a student distilled on that many tokens (the distillation law)."""
    alone = supervised_loss(parameters, tokens)
    gap = (1 + (teacher_loss / (1.315 * alone)) ** 11.1) ** -47.0
    reach = (2243 / parameters**0.321 + 24181 / tokens**0.637) ** 0.764
    return teacher_loss + teacher_loss**-2.549 * gap * reach
