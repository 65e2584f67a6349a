"""bfloat16 parameters have a float32 master: against NumPy, and against the same training with float32 parameters."""

import json

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from test_seams import MESH, ROWS, WIDTH, Stream, _loss

from kanana_jax.data.stream import packing
from kanana_jax.data.stream.encode import Example
from kanana_jax.errors import UserError
from kanana_jax.models import presets, transformer
from kanana_jax.models.architecture import Runtime
from kanana_jax.models.model import Model
from kanana_jax.parallel.mesh import MeshConfig, make_mesh
from kanana_jax.stages import pretrain
from kanana_jax.stages.kind import Shapes, device_bytes
from kanana_jax.stages.text import TrainingConfig
from kanana_jax.training import loop
from kanana_jax.training.checkpoint import CheckpointConfig
from kanana_jax.training.master import WithMaster
from kanana_jax.training.optimizer import OptimizerConfig, make_optimizer
from kanana_jax.training.schedule import ScheduleConfig
from kanana_jax.training.step import LossOutput, init_state, make_train_step, state_shardings
from kanana_jax.training.task import Task, TrainConfig

SMALL = OptimizerConfig(3e-5, ScheduleConfig("constant", 0), weight_decay=1e-4, clip_norm=0.0)
MODEL = presets.tiny(64, embed_dim=16, mlp_dim=32, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8)


def test_the_master_moves_as_adam_does_in_float64_and_parameters_are_its_rounding():
    """40 steps of 3e-5 near 1, where bfloat16's are 4e-3 apart; `matrix` decays, `gain` does not."""
    axes = {"matrix": ("embed", "mlp"), "gain": ("norm",)}
    rng = np.random.default_rng(0)
    begun = {"matrix": rng.normal(size=(5, 4)), "gain": np.ones(4)}
    begun = {k: v.astype(ml_dtypes.bfloat16) for k, v in begun.items()}
    pull = {k: rng.normal(size=v.shape).astype(ml_dtypes.bfloat16) for k, v in begun.items()}
    optimizer = make_optimizer(SMALL, 100, axes)

    def loss(params, batch, key, others):  # its gradient is `pull`, times the weight that divides it
        total = sum((params[k].astype(jnp.float32) * pull[k].astype(jnp.float32)).sum() for k in params)
        return LossOutput(257 * total, jnp.float32(257), {})

    step = jax.jit(make_train_step(loss, optimizer))
    state = init_state(jax.tree.map(jnp.asarray, begun), optimizer, 0)
    want = {k: v.astype(np.float64) for k, v in begun.items()}
    m, v = ({k: np.zeros_like(x) for k, x in want.items()} for _ in range(2))
    for t in range(1, 41):
        state, metrics = step(state, {})
        for k in want:
            g = pull[k].astype(np.float64)
            m[k], v[k] = 0.9 * m[k] + 0.1 * g, 0.95 * v[k] + 0.05 * g * g
            adam = (m[k] / (1 - 0.9**t)) / (np.sqrt(v[k] / (1 - 0.95**t)) + 1e-8)
            want[k] = want[k] - 3e-5 * adam - (1e-4 * want[k] if k == "matrix" else 0.0)
        for k in want:
            master = np.asarray(state.opt_state.master[k])
            assert master.dtype == np.float32
            np.testing.assert_allclose(master, want[k], rtol=1e-6, atol=1e-6)
            np.testing.assert_array_equal(np.asarray(state.params[k]), master.astype(ml_dtypes.bfloat16))
    moved = np.abs(np.asarray(state.opt_state.master["gain"]) - 1)
    np.testing.assert_allclose(moved, 40 * 3e-5, rtol=5e-3)
    norm = np.sqrt(sum((x.astype(np.float64) ** 2).sum() for x in pull.values()))
    assert float(metrics["grad_norm"]) == pytest.approx(norm, rel=2e-3)  # 257 in bfloat16 is 256


def test_a_model_trains_as_with_float32_parameters():
    """Both compute in bfloat16, so that the model reads the same numbers; only gradients are rounded once more."""
    rng = np.random.default_rng(1)
    documents = [np.concatenate([[1], rng.integers(3, 64, 20), [2]]).astype(np.int32) for _ in range(80)]
    rows = packing.pack([(Example(d),) for d in documents], 32)
    batches = [jax.tree.map(lambda x, i=i: jnp.asarray(x[8 * (i % 5) : 8 * (i % 5) + 8]), rows) for i in range(10)]
    optimizer = make_optimizer(SMALL, 100, transformer.logical_axes(MODEL))
    begun = transformer.init_params(MODEL, Runtime(param_dtype="bfloat16"), jax.random.key(0))
    found = {}
    for dtype in ("float32", "bfloat16"):
        loss = pretrain.make_loss(Model(MODEL, Runtime(dtype, "bfloat16")), z_loss=1e-4, chunk=64)
        step = jax.jit(make_train_step(loss, optimizer, accumulate=2))
        state = init_state(jax.tree.map(lambda p, dtype=dtype: p.astype(dtype), begun), optimizer, 0)
        losses = []
        for batch in batches:
            state, metrics = step(state, batch)
            losses.append(float(metrics["loss"]))
        found[dtype] = losses, state
    (wide, wide_state), (narrow, state) = found["float32"], found["bfloat16"]
    np.testing.assert_allclose(narrow, wide, rtol=2e-4)
    assert isinstance(state.opt_state, WithMaster)
    for path, master in jax.tree_util.tree_leaves_with_path(state.opt_state.master):
        want, start = wide_state.params, begun
        for key in path:
            want, start = want[key.key], start[key.key]
        moved, wanted = (
            np.asarray(master) - np.asarray(start, np.float32),
            np.asarray(want) - np.asarray(start, np.float32),
        )
        assert (np.abs(wanted) > 1e-5).any() and (moved != 0).mean() > 0.6, path  # rows that no text names only decay
        # Adam's first steps are signs of gradients, which rounding can turn where they are nearly zero.
        assert np.abs(moved - wanted).mean() < 0.05 * np.abs(wanted).mean(), path


def test_the_gradient_of_a_frequent_token_is_summed_in_float32():
    """3,000 times 1/256 on one row: a bfloat16 sum would stand still at 1."""
    table = jnp.zeros((4, 2), jnp.bfloat16)
    tokens = jnp.full((1, 3000), 2)
    grad = jax.grad(lambda t: (transformer.look_up(t, tokens).astype(jnp.float32) / 256).sum())(table)
    np.testing.assert_allclose(np.asarray(grad, np.float32)[2], 3000 / 256, rtol=4e-3)
    assert not np.asarray(grad, np.float32)[[0, 1, 3]].any()


def _task(dtype):
    w = jnp.ones(WIDTH, dtype)

    def loss(params, batch, key, others):
        return _loss({"w": params["w"].astype(jnp.float32)}, batch, key, others)

    return Task(
        name="pairs",
        loss=loss,
        make_params=lambda: {"w": w},
        abstract_params={"w": jax.ShapeDtypeStruct(w.shape, w.dtype)},
        logical_axes={"w": ("norm",)},
        stream=Stream,
        flops={"train": 1.0},
        sizes={},
        fresh=True,
    )


def _config(steps):
    return TrainConfig(
        tokens=steps * ROWS,
        batch_tokens=ROWS,
        seq_len=1,
        optimizer=SMALL,
        log_every=1,
        checkpoint=CheckpointConfig(every=5),
    )


def test_a_stopped_run_resumes_with_its_master_to_the_bit(tmp_path):
    whole = loop.train(_task("bfloat16"), _config(20), MESH, tmp_path / "whole", 0)
    loop.train(_task("bfloat16"), _config(20), MESH, tmp_path / "parts", 0, stop_at=9)
    parts = loop.train(_task("bfloat16"), _config(20), MESH, tmp_path / "parts", 0)
    assert parts.params["w"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(parts.params["w"]), np.asarray(whole.params["w"]))
    rows = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("whole", "parts")]
    losses = [[json.loads(line)["loss"] for line in lines] for lines in rows]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("first, then", [("float32", "bfloat16"), ("bfloat16", "float32")])
def test_a_checkpoint_of_another_dtype_is_refused(tmp_path, first, then):
    loop.train(_task(first), _config(20), MESH, tmp_path, 0, stop_at=5)
    with pytest.raises(UserError, match="checkpoint .*5 .*use the config it was written with"):
        loop.train(_task(then), _config(20), MESH, tmp_path, 0)


def test_the_master_lies_as_its_parameter_does():
    mesh, axes = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2)), transformer.logical_axes(MODEL)
    params = transformer.abstract_params(MODEL, Runtime("bfloat16"))
    optimizer = make_optimizer(SMALL, 100, axes)
    abstract = jax.eval_shape(lambda p: init_state(p, optimizer, 0), params)
    found = state_shardings(mesh, abstract, axes)
    assert jax.tree.leaves(found.opt_state.master) == jax.tree.leaves(found.params)
    assert {leaf.dtype for leaf in jax.tree.leaves(abstract.opt_state.master)} == {jnp.dtype("float32")}
    cut = [s for s in jax.tree.leaves(found.opt_state.master) if not s.is_fully_replicated]
    assert len(cut) == 8  # all matrices


@pytest.mark.parametrize("dtype, parameters, optimizer", [("float32", 4, 8), ("bfloat16", 2, 12)])
def test_the_plan_counts_the_master(dtype, parameters, optimizer):
    train = TrainConfig(tokens=512, batch_tokens=512, seq_len=64, optimizer=SMALL)
    config = TrainingConfig(kind="pretrain", model=MODEL, train=train, mixture={"a": 1.0})
    shapes = Shapes(0, Runtime(dtype, "bfloat16"), MESH, {}, lambda name: MODEL)
    made = pretrain.programs("s", config, shapes)
    count = sum(leaf.size for leaf in jax.tree.leaves(made.model.abstract_params()))
    scalars = 8  # two counters of updates
    assert made.resident == {"parameters": parameters * count, "optimizer": optimizer * count + scalars}
    assert device_bytes(made.step.arguments["state"].params) == parameters * count
