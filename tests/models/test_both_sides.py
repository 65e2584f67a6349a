"""Attention to both sides: windows, masks and blocks as by hand; dropout by each row's key; no cache."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kanana_jax.models import attention, embedding
from kanana_jax.models.architecture import Architecture, LayerKind, Runtime
from kanana_jax.models.cache import empty_cache
from kanana_jax.models.dropout import Dropout
from kanana_jax.models.model import Model
from kanana_jax.models.transformer import init_params

A = Architecture(
    vocab_size=64, embed_dim=32, mlp_dim=48, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8, init_std=0.2,
    max_seq_len=64, layer_pattern=(LayerKind(window=3), LayerKind()),
)  # fmt: skip


class Rows:
    """See `models.model.Packed`."""

    def __init__(self, inputs, positions, segment_ids):
        self.inputs, self.positions, self.segment_ids = inputs, positions, segment_ids


@pytest.fixture(scope="module")
def params():
    return init_params(A, Runtime(), jax.random.key(0))


@pytest.mark.parametrize("window", [0, 5])
@pytest.mark.parametrize("logits", [attention.XLA_LOGITS, 0])
def test_attention_to_both_sides_is_the_plain_formula(window, logits, monkeypatch):
    monkeypatch.setattr(attention, "XLA_LOGITS", logits)
    rng, n = np.random.default_rng(0), 16
    q, k, v = (rng.normal(size=(2, n, heads, 8)) for heads in (4, 2, 2))
    segments = np.sort(rng.integers(1, 4, (2, n)), axis=1)
    distance = np.abs(np.arange(n)[:, None] - np.arange(n)[None])
    mask = (segments[:, :, None] == segments[:, None, :]) & ((distance < window) | (window == 0))
    scores = np.einsum("bthd,bshd->bhts", q, np.repeat(k, 2, 2)) / np.sqrt(8)
    powers = np.where(mask[:, None], np.exp(scores), 0)
    want = np.einsum("bhts,bshd->bthd", powers / powers.sum(-1, keepdims=True), np.repeat(v, 2, 2))
    ids = jnp.asarray(segments)
    arrays = (jnp.asarray(x, jnp.float32) for x in (q, k, v))
    got = attention.attend(*arrays, q_segments=ids, kv_segments=ids, causal=False, implementation="xla", window=window)
    np.testing.assert_allclose(got, want, atol=3e-6)


def test_a_model_of_windows_packed_is_the_same_as_alone(params):
    model = Model(A, causal=False)
    call = jax.jit(lambda tokens, positions, segments: model(params, Rows(tokens, positions, segments))[0])
    tokens = np.random.default_rng(1).integers(0, 64, (1, 16))
    segments, positions = np.repeat([1, 2], [6, 10])[None], np.concatenate([np.arange(6), np.arange(10)])[None]
    packed = call(tokens, positions, segments)
    alone = np.zeros((1, 16), int), np.zeros((1, 16), int)
    alone[0][0, :10], alone[1][0, :10] = tokens[0, 6:], 1
    np.testing.assert_allclose(call(alone[0], np.arange(16)[None], alone[1])[0, :10], packed[0, 6:], atol=2e-5)
    causal = dataclasses.replace(model, causal=True)(params, Rows(tokens, positions, segments))[0]
    assert np.abs(causal - packed).max() > 0.01


def test_a_cache_needs_causal_attention(params):
    with pytest.raises(ValueError, match="needs causal attention"):
        Model(A).bind(params)(jnp.ones((1, 4), jnp.int32), cache=empty_cache(A, 1, 8, "float32"), causal=False)


def test_dropout_is_a_rows_own_and_keeps_the_mean():
    x = jnp.ones((3, 40, 50))
    keys = jax.random.split(jax.random.key(0), 3)
    both = Dropout(0.3, keys).of(1, x)
    np.testing.assert_array_equal(Dropout(0.3, keys[1:2]).of(1, x[1:2])[0], both[1])
    assert set(np.unique(both).round(4)) == {0.0, np.float32(1 / 0.7).round(4)}
    assert abs(float(both.mean()) - 1) < 0.03
    assert np.any(both != Dropout(0.3, keys).of(2, x)) and np.any(both[0] != both[1])


def test_each_layer_drops_its_own_scanned_or_unrolled(params):
    keys = jax.random.split(jax.random.key(0), 2)
    tokens = jnp.asarray(np.random.default_rng(2).integers(0, 64, (2, 8)))
    rows = Rows(tokens, jnp.broadcast_to(jnp.arange(8), (2, 8)), jnp.ones((2, 8), int))
    call = jax.jit(
        lambda p, scan: Model(A, Runtime(scan_layers=scan))(p, rows, dropout=Dropout(0.5, keys))[0], static_argnums=1
    )
    found = call(params, True)
    np.testing.assert_allclose(found, call(params, False), atol=2e-5)
    assert np.abs(found - Model(A)(params, rows)[0]).max() > 0.1


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_pooling_counts_what_weighs_and_hides_what_follows_it(pooling):
    segments = np.array([[1, 1, 1, 1, 2, 2, 3, 0], [1, 1, 2, 2, 2, 2, 0, 0]])
    weights = np.array([[0, 1, 1, 0, 1, 0, 0, 0], [1, 0, 0, 0, 1, 0, 0, 0]], np.float32)
    hidden = np.random.default_rng(3).normal(size=(2, 8, 4))
    np.testing.assert_array_equal(
        embedding.visible(jnp.asarray(segments), jnp.asarray(weights), 4),
        [[1, 1, 1, 0, 2, 0, 0, 0], [1, 0, 2, 2, 2, 0, 0, 0]],
    )
    got = embedding.pooled(jnp.asarray(hidden), jnp.asarray(segments), jnp.asarray(weights), 4, pooling)
    first = hidden[0, 1:3].mean(0) if pooling == "mean" else hidden[0, 2]
    want = [[first, hidden[0, 4], np.zeros(4), np.zeros(4)], [hidden[1, 0], hidden[1, 4], np.zeros(4), np.zeros(4)]]
    np.testing.assert_allclose(got, want, atol=1e-6)
