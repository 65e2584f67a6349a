"""Adapters: the model that runs with them is the merged one, in values and gradients; they begin as nothing."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from kanana_jax.data.stream.packing import Rows
from kanana_jax.models import counts, lora
from kanana_jax.models.architecture import Architecture, LayerKind, Runtime
from kanana_jax.models.lora import LoraConfig
from kanana_jax.models.model import Model
from kanana_jax.models.transformer import init_params

A = Architecture(
    vocab_size=40, embed_dim=16, mlp_dim=24, num_layers=3, num_heads=4, num_kv_heads=2, head_dim=6, max_seq_len=64,
    init_std=0.3, attention_bias="qkvo", mlp_bias=True, layer_pattern=(LayerKind(window=3), LayerKind()),
)  # fmt: skip
CONFIG = LoraConfig(rank=3, alpha=12.0)


def _rows():
    rng = np.random.default_rng(0)
    tokens = jnp.asarray(rng.integers(0, 40, (2, 8)), jnp.int32)
    segments = jnp.asarray([[1] * 5 + [2] * 3, [1] * 8], jnp.int32)
    positions = jnp.asarray([[*range(5), *range(3)], range(8)], jnp.int32)
    return Rows(tokens, tokens, segments, positions, jnp.ones((2, 8)), jnp.zeros(2, jnp.int32))


@pytest.fixture(scope="module")
def trees():
    base = init_params(A, Runtime(), jax.random.key(0))
    new = lora.init_adapters(CONFIG, A, "float32", jax.random.key(1))
    keys = jax.random.split(jax.random.key(2), len(jax.tree.leaves(new)))
    moved = [x + 0.3 * jax.random.normal(k, x.shape) for x, k in zip(jax.tree.leaves(new), keys)]
    return base, new, jax.tree.unflatten(jax.tree.structure(new), moved)


@pytest.mark.parametrize("scan", [True, False])
def test_a_model_with_adapters_is_the_merged_model(trees, scan):
    base, _, adapters = trees
    model, rows = Model(A, Runtime(scan_layers=scan)), _rows()

    def value(adapters, params_of):
        return jnp.sum(jnp.sin(model(params_of(CONFIG, base, adapters), rows)[0]))

    (found, d_found), (want, d_want) = (
        jax.jit(jax.value_and_grad(lambda x, of=of: value(x, of)))(adapters) for of in (lora.adapted, lora.merge)
    )
    plain = value(adapters, lambda config, base, adapters: base)
    assert abs(want - plain) > 0.1 and abs(found - want) < 1e-4
    for path, gradient in traverse_util.flatten_dict(d_found).items():
        wanted = traverse_util.flatten_dict(d_want)[path]
        assert float(jnp.abs(wanted).max()) > 0
        np.testing.assert_allclose(gradient, wanted, rtol=2e-4, atol=2e-3, err_msg=str(path))


def test_merging_is_w_plus_alpha_over_r_times_a_b(trees):
    base, _, adapters = trees
    whole, flat = traverse_util.flatten_dict(lora.merge(CONFIG, base, adapters)), traverse_util.flatten_dict(adapters)
    a, b = (np.asarray(flat["blocks", "attention", "o", x], np.float64) for x in "ab")
    want = base["blocks"]["attention"]["o"] + 4 * np.einsum("lhdr,lre->lhde", a, b)
    np.testing.assert_allclose(whole["blocks", "attention", "o"], want, atol=1e-5)
    np.testing.assert_array_equal(whole["embedding",], base["embedding"])
    assert lora.parameters(CONFIG, A) == sum(x.size for x in jax.tree.leaves(adapters))
    assert lora.train_flops_per_token(CONFIG, A, 8) < counts.train_flops_per_token(A, 8)


@pytest.mark.parametrize("init", ["a_zero", "b_zero"])
def test_new_adapters_change_nothing_and_learn(trees, init):
    base, (config, rows) = trees[0], (dataclasses.replace(CONFIG, init=init, targets=("q", "down")), _rows())
    new, model = lora.init_adapters(config, A, "float32", jax.random.key(3)), Model(A)
    run = jax.jit(lambda x: model(lora.adapted(config, base, x), rows)[0])
    np.testing.assert_allclose(run(new), model(base, rows)[0], atol=1e-5)
    assert set(new["blocks"]) == {"attention", "mlp"} and set(new["blocks"]["mlp"]) == {"down"}
    gradient = jax.grad(lambda x: jnp.sum(jnp.sin(run(x))))(new)
    zero, other = init[0], "ba"[init[0] == "b"]
    for weight in (gradient["blocks"]["attention"]["q"], gradient["blocks"]["mlp"]["down"]):
        assert np.any(weight[zero]) and not np.any(weight[other])
    by_base = jax.grad(lambda p: jnp.sum(model(lora.adapted(config, p, new), rows)[0]))(base)
    assert not any(np.any(x) for x in jax.tree.leaves(by_base))


@pytest.mark.parametrize("values", [dict(rank=0), dict(alpha=0.0), dict(targets=()), dict(targets=("q", "q"))])
def test_settings_that_mean_nothing_are_refused(values):
    with pytest.raises(ValueError, match="lora"):
        LoraConfig(**values)
