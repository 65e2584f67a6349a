"""The term of hidden states: values and slopes against NumPy, and which states a model keeps for it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kanana_jax.data.stream.packing import Rows
from kanana_jax.errors import ConfigError
from kanana_jax.losses.distillation import DistillationConfig
from kanana_jax.losses.hidden_states import HiddenConfig, Matching, hidden_term, match
from kanana_jax.models import transformer
from kanana_jax.models.architecture import Architecture, Runtime
from kanana_jax.models.model import Model
from kanana_jax.parallel.mesh import MeshConfig, make_mesh
from kanana_jax.stages import distill

A = Architecture(
    vocab_size=64, embed_dim=16, mlp_dim=32, num_layers=4, num_heads=2, num_kv_heads=2, head_dim=8, max_seq_len=32,
    tied_embeddings=False, init_std=0.3,
)  # fmt: skip
RUNTIMES = {scan: Runtime(scan_layers=scan, remat="full" if scan else "none") for scan in (True, False)}
B, T = 8, 12


def _value(kind, s, t, w):
    if kind == "cosine":
        each = 1 - (s * t).sum(-1) / np.sqrt((s * s).sum(-1) * (t * t).sum(-1))
    else:
        each = ((s - t) ** 2).sum(-1) / (t * t).sum(-1)
    return (each.mean(axis=0) * w).sum()


@pytest.mark.parametrize("kind", ["cosine", "mse"])
@pytest.mark.parametrize("mesh", [None, dict(data=2, fsdp=2, sequence=2)])
def test_values_and_gradients(kind, mesh):
    rng = np.random.default_rng(0)
    s, t = rng.normal(size=(2, 3, B, T, 16))
    w = rng.integers(0, 3, (B, T)) / 2.0
    run = jax.jit(jax.value_and_grad(hidden_term, (1, 2)), static_argnums=0)
    arrays = [jnp.asarray(x, jnp.float32) for x in (s, t, w)]
    if mesh is None:
        value, (slope, none) = run(kind, *arrays)
    else:
        with jax.set_mesh(make_mesh(MeshConfig(**mesh))):
            value, (slope, none) = run(kind, *arrays)
    assert float(value) == pytest.approx(_value(kind, s, t, w), rel=1e-5)
    assert not np.asarray(none).any()
    for flat in rng.choice(s.size, 30, replace=False):
        at = np.unravel_index(flat, s.shape)
        ends = []
        for sign in (1, -1):
            moved = s.copy()
            moved[at] += sign * 1e-5
            ends.append(_value(kind, moved, t, w))
        assert float(slope[at]) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-4, abs=1e-6)


def test_a_state_of_zeros_gives_finite_slopes():
    zeros, ones = jnp.zeros((1, 1, 2, 4)), jnp.ones((1, 1, 2, 4))
    for kind in ("cosine", "mse"):
        for s, t in ((zeros, ones), (ones, zeros), (zeros, zeros)):
            value, slope = jax.value_and_grad(hidden_term, 1)(kind, s, t, jnp.ones((1, 2)))
            assert np.isfinite(value) and np.isfinite(slope).all()


def test_layers_are_matched():
    kept = (0, 1, 4, 6, 7, 9)
    assert match(HiddenConfig(), kept, (3, 5), "k") == Matching((0, 2, 3, 5), (0, 4, 6, 9), (3, 5))
    assert match(HiddenConfig(), (2,), None, "k") == Matching((0,), (2,), None)
    assert match(HiddenConfig(layers=(5, 1)), kept, None, "k") == Matching((1, 5), (1, 9), None)
    for layers in ((6,), (-1, 2)):
        with pytest.raises(ConfigError, match=r"config 'x.hidden.layers' .* layers are 0 … 5"):
            match(HiddenConfig(layers=layers), kept, None, "x.hidden")
    for wrong in (dict(weight=0.0), dict(layers=(1, 1))):
        with pytest.raises(ValueError, match="hidden"):
            HiddenConfig(**wrong)


def _params(a, seed):
    rng = np.random.default_rng(seed)
    shapes = transformer.abstract_params(a, Runtime())
    return jax.tree.map(lambda s: jnp.asarray(0.3 * rng.normal(size=s.shape), jnp.float32), shapes)


def _rows():
    rng = np.random.default_rng(1)
    segments = np.ones((B, T), np.int32)
    segments[:, 7:] = 2
    return Rows(
        inputs=jnp.asarray(rng.integers(0, 64, (B, T)), jnp.int32),
        targets=jnp.asarray(rng.integers(0, 64, (B, T)), jnp.int32),
        segment_ids=jnp.asarray(segments),
        positions=jnp.asarray(np.concatenate([np.arange(7), np.arange(5)])[None].repeat(B, 0), jnp.int32),
        weights=jnp.asarray((np.arange(T) != 6)[None].repeat(B, 0), jnp.float32),
        source=jnp.zeros(B, jnp.int32),
    )


@functools.partial(jax.jit, static_argnums=(0, 3, 4))
def _outputs(a, params, batch, layers=None, scan=True):
    model = Model(a, RUNTIMES[scan])
    return model(params, batch, observe=lambda taps: taps["output"], observe_layers=layers)[0]


@pytest.mark.parametrize("scan", [True, False])
def test_only_the_layers_that_are_asked_for_are_kept(scan):
    params, batch = _params(A, 0), _rows()
    hidden, every = _outputs(A, params, batch)
    for layers in ((1, 3), (0,)):
        again, some = _outputs(A, params, batch, layers, scan)
        np.testing.assert_allclose(some, every[np.array(layers)], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(again, hidden, rtol=1e-5, atol=1e-5)
    text = str(jax.make_jaxpr(lambda p: _outputs(A, p, batch, (1, 3), scan))(params))
    assert f"f32[4,{B},{T},16]" not in text and f"f32[4,{B},{T},16]" in str(
        jax.make_jaxpr(lambda p: _outputs(A, p, batch, None, scan))(params)
    )


@pytest.mark.parametrize("scan, mesh", [(True, None), (False, dict(fsdp=4, tensor=2))])
def test_the_whole_loss(scan, mesh):
    """A student of fewer layers and channels: the loss is KL + weight · term, and its slopes are right."""
    small = Architecture(**(A.to_dict() | dict(embed_dim=12, num_layers=3)))
    channels = (0, 1, 2, 4, 5, 7, 8, 9, 11, 13, 14, 15)
    teacher, student = _params(A, 0), _params(small, 1)
    batch = _rows()
    hidden = HiddenConfig(weight=0.7, layers=(1, 2))
    matching = match(hidden, (0, 2, 2), channels, "hidden")  # two layers of the student from one of the teacher

    loss = distill.make_loss(
        Model(small, RUNTIMES[scan]),
        Model(A, RUNTIMES[scan]),
        config=DistillationConfig(),
        chunk=7,
        hidden=hidden,
        matching=matching,
    )

    @functools.partial(jax.value_and_grad, has_aux=True)
    def run(params):
        output = loss(params, batch, None, teacher)
        return output.metrics["hidden"], output

    if mesh is None:
        (_, found), slopes = jax.jit(run)(student)
    else:
        with jax.set_mesh(make_mesh(MeshConfig(**mesh))):
            (_, found), slopes = jax.jit(run)(student)
    t = np.asarray(_outputs(A, teacher, batch)[1], np.float64)[[2, 2]][..., list(channels)]

    def term(params):
        s = np.asarray(_outputs(small, params, batch)[1], np.float64)[[1, 2]]
        return _value("cosine", s, t, np.asarray(batch.weights, np.float64))

    assert float(found.metrics["hidden"]) == pytest.approx(term(student), rel=2e-5)
    assert float(found.loss) == pytest.approx(float(found.metrics["divergence"]) + 0.7 * term(student), rel=2e-5)
    rng = np.random.default_rng(2)
    direction = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), student)
    ends = [term(jax.tree.map(lambda x, d, sign=sign: x + sign * 1e-3 * d, student, direction)) for sign in (1, -1)]
    along = sum(float((g * d).sum()) for g, d in zip(jax.tree.leaves(slopes), jax.tree.leaves(direction)))
    assert along == pytest.approx((ends[0] - ends[1]) / 2e-3, rel=5e-3)
