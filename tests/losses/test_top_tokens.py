"""The k most probable tokens against a sort in NumPy, on one and on eight devices; never all logits at once."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import log_softmax

from kanana_jax.losses.top_tokens import top_tokens
from kanana_jax.parallel.mesh import MeshConfig, make_mesh

B, T, D, V = 8, 6, 16, 40


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    # Multiples of 1/8, small: products and sums are exact in float32, so that equal logits are equal everywhere.
    return rng.integers(-4, 5, (B, T, D)) / 8, rng.integers(-4, 5, (V, D)) / 8


@pytest.mark.parametrize("k", [1, 7, 30, V])
@pytest.mark.parametrize("mesh", [None, dict(fsdp=4, tensor=2), dict(data=2, fsdp=1, sequence=2, tensor=2)])
def test_ids_and_log_probs(case, k, mesh):
    hidden, matrix = case
    logits = hidden @ matrix.T
    want = np.argsort(-logits, axis=-1, kind="stable")[..., :k]  # of equal ones the lower id first
    assert k == 1 or (np.diff(np.sort(logits, axis=-1)) == 0).any()
    log_p = np.take_along_axis(logits - np.log(np.exp(logits).sum(-1, keepdims=True)), want, -1)
    arrays = [jnp.asarray(x, jnp.float32) for x in case]
    run = jax.jit(lambda h, m: top_tokens(h, m, k, ids_dtype="uint8", chunk=7))
    if mesh is None:
        found = run(*arrays)
    else:
        with jax.set_mesh(make_mesh(MeshConfig(**mesh))):
            found = run(*arrays)
    assert found.ids.dtype == np.uint8
    np.testing.assert_array_equal(found.ids, want)
    np.testing.assert_allclose(found.log_probs, log_p, atol=2e-6)


def test_no_logits_of_all_tokens_in_memory():
    tokens, vocabulary = 4096, 8192
    shapes = (
        jax.ShapeDtypeStruct((8, tokens // 8, 32), jnp.float32),
        jax.ShapeDtypeStruct((vocabulary, 32), jnp.float32),
    )
    compiled = jax.jit(lambda h, m: top_tokens(h, m, 16, chunk=128)).lower(*shapes).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < tokens * vocabulary * 4 / 4


@pytest.mark.parametrize("mesh", [None, dict(fsdp=1, tensor=8)])
def test_padded_rows_are_in_the_softmax_and_not_among_the_top(mesh):
    rng = np.random.default_rng(2)
    hidden, matrix = rng.normal(size=(8, 3, 16)).astype(np.float32), rng.normal(size=(40, 16)).astype(np.float32)
    log_p = log_softmax(hidden @ matrix.T)
    want = np.argsort(-log_p[..., :21], axis=-1, kind="stable")[..., :21]
    with jax.set_mesh(make_mesh(MeshConfig(**mesh))) if mesh else contextlib.nullcontext():
        ids, found = jax.jit(lambda h, m: top_tokens(h, m, 21, tokens=21, chunk=5))(hidden, matrix)
    np.testing.assert_array_equal(ids, want)
    np.testing.assert_allclose(found, np.take_along_axis(log_p, want, -1), rtol=1e-5)
