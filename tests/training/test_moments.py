"""Moments in fewer bits: their codes against a table that is searched, training against float32, bytes, resume, mesh."""

import dataclasses

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
from kanana_jax.parallel.sharding import put_batch
from kanana_jax.stages import pretrain
from kanana_jax.training import adam8bit, loop
from kanana_jax.training.checkpoint import CheckpointConfig, Checkpoints
from kanana_jax.training.optimizer import OptimizerConfig, make_optimizer
from kanana_jax.training.schedule import ScheduleConfig
from kanana_jax.training.step import init_state, make_train_step
from kanana_jax.training.task import TrainConfig

MODEL = presets.tiny(64, embed_dim=64, mlp_dim=128, num_layers=1, num_heads=2, num_kv_heads=2, head_dim=32)
KINDS = ("float32", "bfloat16", "int8", "factored")
ROWS, SEQ_LEN = 8, 32


def config(moments, **more):
    return OptimizerConfig(3e-3, ScheduleConfig("constant", 5), moments=moments, **more)


def tree(signed):
    """The dynamic tree of arXiv:2110.02861, §2.2, from its words: decades, each in twice the steps of the one below."""
    values = [0.0]
    for decade in range(7 if signed else 8):
        edges = np.linspace(0.1, 1, 2**decade + 1) * 10.0 ** (decade - (6 if signed else 7))
        values += list((edges[:-1] + edges[1:]) / 2)
    values[-1] = 1.0
    return np.array([-v for v in values[:0:-1]] + values if signed else values)


@pytest.mark.parametrize("signed", [True, False])
def test_codes_are_the_nearest_step_of_the_tree(signed):
    rng = np.random.default_rng(0)
    x = 10 ** rng.uniform(-9, 2, (32, 512)) * rng.choice([-1, 1] if signed else [1], (32, 512))
    x = x.astype(np.float32)
    codes, scales = adam8bit.quantise(jnp.asarray(x), signed=signed)
    assert codes.dtype == (jnp.int8 if signed else jnp.uint8) and scales.shape == (32, 2)
    back = np.asarray(adam8bit.dequantise(codes, scales), np.float64).reshape(32, 2, 256)
    blocks = x.astype(np.float64).reshape(32, 2, 256)
    largest = np.abs(blocks).max(-1, keepdims=True)
    np.testing.assert_allclose(np.asarray(scales), largest[..., 0])
    known = tree(signed)
    share, found = blocks / largest, back / largest
    nearest = np.abs(known - share[..., None]).min(-1)
    # Steps of a decade are cut at their edges, so that at its ends the neighbour may be a little nearer.
    step = 0.9 / 64 if signed else 0.9 / 128
    excess = np.abs(found - share) - nearest
    fine = np.abs(share) > 1e-4  # decades of eight steps and more
    assert excess.max() <= 0.5 * step and (excess[fine] < 1e-5 * np.abs(share)[fine]).mean() > 0.9
    assert np.abs(found - share).max() <= step
    if not signed:
        assert (found > 0).all()  # a root that is not zero stays so
    np.testing.assert_array_equal(np.take_along_axis(back, np.abs(blocks).argmax(-1)[..., None], -1)[..., 0],
                                  np.take_along_axis(blocks, np.abs(blocks).argmax(-1)[..., None], -1)[..., 0])  # fmt: skip


def test_zeros_stay_zeros():
    codes, scales = adam8bit.quantise(jnp.zeros((16, 256)), signed=True)
    assert not np.asarray(codes).any() and not np.asarray(scales).any()
    assert not np.asarray(adam8bit.dequantise(codes, scales)).any()


def batches(count):
    """Documents of a language of pairs: after 3 + k comes 3 + (7·k mod 60), but for one word in ten."""
    rng = np.random.default_rng(1)
    documents = []
    for _ in range(count * ROWS):
        words = [int(rng.integers(60))]
        for _ in range(SEQ_LEN - 3):
            words.append(int(rng.integers(60)) if rng.random() < 0.1 else (7 * words[-1] + 1) % 60)
        documents.append(np.array([1, *(3 + w for w in words), 2], np.int32))
    rows = packing.pack([(Example(d),) for d in documents], SEQ_LEN)
    return [jax.tree.map(lambda x, i=i: x[ROWS * i : ROWS * i + ROWS], rows) for i in range(count)]


def train(moments, steps=60, mesh=None, dtype="float32"):
    mesh = mesh or make_mesh(MeshConfig(), jax.devices()[:1])
    model = Model(MODEL, Runtime(dtype))
    settings = TrainConfig(
        tokens=steps * ROWS * SEQ_LEN, batch_tokens=ROWS * SEQ_LEN, seq_len=SEQ_LEN, optimizer=config(moments)
    )
    loss = pretrain.make_loss(model, z_loss=0.0, chunk=256)
    step = loop.sharded_step(loss, model.abstract_params(), model.logical_axes(), settings, mesh, 0)
    losses = []
    with jax.set_mesh(mesh):
        shardings = jax.tree.map(lambda leaf: leaf.sharding, step.state)
        begin = jax.jit(lambda p: init_state(p, step.optimizer, 0), out_shardings=shardings)
        state = begin(transformer.init_params(MODEL, model.runtime, jax.random.key(0)))
        rows = np.arange(ROWS)
        for batch in batches(steps):
            state, metrics = step.function(state, put_batch(mesh, rows, ROWS, batch), None)
            losses.append(float(metrics["loss"]))
    return np.array(losses), state


@pytest.fixture(scope="module")
def trained():
    return {moments: train(moments) for moments in KINDS}


@pytest.mark.parametrize("moments, tolerance", [("bfloat16", 0.002), ("int8", 0.005), ("factored", 0.05)])
def test_the_loss_falls_as_with_float32_moments(trained, moments, tolerance):
    """Mean loss of the last 20 of 60 steps, nats; a model that learns nothing is at 4.1."""
    want, found = trained["float32"][0][-20:].mean(), trained[moments][0][-20:].mean()
    assert want < 1.7
    assert abs(found - want) < tolerance


def test_states_take_the_bytes_of_the_formula(trained):
    def taken(moments):
        return sum(x.nbytes for x in jax.tree.leaves(trained[moments][1].opt_state) if x.ndim)

    shapes = [p.shape for p in jax.tree.leaves(trained["float32"][1].params)]
    count = sum(int(np.prod(s)) for s in shapes)
    assert taken("float32") == 8 * count and taken("bfloat16") == 4 * count
    assert taken("int8") == sum(adam8bit.state_bytes(s) for s in shapes)
    assert taken("int8") < 2.2 * count
    assert taken("factored") < 2.2 * count


@pytest.mark.parametrize("moments", ["int8", pytest.param("factored", marks=pytest.mark.more)])
def test_eight_devices_train_as_one(trained, moments):
    """Rounding to 8 bits can turn another way where sums are in another order: rarely, and without weight."""
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2), jax.devices()[:8])
    losses, state = train(moments, steps=15, mesh=mesh)
    np.testing.assert_allclose(losses, trained[moments][0][:15], rtol=2e-5 if moments == "factored" else 2e-4)
    cut = [x for x in jax.tree.leaves(state.opt_state) if not x.sharding.is_fully_replicated]
    matrices = sum(len(s.shape) > 2 or "embed" in str(k) for k, s in jax.tree_util.tree_leaves_with_path(state.params))
    assert len(cut) >= (2 if moments == "int8" else 1) * matrices
    if moments == "int8":
        for codes, param in zip(jax.tree.leaves(state.opt_state[1].mu.codes), jax.tree.leaves(state.params)):
            assert codes.sharding.is_equivalent_to(param.sharding, param.ndim)


@pytest.mark.parametrize("moments", KINDS[1:])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_checkpoint_brings_every_bit_back(tmp_path, moments, dtype):
    axes = {"w": ("embed", "mlp"), "gain": ("norm",)}
    optimizer = make_optimizer(config(moments), 100, axes)
    rng = np.random.default_rng(0)
    params = {"w": jnp.asarray(rng.normal(size=(64, 512)), dtype), "gain": jnp.ones(64, dtype)}

    def loss(params, batch, key, others):
        out = (batch @ params["w"].astype(jnp.float32)) ** 2
        from kanana_jax.training.step import LossOutput

        return LossOutput(out.sum() + params["gain"].astype(jnp.float32).sum(), jnp.float32(8), {})

    step = jax.jit(make_train_step(loss, optimizer))
    data = [jnp.asarray(rng.normal(size=(8, 64)), jnp.float32) for _ in range(6)]
    state = init_state(params, optimizer, 0)
    for x in data[:3]:
        state, _ = step(state, x)
    checkpoints = Checkpoints(tmp_path / "checkpoints", CheckpointConfig(every=1))
    checkpoints.save(3, state, {"0": 0}, None)
    checkpoints.wait()
    target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
    again, _ = checkpoints.restore(3, target)
    checkpoints.close()
    for x in data[3:]:
        (state, _), (again, _) = step(state, x), step(again, x)
    assert jax.tree.structure(state) == jax.tree.structure(again)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(again)):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_bfloat16_second_moments_that_would_never_fall_are_refused():
    with pytest.raises(ValueError, match=r"b2 0.999 forgets 0.001 per step"):
        config("bfloat16", b2=0.999)
    assert dataclasses.replace(config("int8"), b2=0.999).b2 == 0.999
