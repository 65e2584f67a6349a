"""The architecture: counts, equivalences, and who sees whom."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kanana_jax.errors import ConfigError
from kanana_jax.models import attention, counts, presets, transformer
from kanana_jax.models.architecture import Architecture, Runtime
from kanana_jax.models.cache import empty_cache
from kanana_jax.parallel.mesh import MeshConfig, make_mesh
from kanana_jax.parallel.sharding import tree_shardings

TINY = Architecture(
    vocab_size=97, embed_dim=32, mlp_dim=48, num_layers=3, num_heads=6, num_kv_heads=2, head_dim=8, max_seq_len=64
)


@pytest.fixture(scope="module")
def params():
    return transformer.init_params(TINY, Runtime(), jax.random.key(0))


def _tokens(shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).integers(0, TINY.vocab_size, shape), jnp.int32)


def _logits(params, tokens, runtime=Runtime(), **kwargs):
    model = transformer.bind(TINY, runtime, params)
    return model.unembed(model(tokens, **kwargs))


@pytest.mark.parametrize("name", presets.PAPER)
def test_preset_has_the_papers_parameter_count(name):
    make, target = presets.PAPER[name]
    architecture = make()
    shapes = jax.tree.leaves(transformer.abstract_params(architecture, Runtime(param_dtype="bfloat16")))
    assert sum(int(np.prod(s.shape)) for s in shapes) == counts.parameters(architecture)
    assert counts.parameters(architecture) == pytest.approx(target, rel=0.01)


def test_every_parameter_has_axes_of_its_rank():
    axes = transformer.logical_axes(TINY)
    shapes = transformer.abstract_params(TINY, Runtime())
    jax.tree.map(
        lambda a, s: pytest.fail(f"{a} {s.shape}") if len(a) != len(s.shape) else None,
        axes,
        shapes,
        is_leaf=lambda x: isinstance(x, tuple),
    )


def _loss(params, runtime):
    return jnp.mean(jax.nn.logsumexp(_logits(params, _tokens((2, 16)), runtime), -1))


@pytest.fixture(scope="module")
def loss_and_gradients(params):
    """Operation by operation."""
    return jax.value_and_grad(_loss)(params, Runtime())


@pytest.mark.parametrize(
    "scan, remat",
    [
        *((True, remat) for remat in ("none", "full", "dots", "context")),
        *((False, "none"), (False, "context")),
        *(pytest.param(False, remat, marks=pytest.mark.more) for remat in ("full", "dots")),
    ],
)
def test_scan_unroll_and_remat_give_the_same_loss_and_gradients(params, loss_and_gradients, scan, remat):
    want, want_grad = loss_and_gradients
    got, grad = jax.jit(jax.value_and_grad(_loss), static_argnums=1)(params, Runtime(scan_layers=scan, remat=remat))
    np.testing.assert_allclose(got, want, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), grad, want_grad)


def test_a_token_depends_on_its_own_past_only(params):
    """By gradients: ∂ hidden[t] / ∂ embedding of token s is zero for s > t and across documents."""
    segments = jnp.asarray([[1, 1, 1, 2, 2, 2, 2, 0]])
    tokens = jnp.arange(1, 9)[None]

    def hidden_sum(embedding, t):
        model = transformer.bind(TINY, Runtime(), {**params, "embedding": embedding})
        return model(tokens, segment_ids=segments)[0, t].sum()

    slope = jax.jit(jax.grad(hidden_sum))
    for t, visible in [(1, {0, 1}), (2, {0, 1, 2}), (4, {3, 4}), (6, {3, 4, 5, 6})]:
        gradient = slope(params["embedding"], t)
        seen = {int(i) - 1 for i in np.flatnonzero(np.abs(gradient).sum(1))}
        assert seen == visible


def test_bidirectional_attention_sees_the_whole_segment(params):
    segments = jnp.asarray([[1, 1, 1, 2, 2]])
    tokens = jnp.arange(1, 6)[None]

    def hidden_sum(embedding):
        model = transformer.bind(TINY, Runtime(), {**params, "embedding": embedding})
        return model(tokens, segment_ids=segments, causal=False)[0, 0].sum()

    seen = np.flatnonzero(np.abs(jax.jit(jax.grad(hidden_sum))(params["embedding"])).sum(1)) - 1
    assert list(seen) == [0, 1, 2]


@pytest.mark.parametrize("logits,rows", [(attention.XLA_LOGITS, attention.XLA_ROWS), (0, attention.XLA_ROWS), (0, 6)])
def test_blocks_of_queries_equal_the_plain_formula(logits, rows, monkeypatch):
    """Causal blocks, all groups together or few at a time, whole blocks or parts of them, and the last queries as after
    a cache, against softmax(qkᵀ/√h)v in float64; gradients too."""
    monkeypatch.setattr(attention, "XLA_LOGITS", logits)
    monkeypatch.setattr(attention, "XLA_ROWS", rows)
    monkeypatch.setattr(attention, "XLA_BLOCKS", 8)
    rng, T = np.random.default_rng(0), 32
    q, k, v, g = (rng.normal(size=(2, T, heads, 8)) for heads in (6, 2, 2, 6))
    segments = np.sort(rng.integers(1, 4, (2, T)), axis=1)

    def formula(q, k, v):
        k, v = jnp.repeat(k, 3, axis=2), jnp.repeat(v, 3, axis=2)
        scores = jnp.einsum("bthd,bshd->bhts", q, k) / np.sqrt(8)
        mask = (np.tril(np.ones((T, T), bool)) & (segments[:, :, None] == segments[:, None, :]))[:, None]
        powers = jnp.exp(jnp.where(mask, scores, -jnp.inf))
        return jnp.einsum("bhts,bshd->bthd", powers / powers.sum(-1, keepdims=True), v)

    def ours(q, k, v):
        ids = jnp.asarray(segments)
        return attention.attend(q, k, v, q_segments=ids, kv_segments=ids, causal=True, implementation="xla")

    def both(function, *arrays):
        found, back = jax.vjp(function, *arrays[:3])
        return found, back(arrays[3])

    with jax.enable_x64():
        want = jax.tree.map(np.asarray, jax.jit(functools.partial(both, formula))(q, k, v, g))
    last = attention.attend(
        *(jnp.asarray(x, jnp.float32) for x in (q[:, 20:], k, v)),
        q_segments=jnp.asarray(segments)[:, 20:],
        kv_segments=jnp.asarray(segments),
        causal=True,
        implementation="xla",
        q_offset=20,
    )
    np.testing.assert_allclose(last, want[0][:, 20:], atol=3e-6)
    got = jax.jit(functools.partial(both, ours))(*(jnp.asarray(x, jnp.float32) for x in (q, k, v, g)))
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(one, other, atol=3e-6)


@pytest.mark.parametrize("scan", [True, False])
def test_cached_logits_equal_uncached(params, scan):
    tokens, runtime = _tokens((2, 12)), Runtime(scan_layers=scan)
    want = _logits(params, tokens)
    model = transformer.bind(TINY, runtime, params)
    cache = empty_cache(TINY, 2, 16, runtime.compute_dtype)
    hidden, cache = model(tokens[:, :5], cache=cache)
    parts = [hidden]
    for t in range(5, 12):
        hidden, cache = model(tokens[:, t : t + 1], cache=cache)
        parts.append(hidden)
    np.testing.assert_allclose(model.unembed(jnp.concatenate(parts, 1)), want, atol=1e-5)


@pytest.mark.parametrize("mesh", [dict(fsdp=4, tensor=2), dict(data=2, fsdp=2, sequence=2), dict(data=8, fsdp=1)])
def test_sharded_logits_equal_one_device(params, mesh):
    tokens = _tokens((8, 16))
    want = _logits(params, tokens)
    with jax.set_mesh(make_mesh(MeshConfig(**mesh))):
        got = jax.jit(_logits)(params, tokens)
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_bfloat16_compute_is_close_to_float32(params):
    tokens = _tokens((2, 16))
    got = _logits(params, tokens, Runtime(compute_dtype="bfloat16"))
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, _logits(params, tokens), atol=0.05)


@pytest.mark.parametrize("name, word", [("splash", "TPU"), ("cudnn", "GPU")])
def test_an_unusable_attention_is_an_error(name, word):
    with pytest.raises(ConfigError, match=word):
        attention.choose(name, "cpu", compute_dtype="float32", seq_len=128, head_dim=64)


def test_the_best_attention_is_chosen_by_platform():
    choose = lambda platform, dtype: attention.choose(  # noqa: E731
        "auto", platform, compute_dtype=dtype, seq_len=1024, head_dim=128
    )
    assert [choose("cpu", "float32"), choose("tpu", "bfloat16"), choose("gpu", "bfloat16")] == [
        "xla",
        "splash",
        "cudnn",
    ]
    assert choose("gpu", "float32") == "xla"


def test_flop_count_of_llama_3_8b():
    """6·N for the 7.505B matrix parameters and causal attention, worked out by hand."""
    a = presets.essence_8b()
    assert counts.matmul_parameters(a) == 8_030_261_248 - 128_256 * 4096 - 65 * 4096
    assert counts.train_flops_per_token(a, 8192) == 6 * counts.matmul_parameters(a) + 6 * 32 * 8192 * 4096


@pytest.mark.parametrize(
    "change, word", [(dict(num_heads=5), "multiple"), (dict(head_dim=7), "even"), (dict(embed_dim=0), "embed_dim")]
)
def test_impossible_shapes_are_refused(change, word):
    with pytest.raises(ConfigError, match=word):
        Architecture.from_dict({**TINY.to_dict(), **change})


def test_norms_of_queries_and_keys_cached_and_sharded():
    """A cache holds normalised keys; heads are cut over devices, their gains are not."""
    a = dataclasses.replace(TINY, qk_norm="head", vocab_size=128)
    params = transformer.init_params(a, Runtime(), jax.random.key(0))
    for i, name in enumerate(("q_norm", "k_norm")):
        shape = params["blocks"]["attention"][name]["scale"].shape
        assert shape == (a.num_layers, a.head_dim)
        params["blocks"]["attention"][name]["scale"] = 1 + 0.3 * jax.random.normal(jax.random.key(i), shape)
    tokens = _tokens((8, 16))

    def logits(params):
        model = transformer.bind(a, Runtime(), params)
        return model.unembed(model(tokens))

    want = logits(params)
    attention = {k: v for k, v in params["blocks"]["attention"].items() if not k.endswith("_norm")}
    without = {**params, "blocks": {**params["blocks"], "attention": attention}}
    assert np.abs(want - _logits(without, tokens)).max() > 1e-3
    model = transformer.bind(a, Runtime(), params)
    first, cache = model(tokens[:, :10], cache=empty_cache(a, 8, 16, "float32"))
    second, _ = model(tokens[:, 10:], cache=cache)
    np.testing.assert_allclose(model.unembed(jnp.concatenate([first, second], 1)), want, atol=1e-5)
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    shardings = tree_shardings(mesh, transformer.logical_axes(a))
    assert shardings["blocks"]["attention"]["q_norm"]["scale"].is_fully_replicated
    with jax.set_mesh(mesh):
        np.testing.assert_allclose(jax.jit(logits)(jax.device_put(params, shardings)), want, atol=1e-5)
