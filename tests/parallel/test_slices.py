"""Meshes over slices: what crosses the network between them, on eight virtual devices as two slices."""

import re

import jax
import numpy as np
import pytest

from kanana_jax.data.stream import packing
from kanana_jax.errors import ConfigError
from kanana_jax.models import presets, transformer
from kanana_jax.models.architecture import Runtime
from kanana_jax.models.model import Model
from kanana_jax.parallel.mesh import MeshConfig, make_mesh
from kanana_jax.parallel.sharding import abstract_batch
from kanana_jax.stages import pretrain
from kanana_jax.training.optimizer import OptimizerConfig, make_optimizer
from kanana_jax.training.step import init_state, make_train_step, state_shardings


@pytest.mark.parametrize(
    "config", [MeshConfig(data=2, fsdp=2, tensor=2, slices=2), MeshConfig(data=4, slices=2), MeshConfig(slices=2)]
)
def test_each_slice_holds_neighbours(config):
    mesh = make_mesh(config)
    axis = 0 if config.data > 1 else 1
    halves = np.split(mesh.devices, 2, axis=axis)
    assert [sorted(d.id for d in half.flat) for half in halves] == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_slices_that_do_not_divide_are_refused():
    with pytest.raises(ConfigError, match="mesh.data = 2 must be a multiple of mesh.slices = 4"):
        make_mesh(MeshConfig(data=2, slices=4))


def _groups(line, devices=8):
    """The devices of each group of a collective, from any of HLO's three notations."""
    listed = re.search(r"(?:replica_groups|source_target_pairs)=\{(\{[\d,{}]*\})\}", line)
    if listed:
        return [[int(n) for n in group.split(",")] for group in re.findall(r"\{([\d,]+)\}", listed[1])]
    iota = re.search(r"replica_groups=\[(\d+),(\d+)\]<=(\[[\d,]+\](?:T\([\d,]+\))?)", line)
    if iota:
        return _iota(iota[3], devices).reshape(int(iota[1]), int(iota[2])).tolist()
    named = re.search(r"replica_groups=mesh\[([^\]]+)\](?:, device_ids=\(([^ ]+)\))? \{([^}]*)\}", line)
    assert named, f"an unknown notation: {line}"
    sizes = {axis: int(size) for axis, size in re.findall(r"'(\w+)'=(\d+)", named[1])}
    axes = re.findall(r"'(\w+)'", named[3])
    ids = _iota(named[2] or f"[{devices}]", devices).reshape(tuple(sizes.values()))
    last = [list(sizes).index(axis) for axis in axes]
    moved = np.moveaxis(ids, last, range(-len(last), 0))
    return moved.reshape(-1, int(np.prod([sizes[axis] for axis in axes]))).tolist()


def _iota(text, devices):
    """`[2,4]T(1,0)`: the devices in order, in that shape, with its axes in that order."""
    shape, order = re.fullmatch(r"\[([\d,]+)\](?:T\(([\d,]+)\))?", text).groups()
    ids = np.arange(devices).reshape([int(n) for n in shape.split(",")])
    return ids.transpose([int(n) for n in order.split(",")] if order else None).reshape(-1)


def test_notations_of_groups():
    inside, across = [[0, 1, 2, 3], [4, 5, 6, 7]], [[0, 4], [1, 5], [2, 6], [3, 7]]
    assert _groups("replica_groups={{0,1,2,3},{4,5,6,7}}, x") == _groups("replica_groups=[2,4]<=[8], x") == inside
    assert _groups("replica_groups=[4,2]<=[2,4]T(1,0), x") == across
    mesh = "replica_groups=mesh['axis_0'=4,'axis_1'=1,'axis_2'=2], device_ids=([2,4]T(1,0)) {'%s'}, x"
    assert _groups(mesh % "axis_0") == inside and _groups(mesh % "axis_2") == across
    assert _groups("replica_groups=mesh['axis_0'=8,'axis_1'=1] {'axis_0'}, x") == [list(range(8))]


def test_only_sums_cross_the_network_between_slices():
    """Weights are gathered and activations exchanged inside a slice; gradients and counts are summed across."""
    a = presets.tiny(512, embed_dim=32, mlp_dim=64, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8)
    runtime, mesh = Runtime(scan_layers=True), make_mesh(MeshConfig(data=2, fsdp=4, slices=2))
    optimizer = make_optimizer(OptimizerConfig(learning_rate=1e-3), 10, transformer.logical_axes(a))
    abstract = jax.eval_shape(lambda p: init_state(p, optimizer, 0), transformer.abstract_params(a, runtime))
    shardings = state_shardings(mesh, abstract, transformer.logical_axes(a))
    loss = pretrain.make_loss(Model(a, runtime), z_loss=5e-6, chunk=64)
    batch = abstract_batch(mesh, packing.shapes(8, 32))
    state = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, shardings)
    with jax.set_mesh(mesh):
        step = jax.jit(make_train_step(loss, optimizer), out_shardings=(shardings, None))
        text = step.lower(state, batch, None).compile().as_text()
    found = {"inside": set(), "across": set()}
    for line in text.splitlines():
        kind = re.search(r" (all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(", line)
        if kind:
            crosses = any(len({device // 4 for device in group}) > 1 for group in _groups(line))
            found["across" if crosses else "inside"].add(kind[1])
    assert "all-gather" in found["inside"]
    assert found["across"] and found["across"] <= {"all-reduce", "reduce-scatter"}, found
