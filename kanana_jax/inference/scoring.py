"""Log-likelihoods of many continuations; shared parts of contexts are computed once.

Requests are sorted, so that those with the same beginning are neighbours: a sequence that another one starts with needs
no row of its own (answers of one letter cost one row per question), and rows that share at least half of their tokens
(few-shot examples, the question before its answers) start from one KV cache. Lengths are rounded up to few shapes.
Logits exist only for chunks of the requested tokens, never as `[B, T, V]`.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kanana_jax.inference.prefix import LEAST_SHARED, common, padded, read, rounded
from kanana_jax.models.attention import implementation
from kanana_jax.models.cache import KVCache, expanded
from kanana_jax.models.model import Model
from kanana_jax.models.transformer import Params
from kanana_jax.parallel.sharding import RULES, constrain, platform

_CHUNK = 64  # tokens whose logits exist at once


class Score(NamedTuple):
    """Score of one continuation.

    Attributes:
      log_likelihood: Σ log p of its tokens given all before them, nats.
      greedy: whether each of them is the most probable token.
    """

    log_likelihood: float
    greedy: bool


class _Row(NamedTuple):
    """A sequence that the model reads, and the requests that it answers: (index, first position, targets)."""

    tokens: np.ndarray
    requests: list[tuple[int, int, np.ndarray]]

    @property
    def first(self) -> int:
        return min(position for _, position, _ in self.requests)


def score(
    params: Params,
    model: Model,
    requests: Sequence[tuple[np.ndarray, np.ndarray]],
    *,
    batch_size: int = 16,
    progress: Callable[[int], None] = lambda answered: None,
) -> list[Score]:
    """Scores the second sequence of each request given the first.

    Args:
      requests: int32 ids `(context, continuation)`, none of them empty. Tokens beyond the model's length, except
        the last one (which is not read), are cut from the left.
      batch_size: rows per forward pass.
      progress: called with the number of requests answered.

    Raises:
      ValueError: an empty context or continuation, or a continuation beyond the model's length.
    """
    longest = model.architecture.max_seq_len
    for index, (context, continuation) in enumerate(requests):
        if not len(context) or not 0 < len(continuation) <= longest:
            raise ValueError(
                f"request {index}: context of {len(context)} and continuation of {len(continuation)} tokens; "
                f"neither may be empty, and the latter not longer than {longest}"
            )
    mesh = jax.sharding.get_abstract_mesh()
    parts = 1 if mesh.empty else int(np.prod([mesh.shape[axis] for axis in RULES["batch"]]))
    batch_size = -(-batch_size // parts) * parts
    runtime = model.runtime
    params = jax.tree.map(lambda p: p.astype(runtime.compute_dtype), params)
    # A kernel chosen for training may not accept all prompt lengths.
    attention = "xla" if runtime.attention == "xla" else "auto"
    runtime = dataclasses.replace(
        runtime, param_dtype=runtime.compute_dtype, attention=attention, remat="none", scan_layers=True
    )
    model = Model(model.architecture, runtime)
    found: list[Score | None] = [None] * len(requests)
    for shared, rows in _batches(_rows(requests, longest), batch_size):
        cache = None
        if shared:
            cache = read(params, rows[0].tokens[:shared], model)
        # Rows that share nothing fill every batch but the last; many batches of the others are not full.
        fewest = len(rows) if cache is None else batch_size // 2
        size = batch_size if len(rows) > fewest else -(-fewest // parts) * parts
        width = rounded(max(len(row.tokens) for row in rows) - shared)
        lengths = np.zeros(size, np.int32)
        lengths[: len(rows)] = [len(row.tokens) - shared for row in rows]
        asked = [
            (r, position - shared + i, target)
            for r, row in enumerate(rows)
            for _, position, targets in row.requests
            for i, target in enumerate(targets)
        ]
        count = _CHUNK * (1 << max(-(-len(asked) // _CHUNK) - 1, 0).bit_length())
        where = np.zeros((count, 3), np.int32)
        where[: len(asked)] = asked
        tokens = padded([row.tokens[shared:] for row in rows], size, width)
        log_p, best = map(np.asarray, _ask(params, cache, tokens, lengths, jnp.int32(shared), where, model=model))
        at = 0
        for row in rows:
            for index, _, targets in row.requests:
                here = slice(at, at + len(targets))
                found[index] = Score(float(log_p[here].astype(np.float64).sum()), bool(best[here].all()))
                at += len(targets)
            progress(len(row.requests))
    answered = [score for score in found if score is not None]
    assert len(answered) == len(requests)  # every row answers its requests
    return answered


def _rows(requests, longest: int) -> list[_Row]:
    """The rows to read, sorted; a sequence that another starts with is answered by that one."""
    inputs = []
    for index, (context, continuation) in enumerate(requests):
        whole = np.concatenate([context, continuation]).astype(np.int32)[-(longest + 1) :]
        # Big-endian bytes have the order and prefixes of the ids.
        read = whole[:-1]
        inputs.append((read.astype(">i4").tobytes(), index, len(read) - len(continuation), whole))
    inputs.sort(key=lambda item: item[:2])
    rows: list[_Row] = []
    key = b""
    for name, index, position, whole in reversed(inputs):
        if not rows or not key.startswith(name):
            rows.append(_Row(whole[:-1], []))
            key = name
        rows[-1].requests.append((index, position, whole[position + 1 :]))
    return rows[::-1]


def _batches(rows: list[_Row], batch_size: int) -> Iterator[tuple[int, list[_Row]]]:
    """Rows that are read together, and the number of leading tokens that they share and no request scores."""
    alone, group, shared = [], [], 0
    for row in [*rows, None]:
        if group and row is not None and len(group) < batch_size:
            both = min(shared, row.first, common(group[-1].tokens, row.tokens))
            if both >= max(LEAST_SHARED, len(row.tokens) / 2, max(len(r.tokens) for r in group) / 2):
                group.append(row)
                shared = both
                continue
        if len(group) > 1:
            yield shared, group
        else:
            alone += group
        group, shared = ([row], row.first) if row is not None else ([], 0)
    alone.sort(key=lambda row: len(row.tokens))
    for i in range(0, len(alone), batch_size):
        yield 0, alone[i : i + batch_size]


@functools.partial(jax.jit, static_argnames="model")
def _ask(
    params: Params,
    cache: KVCache | None,
    tokens_BT: jax.Array,
    lengths_B: jax.Array,
    shared: jax.Array,
    where_N3: jax.Array,
    *,
    model: Model,
) -> tuple[jax.Array, jax.Array]:
    """log p `[N]` of the targets (row, position, token) of `where`, and whether each is the most probable."""
    module = model.bind(params)
    B, T = tokens_BT.shape
    if cache is None:
        # Without segments: padding is on the right, where no token attends, and kernels take only a causal mask.
        kernel = implementation(model.runtime, model.architecture, T, platform())
        hidden_BTD = module(tokens_BT, implementation=kernel)
    else:
        segments = (jnp.arange(T)[None] < lengths_B[:, None]).astype(jnp.int32)
        cache = expanded(model.architecture, cache, B, T)
        positions = jnp.broadcast_to(shared + jnp.arange(T, dtype=jnp.int32), (B, T))
        hidden_BTD, _ = module(tokens_BT, positions=positions, segment_ids=segments, cache=cache)
    hidden_ND = hidden_BTD[where_N3[:, 0], where_N3[:, 1]]

    def chunk(inputs):
        hidden_CD, targets_C = inputs
        logits_CV = module.unembed(hidden_CD)
        picked_C1, top_C1 = jnp.take_along_axis(logits_CV, targets_C[:, None], -1), logits_CV.max(-1, keepdims=True)
        # The first of the largest, like argmax, which on CPUs costs XLA as much as the product.
        before_CV = jnp.arange(logits_CV.shape[-1]) < targets_C[:, None]
        best_C = (picked_C1 == top_C1)[:, 0] & ~((logits_CV == top_C1) & before_CV).any(-1)
        return (picked_C1 - top_C1)[:, 0] - jnp.log(jnp.exp(logits_CV - top_C1).sum(-1)), best_C

    cut = hidden_ND.reshape(-1, _CHUNK, hidden_ND.shape[-1]), where_N3[:, 2].reshape(-1, _CHUNK)
    log_p, best = jax.lax.map(chunk, cut)
    return constrain(log_p.reshape(-1)), constrain(best.reshape(-1))  # whole on every host
