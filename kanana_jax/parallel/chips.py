"""Peak matrix-product rates, for MFU."""

import time

import jax
import jax.numpy as jnp

# Dense bfloat16 FLOP/s of one JAX device. TPU: the public pages of Cloud TPU (v4: two cores that JAX
# shows as one device); NVIDIA: data sheets, without sparsity.
BF16_PEAK = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
}
# Bytes/s of the memory of one device, from the same pages and sheets.
BANDWIDTH = {
    "TPU v4": 1228e9,
    "TPU v5e": 819e9,
    "TPU v5p": 2765e9,
    "TPU v6e": 1640e9,
    "NVIDIA A100": 2039e9,
    "NVIDIA H100": 3350e9,
    "NVIDIA H200": 4800e9,
}


def peak_flops(device: jax.Device) -> tuple[float, str]:
    """FLOP/s of one device, and where the figure comes from ('data sheet' or 'measured')."""
    names = [name for name in BF16_PEAK if device.device_kind.startswith(name)]
    if names:
        return BF16_PEAK[max(names, key=len)], "data sheet, bf16"
    return _measured(device), "measured matrix product"


def _measured(device: jax.Device, size: int = 1024, repeats: int = 5) -> float:
    """Best rate of a float32 `[n, n] × [n, n]` product on a device that no table knows (a CPU)."""
    with jax.default_device(device):
        x = jnp.ones((size, size), jnp.float32)
        product = jax.jit(jnp.dot)
        product(x, x).block_until_ready()
        best = float("inf")
        for _ in range(repeats):
            start = time.perf_counter()
            product(x, x).block_until_ready()
            best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best / _devices_that_share(device)


def _devices_that_share(device: jax.Device) -> int:
    """Virtual CPU devices of one process share its cores."""
    return sum(d.process_index == device.process_index for d in jax.devices()) if device.platform == "cpu" else 1
