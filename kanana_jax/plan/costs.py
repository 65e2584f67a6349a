"""The cost of one run of a compiled program on a device: FLOPs, HBM bytes, collectives; loops by their trip counts.

FLOPs count matrix products and attention kernels as executed: rematerialisation counts, and a kernel counts
the blocks that it visits. Bytes are the HBM reads and writes of every operation, each operand once and slices as
slices; data that stay in VMEM cost nothing. Both describe the program, not a measured run.
"""

import dataclasses
import math
import re

import numpy as np

from kanana_jax.plan.hlo import Computation, Instruction, Module, Shape, trip_count

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
# Without work of their own: names for values, or the end of an operation started by another instruction.
_FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id"),
    *("opt-barrier", "iota", "async-update", "async-done", "copy-done", "send", "recv", "send-done", "recv-done"),
    *(f"{kind}-done" for kind in COLLECTIVES),
}
_GROUPS = re.compile(
    r"replica_groups=(?:mesh\[[^\]]*\][^{]*\{[^}]*\}|\[[\d,]+\]<=\[[\d,]+\](?:T\([\d,]+\))?|\{\{.*?\}\}|\{\})"
)
_FREE_CALLS = ("AllocateBuffer", "AssumeGatherIndicesInBound", "Sharding", "SPMD")


@dataclasses.dataclass(frozen=True)
class Operation:
    """One instruction that does work: its cost each time, and its number of runs per step."""

    flops: float
    bytes: float
    times: int
    kernel: bool = False


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective instruction.

    Attributes:
      kind: one of `COLLECTIVES`.
      bytes: size of the whole array gathered, reduced or scattered; for all-to-all and permute, of a device's part.
      dtype: dtype of its largest array.
      groups: the instruction's text that names the participants (`topology.group`).
      times: runs per step.
      scope: JAX's name stack.
      between_slices: among the devices that stand at the same place of all slices; `bytes` are then what one sends in.
    """

    kind: str
    bytes: int
    dtype: str
    groups: str
    times: int
    scope: str
    between_slices: bool = False


@dataclasses.dataclass(frozen=True)
class Costs:
    operations: tuple[Operation, ...]
    collectives: tuple[Collective, ...]

    @property
    def flops(self) -> float:
        return sum(o.flops * o.times for o in self.operations)

    @property
    def kernel_flops(self) -> float:
        return sum(o.flops * o.times for o in self.operations if o.kernel)

    @property
    def hbm_bytes(self) -> float:
        return sum(o.bytes * o.times for o in self.operations)


def count(module: Module) -> Costs:
    """Costs of the entry computation on one device.

    Raises:
      ValueError: a loop without a constant trip count, or an unknown kernel.
    """
    operations: list[Operation] = []
    collectives: list[Collective] = []
    _walk(module, module.computations[module.entry], 1, operations, collectives)
    return Costs(tuple(operations), tuple(collectives))


def _walk(module, computation: Computation, times: int, operations, collectives) -> None:
    begun: set[str] = set()
    for instruction in computation.instructions.values():
        opcode = instruction.opcode
        if opcode == "send" and "xla_megascale" in instruction.text:
            collectives.append(_between_slices(instruction, times))
        if opcode in _FREE:
            continue
        if opcode == "while":
            body = module.computations[instruction.called["body"][0]]
            _walk(module, body, times * trip_count(module, computation, instruction), operations, collectives)
            continue
        kind = opcode.removesuffix("-start")
        if kind in COLLECTIVES:
            collectives.append(_collective(kind, computation, instruction, times))
        elif opcode in ("call", "async-start", "conditional"):
            # Of a conditional all branches are counted: an upper bound, and the training step has none.
            for names in instruction.called.values():
                for name in names:
                    _walk(module, module.computations[name], times, operations, collectives)
            continue
        inner = _inner(module, instruction)
        for part in inner:
            for member in part.instructions.values():
                if member.opcode.removesuffix("-start") in COLLECTIVES:
                    # One that is hidden behind products appears in each of their fusions, under one channel.
                    channel = re.search(r"channel_id=\d+", member.text)
                    if channel and channel.group(0) in begun:
                        continue
                    begun.add(channel.group(0) if channel else "")
                    made = _collective(member.opcode.removesuffix("-start"), part, member, times)
                    # TPU's reduce-scatter is a fusion of an all-reduce and the slice of it that a device keeps.
                    if made.kind == "all-reduce" and "all-reduce-scatter" in part.name:
                        made = dataclasses.replace(made, kind="reduce-scatter")
                    collectives.append(made)
        flops = sum(_flops(part, member) for part in inner for member in part.instructions.values())
        kernel = opcode == "custom-call" and "tpu_custom_call" in instruction.text
        flops += _kernel_flops(computation, instruction) if kernel else _flops(computation, instruction)
        bytes_ = _bytes(module, computation, instruction)
        if flops or bytes_:
            operations.append(Operation(flops, bytes_, times, kernel))


def _inner(module: Module, instruction: Instruction) -> list[Computation]:
    """The computations that a fusion is made of, fusions in fusions included."""
    found = []
    if instruction.opcode == "fusion":
        for name in instruction.called["calls"]:
            part = module.computations[name]
            found.append(part)
            for member in part.instructions.values():
                found += _inner(module, member)
    return found


def _collective(kind: str, computation: Computation, instruction: Instruction, times: int) -> Collective:
    operands = [shape for shapes in computation.operand_shapes(instruction) for shape in shapes]
    size = sum(s.bytes for s in operands)
    if kind == "all-gather":
        # A started gather returns operands and results.
        size = sum(s.bytes for s in instruction.shapes) - (size if instruction.opcode.endswith("-start") else 0)
    groups = _GROUPS.search(instruction.text)
    pairs = re.search(r"source_target_pairs=\{\{[^=]*?\}\}", instruction.text)
    largest = max(operands, key=lambda s: s.bytes, default=Shape("", ()))
    text = groups.group(0) if groups else pairs.group(0) if pairs else ""
    return Collective(kind, size, largest.dtype, text, times, instruction.scope)


def _between_slices(instruction: Instruction, times: int) -> Collective:
    """TPU's compiler hands what goes between slices to the hosts: a `send` and a `recv` that name the collective."""
    named = re.search(r'_xla_megascale_transfer_type="(\w+)"', instruction.text)
    kind = named.group(1).lower().replace("_", "-") if named else ""
    kind = "collective-permute" if kind == "one-to-one" else kind
    if kind not in COLLECTIVES:
        raise ValueError(f"the transfer {instruction.name} between slices is of an unknown kind ('{kind}')")
    sent = instruction.shapes[0]
    return Collective(kind, sent.bytes, sent.dtype, "", times, instruction.scope, between_slices=True)


def _found(pattern: str, instruction: Instruction) -> re.Match[str]:
    match = re.search(pattern, instruction.text)
    if match is None:
        raise ValueError(f"{instruction.opcode} {instruction.name} does not say {pattern.partition('=')[0]}")
    return match


def _flops(computation: Computation, instruction: Instruction) -> float:
    if instruction.opcode == "dot":
        left = computation.operand_shapes(instruction)[0][0]
        contracted = _found(r"lhs_contracting_dims=\{([\d,]*)\}", instruction)[1]
        depth = math.prod(left.dims[int(d)] for d in contracted.split(",") if d)
        return 2.0 * instruction.shapes[0].elements * depth
    if instruction.opcode == "convolution":
        return convolution_flops(*(s[0].dims for s in computation.operand_shapes(instruction)), instruction)
    return 0.0


def convolution_flops(left: tuple[int, ...], right: tuple[int, ...], instruction: Instruction) -> float:
    """2 × multiply-adds on elements that are there: padding and dilation, with which TPU writes batched products, are
    no work."""
    inputs, kernel, outputs = _found(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction).groups()
    out = instruction.shapes[0].dims
    window = re.search(r"window=\{([^{}]*)\}", instruction.text)
    settings = dict(part.split("=", 1) for part in window.group(1).split()) if window else {}
    groups = re.search(r"batch_group_count=(\d+)", instruction.text)
    total = 2.0 * out[outputs.index("b")] * out[outputs.index("f")] * right[kernel.index("i")]
    total *= left[inputs.index("b")] / out[outputs.index("b")] if groups else 1.0

    def setting(name: str, axis: int, default: str) -> str:
        return settings[name].split("x")[axis] if name in settings else default

    for axis in range(len(inputs) - 2):
        size, taps = left[inputs.index(str(axis))], right[kernel.index(str(axis))]
        stride, low = int(setting("stride", axis, "1")), int(setting("pad", axis, "0_0").split("_")[0])
        dilated, spread = int(setting("lhs_dilate", axis, "1")), int(setting("rhs_dilate", axis, "1"))
        places = np.arange(out[outputs.index(str(axis))])[:, None] * stride - low + np.arange(taps)[None, :] * spread
        there = (places >= 0) & (places <= (size - 1) * dilated) & (places % dilated == 0)
        total *= int(there.sum())
    return total


def _kernel_flops(computation: Computation, instruction: Instruction) -> float:
    """FLOPs of splash attention: the blocks of the causal square that it visits.

    Forward q·kᵀ and weights·v; backward (fused) those of dq, dk, dv, dp and once more q·kᵀ.
    """
    products = {"splash_mha_fwd": 2, "splash_mha_dkv": 5, "splash_mha_dq": 3}
    known = [name for name in products if name in instruction.name or name in instruction.text]
    if not known:
        raise ValueError(f"the kernel {instruction.name} is not known to the plan: add its cost to costs.py")
    arrays = [s[0] for s in computation.operand_shapes(instruction) if len(s) == 1 and len(s[0].dims) >= 3]
    queries, keys = [a.dims for a in arrays if a.dtype in ("bf16", "f32")][:2]
    *heads, rows, width = queries  # a batch of rows may precede the heads
    visited = _visited(instruction, rows, keys[-2], known[0])
    return products[known[0]] * 2.0 * math.prod(heads) * width * visited


def _visited(instruction: Instruction, rows: int, columns: int, kernel: str) -> int:
    """Elements of the blocks on or below the diagonal; where rows are cut over devices, for those that see most."""

    def block(name: str, most: int) -> int:
        found = re.search(rf'{name}\\*": *(\d+)', instruction.text)
        return min(int(found.group(1)), most) if found else most

    suffix = "" if kernel == "splash_mha_fwd" else "_dkv" if kernel == "splash_mha_dkv" else "_dq"
    high, wide = block(f"block_q{suffix}", rows), block(f"block_kv{suffix}", columns)
    ends = columns - rows + (np.arange(rows // high) + 1) * high
    return int((np.ceil(ends / wide) * wide * high).sum())


def _hbm(shapes: tuple[Shape, ...]) -> int:
    return sum(s.bytes for s in shapes if s.space == 0)


def _bytes(module: Module, computation: Computation, instruction: Instruction) -> int:
    """Bytes that an instruction reads from and writes to HBM."""
    opcode, operands = instruction.opcode, computation.operand_shapes(instruction)
    if opcode == "custom-call" and any(name in instruction.text for name in _FREE_CALLS):
        return 0
    if opcode == "copy-start":  # (to, from, …)
        return _hbm(instruction.shapes[:2])
    if opcode.endswith("-start"):
        return _hbm(instruction.shapes)
    if opcode in ("dynamic-slice", "slice", "gather"):
        return 2 * _hbm(instruction.shapes)
    if opcode == "dynamic-update-slice":
        return 2 * _hbm(operands[1])
    if opcode == "broadcast":
        return _hbm(instruction.shapes)
    if opcode != "fusion":
        return sum(_hbm(shapes) for shapes in operands) + _hbm(instruction.shapes)
    body = module.computations[instruction.called["calls"][0]]
    read = 0
    for place, shapes in enumerate(operands):
        full = _hbm(shapes)
        if full:
            read += min(full, _read(module, body, body.parameters[place]))
    return read + _written(module, body, body.root, instruction.shapes)


def _read(module: Module, body: Computation, name: str) -> int:
    """Bytes that a fusion reads of one of its parameters: a slice where only slices are taken."""
    full = sum(s.bytes for s in body.instructions[name].shapes)
    total = 0
    for user, place in body.users.get(name, []):
        if user.opcode in ("dynamic-slice", "slice", "gather") and place == 0:
            total += sum(s.bytes for s in user.shapes)
        elif user.opcode == "dynamic-update-slice" and place == 0:
            continue
        elif user.opcode == "bitcast":
            total += _read(module, body, user.name)
        elif user.opcode == "fusion":
            inner = module.computations[user.called["calls"][0]]
            total += _read(module, inner, inner.parameters[place])
        else:
            return full
    return min(total, full)


def _written(module: Module, body: Computation, root: str, shapes: tuple[Shape, ...]) -> int:
    """Bytes that a fusion writes: for an array updated in place, only the update."""
    instruction = body.instructions[root]
    if instruction.opcode == "tuple":
        flat = [body.instructions[name] for name in instruction.operands]
        if len(flat) == len(shapes):
            return sum(_written(module, body, part.name, (shape,)) for part, shape in zip(flat, shapes))
    if instruction.opcode == "bitcast":
        return _written(module, body, instruction.operands[0], shapes)
    if instruction.opcode == "dynamic-update-slice":
        update = body.operand_shapes(instruction)[1]
        return sum(s.bytes for s in update) if _hbm(shapes) else 0
    if instruction.opcode == "fusion":
        inner = module.computations[instruction.called["calls"][0]]
        return _written(module, inner, inner.root, shapes)
    return _hbm(shapes)
