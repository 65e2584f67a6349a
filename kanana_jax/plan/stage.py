"""A training stage as programs to be compiled: the engine's own step on shapes alone, no array is ever made."""

import dataclasses
import math
import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from kanana_jax.errors import ConfigError, UserError
from kanana_jax.interop import model_folder
from kanana_jax.losses import hidden_states
from kanana_jax.models import counts, transformer
from kanana_jax.models.architecture import Architecture, Runtime
from kanana_jax.parallel.sharding import spec, tree_shardings
from kanana_jax.plan import costs, hlo
from kanana_jax.plan.topology import Slice, traffic
from kanana_jax.recipe.config import RecipeConfig, StageConfig
from kanana_jax.recipe.task import Objective, objective
from kanana_jax.stages import distill, pretrain
from kanana_jax.surgery import prune
from kanana_jax.training import loop

TRAINED = ("pretrain", "distill")


def architecture_of(name: str, recipe: RecipeConfig, stages: dict[str, StageConfig]) -> Architecture:
    """The shape of a stage's model, or of a folder's, without its weights.

    Raises:
      ConfigError: the folder is not here and `plan.models` does not know it, or only a run can tell.
    """
    if name in stages:
        stage = stages[name]
        if stage.model is not None:
            return stage.model
        before = architecture_of(stage.start, recipe, stages)
        if stage.kind == "prune":
            return prune.shape(before, stage.prune.shape)
        if stage.kind == "upscale":
            return dataclasses.replace(before, num_layers=stage.upscale.num_layers)
        if stage.kind == "search":
            raise ConfigError(f"what stage '{name}' finds is not known before it has run: name its model folder")
        return before
    known = recipe.plan.models.get(pathlib.Path(name).name.replace(".", "_"))
    try:
        return model_folder.find(name).architecture
    except UserError as error:
        if known is not None:
            return known
        raise ConfigError(f"{error}; to plan without it, say its shape in config 'plan.models'") from error


@dataclasses.dataclass(frozen=True)
class Program:
    """A function to be compiled.

    Attributes:
      name: `step`, or `teacher` where that runs on a mesh of its own.
      function: jitted.
      arguments: shapes with shardings, by what they are.
      mesh: that it is compiled under.
    """

    name: str
    function: Any
    arguments: dict[str, Any]
    mesh: Mesh

    def trace(self) -> Any:
        with jax.set_mesh(self.mesh):
            return self.function.trace(*self.arguments.values())


@dataclasses.dataclass(frozen=True)
class StagePrograms:
    """A stage on a mesh, ready to be compiled.

    Attributes:
      flops_per_token: exact and causal, of training and of the teacher.
      resident: bytes a device by what lies there all the time: parameters, optimizer, teacher.
      batch_bytes: of the batches that a step reads, a device.
    """

    name: str
    stage: StageConfig
    runtime: Runtime
    architecture: Architecture
    teacher: Architecture | None
    mesh: Mesh
    flops_per_token: float
    resident: dict[str, int]
    batch_bytes: int
    programs: tuple[Program, ...]


def prepare(name: str, recipe: RecipeConfig, stages: dict[str, StageConfig], mesh: Mesh) -> StagePrograms:
    """Puts the programs of a training stage together.

    Raises:
      ConfigError: not a training stage, a shape that is not known, or a mesh that does not divide it.
    """
    stage, runtime = stages[name], recipe.runtime
    train = stage.train
    architecture = architecture_of(name, recipe, stages)
    if train.seq_len > architecture.max_seq_len:
        raise ConfigError(
            f"config '{name}.train.seq_len' is {train.seq_len}, beyond the model's max_seq_len "
            f"{architecture.max_seq_len}"
        )
    loop.check_divisible(mesh, pretrain.sizes(architecture), train)
    config, teacher = stage.distill, None
    if config is not None and not config.cache:
        teacher = architecture_of(config.teacher, recipe, stages)

    def match() -> hidden_states.Matching:
        # Which layers and channels belong together costs nothing: any will do.
        layers = tuple(i * teacher.num_layers // architecture.num_layers for i in range(architecture.num_layers))
        channels = None if teacher.embed_dim == architecture.embed_dim else tuple(range(architecture.embed_dim))
        return hidden_states.match(config.hidden, layers, channels, f"{name}.distill.hidden")

    made = objective(name, stage, runtime, mesh, architecture, teacher, match)
    abstract = transformer.abstract_params(architecture, runtime)
    logical = transformer.logical_axes(architecture, runtime)
    step = loop.sharded_step(made.loss, abstract, logical, train, mesh, recipe.seed)
    batch = _batch(stage, stages, mesh)
    frozen, before = _frozen(made, mesh, batch)
    resident = {"parameters": _bytes(step.state.params), "optimizer": _bytes(step.state.opt_state)}
    if made.teacher is not None:
        resident["teacher"] = _bytes(before[0].arguments["params"] if before else frozen)
    if before:
        resident["teacher"] += _bytes(frozen)
        states = (train.batch_size, train.seq_len, teacher.embed_dim)
        batch["teacher_hidden"] = _array(states, made.teacher.runtime.compute_dtype, mesh, "batch", "sequence", None)
    program = Program("step", step.function, {"state": step.state, "batch": batch, "frozen": frozen}, mesh)
    return StagePrograms(
        name,
        stage,
        runtime,
        architecture,
        teacher,
        mesh,
        counts.train_flops_per_token(architecture, train.seq_len) + made.teacher_flops(train.seq_len),
        resident,
        _bytes(batch),
        (*before, program),
    )


def _array(shape: tuple[int, ...], dtype: Any, mesh: Mesh, *axes: str | None) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.dtype(dtype), sharding=NamedSharding(mesh, spec(*axes)))


def _batch(stage: StageConfig, stages: dict[str, StageConfig], mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """What `sharding.put_batch` makes of a stream's rows (`packing.Row`, `CachedStream`)."""
    train, config = stage.train, stage.distill
    shape = (train.batch_size, train.seq_len)
    kinds = dict.fromkeys(("inputs", "targets", "segment_ids", "positions"), "int32") | {"weights": "float32"}
    batch = {key: _array(shape, kind, mesh, "batch", "sequence") for key, kind in kinds.items()}
    batch["source"] = _array(shape[:1], "int32", mesh, "batch")
    if config is not None and config.cache:
        cached = stages[config.cache].cache_teacher if config.cache in stages else None
        k = config.top_k or (cached.k if cached else 0)
        if not k:
            raise ConfigError("to plan a distillation from a cache, set config 'distill.top_k', or add its stage")
        kind = cached.log_probs if cached else "float16"
        for key, dtype in (("teacher_ids", "int32"), ("teacher_log_probs", kind)):
            batch[key] = _array((*shape, k), dtype, mesh, "batch", "sequence")
    return batch


def _frozen(made: Objective, mesh: Mesh, batch: dict[str, Any]) -> tuple[Any, tuple[Program, ...]]:
    """The step's frozen argument, and what runs before it: a teacher on a mesh of its own."""
    if made.teacher is None:
        return None, ()
    shape, runtime, own = made.teacher.architecture, made.teacher.runtime, made.teacher.mesh
    shardings = tree_shardings(own, transformer.logical_axes(shape, runtime))
    params = jax.tree.map(
        lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s),
        transformer.abstract_params(shape, runtime),
        shardings,
    )
    if own is mesh:
        return params, ()
    forward = distill.forward(shape, runtime, made.teacher.implementation, mesh)
    matrix = _array((shape.vocab_size, shape.embed_dim), runtime.param_dtype, mesh, "vocab", "embed")
    arguments = {"params": params, "batch": dict(batch)}
    return {"unembedding": matrix}, (Program("teacher", forward, arguments, own),)


def _bytes(tree: Any) -> int:
    """Bytes that a device holds of a tree of sharded shapes."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree)
    )


def saved_activations(traced: Any, made: StagePrograms) -> int:
    """Bytes a device of what the forward loop over layers keeps for the backward pass (none: layers are unrolled).

    Read from the program before it is compiled: the stacked results of the scan over layers that keeps their inputs,
    `[L, b, T, D]`. These are whole over `tensor`; what is kept of heads and MLP is cut over it too.
    """
    train, mesh, width = made.stage.train, made.mesh.shape, made.architecture.embed_dim
    layers = made.architecture.num_layers
    inputs = (layers, train.batch_size // train.accumulate, train.seq_len, width)
    parts = mesh["data"] * mesh["fsdp"] * mesh["sequence"]
    for equation in _equations(traced.jaxpr.jaxpr):
        if equation.primitive.name != "scan" or equation.params["length"] != layers:
            continue
        kept = [variable.aval for variable in equation.outvars[equation.params["num_carry"] :]]
        if inputs in {aval.shape for aval in kept}:
            here = (a for a in kept if "host" not in str(getattr(a, "memory_space", "")).lower())
            return sum(
                a.size * a.dtype.itemsize // (parts * (1 if a.shape[-1] == width else mesh["tensor"])) for a in here
            )
    return 0


def _equations(jaxpr: Any):
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(equation.params, is_leaf=lambda v: hasattr(v, "eqns") or hasattr(v, "jaxpr")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _equations(inner)


@dataclasses.dataclass(frozen=True)
class Measured:
    """What the compiler made of a program, on one device; of one that does not fit only the memory.

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
    arguments = sum(_bytes(tree) for tree in program.arguments.values())
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
    """How much memory a refused program asked for; 0 where the compiler does not say."""
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
