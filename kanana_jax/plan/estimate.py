"""The memory that a stage needs on a device, estimated without compiling it."""

import dataclasses
import math
import os
import pathlib
from collections.abc import Callable

import jax

from kanana_jax.plan.measure import saved_activations
from kanana_jax.stages.kind import Shapes, StagePrograms

_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_LOGIT_BYTES = 4  # float32
_LOGIT_COPIES = 2  # the logits of a chunk, and their gradient


def looped(shapes: Shapes, remat: str) -> Shapes:
    """Shapes whose programs reveal their activations: those of unrolled layers keep the same ones, in no one place."""
    return dataclasses.replace(shapes, runtime=dataclasses.replace(shapes.runtime, scan_layers=True, remat=remat))


def estimate(programs: Callable[[Shapes], StagePrograms], shapes: Shapes) -> dict[str, int]:
    """Bytes per device by purpose, at the peak of a step.

    What lies there all the time and the kept activations are read from the program's shapes. A micro-batch's gradients
    are as large as the parameters; beside them their sum in float32 lies there where there are several micro-batches,
    and one parameter's where these are bfloat16. A chunk of logits is there twice, and what a layer computes again for
    one layer at a time.

    Args:
      programs: makes the stage's programs for shapes.
      shapes: the stage's shapes.
    """
    made, layer = programs(looped(shapes, shapes.runtime.remat)), 0
    if shapes.runtime.remat != "none":
        whole = programs(looped(shapes, "none"))
        layer = saved_activations(whole.step.trace(), whole) // made.model.architecture.num_layers
    train, mesh = made.train, made.mesh.shape
    vocabulary = -(-made.model.architecture.vocab_size // mesh["tensor"])
    tokens = min(train.loss_chunk, train.batch_tokens // train.accumulate // (made.mesh.size // mesh["tensor"]) or 1)
    params = jax.tree.leaves(made.step.arguments["state"].params)
    wide = [4 * math.prod(leaf.sharding.shard_shape(leaf.shape)) for leaf in params]
    summed = sum(wide) if train.accumulate > 1 else max(wide) if params[0].dtype.itemsize < 4 else 0
    return {
        **made.resident,
        "batch": made.batch_bytes,
        "gradients": made.resident["parameters"] + summed,
        "activations": saved_activations(made.step.trace(), made),
        "layer": layer,
        "logits": _LOGIT_COPIES * _LOGIT_BYTES * tokens * vocabulary,
    }


def limit(device: jax.Device) -> int:
    """Bytes of memory that a program may use on a device that is here; of a CPU its share of the machine's."""
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for file in map(pathlib.Path, _CGROUP_LIMITS):
        if file.is_file() and (text := file.read_text(encoding="ascii").strip()).isdigit():
            machine = min(machine, int(text))
    return machine // len(jax.local_devices())
