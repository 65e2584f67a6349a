"""The fused loss against the formula written out in float64, and what it holds in memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kanana_jax.losses.cross_entropy import cross_entropy
from kanana_jax.parallel.mesh import MeshConfig, make_mesh

B, T, D, V, Z = 8, 12, 16, 40, 3e-3


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    return dict(
        hidden=rng.normal(size=(B, T, D)),
        unembedding=rng.normal(size=(V, D)),
        targets=rng.integers(0, V, (B, T)),
        weights=rng.integers(0, 2, (B, T)).astype(float),
    )


def _reference(case):
    """Loss, nll per token and both gradients, float64, by hand."""
    x, w = case["hidden"].reshape(-1, D), case["unembedding"]
    targets, weights = case["targets"].reshape(-1), case["weights"].reshape(-1)
    logits = x @ w.T
    log_z = np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1)) + logits.max(1)
    nll = weights * (log_z - logits[np.arange(len(x)), targets])
    z = weights * Z * log_z**2
    softmax = np.exp(logits - log_z[:, None])
    d_logits = softmax * (weights * (1 + 2 * Z * log_z))[:, None]
    d_logits[np.arange(len(x)), targets] -= weights
    return (nll + z).sum(), nll.reshape(B, T), (d_logits @ w).reshape(B, T, D), d_logits.T @ x


def _ours(case, chunk):
    arrays = [jnp.asarray(case[k], jnp.float32) for k in ("hidden", "unembedding")]
    rest = jnp.asarray(case["targets"]), jnp.asarray(case["weights"], jnp.float32)

    def loss(hidden, unembedding):
        output = cross_entropy(hidden, unembedding, *rest, z_loss=Z, chunk=chunk)
        return 3.0 * output.loss, output

    (value, output), grads = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(*arrays)
    return value / 3, output.token_nll, grads[0] / 3, grads[1] / 3


@pytest.mark.parametrize("chunk", [5, 32, 1000])
@pytest.mark.parametrize(
    "mesh", [None, dict(fsdp=4, tensor=2), dict(data=2, fsdp=1, sequence=2, tensor=2), dict(fsdp=8)]
)
def test_loss_and_gradients(case, mesh, chunk):
    want = _reference(case)
    if mesh is None:
        got = _ours(case, chunk)
    else:
        with jax.set_mesh(make_mesh(MeshConfig(**mesh))):
            got = _ours(case, chunk)
    for ours, reference in zip(got, want):
        np.testing.assert_allclose(ours, reference, rtol=2e-5, atol=2e-5)


def test_value_without_gradient_is_the_same(case):
    arrays = [jnp.asarray(case[k], jnp.float32) for k in ("hidden", "unembedding")]
    output = cross_entropy(*arrays, jnp.asarray(case["targets"]), jnp.asarray(case["weights"], jnp.float32), z_loss=Z)
    np.testing.assert_allclose(output.loss, _reference(case)[0], rtol=1e-5)
    np.testing.assert_allclose(output.loss, output.nll + output.z_loss, rtol=1e-6)


def test_no_logits_of_all_tokens_in_memory():
    """Temporaries stay far below one float32 [tokens, V] array, with and without a mesh."""
    tokens, D, V = 4096, 32, 8192

    def loss(hidden, unembedding):
        targets, weights = jnp.zeros((8, tokens // 8), jnp.int32), jnp.ones((8, tokens // 8))
        return cross_entropy(hidden, unembedding, targets, weights, z_loss=Z, chunk=128).loss

    shapes = jax.ShapeDtypeStruct((8, tokens // 8, D), jnp.float32), jax.ShapeDtypeStruct((V, D), jnp.float32)
    compiled = jax.jit(jax.grad(loss, (0, 1))).lower(*shapes).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < tokens * V * 4 / 8
    assert f"f32[{tokens},{V}]" not in compiled.as_text() and f"f32[8,{tokens // 8},{V}]" not in compiled.as_text()
