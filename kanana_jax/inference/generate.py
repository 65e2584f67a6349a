"""Batched generation with a KV cache: prompts of unequal length, one compiled loop.

A prefix shared by all prompts (few-shot examples) is computed once. Their rests are padded on the left, so that all
rows write the same slot of the cache; padding has segment 0 and is masked. Lengths are rounded up, so that few shapes
are compiled.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kanana_jax.inference.prefix import LEAST_SHARED, common, read, rounded
from kanana_jax.inference.sampling import SamplingConfig, sample
from kanana_jax.models import layers
from kanana_jax.models.cache import KVCache, apart, empty_cache, expanded
from kanana_jax.models.model import Model
from kanana_jax.models.transformer import Params, Transformer
from kanana_jax.parallel.sharding import RULES, constrain, platform

UNSTACKED_BYTES = 4 << 30  # of all layers, up to which they are held twice
# Bytes of a layer's weights that are read while all tokens are written. SmolLM2-135M, 8 rows, a busy two-core machine:
# 9 s of CPU time more to compile, 0.05 s per token less; repaid after 170 tokens or, since a program is compiled
# once, by two texts of half of that.
UNSTACKED_READS = 1 << 30


def generate(
    params: Params,
    model: Model,
    prompts: Sequence[np.ndarray],
    *,
    max_new_tokens: int,
    sampling: SamplingConfig = SamplingConfig(),
    stop: Sequence[int] = (),
    tokens: int | None = None,
    seed: int = 0,
    finished: Callable[[int, np.ndarray], bool] | None = None,
    check_every: int = 32,
) -> list[np.ndarray]:
    """Continues each prompt.

    Args:
      prompts: int32 ids, with BOS where the model wants it; at least one token each.
      max_new_tokens: the most new tokens per prompt; 0: none is read or written.
      stop: ids that end a row; the stop token itself is not returned.
      tokens: of the tokenizer; the model's padding beyond them takes part in the softmax and is never sampled.
      seed: of the draws; row `i` draws the same whatever stands in the other rows.
      finished: asked of a prompt's place and its new ids, after 4, 8, 16 … and every `check_every` of them; a row of
        which it says yes ends there (stop sequences that are no single token), whatever it has written beyond.

    Returns:
      The new ids of each prompt, int32.

    Raises:
      ValueError: an empty prompt, or a negative number of tokens.
    """
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens must be at least 0, not {max_new_tokens}")
    if max_new_tokens == 0:
        return [np.zeros(0, np.int32) for _ in prompts]
    if any(len(p) == 0 for p in prompts):
        raise ValueError("a prompt must hold at least one token (BOS)")
    mesh = jax.sharding.get_abstract_mesh()
    parts = 1 if mesh.empty else int(np.prod([mesh.shape[axis] for axis in RULES["batch"]]))
    rows = -(-len(prompts) // parts) * parts
    first = prompts[0]
    shared = min((min(common(first, p), len(p) - 1) for p in prompts[1:]), default=0)
    shared = shared if shared >= LEAST_SHARED else 0
    width = rounded(max(len(p) for p in prompts) - shared)
    read_ids = np.zeros((rows, width), np.int32)
    segments = np.zeros((rows, width), np.int32)
    for i in range(rows):
        rest = prompts[min(i, len(prompts) - 1)][shared:]
        read_ids[i, width - len(rest) :] = rest
        segments[i, width - len(rest) :] = 1
    # The whole forward pass runs in the compute dtype: cast once, not at every token.
    dtype = model.runtime.compute_dtype
    params = jax.tree.map(lambda p: p.astype(dtype), params)
    # Scanned, since a static slice of the stacked layers would be copied at every token; but see `_unstacks`.
    runtime = dataclasses.replace(model.runtime, param_dtype=dtype, remat="none", scan_layers=True)
    model = Model(model.architecture, runtime)
    drawn = model.architecture.vocab_size if tokens is None else tokens
    key, ends = jax.random.key(seed), jnp.asarray(sorted(stop) or [-1], jnp.int32)
    cache = read(params, first[:shared], model) if shared else None
    how: Any = {"model": model, "sampling": sampling, "drawn": drawn, "unstacked": _unstacks(params, max_new_tokens)}
    state = _begin(params, cache, jnp.int32(shared), read_ids, segments, key, new=max_new_tokens, **how)
    lengths = shared + segments.sum(axis=1)
    # First looked at soon: many answers are short.
    early = [1 << i for i in range(2, (check_every - 1).bit_length())]
    looks = [] if finished is None else [*early, *range(check_every, max_new_tokens, check_every)]
    done = np.zeros(rows, bool)
    for limit in [*(n for n in looks if n < max_new_tokens), max_new_tokens]:
        state, out, count, ended = _advance(params, state, lengths, key, ends, done, jnp.int32(limit), **how)
        out, count, done = np.asarray(out), np.asarray(count), np.array(ended)
        if finished is not None and limit < max_new_tokens:
            for row in np.flatnonzero(~done):
                done[row] = row >= len(prompts) or finished(row, out[row, : count[row]])
        if done.all():
            break
    return [out[i, : count[i]] for i in range(len(prompts))]


def _unstacks(params: Params, new: int) -> bool:
    """Whether each layer has arrays of its own while tokens are written.

    A CPU copies a layer's weights and cache out of the stack at every token; other devices read them there. It costs
    the memory of the layers once more, and each is compiled for itself: tokens enough must be asked for.
    """
    held = sum(w.size * w.dtype.itemsize for w in jax.tree.leaves(params["blocks"]))
    layers = jax.tree.leaves(params["blocks"])[0].shape[0]
    return platform() == "cpu" and held <= UNSTACKED_BYTES and new * held // layers >= UNSTACKED_READS


class _State(NamedTuple):
    """Loop state: `token [B]` is sampled but not yet written to `out [B, new]`, of which `count [B]` are valid."""

    step: jax.Array
    token: jax.Array
    done: jax.Array
    out: jax.Array
    count: jax.Array
    cache: KVCache


def _pick(
    module: Transformer, hidden_BD: jax.Array, key: jax.Array, step: jax.Array, sampling: SamplingConfig, drawn: int
) -> jax.Array:
    logits = module.unembed(hidden_BD)
    if drawn < logits.shape[-1]:
        logits = jnp.where(jnp.arange(logits.shape[-1]) < drawn, logits, -jnp.inf)
    if sampling.temperature == 0:
        return sample(logits, key, sampling)
    row_keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.fold_in(key, i), step))(jnp.arange(len(hidden_BD)))
    return jax.vmap(lambda row, k: sample(row[None], k, sampling)[0])(logits, row_keys)


@functools.partial(jax.jit, static_argnames=("model", "new", "sampling", "drawn", "unstacked"))
def _begin(
    params: Params,
    cache: KVCache | None,
    shared: jax.Array,
    tokens: jax.Array,
    segments: jax.Array,
    key: jax.Array,
    *,
    model: Model,
    new: int,
    sampling: SamplingConfig,
    drawn: int,
    unstacked: bool,
) -> _State:
    """Reads the prompts' rests; `cache` holds the `shared` tokens before them, or is None."""
    module = model.bind(params)
    B, T = tokens.shape
    positions = shared + jnp.maximum(jnp.arange(T)[None] - (T - segments.sum(axis=1)[:, None]), 0)
    a = model.architecture
    cache = empty_cache(a, B, T, model.runtime.compute_dtype) if cache is None else expanded(a, cache, B, T)
    hidden, cache = module(tokens, positions=positions, segment_ids=segments, cache=cache)
    cache = expanded(a, cache, 1, new)  # only now: while prompts are read, these slots would be looked at in vain
    cache = apart(a, cache) if unstacked else cache
    zero = jnp.zeros((), jnp.int32)
    token = _pick(module, hidden[:, -1], key, zero, sampling, drawn)
    return _State(zero, token, jnp.zeros((B,), bool), jnp.zeros((B, new), jnp.int32), jnp.zeros((B,), jnp.int32), cache)


@functools.partial(jax.jit, static_argnames=("model", "sampling", "drawn", "unstacked"), donate_argnames="state")
def _advance(
    params: Params,
    state: _State,
    lengths: jax.Array,
    key: jax.Array,
    stop: jax.Array,
    done: jax.Array,
    limit: jax.Array,
    *,
    model: Model,
    sampling: SamplingConfig,
    drawn: int,
    unstacked: bool,
) -> tuple[_State, jax.Array, jax.Array, jax.Array]:
    """Continues to `limit` new tokens, or until all rows have ended."""
    module = model.bind(params)
    weights = module.block_weights()
    if unstacked:
        a = model.architecture
        module = dataclasses.replace(model, architecture=dataclasses.replace(a, layer_pattern=a.kinds)).bind(params)
        weights = layers.apart(weights)

    def body(s: _State) -> _State:
        done = s.done | jnp.isin(s.token, stop)
        out = s.out.at[:, s.step].set(jnp.where(done, 0, s.token))
        count = s.count + (~done).astype(jnp.int32)
        hidden, cache = module(s.token[:, None], positions=(lengths + s.step)[:, None], cache=s.cache, weights=weights)
        return _State(
            s.step + 1, _pick(module, hidden[:, 0], key, s.step + 1, sampling, drawn), done, out, count, cache
        )

    def going_on(s: _State):
        return (s.step < limit) & ~jnp.all(s.done | jnp.isin(s.token, stop))

    state = jax.lax.while_loop(going_on, body, state._replace(done=state.done | done))
    ended = state.done | jnp.isin(state.token, stop)
    return state, constrain(state.out), constrain(state.count), constrain(ended)  # whole on every host
