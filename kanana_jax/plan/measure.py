"""Measurements of a program that the chip's own compiler made: memory, FLOPs, bytes, collectives; nothing is run."""

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

import jax
from jax.sharding import Mesh

from kanana_jax.errors import UserError
from kanana_jax.plan import costs, hlo
from kanana_jax.plan.topology import Slice, traffic
from kanana_jax.stages.kind import Program, StagePrograms, device_bytes


def saved_activations(traced: Any, made: StagePrograms) -> int:
    """Bytes per device that the forward loop over layers keeps for the backward pass (0 where layers are unrolled).

    Read from the program before it is compiled: the stacked results of the scan over periods of layers that keeps their
    inputs, `[L/p, b, T, D]`. These are whole over `tensor`; what is kept of heads and MLP is cut over it too. Layers of
    a last period that is cut short keep as much each.
    """
    train, mesh, width = made.train, made.mesh.shape, made.model.architecture.embed_dim
    layers, period = made.model.architecture.num_layers, len(made.model.architecture.period)
    loops = layers // period
    inputs = (loops, train.batch_size // train.accumulate, train.seq_len, width)
    parts = mesh["data"] * mesh["fsdp"] * mesh["sequence"]
    for equation in _equations(traced.jaxpr.jaxpr):
        if equation.primitive.name != "scan" or equation.params["length"] != loops:
            continue
        kept = [variable.aval for variable in equation.outvars[equation.params["num_carry"] :]]
        if inputs in {aval.shape for aval in kept}:
            here = (a for a in kept if "host" not in str(getattr(a, "memory_space", "")).lower())
            scanned = sum(
                a.size * a.dtype.itemsize // (parts * (1 if a.shape[-1] == width else mesh["tensor"])) for a in here
            )
            return scanned * layers // (loops * period)
    return 0


def _equations(jaxpr: Any) -> Iterator[Any]:
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(equation.params, is_leaf=lambda v: hasattr(v, "eqns") or hasattr(v, "jaxpr")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _equations(inner)


@dataclasses.dataclass(frozen=True)
class Measured:
    """The figures of a compiled program, on one device; of one that does not fit only the memory.

    Attributes:
      fits: the compiler found room.
      arguments, temporaries, peak: bytes; `peak` is what the compiler needed or asked for (0: it did not say).
      flops, kernel_flops, hbm_bytes: as executed in a step.
      serial_s: Σ over operations of the longer of compute and HBM time.
      collectives: rows, the longest first.
      text: the optimized program.
    """

    fits: bool
    arguments: int
    temporaries: int
    peak: int
    flops: float = 0.0
    kernel_flops: float = 0.0
    hbm_bytes: float = 0.0
    serial_s: float = 0.0
    collectives: tuple[dict[str, Any], ...] = ()
    text: str = dataclasses.field(default="", repr=False)


def measure(program: Program, traced: Any, target: Slice, options: dict[str, Any] | None = None) -> Measured:
    """Compiles a program for chips that are not here, and counts what it does.

    Args:
      options: of the compiler, for tests; a plan takes the compiler's own, as a run does.

    Raises:
      UserError: the compiler failed for another reason than memory.
    """
    arguments = sum(device_bytes(tree) for tree in program.arguments.values())
    try:
        with jax.set_mesh(program.mesh):
            compiled = traced.lower().compile(compiler_options=options)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise UserError(f"{target.name}'s compiler refused the program: {str(error).splitlines()[0]}") from error
        return Measured(False, arguments, 0, _asked(str(error)))
    memory, chip, text = compiled.memory_analysis(), target.chip, compiled.as_text()
    counted = costs.count(hlo.parse(text))
    peak = (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.generated_code_size_in_bytes
    )
    serial = sum(max(o.flops / chip.bf16_flops, o.bytes / chip.hbm_bandwidth) * o.times for o in counted.operations)
    return Measured(
        peak <= chip.hbm_bytes,
        memory.argument_size_in_bytes,
        memory.temp_size_in_bytes,
        peak,
        counted.flops,
        counted.kernel_flops,
        counted.hbm_bytes,
        serial,
        tuple(collective_rows(counted.collectives, program.mesh, target)),
        text,
    )


def _asked(message: str) -> int:
    """Memory that a refused program requested; 0 if the compiler does not say."""
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    found = re.search(r"[Uu]sed ([\d.]+)([KMG]) of", message) or re.search(r"\(([\d.]+)([KMG])\) exceeds", message)
    return int(float(found.group(1)) * units[found.group(2)]) if found else 0


def collective_rows(found: tuple[costs.Collective, ...], mesh: Mesh, target: Slice) -> list[dict[str, Any]]:
    """Equal collectives as one row, the longest time a step first."""
    rows: dict[tuple, dict[str, Any]] = {}
    for collective in found:
        moved = traffic(collective, mesh, target)
        if moved.size == 1:
            continue
        key = (collective.kind, moved.axes, collective.bytes, collective.dtype)
        row = rows.setdefault(
            key,
            {
                "kind": collective.kind,
                "axis": moved.axes,
                "devices": moved.size,
                "dtype": collective.dtype,
                "bytes": collective.bytes,
                "times": 0,
                "ici_bytes": 0.0,
                "dcn_bytes": 0.0,
                "seconds": 0.0,
                "scope": collective.scope,
            },
        )
        row["times"] += collective.times
        for name in ("ici_bytes", "dcn_bytes", "seconds"):
            row[name] += getattr(moved, name) * collective.times
    return sorted(rows.values(), key=lambda row: -row["seconds"])
