"""Peak rates of chips from their makers' public pages: the table that MFU, search and plans use."""

import dataclasses
import functools
import os
import time

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Chip:
    """One JAX device: a TPU chip (v4 and v5p: both of its TensorCores) or a GPU.

    Attributes:
      label: its usual name.
      kinds: JAX's names: `device_kind` begins with one of them.
      bf16_flops: dense bfloat16 FLOP/s.
      hbm_bytes: size of its memory.
      hbm_bandwidth: bandwidth of its memory in bytes/s.
      link_bandwidth: bytes/s in one direction of one ICI link, or of all NVLinks of a GPU together.
      torus: number of dimensions of the ICI torus, with two links each; 0: a switch.
      dcn_bandwidth: bytes/s per chip of the data-centre network; None: not published.
      cores: cores per chip as counted in the name of a TPU slice (v5p-128 has 64 chips).
      source: where the figures are published.
    """

    label: str
    kinds: tuple[str, ...]
    bf16_flops: float
    hbm_bytes: float
    hbm_bandwidth: float
    link_bandwidth: float
    torus: int
    dcn_bandwidth: float | None
    cores: int
    source: str


GIB = 1 << 30
# ICI: the pages state a chip's bandwidth over all links and both directions (v5p 1,200, v5e 400, v6e 800 GB/s), which
# is divided by links and directions here; v4's page states the bisection bandwidth of a pod, 24 TB/s over 2 × 16 × 16
# links. DCN of v5e and v6e: the pod's bandwidth divided by its 256 chips.
CHIPS = {
    "v4": Chip(
        "TPU v4",
        ("TPU v4",),
        *(275e12, 32 * GIB, 1200e9, 24e12 / 512, 3, None, 2),
        source="cloud.google.com/tpu/docs/v4",
    ),
    "v5e": Chip(
        "TPU v5e",
        ("TPU v5 lite", "TPU v5e"),
        *(197e12, 16 * GIB, 819e9, 50e9, 2, 6.4e12 / 8 / 256, 1),
        source="cloud.google.com/tpu/docs/v5e",
    ),
    "v5p": Chip(
        "TPU v5p",
        ("TPU v5", "TPU v5p"),
        *(459e12, 95 * GIB, 2765e9, 100e9, 3, 50e9 / 8, 2),
        source="cloud.google.com/tpu/docs/v5p",
    ),
    "v6e": Chip(
        "TPU v6e",
        ("TPU v6 lite", "TPU v6e"),
        *(918e12, 32 * GIB, 1638e9, 100e9, 2, 25.6e12 / 8 / 256, 1),
        source="cloud.google.com/tpu/docs/v6e",
    ),
    "a100": Chip(
        "NVIDIA A100",
        ("NVIDIA A100",),
        *(312e12, 80e9, 2039e9, 300e9, 0, None, 1),
        source="NVIDIA A100 80GB SXM data sheet",
    ),
    "a100-80": Chip(
        "NVIDIA A100 80 GB",
        ("NVIDIA A100-SXM4-80GB", "NVIDIA A100 80GB"),
        *(312e12, 80e9, 2039e9, 300e9, 0, None, 1),
        source="NVIDIA A100 80GB SXM data sheet",
    ),
    "a100-40": Chip(
        "NVIDIA A100 40 GB",
        ("NVIDIA A100-SXM4-40GB", "NVIDIA A100-PCIE-40GB"),
        *(312e12, 40e9, 1555e9, 300e9, 0, None, 1),
        source="NVIDIA A100 40GB SXM data sheet",
    ),
    # Cards without NVLink: one direction of PCIe 4.0 x16.
    "l4": Chip("NVIDIA L4", ("NVIDIA L4",), *(121e12, 24e9, 300e9, 32e9, 0, None, 1), source="NVIDIA L4 data sheet"),
    "l40s": Chip(
        "NVIDIA L40S",
        ("NVIDIA L40S",),
        *(362e12, 48e9, 864e9, 32e9, 0, None, 1),
        source="NVIDIA L40S data sheet",
    ),
    "rtx3090": Chip(
        "NVIDIA RTX 3090",
        ("NVIDIA GeForce RTX 3090",),
        *(71e12, 24e9, 936e9, 32e9, 0, None, 1),
        source="NVIDIA GA102 whitepaper (bf16 with float32 sums, dense)",
    ),
    "rtx4090": Chip(
        "NVIDIA RTX 4090",
        ("NVIDIA GeForce RTX 4090",),
        *(165.2e12, 24e9, 1008e9, 32e9, 0, None, 1),
        source="NVIDIA Ada whitepaper (bf16 with float32 sums, dense)",
    ),
    "h100": Chip(
        "NVIDIA H100",
        ("NVIDIA H100",),
        *(989e12, 80e9, 3350e9, 450e9, 0, None, 1),
        source="NVIDIA H100 SXM data sheet",
    ),
    "h200": Chip(
        "NVIDIA H200",
        ("NVIDIA H200",),
        *(989e12, 141e9, 4800e9, 450e9, 0, None, 1),
        source="NVIDIA H200 SXM data sheet",
    ),
}
# Peak rate of matrix products by JAX's name of a device, and memory bandwidth by label.
BF16_PEAK = {kind: chip.bf16_flops for chip in CHIPS.values() for kind in chip.kinds}
BANDWIDTH = {chip.label: chip.hbm_bandwidth for chip in CHIPS.values()}


MEASURED = "measured matrix product"


def utilisation(flops_per_s: float, peak: float, source: str) -> float:
    """The share of a peak rate that is reached (MFU).

    Capped at 1 if the peak was measured: a faster rate only shows that the machine was busy during the measurement.
    """
    return min(flops_per_s / peak, 1.0) if source == MEASURED else flops_per_s / peak


def peak_flops(device: jax.Device) -> tuple[float, str]:
    """Peak FLOP/s of one device, and the source of the figure ('data sheet, bf16' or `MEASURED`)."""
    names = [name for name in BF16_PEAK if device.device_kind.startswith(name)]
    if names:
        return BF16_PEAK[max(names, key=len)], "data sheet, bf16"
    return _measured(device), MEASURED


@functools.cache
def _measured(
    device: jax.Device, sizes: tuple[int, ...] = (512, 1024, 1536), repeats: int = 5, enough_s: float = 0.2
) -> float:
    """The best rate of a float32 `[n, n] × [n, n]` product on a device outside the table (a CPU); once per process.

    Time is the process's CPU time divided by the number of its cores, so that other programs on the same cores do not
    lower the measured peak and thereby raise the utilisation. The fastest size depends on the caches and on how many
    cores share them. Since every start of a run waits for this, a size is repeated for at most `enough_s` seconds.
    """
    best, share = 0.0, cores()
    with jax.default_device(device):
        product = jax.jit(jnp.dot)
        for size in sizes:
            x = jnp.ones((size, size), jnp.float32)
            product(x, x).block_until_ready()
            tried, spent = 0, 0.0
            while tried < repeats and spent < enough_s:
                start, on_cores = time.perf_counter(), time.process_time()
                product(x, x).block_until_ready()
                took = max((time.process_time() - on_cores) / share, 1e-6)
                best, tried, spent = max(best, 2 * size**3 / took), tried + 1, spent + time.perf_counter() - start
    return best / _devices_that_share(device)


def cores() -> int:
    """Number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _devices_that_share(device: jax.Device) -> int:
    """Number of devices that share a device's cores: all virtual CPU devices of a process do."""
    return sum(d.process_index == device.process_index for d in jax.devices()) if device.platform == "cpu" else 1
