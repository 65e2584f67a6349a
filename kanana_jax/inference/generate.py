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
from kanana_jax.inference.sampling import Draw, SamplingConfig, draw
from kanana_jax.models import layers
from kanana_jax.models.cache import KVCache, apart, empty_cache, expanded
from kanana_jax.models.model import Model
from kanana_jax.models.transformer import Params, Transformer
from kanana_jax.parallel.sharding import RULES, constrain, platform

UNSTACKED_BYTES = 4 << 30  # size of all layers up to which they are stored twice
# Bytes of a layer's weights read while all tokens are written. SmolLM2-135M, 8 rows, a busy two-core machine:
# 9 s more CPU time to compile, 0.05 s less per token; repaid after 170 tokens or, since a program is compiled only
# once, by two texts of half that length.
UNSTACKED_READS = 1 << 30
# Called before each token is sampled, with the last sampled tokens, int32 `[n]`, one per prompt (−1: the row has ended;
# None: nothing sampled yet). Returns int32 `[n, ceil(tokens / 32)]`: bit `i % 32` (lowest first) of word `i // 32` says
# whether token `i` may be sampled.
Allowed = Callable[[np.ndarray | None], np.ndarray]


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
    allowed: Allowed | None = None,
) -> list[np.ndarray]:
    """Continues each prompt.

    Args:
      prompts: int32 ids, with BOS if the model expects it; at least one token each.
      max_new_tokens: most new tokens per prompt; 0: nothing is read or written.
      stop: ids that end a row; the stop token itself is not returned.
      tokens: number of the tokenizer's tokens; the model's padding beyond it is in the softmax but never sampled.
      seed: seed of the sampling; row `i` samples the same whatever is in the other rows.
      finished: called with a prompt's index and its new ids, after 4, 8, 16 … and every `check_every` of them; if it
        returns True, the row ends there (for stop sequences of several tokens), whatever it has written beyond.
      allowed: the tokens that may be sampled next (`Allowed`); calls the host at every token. Single host only.

    Returns:
      The new ids of each prompt, int32.

    Raises:
      ValueError: an empty prompt, or a negative number of tokens.
    """
    written = write(
        params,
        model,
        prompts,
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        stop=stop,
        tokens=tokens,
        key=jax.random.key(seed),
        finished=finished,
        check_every=check_every,
        allowed=allowed,
    )
    return [each.ids for each in written]


class Written(NamedTuple):
    """The continuation of a prompt.

    Attributes:
      ids: int32 `[n]`, the new ids.
      log_probs, cuts: float32 `[n]`, of each id when it was sampled (`sampling.Draw`); `[0]` if not recorded.
    """

    ids: np.ndarray
    log_probs: np.ndarray
    cuts: np.ndarray


def write(
    params: Params,
    model: Model,
    prompts: Sequence[np.ndarray],
    *,
    max_new_tokens: int,
    sampling: SamplingConfig,
    stop: Sequence[int],
    tokens: int | None,
    key: jax.Array,
    finished: Callable[[int, np.ndarray], bool] | None = None,
    check_every: int = 32,
    allowed: Allowed | None = None,
    noted: bool = False,
    width: int = 0,
) -> list[Written]:
    """The loop of `generate`, with its arguments.

    Args:
      key: random key of the sampling.
      noted: whether to record log-probabilities, and the stop token of a row that ends.
      width: tokens to which prompts are padded, at least the longest prompt; then no shared prefix is computed once,
        so that one program serves any prompts. 0: as wide as needed.
    """
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens must be at least 0, not {max_new_tokens}")
    nothing = np.zeros(0, np.float32)
    if max_new_tokens == 0:
        return [Written(np.zeros(0, np.int32), nothing, nothing) for _ in prompts]
    if any(len(p) == 0 for p in prompts):
        raise ValueError("a prompt must have at least one token (BOS)")
    mesh = jax.sharding.get_abstract_mesh()
    parts = 1 if mesh.empty else int(np.prod([mesh.shape[axis] for axis in RULES["batch"]]))
    rows = -(-len(prompts) // parts) * parts
    first = prompts[0]
    shared = 0 if width else min((min(common(first, p), len(p) - 1) for p in prompts[1:]), default=0)
    shared = shared if shared >= LEAST_SHARED else 0
    width = width or rounded(max(len(p) for p in prompts) - shared)
    read_ids = np.zeros((rows, width), np.int32)
    segments = np.zeros((rows, width), np.int32)
    for i in range(rows):
        rest = prompts[min(i, len(prompts) - 1)][shared:]
        read_ids[i, width - len(rest) :] = rest
        segments[i, width - len(rest) :] = 1
    # The whole forward pass runs in the compute dtype: cast once, not for every token.
    dtype = model.runtime.compute_dtype
    params = jax.tree.map(lambda p: p.astype(dtype), params)
    model = as_written(model)
    drawn = model.architecture.vocab_size if tokens is None else tokens
    ends = jnp.asarray(sorted(stop) or [-1], jnp.int32)
    cache = read(params, first[:shared], model) if shared else None
    how: Any = {"model": model, "sampling": sampling, "drawn": drawn, "unstacked": _unstacks(params, max_new_tokens)}
    bits = None if allowed is None else _bits(allowed(None), rows)
    state = _begin(
        params, cache, jnp.int32(shared), read_ids, segments, key, bits, new=max_new_tokens, noted=noted, **how
    )
    lengths = shared + segments.sum(axis=1)
    # Checked early at first: many answers are short.
    early = [1 << i for i in range(2, (check_every - 1).bit_length())]
    looks = [] if finished is None else [*early, *range(check_every, max_new_tokens, check_every)]
    done = np.zeros(rows, bool)
    limits = range(1, max_new_tokens) if allowed is not None else (n for n in looks if n < max_new_tokens)
    for limit in [*limits, max_new_tokens]:
        if allowed is not None:
            last = np.asarray(state.last.token)[: len(prompts)]
            last = np.where(done[: len(prompts)] | np.isin(last, sorted(stop)), -1, last)
            bits = _bits(allowed(last), rows)
        state, out, count, ended = _advance(params, state, lengths, key, ends, done, jnp.int32(limit), bits, **how)
        out, count, done = Written(*map(np.asarray, out)), np.asarray(count), np.array(ended)
        if finished is not None and limit < max_new_tokens and limit in looks:
            for row in np.flatnonzero(~done):
                done[row] = row >= len(prompts) or finished(row, out.ids[row, : count[row]])
        if done.all():
            break
    return [Written(*(x[i, : count[i]] for x in out)) for i in range(len(prompts))]


def longest(model: Model, *, new: int, sampling: SamplingConfig, tokens: int) -> jax.stages.Wrapped:
    """The two programs of a recorded `write` as one, for answers that never end early: its maximum cost.

    Returns:
      `(params, ids, segments) → draws [B, new]`, jitted; ids and segments int32 `[B, width]`.
    """
    runs = as_written(model)
    how: Any = {"model": runs, "sampling": sampling, "drawn": tokens, "unstacked": False}

    def run(params: Params, ids: jax.Array, segments: jax.Array) -> Draw:
        params = jax.tree.map(lambda p: p.astype(runs.runtime.compute_dtype), params)
        key, stop, done = jax.random.key(0), jnp.full((1,), -1, jnp.int32), jnp.zeros(len(ids), bool)
        state = _begin(params, None, jnp.int32(0), ids, segments, key, None, new=new, noted=True, **how)
        lengths, limit = segments.sum(axis=1), jnp.int32(new)
        return _advance(params, state, lengths, key, stop, done, limit, None, whole=True, **how)[1]

    return jax.jit(run)


def as_written(model: Model) -> Model:
    """The model as it runs while sampling: in the compute dtype, with its layers scanned.

    Scanned, since static slices of the stacked layers would be copied at every token; but see `_unstacks`.
    """
    runtime = model.runtime
    dtype = runtime.compute_dtype
    runtime = dataclasses.replace(runtime, param_dtype=dtype, remat="none", scan_layers=True)
    return Model(model.architecture, runtime)


def _unstacks(params: Params, new: int) -> bool:
    """Returns whether each layer has its own arrays while tokens are written.

    A CPU copies a layer's weights and cache out of the stack at every token; other devices read them in place. Own
    arrays take the memory of the layers again, and each layer is compiled: this pays only for enough tokens.
    """
    held = sum(w.size * w.dtype.itemsize for w in jax.tree.leaves(params["blocks"]))
    layers = jax.tree.leaves(params["blocks"])[0].shape[0]
    return platform() == "cpu" and held <= UNSTACKED_BYTES and new * held // layers >= UNSTACKED_READS


class _State(NamedTuple):
    """Loop state: `last [B]` is sampled but not yet written to `out [B, new]`, of which `count [B]` are valid.

    In `out`, log-probabilities and cuts have no columns if they are not recorded.
    """

    step: jax.Array
    last: Draw
    done: jax.Array
    out: Draw
    count: jax.Array
    cache: KVCache


def _bits(bits: np.ndarray, rows: int) -> np.ndarray:
    """The words of `Allowed`, plus rows that copy the last prompt (a mesh's padding), which may sample anything."""
    more = np.full((rows - len(bits), bits.shape[1]), -1, np.int32)
    return np.concatenate([bits, more]) if len(more) else bits


def unpacked(bits_BW: jax.Array, size: int) -> jax.Array:
    """Whether each of `size` tokens may be sampled, bool `[B, size]`; those beyond the words may not."""
    bits_BWb = (bits_BW[:, :, None] >> jnp.arange(32, dtype=bits_BW.dtype)) & 1
    flat_BV = bits_BWb.reshape(len(bits_BW), -1)[:, :size] > 0
    return jnp.pad(flat_BV, ((0, 0), (0, size - flat_BV.shape[1])))


def _pick(
    module: Transformer,
    hidden_BD: jax.Array,
    key: jax.Array,
    step: jax.Array,
    bits_BW: jax.Array | None,
    sampling: SamplingConfig,
    drawn: int,
) -> Draw:
    logits = module.unembed(hidden_BD)
    if bits_BW is not None:
        logits = jnp.where(unpacked(bits_BW, logits.shape[-1]), logits, -jnp.inf)
    if drawn < logits.shape[-1]:
        logits = jnp.where(jnp.arange(logits.shape[-1]) < drawn, logits, -jnp.inf)
    if sampling.temperature == 0:
        return draw(logits, key, sampling)
    row_keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.fold_in(key, i), step))(jnp.arange(len(hidden_BD)))
    drawn_B1 = jax.vmap(lambda row, k: draw(row[None], k, sampling))(logits, row_keys)
    return Draw(*(x[:, 0] for x in drawn_B1))


@functools.partial(jax.jit, static_argnames=("model", "new", "sampling", "drawn", "unstacked", "noted"))
def _begin(
    params: Params,
    cache: KVCache | None,
    shared: jax.Array,
    tokens: jax.Array,
    segments: jax.Array,
    key: jax.Array,
    bits: jax.Array | None,
    *,
    model: Model,
    new: int,
    sampling: SamplingConfig,
    drawn: int,
    unstacked: bool,
    noted: bool,
) -> _State:
    """Reads the prompts' rests; `cache` holds the `shared` tokens before them, or is None."""
    module = model.bind(params)
    B, T = tokens.shape
    positions = shared + jnp.maximum(jnp.arange(T)[None] - (T - segments.sum(axis=1)[:, None]), 0)
    a = model.architecture
    cache = empty_cache(a, B, T, model.runtime.compute_dtype) if cache is None else expanded(a, cache, B, T)
    hidden, cache = module(tokens, positions=positions, segment_ids=segments, cache=cache)
    cache = expanded(a, cache, 1, new)  # only now: while prompts are read, attention to these slots would be wasted
    cache = apart(a, cache) if unstacked else cache
    zero = jnp.zeros((), jnp.int32)
    last = _pick(module, hidden[:, -1], key, zero, bits, sampling, drawn)
    notes = jnp.zeros((B, new if noted else 0), jnp.float32)
    out = Draw(jnp.zeros((B, new), jnp.int32), notes, notes)
    return _State(zero, last, jnp.zeros((B,), bool), out, jnp.zeros((B,), jnp.int32), cache)


@functools.partial(
    jax.jit, static_argnames=("model", "sampling", "drawn", "unstacked", "whole"), donate_argnames="state"
)
def _advance(
    params: Params,
    state: _State,
    lengths: jax.Array,
    key: jax.Array,
    stop: jax.Array,
    done: jax.Array,
    limit: jax.Array,
    bits: jax.Array | None,
    *,
    model: Model,
    sampling: SamplingConfig,
    drawn: int,
    unstacked: bool,
    whole: bool = False,
) -> tuple[_State, Draw, jax.Array, jax.Array]:
    """Continues to `limit` new tokens, or until all rows have ended.

    Args:
      bits: the words for the single token sampled in that case; `limit` is then the next step.
      whole: always to the last token, in a loop whose length the compiler knows.
    """
    module = model.bind(params)
    weights = module.block_weights()
    if unstacked:
        a = model.architecture
        module = dataclasses.replace(model, architecture=dataclasses.replace(a, layer_pattern=a.kinds)).bind(params)
        weights = layers.apart(weights)

    noted = state.out.log_prob.shape[1] > 0

    def ended(s: _State) -> jax.Array:
        """Rows that have ended; when recording, a row still writes its stop token."""
        return s.done if noted else s.done | jnp.isin(s.last.token, stop)

    def put(whole: jax.Array, new_B: jax.Array, step: jax.Array, done: jax.Array) -> jax.Array:
        return whole.at[:, step].set(jnp.where(done, 0, new_B).astype(whole.dtype)) if whole.shape[1] else whole

    def body(s: _State) -> _State:
        done = ended(s)
        out = Draw(*(put(whole, new, s.step, done) for whole, new in zip(s.out, s.last)))
        count = s.count + (~done).astype(jnp.int32)
        done |= jnp.isin(s.last.token, stop)
        token, positions = s.last.token[:, None], (lengths + s.step)[:, None]
        hidden, cache = module(token, positions=positions, cache=s.cache, weights=weights)
        last = _pick(module, hidden[:, 0], key, s.step + 1, bits, sampling, drawn)
        return _State(s.step + 1, last, done, out, count, cache)

    def going_on(s: _State) -> jax.Array:
        return (s.step < limit) & ~jnp.all(ended(s))

    state = state._replace(done=state.done | done)
    if whole:
        state = jax.lax.fori_loop(0, state.out.token.shape[1], lambda _, s: body(s), state)
    else:
        state = jax.lax.while_loop(going_on, body, state)
    out = Draw(*map(constrain, state.out))
    return state, out, constrain(state.count), constrain(ended(state))  # whole on every host
