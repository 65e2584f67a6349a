"""A prefix shared by several sequences, computed once into a KV cache from which all of them continue."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from kanana_jax.models.cache import KVCache, empty_cache
from kanana_jax.models.model import Model
from kanana_jax.models.transformer import Params

LEAST_SHARED = 16  # with fewer tokens, a separate cache does not pay


def common(a: np.ndarray, b: np.ndarray) -> int:
    """The number of tokens that both start with."""
    n = min(len(a), len(b))
    other = np.flatnonzero(a[:n] != b[:n])
    return int(other[0]) if len(other) else n


def rounded(n: int) -> int:
    """A length rounded up to one of a few, so that few shapes are compiled: a power of two or 1.5 times one, three
    between two from 256 on, fifteen from 2,048 on, where compiling costs little compared with padding."""
    power = 1 << max(n - 1, 15).bit_length()
    step = power // (32 if power > 2048 else 8 if power > 256 else 4)
    return max(-(-n // step) * step, 16)


def padded(sequences: list[np.ndarray], rows: int, width: int) -> np.ndarray:
    """int32 `[rows, width]`, padded with zeros on the right and below."""
    out = np.zeros((rows, width), np.int32)
    for row, sequence in zip(out, sequences):
        row[: len(sequence)] = sequence
    return out


def read(params: Params, tokens: np.ndarray, model: Model) -> KVCache:
    """The cache of one sequence, one row; the length is rounded up, and the extra slots are masked padding."""
    ids = padded([tokens], 1, rounded(len(tokens)))
    return _read(params, ids, jnp.int32(len(tokens)), model=model)


@functools.partial(jax.jit, static_argnames="model")
def _read(params: Params, tokens_1P: jax.Array, length: jax.Array, *, model: Model) -> KVCache:
    segments = (jnp.arange(tokens_1P.shape[1])[None] < length).astype(jnp.int32)
    cache = empty_cache(model.architecture, 1, tokens_1P.shape[1], model.runtime.compute_dtype)
    return model.bind(params)(tokens_1P, segment_ids=segments, cache=cache)[1]
