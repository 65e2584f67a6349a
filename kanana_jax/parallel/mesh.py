"""The device mesh of all stages, with axes data, fsdp, sequence and tensor; TPU slices are joined over DCN."""

import dataclasses
import math

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from kanana_jax.errors import ConfigError

AXES = ("data", "fsdp", "sequence", "tensor")


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Number of devices along each axis; one axis may be −1, which takes the remaining devices.

    `slices` is the number of TPU slices that the data-centre network joins. It divides the data axis, or fsdp if `data`
    is 1, because these have the least traffic, which is most easily hidden.
    """

    data: int = 1
    fsdp: int = -1
    sequence: int = 1
    tensor: int = 1
    slices: int = 1

    def __post_init__(self):
        sizes = [getattr(self, axis) for axis in AXES]
        if sum(s == -1 for s in sizes) > 1 or any(s < 1 and s != -1 for s in sizes):
            raise ValueError("mesh axes must be at least 1, and at most one may be -1")
        if self.slices < 1:
            raise ValueError("mesh.slices must be at least 1")


def resolve(config: MeshConfig, num_devices: int) -> dict[str, int]:
    """Axis sizes for `num_devices` devices.

    Raises:
      ConfigError: the axes do not multiply to the number of devices.
    """
    sizes = {axis: getattr(config, axis) for axis in AXES}
    fixed = math.prod(s for s in sizes.values() if s != -1)
    text = " × ".join(f"{axis} {size}" for axis, size in sizes.items())
    if num_devices % fixed or (-1 not in sizes.values() and fixed != num_devices):
        raise ConfigError(
            f"mesh {text} does not divide the {num_devices} devices: "
            "change the mesh axes, or set one of them to -1 to take the rest"
        )
    return {axis: num_devices // fixed if size == -1 else size for axis, size in sizes.items()}


def make_mesh(config: MeshConfig, devices: list | None = None) -> Mesh:
    """A mesh over `devices` (default: all), laid out so that the last axes have the nearest neighbours in ICI.

    Raises:
      ConfigError: the axes do not multiply to the number of devices, or do not fit the slices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = resolve(config, len(devices))
    shape = tuple(sizes.values())
    if config.slices > 1:
        across = "data" if sizes["data"] > 1 else "fsdp"
        if sizes[across] % config.slices:
            raise ConfigError(f"mesh.{across} = {sizes[across]} must be a multiple of mesh.slices = {config.slices}")
        dcn = tuple(config.slices if axis == across else 1 for axis in AXES)
        inner = tuple(n // d for n, d in zip(shape, dcn))
        if devices[0].platform == "tpu":
            found = len({device.slice_index for device in devices})
            if found != config.slices:
                raise ConfigError(
                    f"mesh.slices is {config.slices}, but the devices are in {found} slice(s): set mesh.slices to "
                    f"{found}"
                )
            grid = mesh_utils.create_hybrid_device_mesh(inner, dcn, devices, allow_split_physical_axes=True)
        else:
            # On other devices, a slice is a contiguous range in the order of processes, along the outermost axis.
            grid = np.asarray(devices).reshape(shape)
    elif devices[0].platform == "tpu":
        grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    else:
        grid = np.asarray(devices).reshape(shape)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def rearranged(mesh: Mesh, config: MeshConfig) -> Mesh:
    """A mesh of the same devices, in the same order, with other axis sizes.

    Compiled functions can move arrays between the two meshes.

    Raises:
      ConfigError: the axes do not multiply to the number of devices.
    """
    shape = tuple(resolve(config, mesh.size).values())
    return Mesh(mesh.devices.reshape(shape), AXES, axis_types=(AxisType.Auto,) * len(AXES))
