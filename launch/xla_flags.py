"""Compiler flags by chip, each with its reason and where it is taken from.

None was measured here for want of the hardware: they are what published recipes for these chips run with. A flag that
someone has set already stays as it is. Measure with `benchmarks/train_step.py` before you trust one.
"""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Flag:
    """A flag.

    Attributes:
      text: as the compiler reads it.
      reason: what it is for.
      source: who runs with it.
    """

    text: str
    reason: str
    source: str

    @property
    def name(self) -> str:
        return self.text.partition("=")[0]


_MAXTEXT = "maxtext/end_to_end/tpu and maxtext/benchmarks/xla_flags_library.py"
_JAX_GPU = "JAX documentation, GPU performance tips"

# Collectives beside computation: fsdp's all-gathers of the next layer's weights run during this layer's products.
_OVERLAP = (
    Flag("--xla_tpu_enable_async_collective_fusion=true", "collectives run beside computation", _MAXTEXT),
    Flag(
        "--xla_tpu_enable_async_collective_fusion_fuse_all_gather=true",
        "the same for fsdp's all-gathers of weights",
        _MAXTEXT,
    ),
    Flag(
        "--xla_tpu_enable_async_collective_fusion_multiple_steps=true",
        "a collective may be spread over several computations",
        _MAXTEXT,
    ),
    Flag("--xla_tpu_overlap_compute_collective_tc=true", "one core computes while it communicates", _MAXTEXT),
    Flag("--xla_enable_async_all_gather=true", "all-gathers begin early and end late", _MAXTEXT),
)
# All-reduce of gradients over the data axis, which is what crosses the data-centre network.
_DATA_PARALLEL = (
    Flag(
        "--xla_tpu_enable_data_parallel_all_reduce_opt=true",
        "gradients of the data axis are summed beside the backward pass (DCN)",
        _MAXTEXT,
    ),
    Flag(
        "--xla_tpu_data_parallel_opt_different_sized_ops=true",
        "the same where the summed arrays differ in size",
        _MAXTEXT,
    ),
)
_VMEM = Flag(
    "--xla_tpu_scoped_vmem_limit_kib=98304",
    "96 MiB for one kernel: splash attention with blocks of 2,048 does not fit the default 16 MiB",
    f"{_MAXTEXT} (v6e)",
)
_GPU = (
    Flag("--xla_gpu_enable_latency_hiding_scheduler=true", "collectives run beside computation", _JAX_GPU),
    Flag("--xla_gpu_enable_triton_gemm=false", "cuBLAS for matrix products", _JAX_GPU),
)

# Flags of the TPU compiler go into LIBTPU_INIT_ARGS, of the GPU compiler into XLA_FLAGS.
CHIPS: dict[str, tuple[Flag, ...]] = {
    "v4": (*_OVERLAP, *_DATA_PARALLEL),
    "v5e": (*_OVERLAP, *_DATA_PARALLEL),
    "v5p": (*_OVERLAP, *_DATA_PARALLEL),
    "v6e": (*_OVERLAP, *_DATA_PARALLEL, _VMEM),
    "h100": _GPU,
    "h200": _GPU,
}


def environment(chip: str, env: Mapping[str, str]) -> dict[str, str]:
    """The variable to set for a chip; flags that `env` sets already stay as they are. {} for no chip."""
    flags = CHIPS.get(chip, ())
    if not flags:
        return {}
    variable = "XLA_FLAGS" if flags is _GPU else "LIBTPU_INIT_ARGS"
    given = env.get(variable, "")
    names = {flag.partition("=")[0] for flag in given.split()}
    value = " ".join([*([given] if given else []), *(flag.text for flag in flags if flag.name not in names)])
    changed = {variable: value}
    if flags is _GPU and "XLA_PYTHON_CLIENT_MEM_FRACTION" not in env:
        changed["XLA_PYTHON_CLIENT_MEM_FRACTION"] = "0.92"  # the default of 0.75 leaves a quarter of the card unused
    return changed
