"""Chips that are not present: slices by Google's names, and the mapping of a mesh to their network.

`describe` asks libtpu's compile-only client for the devices of a slice; programs can be compiled for them on any
machine, and nothing is run.
"""

import dataclasses
import functools
import math
import os
import re

import jax
import numpy as np
from jax.sharding import Mesh

from kanana_jax.errors import ConfigError, install, nearest
from kanana_jax.parallel.chips import CHIPS, Chip
from kanana_jax.plan.costs import Collective

# Chips → shape of the slice, from the pages that chips.py names.
_GRIDS = {
    2: {4: (2, 2), 8: (2, 4), 16: (4, 4), 32: (4, 8), 64: (8, 8), 128: (8, 16), 256: (16, 16)},
    3: {
        **{4: (2, 2, 1), 8: (2, 2, 2), 16: (2, 2, 4), 32: (2, 4, 4), 64: (4, 4, 4), 128: (4, 4, 8), 256: (4, 8, 8)},
        **{512: (8, 8, 8), 768: (8, 8, 12), 1024: (8, 8, 16), 2048: (8, 16, 16), 4096: (16, 16, 16)},
    },
}


@dataclasses.dataclass(frozen=True)
class Slice:
    """A named slice.

    Attributes:
      name: as Google writes it: v4 and v5p count TensorCores, v5e and v6e chips.
      chip: the kind of its chips.
      grid: chips along each ICI dimension; `(n,)` for GPUs in one machine.
      slices: number of such slices joined by the data-centre network.
    """

    name: str
    chip: Chip
    grid: tuple[int, ...]
    slices: int = 1

    @property
    def chips(self) -> int:
        return math.prod(self.grid) * self.slices

    def wraps(self, dimension: int) -> bool:
        """Returns whether a dimension is a ring: v4 and v5p in whole cubes of 4 × 4 × 4, v5e and v6e at 16."""
        if self.chip.torus == 3:
            return all(size % 4 == 0 for size in self.grid)
        return self.grid[dimension] == 16


def named(name: str, slices: int = 1, dcn_bandwidth: float | None = None) -> Slice:
    """The slice of a name such as `v5p-128`, `v6e-256` or `h100-8`.

    Args:
      dcn_bandwidth: bytes/s of the network between slices for one chip, where the chip's page does not say it or is
        known to be wrong.

    Raises:
      ConfigError: no such chip, no slice of that size, or several slices of a chip whose network is not known.
    """
    match = re.fullmatch(r"([a-z]+\d+[a-z]*(?:-\d+)?)-(\d+)", name)
    if match is None or match.group(1) not in CHIPS:
        raise ConfigError(
            f"topology '{name}' is unknown: {nearest(name.rpartition('-')[0] or name, list(CHIPS))} "
            "(write it as v5p-128, v6e-256, h100-8 or rtx4090-1)"
        )
    chip, count = CHIPS[match.group(1)], int(match.group(2))
    if not chip.torus:
        if not 1 <= count <= 8:
            raise ConfigError(f"topology '{name}': a machine has 1 to 8 of this GPU; more are not supported")
        return Slice(name, chip, (count,), slices)
    grids = {chips * chip.cores: grid for chips, grid in _GRIDS[chip.torus].items()}
    if count not in grids:
        sizes = ", ".join(str(n) for n in sorted(grids))
        raise ConfigError(f"topology '{name}' is not a slice of {chip.label}: sizes are {sizes}")
    chip = dataclasses.replace(chip, dcn_bandwidth=dcn_bandwidth or chip.dcn_bandwidth)
    if slices > 1 and chip.dcn_bandwidth is None:
        raise ConfigError(
            f"the rate of the network between slices of {chip.label} is not public: plan one slice, or set "
            f"config plan.dcn_bandwidth.{match.group(1)} to bytes/s for one chip"
        )
    return Slice(name, chip, grids[count], slices)


def describe(target: Slice) -> list[jax.Device]:
    """The devices of a slice, to compile for.

    Raises:
      ConfigError: the compile-only client is not installed.
    """
    return list(_tpu(target)) if target.chip.torus else _gpu(target)


def stand_ins(target: Slice) -> list[jax.Device]:
    """The same number of CPU devices of this machine: enough for shapes and shardings of any chip, without a compiler.

    Raises:
      ConfigError: there are fewer (`jax_num_cpu_devices`).
    """
    devices = jax.devices("cpu")
    if len(devices) < target.chips:
        raise ConfigError(f"{target.name} has {target.chips} devices, but only {len(devices)} stand in for them here")
    return devices[: target.chips]


@functools.lru_cache(maxsize=8)
def _tpu(target: Slice) -> tuple[jax.Device, ...]:
    from jax.experimental import topologies

    # libtpu looks for the machine that it runs on; there is none.
    for key, value in {
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_ACCELERATOR_TYPE": "v5litepod-16",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    }.items():
        os.environ.setdefault(key, value)
    try:
        import libtpu  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"planning for a TPU needs its compiler, libtpu, which is not installed: {install('plan')}"
        ) from error
    family = target.name.split("-")[0]
    extra: dict[str, int | str] = {"num_slices": target.slices} if target.slices > 1 else {}
    if family == "v4":
        extra["chip_config_name"] = "megacore"
    grid = "x".join(str(size) for size in target.grid)
    return tuple(topologies.get_topology_desc(platform="tpu", topology_name=f"{family}:{grid}", **extra).devices)


def _gpu(target: Slice) -> list[jax.Device]:
    raise ConfigError(
        f"{target.name}: programs are compiled for TPUs only, since JAX's compile-only client for CUDA cannot compile "
        "cuDNN's attention: use --memory, which needs no compiler, for what fits; on a machine with the GPUs 'kanana "
        "run' prints the measured MFU of the same config"
    )


def group(text: str, devices: int) -> np.ndarray:
    """Members of the first group of a collective, as places in the mesh, int `[n]`.

    Reads the ways in which XLA writes them: `{{0,1},{2,3}}`, `[2,4]<=[8]`, `[4,2]<=[2,4]T(1,0)`,
    `mesh['a'=2,'b'=4], device_ids=([2,4]T(1,0)) {'b'}`, and the pairs of a permute. No groups: all devices.
    """
    text = text.partition("=")[2].strip()
    axes = re.match(r"mesh\[([^\]]*)\](?:, device_ids=\((.*)\))?\s*\{([^}]*)\}", text)
    if axes:
        sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", axes.group(1))}
        # An axis may take part in part: 'a':(2)4 are the 4 inside of 2.
        chosen = re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", axes.group(3))
        split, index = [], []
        for name, size in sizes.items():
            parts = [(int(b or 1), int(n or size)) for axis, b, n in chosen if axis == name]
            before, taken = parts[0] if parts else (size, 1)
            split += [before, taken, size // (before * taken)]
            index += [0, slice(None), 0]
        return _order(axes.group(2), math.prod(sizes.values())).reshape(split)[tuple(index)].reshape(-1)
    iota = re.match(r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text)
    if iota:
        shape, source = ([int(n) for n in iota.group(i).split(",")] for i in (1, 2))
        ids = np.arange(math.prod(source)).reshape(source)
        if iota.group(3):
            ids = ids.transpose([int(n) for n in iota.group(3).split(",")])
        return ids.reshape(shape)[0]
    first = re.match(r"\{\{([\d,]+)\}", text)
    return np.array([int(n) for n in first.group(1).split(",")]) if first else np.arange(devices)


def _order(text: str | None, count: int) -> np.ndarray:
    """Devices of a mesh in its order: `[2,4]T(1,0)` is an iota of that shape, transposed; a list is itself."""
    if not text:
        return np.arange(count)
    iota = re.match(r"\[([\d,]+)\](?:T\(([\d,]+)\))?$", text.rstrip(")") + (")" if "T(" in text else ""))
    if iota is None:
        return np.array([int(n) for n in re.findall(r"\d+", text)])
    ids = np.arange(count).reshape([int(n) for n in iota.group(1).split(",")])
    return ids.transpose([int(n) for n in iota.group(2).split(",")]) if iota.group(2) else ids


@dataclasses.dataclass(frozen=True)
class Traffic:
    """A collective on a network.

    Attributes:
      axes: of the mesh, joined by '+'.
      size: number of participating devices.
      ici_bytes, dcn_bytes: bytes that a device sends, each time.
      seconds: time at the rate of the links, each time, without latency.
    """

    axes: str
    size: int
    ici_bytes: float
    dcn_bytes: float
    seconds: float


def traffic(collective: Collective, mesh: Mesh, target: Slice) -> Traffic:
    """The bytes that a collective moves, and the least time that it takes.

    Gathers and reductions run as rings in all dimensions that the group spans, in both directions where the ends are
    joined; what an all-to-all sends goes a quarter of the way round each dimension on average (a third on a line).
    Between slices each chip carries its share of what the others lack.
    """
    if collective.between_slices:
        return _between_slices(collective, mesh, target)
    members = group(collective.groups, mesh.size)
    n = len(members)
    places = np.stack(np.unravel_index(members, mesh.devices.shape), axis=1)
    axes = "+".join(name for i, name in enumerate(mesh.axis_names) if len(set(places[:, i])) > 1)
    if n == 1:
        return Traffic(axes, 1, 0.0, 0.0, 0.0)
    devices = [mesh.devices.flat[i] for i in members]
    parts = len({getattr(d, "slice_index", 0) for d in devices})
    inside = n // parts
    # An all-reduce is a reduce-scatter and a gather.
    passes = 2 if collective.kind == "all-reduce" else 1
    spread = collective.kind in ("all-to-all", "collective-permute")
    ici = dcn = seconds = 0.0
    if inside > 1 or parts == 1:
        ici = collective.bytes * (1.0 if collective.kind == "collective-permute" else (inside - 1) / inside) * passes
        seconds += ici * _slowness(collective.kind, devices, target)
    if parts > 1:
        share = collective.bytes if spread else collective.bytes / inside
        dcn = share * (parts - 1) / parts * passes
        seconds += dcn / _dcn(target)
    if collective.kind == "collective-permute":  # two are named, all along the axis take part
        n = math.prod(mesh.devices.shape[i] for i, name in enumerate(mesh.axis_names) if name in axes.split("+"))
    return Traffic(axes, n, ici, dcn, seconds)


def _between_slices(collective: Collective, mesh: Mesh, target: Slice) -> Traffic:
    """A collective that the hosts carry out: a device sends its part to as many slices as the kind needs."""
    of = np.vectorize(lambda device: getattr(device, "slice_index", 0))(mesh.devices)
    axes = "+".join(name for i, name in enumerate(mesh.axis_names) if (np.diff(of, axis=i) != 0).any())
    n = target.slices
    share = {"all-reduce": 2 * (n - 1) / n, "all-gather": n - 1, "collective-permute": 1.0}
    dcn = collective.bytes * share.get(collective.kind, (n - 1) / n)
    return Traffic(axes, n, 0.0, dcn, dcn / _dcn(target))


def _dcn(target: Slice) -> float:
    """Bytes/s between slices for one chip; a slice of several is refused where it is not known (`named`)."""
    assert target.chip.dcn_bandwidth is not None
    return target.chip.dcn_bandwidth


def _slowness(kind: str, devices: list[jax.Device], target: Slice) -> float:
    """Seconds for each byte that a device sends over ICI."""
    link = target.chip.link_bandwidth
    if not target.chip.torus:
        return 1 / link
    first = getattr(devices[0], "slice_index", 0)
    coords = np.array([d.coords for d in devices if getattr(d, "slice_index", 0) == first])
    spans = [(i, len(set(coords[:, i]))) for i in range(target.chip.torus)]
    spans = [(i, size) for i, size in spans if size > 1]
    joined = {i: target.wraps(i) and size == target.grid[i] for i, size in spans}
    if kind == "collective-permute":
        return 1 / link
    rates = [link * (2 if joined[i] else 1) for i, _ in spans]
    if kind == "all-to-all":
        hops = sum(size / 4 if joined[i] else size / 3 for i, size in spans)
        return hops / (2 * link * len(spans))
    return 1 / sum(rates)
