"""Parameters, FLOPs and sizes of an architecture, from the names of its parameters' axes.

Two FLOP counts, never mixed: `six_n_d` is the paper's (6 · parameters · tokens, arXiv:2001.08361);
`matmul_flops` counts every multiply-add of the matrix products and of causal attention, and is what
MFU is measured with.
"""

import math
from collections.abc import Iterable

from kanana_jax.models import axes as axis_names
from kanana_jax.models.architecture import Architecture
from kanana_jax.models.axes import Axes
from kanana_jax.models.transformer import axes_by_path
from kanana_jax.parallel.sharding import RULES


def layer_parameters(a: Architecture) -> int:
    """Parameters of one block."""
    return _total(a, (names[1:] for names in _parameters(a) if names[0] == "layers"))


def embedding_parameters(a: Architecture) -> int:
    return _total(a, (names for names in _parameters(a) if "vocab" in names))


def parameters(a: Architecture) -> int:
    return _total(a, _parameters(a))


def matmul_parameters(a: Architecture) -> int:
    """Parameters in the matrix products of every token: all except the lookup and the gains."""
    # Of two tables, one is only looked up; a tied one is also in the product.
    tables = {names for names in _parameters(a) if "vocab" in names}
    return _total(a, (names for names in _parameters(a) if names[0] == "layers" and axis_names.is_matrix(names))) + (
        _total(a, tables)
    )


def sizes(a: Architecture, prefix: str = "model") -> dict[str, tuple[str, int]]:
    """The sizes that a mesh must divide, for `sharding.check_divisible`: those of all axes that `RULES` shards."""
    used = {axis for names in _parameters(a) for axis in names if RULES[axis]}
    return {
        f"{prefix}.{field}": (axis, axis_names.size(a, axis))
        for axis, field in axis_names.SIZES.items()
        if axis in used
    }


def _parameters(a: Architecture) -> Iterable[Axes]:
    return axes_by_path(a).values()


def _total(a: Architecture, parameters: Iterable[Axes]) -> int:
    return sum(math.prod(axis_names.shape(a, names)) for names in parameters)


def attention_flops_per_token(a: Architecture, seq_len: int) -> float:
    """Forward FLOPs of q·kᵀ and weights·v per token, causal: `4·H·h` per key seen, on average, and layer.

    A token sees `T/2` keys, or with a window of `W < T` of them `W − W²/2T`.
    """
    return 4.0 * a.num_heads * a.head_dim * sum(_keys(kind.window, seq_len) for kind in a.kinds)


def _keys(window: int, seq_len: int) -> float:
    if not 0 < window < seq_len:
        return seq_len / 2
    return window - window**2 / (2 * seq_len)


def cached_tokens(a: Architecture, tokens: int) -> int:
    """Tokens whose keys and values a cache keeps, over all layers, after `tokens` tokens of a text."""
    return sum(min(kind.window, tokens) if kind.window else tokens for kind in a.kinds)


def forward_flops_per_token(a: Architecture, seq_len: int) -> float:
    return 2.0 * matmul_parameters(a) + attention_flops_per_token(a, seq_len)


def written_flops(a: Architecture, read: int, new: int) -> float:
    """FLOPs of reading a prompt and writing `new` tokens after it with a cache, without padding.

    Each of the `T` tokens passes the blocks once and sees the earlier ones, as in one forward pass over all of them
    (arXiv:2001.08361, table 1; reading and writing cost the same per token, arXiv:2211.05102, §2); only new tokens need
    the unembedding, `2·D·V` each. With `new=0` it is the pass of a reward model, without its head's `2·D`.
    """
    tokens, unembedding = read + new, 2.0 * a.embed_dim * a.vocab_size
    return tokens * (forward_flops_per_token(a, tokens) - unembedding) + new * unembedding


def train_flops_per_token(a: Architecture, seq_len: int) -> float:
    """Forward and backward (twice the forward); rematerialisation is not counted.

    `6·N_matmul + 6·L·T·H·h` without windows: the causal convention.
    """
    return 3.0 * forward_flops_per_token(a, seq_len)


def six_n_d(a: Architecture, tokens: float) -> float:
    return 6.0 * parameters(a) * tokens
