"""The table that maps logical axes to mesh axes, and shardings derived from it."""

from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from kanana_jax.errors import ConfigError

# Parameters are sharded over `fsdp` along the model dimension and over `tensor` along heads, MLP and vocabulary
# (Megatron, arXiv:1909.08053, with ZeRO-3, arXiv:1910.02054); activations are sharded along the batch and, for long
# sequences, over `sequence`.
RULES: dict[str, tuple[str, ...]] = {
    "batch": ("data", "fsdp"),
    "lookup_batch": ("data",),
    "sequence": ("sequence",),
    "kv_sequence": (),
    "embed": ("fsdp",),
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "head_dim": (),
    "mlp": ("tensor",),
    "vocab": ("tensor",),
    "norm": (),
    "head_vector": (),
    "layers": (),
    "rank": (),
}


def spec(*axes: str | None) -> PartitionSpec:
    """The partition of an array whose axes have these logical names (None: not sharded)."""
    entries = (RULES[axis] if axis is not None else () for axis in axes)
    return PartitionSpec(*(e[0] if len(e) == 1 else e or None for e in entries))


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Constrains an array to the sharding of these logical axes; no effect without a mesh or with a single device."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return x
    return jax.lax.with_sharding_constraint(x, spec(*axes))


def axis_size(axis: str) -> int:
    """Number of devices along a mesh axis; 1 if no mesh is set."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else mesh.shape[axis]


def platform() -> str:
    """`cpu`, `gpu` or `tpu`: that of the current mesh, which may be abstract (`kanana plan`), or else the default."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return device.platform if device is not None else jax.default_backend()


def tree_shardings(mesh: Mesh, logical: Any) -> Any:
    """A `NamedSharding` for every leaf of a tree of logical axis names (tuples)."""
    return jax.tree.map(lambda axes: NamedSharding(mesh, spec(*axes)), logical, is_leaf=lambda x: isinstance(x, tuple))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def where_divisible(sharding: NamedSharding, shape: tuple[int, ...]) -> NamedSharding:
    """A sharding that leaves axes unsharded whose size in `shape` is not divisible."""
    mesh, kept = sharding.mesh, []
    for size, entry in zip(shape, (*sharding.spec, *(None,) * len(shape))):
        names = entry if isinstance(entry, tuple) else () if entry is None else (entry,)
        kept.append(entry if size % int(np.prod([mesh.shape[name] for name in names], dtype=int)) == 0 else None)
    return NamedSharding(mesh, PartitionSpec(*kept))


def check_divisible(mesh: Mesh | AbstractMesh, sizes: dict[str, tuple[str, int]]) -> None:
    """Refuses a mesh that does not divide the model.

    Args:
      mesh: the mesh.
      sizes: name of a size → (its logical axis, its value), e.g. `{"model.num_heads": ("heads", 24)}`.

    Raises:
      ConfigError: a size is not divisible; the message names the first one.
    """
    for what, (axis, size) in sizes.items():
        names = RULES[axis]
        parts = int(np.prod([mesh.shape[name] for name in names], dtype=int))
        if size % parts:
            raise ConfigError(
                f"{what} = {size} is not divisible by the {parts} devices of mesh axis "
                f"{' × '.join('mesh.' + n for n in names)}: change the mesh or the model"
                + (" (a stage's vocab_multiple pads the vocabulary of a new one)" if axis == "vocab" else "")
            )


def local_rows(mesh: Mesh, batch: int) -> np.ndarray:
    """The rows of a global batch that this process's devices hold, ascending, int `[rows]`."""
    sharding = NamedSharding(mesh, spec("batch"))
    found = sharding.addressable_devices_indices_map((batch,)).values()
    return np.array(sorted({row for index in found if index is not None for row in range(batch)[index[0]]}))


def _of_batch(mesh: Mesh, x: Any) -> NamedSharding:
    return NamedSharding(mesh, spec("batch", "sequence") if x.ndim > 1 else spec("batch"))


def abstract_tree(tree: Any, shardings: Any) -> Any:
    """The shapes and dtypes of a tree of arrays, with the shardings of another tree."""
    return jax.tree.map(lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), tree, shardings)


def abstract_batch(mesh: Mesh, batch: Any) -> Any:
    """The shapes, dtypes and shardings of the arrays that `put_batch` makes of a batch (a tree of arrays `[B, …]`)."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=_of_batch(mesh, x)), batch)


def put_batch(mesh: Mesh, rows: np.ndarray, batch: int, local: Any) -> Any:
    """Global arrays `[B, …]` made of each process's rows.

    Args:
      rows: indices of this process's rows in the global batch (`local_rows`).
      batch: number of rows of the global batch, B.
      local: tree of arrays with this process's rows, in the order of `rows`.
    """

    def put(x: np.ndarray) -> jax.Array:
        sharding, shape = _of_batch(mesh, x), (batch, *x.shape[1:])

        def piece(index):
            wanted = np.arange(batch)[index[0]]
            return x[(np.searchsorted(rows, wanted), *index[1:])]

        return jax.make_array_from_callback(shape, sharding, piece)

    return jax.tree.map(put, local)


def take_rows(x: jax.Array, rows: np.ndarray) -> np.ndarray:
    """The inverse of `put_batch`: this process's rows of a global array that is sharded along its first axis only."""
    local = np.empty((len(rows), *x.shape[1:]), x.dtype)
    for shard in x.addressable_shards:
        wanted = np.arange(x.shape[0])[shard.index[0]]
        local[np.searchsorted(rows, wanted)] = shard.data
    return local


def owned_rows(mesh: Mesh, batch: int) -> dict[int, np.ndarray]:
    """The rows of a global batch by owning process; the owner of a row is the first process that holds it."""
    sharding = NamedSharding(mesh, spec("batch"))
    owners = np.full(batch, np.iinfo(np.int32).max)
    for device, (index,) in sharding.devices_indices_map((batch,)).items():
        owners[index] = np.minimum(owners[index], device.process_index)
    return {int(process): np.flatnonzero(owners == process) for process in np.unique(owners)}
