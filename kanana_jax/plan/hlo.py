"""Reads a compiled program: the text of an optimized HLO module as computations of instructions.

The compiler's own `cost_analysis` counts the body of a loop once and leaves kernels out, so that plans count for
themselves (`costs.py`): from this text, with the trip count of every loop.
"""

import dataclasses
import functools
import math
import re

_ITEM_BITS = {
    "pred": 8,
    **{f"{kind}{bits}": bits for kind in ("s", "u") for bits in (2, 4, 8, 16, 32, 64)},
    **{"f16": 16, "bf16": 16, "f32": 32, "f64": 64, "c64": 64, "c128": 128},
}
_SHAPE = re.compile(r"\b(\w+)\[([\d,]*)\](?:\{([^{}]*)\})?")
_NAME = re.compile(r"%([\w.\-]+)")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \((?=.*\) -> ).* \{$")
_LINE = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = ")
_CALLED = re.compile(r"(calls|to_apply|condition|body|branch_computations|true_computation|false_computation)=")


@dataclasses.dataclass(frozen=True)
class Shape:
    """An array: its dtype, dimensions and memory (0: HBM, 1: VMEM, others: small or host memories)."""

    dtype: str
    dims: tuple[int, ...]
    space: int = 0

    @property
    def elements(self) -> int:
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        """Without the padding of tiles."""
        bits = _ITEM_BITS.get(self.dtype) or (8 if self.dtype.startswith("f8") else 0)
        return self.elements * bits // 8


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One operation.

    Attributes:
      name, opcode: as in the text.
      shapes: of its result, a tuple's one after another.
      operands: names.
      called: computations by attribute (`calls`, `body`, …).
      text: its attributes.
      literal: what a `constant` or `parameter` has between its brackets.
    """

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    called: dict[str, tuple[str, ...]]
    text: str
    literal: str

    @property
    def scope(self) -> str:
        """Origin in the program: JAX's name stack, or ''."""
        found = re.search(r'op_name="([^"]*)"', self.text)
        return found.group(1) if found else ""


@dataclasses.dataclass(frozen=True)
class Computation:
    """Instructions in order, by name; the root is what it returns."""

    name: str
    instructions: dict[str, Instruction]
    root: str

    @functools.cached_property
    def parameters(self) -> dict[int, str]:
        return {int(i.literal): i.name for i in self.instructions.values() if i.opcode == "parameter"}

    @functools.cached_property
    def users(self) -> dict[str, list[tuple[Instruction, int]]]:
        """Users of a value, and the operand's number in each."""
        found: dict[str, list[tuple[Instruction, int]]] = {}
        for instruction in self.instructions.values():
            for place, operand in enumerate(instruction.operands):
                found.setdefault(operand, []).append((instruction, place))
        return found

    def operand_shapes(self, instruction: Instruction) -> list[tuple[Shape, ...]]:
        return [self.instructions[name].shapes if name in self.instructions else () for name in instruction.operands]


@dataclasses.dataclass(frozen=True)
class Module:
    computations: dict[str, Computation]
    entry: str


def shapes_of(text: str) -> tuple[Shape, ...]:
    """Every array in a type's text."""
    found = []
    for dtype, dims, layout in _SHAPE.findall(text):
        if dtype in _ITEM_BITS or dtype.startswith("f8"):
            space = re.search(r"S\((\d+)\)", layout)
            sizes = tuple(int(d) for d in dims.split(",") if d)
            found.append(Shape(dtype, sizes, int(space.group(1)) if space else 0))
    return tuple(found)


def parse(text: str) -> Module:
    """Reads `compiled.as_text()`.

    Raises:
      ValueError: there is no entry computation in it.
    """
    computations, entry = {}, None
    current, instructions, root = None, {}, ""
    for line in _joined(text):
        if current is None:
            head = _HEAD.match(line)
            if head:
                current, instructions, root = head.group(2), {}, ""
                entry = current if head.group(1) else entry
        elif line == "}":
            computations[current] = Computation(current, instructions, root)
            current = None
        else:
            match = _LINE.match(line)
            if match:
                instruction = _instruction(match.group(2), line[match.end() :])
                instructions[instruction.name] = instruction
                root = instruction.name if match.group(1) else root
    if entry is None:
        raise ValueError("this is not the text of an HLO module: it has no ENTRY computation")
    return Module(computations, entry)


def _joined(text: str):
    """Lines, with the values that run over several of them put together."""
    whole = ""
    for line in text.splitlines():
        fresh = line == "}" or not line or _LINE.match(line) or line.startswith(("HloModule", "ENTRY", "%"))
        if fresh:
            if whole:
                yield whole
            whole = line
        else:
            whole += line
    if whole:
        yield whole


def _closing(text: str, start: int) -> int:
    """Position of the bracket that closes the one at `start`."""
    depth = 0
    for place in range(start, len(text)):
        if text[place] == "(":
            depth += 1
        elif text[place] == ")":
            depth -= 1
            if depth == 0:
                return place
    raise ValueError(f"a bracket does not close in {text[:80]!r}")


def _instruction(name: str, text: str) -> Instruction:
    end = _closing(text, 0) + 1 if text.startswith("(") else text.index(" ")
    kind, rest = text[:end], text[end:].lstrip()
    opening = rest.index("(")
    closing = _closing(rest, opening)
    inside, attributes = rest[opening + 1 : closing], rest[closing + 1 :]
    called = {}
    for match in _CALLED.finditer(attributes):
        after = attributes[match.end() :]
        names = after[: after.index("}")] if after.startswith("{") else after.split(",", 1)[0].split(" ", 1)[0]
        called[match.group(1)] = tuple(_NAME.findall(names))
    return Instruction(
        name, rest[:opening], shapes_of(kind), tuple(_NAME.findall(inside)), called, attributes, inside.strip()
    )


def trip_count(module: Module, caller: Computation, loop: Instruction) -> int:
    """Trip count of a `while`.

    Loops count from a constant (0 if it is not seen) to a constant in the condition, or comes into the loop
    with its state: those of `lax.scan` and `fori_loop` in steps of one, those of the compiler's own rings, which it
    unrolls, in steps of two.

    Raises:
      ValueError: the end or the step is not a constant.
    """
    known = re.search(r'known_trip_count":?\{"n":"(\d+)"', loop.text)
    if known:
        return int(known.group(1))
    condition = module.computations[loop.called["condition"][0]]
    compare = condition.instructions[condition.root]
    while compare.opcode in ("fusion", "copy", "bitcast") and compare.called.get("calls"):
        inner = module.computations[compare.called["calls"][0]]
        arguments = [condition.instructions[name] for name in compare.operands]
        compare = inner.instructions[inner.root]
        sides = [_through(inner, name) for name in compare.operands]
        sides = [arguments[int(s.literal)] if s.opcode == "parameter" else s for s in sides]
        break
    else:
        sides = [condition.instructions[name] for name in compare.operands]
    values = [_constant(module, caller, condition, loop, side) for side in sides]
    direction = re.search(r"direction=(\w+)", compare.text)
    if compare.opcode != "compare" or direction is None or direction.group(1) not in ("LT", "GT"):
        raise ValueError(f"the loop {loop.name} does not count up to a number ({compare.opcode})")
    counter, end = (0, 1) if direction.group(1) == "LT" else (1, 0)
    last = values[end]
    if last is None:
        raise ValueError(f"the loop {loop.name} has no constant end")
    return -(-(last - (values[counter] or 0)) // _step(module, caller, loop, sides[counter]))


def _step(module: Module, caller: Computation, loop: Instruction, counter: Instruction) -> int:
    """The counter's increment per round."""
    body = module.computations[loop.called["body"][0]]
    place = re.search(r"index=(\d+)", counter.text)
    root = body.instructions[body.root]
    if place is None or root.opcode != "tuple":
        raise ValueError(f"the loop {loop.name} has no counter in its state")
    computation, added = body, _through(body, root.operands[int(place.group(1))])
    outside: tuple[str, ...] = ()
    if added.opcode == "fusion" and len(added.shapes) == 1:
        outside = added.operands
        computation = module.computations[added.called["calls"][0]]
        added = _through(computation, computation.root)
    for name in added.operands if added.opcode == "add" else ():
        side = _through(computation, name)
        if side.opcode == "parameter" and outside:
            side = _through(body, outside[int(side.literal)])
        value = _constant(module, caller, body, loop, side)
        at = re.search(r"index=(\d+)", side.text)
        if value and not (side.opcode == "get-tuple-element" and at and at.group(1) == place.group(1)):
            return value
    raise ValueError(f"the loop {loop.name} does not count in constant steps ({added.opcode})")


def _through(computation: Computation, name: str) -> Instruction:
    found = computation.instructions[name]
    while found.opcode in ("copy", "bitcast", "convert") and found.operands:
        found = computation.instructions[found.operands[0]]
    return found


def _constant(module, caller, condition, loop, side: Instruction) -> int | None:
    """The value of one side of a loop's comparison, when the loop begins."""
    if side.opcode == "constant":
        return int(side.literal)
    index = re.search(r"index=(\d+)", side.text)
    if side.opcode != "get-tuple-element" or index is None:
        return None
    state = _through(caller, loop.operands[0])
    if state.opcode != "tuple":
        return None
    source = _through(caller, state.operands[int(index.group(1))])
    return int(source.literal) if source.opcode == "constant" and source.literal.lstrip("-").isdigit() else None
