"""A process of two that saves checkpoints in buckets: `saver.py COORDINATOR PROCESS ADDRESS…`, restored where they are."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from kanana_jax.files import place
from kanana_jax.parallel.mesh import MeshConfig, make_mesh
from kanana_jax.training import loop
from kanana_jax.training.checkpoint import CheckpointConfig
from kanana_jax.training.step import TrainState


def state(step: int, devices: list[jax.Device]) -> TrainState:
    """Figures that tell the step; half of them lie on each process."""
    mesh = make_mesh(MeshConfig(), devices)
    cut, whole = NamedSharding(mesh, PartitionSpec("fsdp")), NamedSharding(mesh, PartitionSpec())

    def put(values, sharding):
        array = np.asarray(values)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    return TrainState(
        step=put(np.int32(step), whole),
        params={"w": put(np.arange(64.0, dtype=np.float32).reshape(16, 4) + step, cut)},
        opt_state={"m": put(np.full((16, 4), step, jnp.bfloat16), cut)},
        rng=put(np.array([1, 2], np.uint32), whole),
        skipped=put(np.int32(0), whole),
        skipped_in_a_row=put(np.int32(0), whole),
        norm_average=put(np.float32(0.5), whole),
    )


def shapes(of: TrainState) -> TrainState:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), of)


def main(coordinator: str, process: str, addresses: list[str]) -> None:
    jax.distributed.initialize(coordinator, 2, int(process))
    for address in addresses:
        config = CheckpointConfig(keep_last=1, keep_best=1)
        checkpoints = loop._checkpoints(place(address), config)
        for step, loss in ((1, 2.0), (2, 1.0), (3, 3.0)):
            checkpoints.save(step, state(step, jax.devices()), {"0": {"step": step}}, loss)
        checkpoints.wait()
        assert checkpoints.steps() == [2, 3], checkpoints.steps()
        checkpoints.close()
        again = loop._checkpoints(place(address), config)
        wanted = state(2, jax.devices())
        found, data = again.restore(2, shapes(wanted))
        assert data == {"0": {"step": 2}}
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted)):
            for one, other in zip(a.addressable_shards, b.addressable_shards):
                np.testing.assert_array_equal(one.data, other.data)
        again.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
