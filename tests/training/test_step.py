"""One step: accumulation, packing and the guard."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kanana_jax.data.stream import packing
from kanana_jax.data.stream.encode import Example
from kanana_jax.models import presets, transformer
from kanana_jax.models.architecture import Runtime
from kanana_jax.models.model import Model
from kanana_jax.parallel.mesh import MeshConfig, make_mesh
from kanana_jax.parallel.sharding import abstract_batch
from kanana_jax.stages import pretrain
from kanana_jax.training.optimizer import OptimizerConfig, make_optimizer
from kanana_jax.training.schedule import ScheduleConfig
from kanana_jax.training.step import GuardConfig, LossOutput, init_state, make_train_step, state_shardings

MODEL = presets.tiny(64, embed_dim=16, mlp_dim=32, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8)
LOSS = pretrain.make_loss(Model(MODEL), z_loss=1e-4, chunk=64)
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def params():
    return transformer.init_params(MODEL, Runtime(), KEY)


def _documents(seed, count, length=14):
    rng = np.random.default_rng(seed)
    return [
        np.concatenate([[1], rng.integers(3, 64, rng.integers(1, length)), [2]]).astype(np.int32) for _ in range(count)
    ]


def _batch(documents, T):
    return jax.tree.map(jnp.asarray, packing.pack([(Example(d),) for d in documents], T))


def test_a_packed_batch_is_its_documents_alone(params):
    documents = _documents(0, 9)
    value = jax.jit(jax.value_and_grad(lambda p, b: LOSS(p, b, KEY, None).loss))
    packed, packed_grad = value(params, _batch(documents, 256))
    alone = [value(params, _batch([d], 16)) for d in documents]
    np.testing.assert_allclose(packed, sum(v for v, _ in alone), rtol=1e-5)
    total = jax.tree.map(lambda *g: sum(g), *[g for _, g in alone])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), packed_grad, total)


def test_logits_do_not_change_with_another_document_in_the_row(params):
    first, second, other = _documents(1, 3)
    run = jax.jit(lambda rows: Model(MODEL)(params, rows)[0])

    def hidden(documents):
        row = _batch(documents, 40)
        return run(row)

    n = len(first)
    other = np.resize(other, len(second))
    assert not np.array_equal(other, second)
    np.testing.assert_array_equal(hidden([first, second])[0, :n], hidden([first, other])[0, :n])
    np.testing.assert_array_equal(
        hidden([second, first])[0, len(second) : len(second) + n - 1],
        hidden([other, first])[0, len(second) : len(second) + n - 1],
    )


@pytest.mark.parametrize("accumulate", [pytest.param(2, marks=pytest.mark.more), 4])
def test_accumulation_is_exact(params, accumulate):
    batch = jax.tree.map(lambda x: x[:8], _batch(_documents(2, 80), 32))
    axes = transformer.logical_axes(MODEL)
    optimizer = make_optimizer(OptimizerConfig(1e-2, ScheduleConfig("constant", 0)), 10, axes)
    one, metrics = jax.jit(make_train_step(LOSS, optimizer))(init_state(params, optimizer, 0), batch)
    many, others = jax.jit(make_train_step(LOSS, optimizer, accumulate=accumulate))(
        init_state(params, optimizer, 0), batch
    )
    for name in ("loss", "grad_norm", "weight", "nll"):
        np.testing.assert_allclose(metrics[name], others[name], rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), one.params, many.params)


def _quadratic(params, batch, rng, frozen):
    return LossOutput(jnp.sum(params["w"] ** 2) * batch["scale"].sum(), jnp.float32(1), {})


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e6])
def test_the_guard_refuses_what_is_not_finite_or_a_spike(bad):
    optimizer = make_optimizer(OptimizerConfig(1e-2, ScheduleConfig("constant", 0)), 10, {"w": ("norm",)})
    step = jax.jit(make_train_step(_quadratic, optimizer, guard=GuardConfig(spike=10.0, after=2)))
    state = init_state({"w": jnp.ones(3)}, optimizer, 0)
    for _ in range(4):
        state, _ = step(state, {"scale": jnp.ones(1)})
    after, metrics = step(state, {"scale": jnp.full(1, bad)})
    np.testing.assert_array_equal(after.params["w"], state.params["w"])
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), after.opt_state, state.opt_state))
    assert (int(after.step), int(after.skipped), int(after.skipped_in_a_row)) == (5, 1, 1)
    good, _ = step(after, {"scale": jnp.ones(1)})
    assert int(good.skipped) == 1 and int(good.skipped_in_a_row) == 0
    assert not np.array_equal(good.params["w"], after.params["w"])


def _refused(norms, **guard):
    """Which of a run's updates are refused; the parameters hardly move, so that a batch's scale is its gradient norm."""
    optimizer = make_optimizer(OptimizerConfig(1e-9, ScheduleConfig("constant", 0)), 1000, {"w": ("norm",)})
    step = jax.jit(make_train_step(_quadratic, optimizer, guard=GuardConfig(**guard)))
    state, found = init_state({"w": jnp.array([0.5])}, optimizer, 0), []
    for i, norm in enumerate(norms):
        before = int(state.skipped)
        state, _ = step(state, {"scale": jnp.full(1, norm)})
        if int(state.skipped) > before:
            found.append(i)
    return found


@pytest.mark.parametrize("wrong", [dict(spike=0.9), dict(spike=-2.0), dict(spike=float("nan")), dict(stop_after=0)])
def test_a_guard_that_would_refuse_everything_is_refused(wrong):
    with pytest.raises(ValueError, match="guard"):
        GuardConfig(**wrong)


@pytest.mark.parametrize("after", [0, 1, 100])
@pytest.mark.parametrize("first", [[], [np.nan], [np.inf, np.nan, np.nan]])
def test_a_run_whose_first_updates_are_refused_goes_on(after, first):
    norms = [*first, *[1.0, 1.4, 0.7] * 40]
    assert _refused(norms, spike=3.0, after=after) == [*range(len(first))]


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("begin", [1.0, 200.0, 0.02, 0.0])
def test_the_spike_rule_holds_whatever_the_first_norm_was(begin, scale):
    """Before the mean has settled only what is far out is refused, and it moves the mean no further than its limit."""
    norms = np.array([begin, *[1.0] * 160]) * scale
    norms[60] = 1e6 * scale
    norms[130] = 15 * scale
    assert [i for i in _refused(norms, spike=10.0, after=100) if i > 5] == [60, 130]


def test_a_level_of_norms_that_lasts_is_accepted_and_a_single_spike_is_not():
    norms = [1.0] * 150 + [15.0] + [1.0] * 20 + [15.0] * 40
    refused = _refused(norms, spike=10.0, after=100)
    assert (
        refused[0] == 150
        and refused[1] == 171
        and len(refused) < 12
        and refused[1:] == [*range(171, 170 + len(refused))]
    )


@pytest.mark.parametrize(
    "axes", [dict(data=2, fsdp=4), dict(data=2, fsdp=2, tensor=2), dict(fsdp=2, sequence=2, tensor=2)]
)
def test_no_mesh_gathers_the_states_of_all_devices(axes, capfd):
    """XLA's partitioner warns where it knows no better way between two layouts than to copy an array to every device."""
    mesh = make_mesh(MeshConfig(**{"fsdp": 1} | axes))
    optimizer = make_optimizer(OptimizerConfig(1e-3), 10, transformer.logical_axes(MODEL))
    abstract = jax.eval_shape(lambda: init_state(transformer.init_params(MODEL, Runtime(), KEY), optimizer, 0))
    shardings = state_shardings(mesh, abstract, transformer.logical_axes(MODEL))
    state = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, shardings)
    batch = abstract_batch(mesh, packing.shapes(16, 32))
    with jax.set_mesh(mesh):
        jax.jit(make_train_step(LOSS, optimizer), out_shardings=(shardings, None)).lower(state, batch).compile()
    assert "full rematerialization" not in capfd.readouterr().err
