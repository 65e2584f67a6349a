"""Distillation from a frozen teacher on the final logits (Kanana, arXiv:2502.18934, §2.3; arXiv:2407.14679, §3).

The teacher runs on the same packed rows as the student, with the same document masks, sharded in the same way or on the
same devices under another mesh. Alternatively, its log-probabilities come from a cache (`cache_teacher.py`).
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any, Generic, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from kanana_jax.config import to_dict
from kanana_jax.data.stream import packing
from kanana_jax.data.stream.cached import CachedRows, CachedStream, cached_shapes
from kanana_jax.data.stream.encode import TextEncoder
from kanana_jax.data.stream.packing import Array, Rows
from kanana_jax.data.stream.teacher_cache import TeacherCache, ids_dtype
from kanana_jax.errors import ConfigError
from kanana_jax.files import place
from kanana_jax.interop import model_folder
from kanana_jax.interop.card import noted
from kanana_jax.interop.lineage import origin
from kanana_jax.losses.distillation import DistillationConfig, cached_distillation, distillation
from kanana_jax.losses.hidden_states import HiddenConfig, Matching, hidden_term, match
from kanana_jax.models import counts
from kanana_jax.models.architecture import Architecture, DType
from kanana_jax.models.model import Model
from kanana_jax.models.transformer import Params
from kanana_jax.parallel.mesh import MeshConfig, rearranged
from kanana_jax.parallel.sharding import abstract_batch, abstract_tree, check_divisible, spec, tree_shardings
from kanana_jax.stages import text
from kanana_jax.stages.kind import SCRATCH, Context, Kind, Program, Shapes, StagePrograms, check_text, device_bytes
from kanana_jax.stages.text import TrainingConfig
from kanana_jax.training.step import Loss, LossOutput
from kanana_jax.training.task import Frozen, Stream, Task


@dataclasses.dataclass(frozen=True)
class DistillConfig:
    """The section `distill` of a stage.

    Attributes:
      teacher: name of an earlier stage, or a model folder; with `cache`, only compared with the cached one.
      cache: name of an earlier stage of kind 'cache_teacher', or its folder: then no teacher runs.
      top_k: number of most probable cached tokens used at each position; 0: all.
      loss: divergence, temperature, cross-entropy.
      hidden: a further loss term on hidden states.
      dtype: dtype in which the teacher is stored and runs.
      mesh: the teacher's mesh, over the same devices; None: the student's. A teacher many times the student's size
        may need a larger `tensor` axis.
    """

    teacher: str = ""
    cache: str = ""
    top_k: int = 0
    loss: DistillationConfig = DistillationConfig()
    hidden: HiddenConfig | None = None
    dtype: DType = "bfloat16"
    mesh: MeshConfig | None = None

    def __post_init__(self):
        if not self.teacher and not self.cache:
            raise ValueError("name a teacher, or a cache of a teacher")
        if self.cache and (self.loss.divergence != "forward" or self.loss.temperature != 1.0):
            raise ValueError(
                f"a cache gives divergence 'forward' at temperature 1, not '{self.loss.divergence}' at "
                f"{self.loss.temperature}: name a teacher instead"
            )
        if self.mesh is not None and (self.cache or self.hidden is not None):
            raise ValueError("'mesh' is for a teacher that runs, and such a mesh yields only logits: leave out 'mesh'")
        if self.cache and self.hidden is not None:
            raise ValueError("a cache holds no hidden states: leave out 'hidden', or name a teacher instead")
        if self.top_k < 0 or (self.top_k and not self.cache):
            raise ValueError("top_k is for a cache, and must be at least 1 (0: everything cached)")

    def references(self) -> dict[str, str]:
        given = {"distill.teacher": self.teacher, "distill.cache": self.cache}
        return {key: name for key, name in given.items() if name}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistillStage(TrainingConfig):
    """A stage of this kind."""

    distill: DistillConfig

    def __post_init__(self):
        super().__post_init__()
        if self.start == SCRATCH and self.distill.hidden is not None:
            raise ValueError("a student from scratch has no layers of its teacher: leave out 'distill.hidden'")

    def references(self) -> dict[str, str]:
        return super().references() | self.distill.references()

    def others(self) -> dict[str, str]:
        return {} if self.distill.cache else {"teacher": self.distill.teacher}


class TaughtRows(NamedTuple, Generic[Array]):
    """Rows, and the final states `[B, T, D]` of a teacher that ran on its own mesh."""

    rows: Rows[Array]
    teacher_hidden: Array


class Teacher(NamedTuple):
    """A teacher that runs, and its mesh: the student's, or one of its own over the same devices."""

    model: Model
    mesh: Mesh


def make_loss(
    model: Model,
    teacher: Model,
    *,
    config: DistillationConfig,
    chunk: int,
    hidden: HiddenConfig | None = None,
    matching: Matching | None = None,
) -> Loss:
    """Sum of the divergence (and cross-entropy) over the tokens that carry loss.

    The parameters of the teacher are the loss's other models; or only its output matrix, if the batch already has
    its final states (`apart`).

    Args:
      hidden, matching: the term on hidden states, and the states that it compares; both or neither.
    """
    caps = {"soft_cap": model.architecture.logits_softcap, "teacher_soft_cap": teacher.architecture.logits_softcap}
    taught = functools.partial(distillation, config=config, chunk=chunk, **caps)

    def loss(params: Params, batch: Rows[jax.Array] | TaughtRows[jax.Array], rng: jax.Array, others: Any) -> LossOutput:
        del rng  # nothing is sampled
        states = None
        if isinstance(batch, TaughtRows):
            rows, (hidden_BTD, matrix_VD) = batch.rows, model(params, batch.rows)
            teacher_BTD, teacher_VD = batch.teacher_hidden, others["unembedding"]
        elif hidden is None or matching is None:
            rows, (hidden_BTD, matrix_VD) = batch, model(params, batch)
            teacher_BTD, teacher_VD = teacher(jax.lax.stop_gradient(others), batch)
        else:
            rows, kept = batch, slice(None) if matching.channels is None else np.array(matching.channels)
            layers, place = np.unique(matching.teacher, return_inverse=True)
            (hidden_BTD, states_NBTD), matrix_VD = model(
                params, batch, observe=lambda taps: taps["output"], observe_layers=matching.student
            )
            (teacher_BTD, teacher_NBTD), teacher_VD = teacher(
                jax.lax.stop_gradient(others),
                batch,
                observe=lambda taps: taps["output"][..., kept],
                observe_layers=tuple(int(i) for i in layers),
            )
            states = hidden, states_NBTD, teacher_NBTD[place]
        output = taught(hidden_BTD, matrix_VD, teacher_BTD, teacher_VD, rows.targets, rows.weights)
        total, metrics = output.loss, {"divergence": output.divergence, "nll": output.nll}
        if states is not None:
            term, student_NBTD, teacher_NBTD = states
            metrics["hidden"] = hidden_term(term.kind, student_NBTD, teacher_NBTD, rows.weights)
            total += term.weight * metrics["hidden"]
        return LossOutput(total, rows.weights.sum(), metrics)

    return loss


def make_cached_loss(model: Model, *, config: DistillationConfig, chunk: int) -> Loss:
    """Like `make_loss`, for batches that contain the teacher's log-probabilities."""

    def loss(params: Params, batch: CachedRows[jax.Array], rng: jax.Array, others: None) -> LossOutput:
        del rng, others  # nothing is sampled, and the batch already has the teacher's distribution
        rows, (hidden_BTD, matrix_VD) = batch.rows, model(params, batch.rows)
        output = cached_distillation(
            hidden_BTD,
            matrix_VD,
            batch.teacher_ids,
            batch.teacher_log_probs,
            rows.targets,
            rows.weights,
            config=config,
            chunk=chunk,
            soft_cap=model.architecture.logits_softcap,
        )
        return LossOutput(output.loss, rows.weights.sum(), {"divergence": output.divergence, "nll": output.nll})

    return loss


def forward(teacher: Model, mesh: Mesh) -> Callable[[Params, Rows[jax.Array]], jax.Array]:
    """`(params, rows) → last states [B, T, D]` sharded on the student's `mesh`, jitted."""

    def last_states(params: Params, rows: Rows[jax.Array]) -> jax.Array:
        return teacher(params, rows)[0]

    return jax.jit(last_states, out_shardings=NamedSharding(mesh, spec("batch", "sequence", None)))


def apart(params: Params, teacher: Teacher, mesh: Mesh) -> Frozen:
    """A teacher that runs on its own mesh before each step; its last states and output matrix go to the student's.

    Args:
      params: on the teacher's mesh.
      mesh: the student's mesh, with the same devices in the same order (`mesh.rearranged`).
    """

    def matrix(params: Params) -> jax.Array:
        return teacher.model.bind(params).unembedding_matrix()

    run = forward(teacher.model, mesh)
    with jax.set_mesh(teacher.mesh):
        unembedding = jax.jit(matrix, out_shardings=NamedSharding(mesh, spec("vocab", "embed")))(params)

    def prepare(student: Params, rows: Rows[jax.Array], step: int, key: jax.Array) -> TaughtRows[jax.Array]:
        del student, step, key  # a teacher depends only on the rows
        with jax.set_mesh(teacher.mesh):
            return TaughtRows(rows, run(params, rows))

    return Frozen({"unembedding": unembedding}, prepare)


def running_teacher(name: str, config: DistillStage, shapes: Shapes) -> Teacher:
    """The teacher of a stage, if one runs.

    Raises:
      ConfigError: its mesh does not divide the teacher or its rows, or cannot run its attention.
    """
    train, own, mesh = config.train, config.distill, shapes.mesh
    architecture = shapes.architecture(own.teacher)
    teacher_mesh = mesh if own.mesh is None else rearranged(mesh, own.mesh)
    if teacher_mesh.shape["sequence"] != mesh.shape["sequence"]:
        raise ConfigError(
            f"config '{name}.distill.mesh.sequence' is {teacher_mesh.shape['sequence']}, but config 'mesh.sequence' is "
            f"{mesh.shape['sequence']}: the teacher's states could only reach the student through every device"
        )
    rows = ("batch", train.batch_size if own.mesh else train.batch_size // train.accumulate)
    check_divisible(teacher_mesh, {**counts.sizes(architecture, "teacher"), "the teacher's rows": rows})
    if own.mesh is not None:  # its output matrix moves to the student's mesh
        matrix = counts.sizes(architecture, "teacher").items()
        check_divisible(mesh, {what: size for what, size in matrix if size[0] in ("vocab", "embed")})
    runtime = text.frozen_runtime(shapes.runtime, own.dtype)
    return Teacher(shapes.model(architecture, train.seq_len, runtime), teacher_mesh)


def _running_loss(config: DistillStage, model: Model, teacher: Teacher, matching: Matching | None) -> Loss:
    own = config.distill
    chunk = config.train.loss_chunk
    return make_loss(model, teacher.model, config=own.loss, chunk=chunk, hidden=own.hidden, matching=matching)


def make_task(name: str, config: DistillStage, context: Context) -> tuple[Model, Task]:
    """The student, and its training for the engine.

    Raises:
      ConfigError: the student, the teacher, the text and the mesh do not fit.
      UserError: hidden states are to be compared, but no surgery leads from the teacher to the student.
    """
    own, train, shapes = config.distill, config.train, context.shapes
    model = text.trained_model(name, config, shapes)
    if own.cache:
        loss = make_cached_loss(model, config=own.loss, chunk=train.loss_chunk)
        cache = find_cache(name, config, context)

        def stream(rows: np.ndarray) -> Stream:
            encoder, position = TextEncoder(context.tokenizer), context.position(config)
            plain = context.stream(name, config, encoder, rows, train.batch_size, train.seq_len, position)
            about = context.about_rows(name, config)
            return CachedStream(plain, rows, cache, steps=train.steps, stage=name, about=about, top_k=own.top_k)

        return model, text.make_task(name, config, context, model, loss, stream=stream)

    folder = context.find(own.teacher)
    if config.start != SCRATCH and context.find(config.start).path.resolve() == folder.path.resolve():
        told = "stage '%s': the student starts as a copy of its teacher (%s), so at first there is nothing to learn"
        text.log.warning(told, name, folder.path)
    check_text(name, context, folder.architecture, folder, "train.seq_len", train.seq_len, "teacher")
    matching = None
    if own.hidden is not None:
        parts = origin(context.lineage(config.start), context.lineage(own.teacher))
        matching = match(own.hidden, parts.layers, parts.channels, f"{name}.distill.hidden")
    teacher = running_teacher(name, config, shapes)

    def load() -> Frozen:
        params = context.load(folder, teacher.model, teacher.mesh)
        return Frozen(params) if teacher.mesh is shapes.mesh else apart(params, teacher, shapes.mesh)

    flops = {"teacher": counts.forward_flops_per_token(teacher.model.architecture, train.seq_len)}
    loss = _running_loss(config, model, teacher, matching)
    return model, text.make_task(name, config, context, model, loss, make_frozen=load, flops=flops)


def cache_folder(config: DistillStage, context: Context) -> pathlib.Path:
    """The folder of the cached teacher that a stage names."""
    cache = config.distill.cache
    return context.workdir / cache if cache in context.shapes.stages else place(cache)


def find_cache(name: str, config: DistillStage, context: Context) -> TeacherCache:
    """The cached teacher of a stage.

    Raises:
      ConfigError, UserError: there is no cache, or it was made from other rows or by another teacher.
    """
    own, train, cache = config.distill, config.train, TeacherCache(cache_folder(config, context))
    cache.check(
        name,
        tokenizer=TextEncoder(context.tokenizer).fingerprint,
        seq_len=train.seq_len,
        batch_size=train.batch_size,
        steps=train.steps,
        top_k=own.top_k,
        teacher=model_folder.fingerprint(context.find(own.teacher)) if own.teacher else None,
    )
    return cache


def run(name: str, config: DistillStage, context: Context) -> None:
    """Trains a student."""
    model, task = make_task(name, config, context)
    cache = noted(cache_folder(config, context), context.workdir) if config.distill.cache else None
    text.train(name, config, context, model, task, cache)


def programs(name: str, config: DistillStage, shapes: Shapes) -> StagePrograms:
    """The step, preceded by the teacher if it runs on its own mesh."""
    own, train, mesh = config.distill, config.train, shapes.mesh
    model, about = text.trained_model(name, config, shapes), {"distill": to_dict(own)}
    if own.cache:
        k, log_probs = _cached(name, own, shapes)
        ids = ids_dtype(model.architecture.vocab_size)
        batch = abstract_batch(mesh, cached_shapes(train.batch_size, train.seq_len, k, ids, log_probs))
        loss = make_cached_loss(model, config=own.loss, chunk=train.loss_chunk)
        return text.step_programs(name, config, shapes, model, loss, batch=batch, about=about)
    teacher = running_teacher(name, config, shapes)
    shape, runtime = teacher.model.architecture, teacher.model.runtime
    matching = None if own.hidden is None else _any_match(name, own.hidden, model.architecture, shape)
    shardings = tree_shardings(teacher.mesh, teacher.model.logical_axes())
    params = abstract_tree(teacher.model.abstract_params(), shardings)
    batch, others, before = None, params, ()
    held = device_bytes(params)
    if teacher.mesh is not mesh:
        rows = abstract_batch(mesh, packing.shapes(train.batch_size, train.seq_len))
        before = (Program("teacher", forward(teacher.model, mesh), {"params": params, "batch": rows}, teacher.mesh),)
        matrix = (shape.vocab_size, shape.embed_dim)
        others = {"unembedding": _array(matrix, runtime.param_dtype, mesh, "vocab", "embed")}
        states = (train.batch_size, train.seq_len, shape.embed_dim)
        batch = TaughtRows(rows, _array(states, runtime.compute_dtype, mesh, "batch", "sequence", None))
        held += device_bytes(others)
    return text.step_programs(
        name,
        config,
        shapes,
        model,
        _running_loss(config, model, teacher, matching),
        batch=batch,
        others=others,
        before=before,
        architectures={"teacher": shape},
        flops=counts.forward_flops_per_token(shape, train.seq_len),
        resident={"teacher": held},
        about=about,
    )


def _any_match(name: str, hidden: HiddenConfig, student: Architecture, teacher: Architecture) -> Matching:
    """A matching of the same cost as the run's; the choice of layers and channels does not affect it."""
    layers = tuple(i * teacher.num_layers // student.num_layers for i in range(student.num_layers))
    channels = None if teacher.embed_dim == student.embed_dim else tuple(range(student.embed_dim))
    return match(hidden, layers, channels, f"{name}.distill.hidden")


def _cached(name: str, config: DistillConfig, shapes: Shapes) -> tuple[int, str]:
    """Entries per token of a cache that may not exist yet, and the dtype of its log-probabilities."""
    stage = shapes.stages.get(config.cache)
    written = getattr(stage, "cache_teacher", None)
    k = config.top_k or (written.k if written else 0)
    if not k:
        raise ConfigError(f"to plan a distillation from a cache, set config '{name}.distill.top_k', or add its stage")
    return k, written.log_probs if written else "float16"


def _array(shape: tuple[int, ...], dtype: str, mesh: Mesh, *names: str | None) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.dtype(dtype), sharding=NamedSharding(mesh, spec(*names)))


KIND = Kind("distill", DistillStage, run, free=(*text.FREE, "distill.mesh"), decisive=text.decisive, programs=programs)
