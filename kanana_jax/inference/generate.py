"""Batched generation with a KV cache: prompts of unequal length, one compiled loop.

Prompts are padded on the left, so that all rows write the same slot of the cache; padding has segment
0 and is seen by nobody. Lengths are rounded up to powers of two, so that few shapes are compiled.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from kanana_jax.inference.sampling import SamplingConfig, sample
from kanana_jax.models.architecture import Architecture, Runtime
from kanana_jax.models.transformer import KVCache, Params, bind
from kanana_jax.parallel.sharding import RULES, constrain


def empty_cache(a: Architecture, runtime: Runtime, batch: int, slots: int) -> KVCache:
    shape = (a.num_layers, batch, slots, a.num_kv_heads, a.head_dim)
    zeros = jnp.zeros(shape, runtime.compute_dtype)
    return KVCache(zeros, zeros, jnp.zeros((batch, slots), jnp.int32), jnp.zeros((), jnp.int32))


def generate(
    params: Params,
    architecture: Architecture,
    runtime: Runtime,
    prompts: Sequence[np.ndarray],
    *,
    max_new_tokens: int,
    sampling: SamplingConfig = SamplingConfig(),
    stop: Sequence[int] = (),
    seed: int = 0,
) -> list[np.ndarray]:
    """Continues each prompt.

    Args:
      prompts: int32 ids, with BOS where the model wants it; at least one token each.
      max_new_tokens: at most so many new tokens a prompt.
      stop: ids that end a row; the stop token itself is not returned.
      seed: of the draws; row `i` draws the same whatever stands in the other rows.

    Returns:
      The new ids of each prompt, int32.

    Raises:
      ValueError: an empty prompt.
    """
    if any(len(p) == 0 for p in prompts):
        raise ValueError("a prompt must hold at least one token (BOS)")
    mesh = jax.sharding.get_abstract_mesh()
    parts = 1 if mesh.empty else int(np.prod([mesh.shape[axis] for axis in RULES["batch"]]))
    rows = -(-len(prompts) // parts) * parts
    width = _power_of_two(max(len(p) for p in prompts))
    tokens = np.zeros((rows, width), np.int32)
    segments = np.zeros((rows, width), np.int32)
    for i in range(rows):
        prompt = prompts[min(i, len(prompts) - 1)]
        tokens[i, width - len(prompt) :] = prompt
        segments[i, width - len(prompt) :] = 1
    # The whole forward pass runs in the compute dtype: cast once, not at every token.
    params = jax.tree.map(lambda p: p.astype(runtime.compute_dtype), params)
    # Scanned, since a static slice of the stacked layers would be copied at every token.
    runtime = dataclasses.replace(runtime, param_dtype=runtime.compute_dtype, remat="none", scan_layers=True)
    out, lengths = _generate(
        params,
        tokens,
        segments,
        jax.random.key(seed),
        jnp.asarray(sorted(stop) or [-1], jnp.int32),
        architecture=architecture,
        runtime=runtime,
        new=max_new_tokens,
        sampling=sampling,
    )
    out, lengths = np.asarray(out), np.asarray(lengths)
    return [out[i, : lengths[i]] for i in range(len(prompts))]


def _power_of_two(n: int) -> int:
    return 1 << max(n - 1, 7).bit_length()


@functools.partial(jax.jit, static_argnames=("architecture", "runtime", "new", "sampling"))
def _generate(params, tokens, segments, key, stop, *, architecture, runtime, new, sampling):
    model = bind(architecture, runtime, params)
    B, T = tokens.shape
    row_keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(B))
    lengths = segments.sum(axis=1)
    positions = jnp.maximum(jnp.arange(T)[None] - (T - lengths[:, None]), 0)
    cache = empty_cache(architecture, runtime, B, T + new)
    hidden, cache = model(tokens, positions=positions, segment_ids=segments, cache=cache)

    def pick(hidden_BD, step):
        keys = jax.vmap(lambda k: jax.random.fold_in(k, step))(row_keys)
        logits = model.unembed(hidden_BD)
        if sampling.temperature == 0:
            return sample(logits, key, sampling)
        return jax.vmap(lambda row, k: sample(row[None], k, sampling)[0])(logits, keys)

    def body(state):
        step, token, done, out, count, cache = state
        done = done | jnp.isin(token, stop)
        out = out.at[:, step].set(jnp.where(done, 0, token))
        count = count + (~done).astype(jnp.int32)
        hidden, cache = model(token[:, None], positions=(lengths + step)[:, None], cache=cache)
        return step + 1, pick(hidden[:, 0], step + 1), done, out, count, cache

    def going_on(state):
        step, token, done = state[:3]
        return (step < new) & ~jnp.all(done | jnp.isin(token, stop))

    start = (
        jnp.zeros((), jnp.int32),
        pick(hidden[:, -1], 0),
        jnp.zeros((B,), bool),
        jnp.zeros((B, new), jnp.int32),
        jnp.zeros((B,), jnp.int32),
        cache,
    )
    _, _, _, out, count, _ = jax.lax.while_loop(going_on, body, start)
    return constrain(out), constrain(count)  # whole on every host
