"""What a stage of a recipe hands to the engine: a loss, batches, parameters, an evaluation."""

import dataclasses
import json
import logging
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.sharding import Mesh

from kanana_jax import config as config_lib
from kanana_jax.data import filters as filters_lib
from kanana_jax.data.read import sources
from kanana_jax.data.stream import heldout, mixture, pipeline
from kanana_jax.data.stream.cached import CachedStream
from kanana_jax.data.stream.teacher_cache import TeacherCache
from kanana_jax.data.tokens.tokenizer import Tokenizer
from kanana_jax.errors import ConfigError
from kanana_jax.evaluation import in_training
from kanana_jax.interop import model_folder
from kanana_jax.interop.lineage import origin
from kanana_jax.losses import hidden_states
from kanana_jax.models import attention, counts, transformer
from kanana_jax.models.architecture import Architecture, Runtime
from kanana_jax.parallel.mesh import rearranged
from kanana_jax.parallel.sharding import check_divisible, tree_shardings
from kanana_jax.recipe.config import RecipeConfig, StageConfig
from kanana_jax.stages import distill, pretrain
from kanana_jax.training import loop
from kanana_jax.training.step import Loss

log = logging.getLogger("kanana")


@dataclasses.dataclass(frozen=True)
class Run:
    """What all stages of one call share; `ahead`: compiled steps, by stage."""

    recipe: RecipeConfig
    stages: dict[str, StageConfig]
    prepared: dict[str, sources.PreparedSource]
    tokenizer: Tokenizer
    mesh: Mesh
    workdir: pathlib.Path
    ahead: dict[str, loop.Ahead] = dataclasses.field(default_factory=dict)

    def find(self, name: str) -> model_folder.ModelFolder:
        """The model of a stage, or in a folder."""
        return model_folder.find(self.workdir / name if name in self.stages else name)

    def check_text(
        self, name: str, architecture: Architecture, card: dict[str, Any], key: str, seq_len: int, who: str = "model"
    ) -> None:
        """Raises ConfigError if a stage's model or teacher cannot read rows of `seq_len` tokens (config `key`)."""
        tokenizer, known = self.tokenizer, card.get("tokenizer")
        if architecture.vocab_size != tokenizer.vocab_size:
            raise ConfigError(
                f"stage '{name}': the {who}'s vocab_size is {architecture.vocab_size}, the tokenizer's "
                f"{tokenizer.vocab_size}: they must be equal"
            )
        if known is not None and known != tokenizer.fingerprint:
            raise ConfigError(
                f"stage '{name}': the {who} was trained with another tokenizer ({known[:12]}…, the recipe's is "
                f"{tokenizer.fingerprint[:12]}…): set config 'tokenizer.path' to the {who}'s folder"
            )
        if seq_len > architecture.max_seq_len:
            raise ConfigError(
                f"config '{name}.{key}' is {seq_len}, beyond the {who}'s max_seq_len {architecture.max_seq_len}"
            )

    def lineage(self, name: str) -> Iterator[model_folder.ModelFolder]:
        """The model of a stage, or in a folder, and those that it was made from, the nearest first."""
        while name in self.stages:
            yield self.find(name)
            name = self.stages[name].start
        if name != "scratch":
            yield from model_folder.lineage(self.find(name))

    def implementation(self, runtime: Runtime, architecture: Architecture, seq_len: int) -> str:
        return attention.implementation(runtime, architecture, seq_len, jax.devices()[0].platform)

    def position(self, stage: StageConfig) -> dict[str, Any] | None:
        """Where `data_after` left the sources, or the last stage that this one comes from and that read any."""
        name = stage.data_after or stage.start
        while name in self.stages:
            file = self.workdir / name / "data_state.json"
            if file.is_file():
                return json.loads(file.read_text())
            name = self.stages[name].start
        return None

    def stream(self, name: str, stage: StageConfig, rows, batch_size: int, seq_len: int, start) -> pipeline.BatchStream:
        filters = filters_lib.Filters(self.recipe.filters)
        judges = {n: filters.of(n, s.lang, stage.select.get(n, {})) for n, s in self.prepared.items()}
        return pipeline.BatchStream(
            self.prepared,
            mixture.normalised(stage.mixture, list(self.recipe.sources), f"{name}.mixture"),
            self.tokenizer,
            judges,
            self.recipe.data,
            rows=rows,
            batch_size=batch_size,
            seq_len=seq_len,
            seed=self.recipe.seed,
            start=start,
        )

    def about_rows(self, name: str, stage: StageConfig) -> dict[str, Any]:
        """What decides a stage's rows, by config key."""
        filters = {"filters": dataclasses.asdict(self.recipe)["filters"], "select": dataclasses.asdict(stage)["select"]}
        return {
            "seed": self.recipe.seed,
            "mixture": mixture.normalised(stage.mixture, list(self.recipe.sources), f"{name}.mixture"),
            "data.lanes": self.recipe.data.lanes,
            "data_after": config_lib.fingerprint(self.position(stage)),
            "sources": config_lib.fingerprint({n: s.folder.name for n, s in self.prepared.items()}),
            **{key: config_lib.fingerprint(value) for key, value in filters.items()},
        }


@dataclasses.dataclass(frozen=True)
class Training:
    """A stage for the engine, and what it costs.

    Attributes:
      architecture: of its model.
      flops_per_token, teacher_flops: exact matmul FLOPs on one token, of the model's training and of its teacher.
      cache: of the teacher that it learns from, if it does.
      task: for `loop.train`.
    """

    architecture: Architecture
    flops_per_token: float
    teacher_flops: float
    cache: TeacherCache | None
    task: loop.Task


def training(name: str, stage: StageConfig, run: Run, parent: model_folder.ModelFolder | None) -> Training:
    """Puts a training stage together.

    Args:
      parent: where its parameters come from; None: from scratch.

    Raises:
      ConfigError: the model, its teacher, the text and the mesh do not fit.
    """
    recipe, mesh, tokenizer = run.recipe, run.mesh, run.tokenizer
    train, runtime = stage.train, recipe.runtime
    architecture = stage.model if parent is None else parent.architecture
    run.check_text(name, architecture, {} if parent is None else parent.card, "train.seq_len", train.seq_len)
    attends = run.implementation(runtime, architecture, train.seq_len)
    log.info(
        "stage '%s': %s parameters, %d steps of %d tokens, attention '%s' on %s, mesh %s",
        name,
        f"{counts.parameters(architecture):,}",
        train.steps,
        train.batch_tokens,
        attends,
        jax.devices()[0].platform,
        dict(mesh.shape),
    )
    logical = transformer.logical_axes(architecture, runtime)

    def make_params():
        if parent is not None:
            return model_folder.load_params(parent, runtime, mesh)
        make = jax.jit(
            lambda key: transformer.init_params(architecture, runtime, key),
            out_shardings=tree_shardings(mesh, logical),
            compiler_options=_once(architecture, mesh),
        )
        return make(jax.random.key(recipe.seed))

    made, make_frozen = _objective(name, stage, run, architecture)
    teacher_flops = made.teacher_flops(train.seq_len)
    position, cache = run.position(stage), _cache(name, stage, run)

    def stream(rows):
        rows_of = run.stream(name, stage, rows, train.batch_size, train.seq_len, position)
        if cache is None:
            return rows_of
        about, top_k = run.about_rows(name, stage), stage.distill.top_k
        return CachedStream(rows_of, rows, cache, steps=train.steps, stage=name, about=about, top_k=top_k)

    held = heldout.heldout_rows(run.prepared, tokenizer, train.seq_len, recipe.evaluation.max_bytes)
    flops_per_token = counts.train_flops_per_token(architecture, train.seq_len)
    return Training(
        architecture,
        flops_per_token,
        teacher_flops,
        cache,
        loop.Task(
            name=name,
            loss=made.loss,
            make_params=make_params,
            drawn=parent is None,
            abstract_params=transformer.abstract_params(architecture, runtime),
            logical_axes=logical,
            stream=stream,
            flops_per_token=flops_per_token + teacher_flops,
            sizes=pretrain.sizes(architecture),
            evaluate=pretrain.make_evaluation(
                architecture,
                runtime,
                attends,
                held,
                mesh,
                batch_size=recipe.evaluation.batch_size,
                chunk=train.loss_chunk,
            ),
            make_frozen=make_frozen,
            questions=None
            if stage.tasks is None
            else loop.Questions(
                stage.tasks.every,
                in_training.make_ask(stage.tasks, architecture, runtime, tokenizer, mesh, recipe.seed),
            ),
        ),
    )


def _once(architecture: Architecture, mesh: Mesh) -> dict[str, Any] | None:
    """Compiler options of a program that makes a small model on a CPU and runs once.

    Optimising it costs more than it saves: of 2.4M parameters, compiling takes 2.1 seconds of a core instead of 8.5,
    and running 0.4 instead of 0.05.
    """
    small = counts.parameters(architecture) < 20_000_000
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    return {"xla_backend_optimization_level": 0} if small and on_cpu else None


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A teacher that runs: its shape, how it runs and on which mesh (the student's, or one of its own)."""

    architecture: Architecture
    runtime: Runtime
    implementation: str
    mesh: Mesh


@dataclasses.dataclass(frozen=True)
class Objective:
    """A stage's loss as far as shapes decide it: what `training` and `kanana plan` have in common."""

    loss: Loss
    teacher: Teacher | None = None

    def teacher_flops(self, seq_len: int) -> float:
        """Of the teacher's forward pass on one token."""
        return counts.forward_flops_per_token(self.teacher.architecture, seq_len) if self.teacher else 0.0


def objective(
    name: str,
    stage: StageConfig,
    runtime: Runtime,
    mesh: Mesh,
    architecture: Architecture,
    teacher: Architecture | None,
    match: Callable[[], hidden_states.Matching] | None = None,
) -> Objective:
    """The loss of a training stage.

    Args:
      teacher: of a distillation from a teacher that runs.
      match: which hidden states are compared; called where the stage compares any.

    Raises:
      ConfigError: the teacher's mesh does not divide it or its rows, or an attention that cannot run on the mesh.
    """
    train, platform = stage.train, mesh.devices.flat[0].platform
    own = attention.implementation(runtime, architecture, train.seq_len, platform)
    if stage.kind == "pretrain":
        return Objective(pretrain.make_loss(architecture, runtime, own, z_loss=train.z_loss, chunk=train.loss_chunk))
    config = stage.distill
    if config.cache:
        return Objective(
            distill.make_cached_loss(architecture, runtime, own, config=config.loss, chunk=train.loss_chunk)
        )
    teaching = distill.frozen_runtime(runtime, config.dtype)
    teacher_mesh = mesh if config.mesh is None else rearranged(mesh, config.mesh)
    if teacher_mesh.shape["sequence"] != mesh.shape["sequence"]:
        raise ConfigError(
            f"config '{name}.distill.mesh.sequence' is {teacher_mesh.shape['sequence']}, the mesh's is "
            f"{mesh.shape['sequence']}: the teacher's states could only reach the student by way of every device"
        )
    rows = ("batch", train.batch_size if config.mesh else train.batch_size // train.accumulate)
    sizes = {what.replace("model", "teacher"): size for what, size in pretrain.sizes(teacher).items()}
    check_divisible(teacher_mesh, {**sizes, "the teacher's rows": rows})
    teachers = attention.implementation(teaching, teacher, train.seq_len, platform)
    made = distill.make_loss(
        architecture,
        runtime,
        own,
        teacher,
        teaching,
        teachers,
        config=config.loss,
        chunk=train.loss_chunk,
        hidden=config.hidden,
        matching=None if config.hidden is None else match(),
    )
    return Objective(made, Teacher(teacher, teaching, teachers, teacher_mesh))


def _objective(name: str, stage: StageConfig, run: Run, architecture: Architecture):
    """A stage's objective, and what loads its teacher."""
    config = stage.distill
    if config is None or config.cache:
        return objective(name, stage, run.recipe.runtime, run.mesh, architecture, None), loop.Frozen
    teacher = run.find(config.teacher)
    run.check_text(name, teacher.architecture, teacher.card, "train.seq_len", stage.train.seq_len, "teacher")

    def match() -> hidden_states.Matching:
        parts = origin(run.lineage(stage.start), run.lineage(config.teacher))
        return hidden_states.match(config.hidden, parts.layers, parts.channels, f"{name}.distill.hidden")

    made = objective(name, stage, run.recipe.runtime, run.mesh, architecture, teacher.architecture, match)

    def load() -> loop.Frozen:
        own = made.teacher
        params = model_folder.load_params(teacher, own.runtime, own.mesh)
        if own.mesh is run.mesh:
            return loop.Frozen(params)
        return distill.apart(params, own.architecture, own.runtime, own.implementation, own.mesh, run.mesh)

    return made, load


def _cache(name: str, stage: StageConfig, run: Run) -> TeacherCache | None:
    """The cached teacher that a stage learns from, if it does."""
    config = stage.distill
    if config is None or not config.cache:
        return None
    cache = TeacherCache(run.workdir / config.cache if config.cache in run.stages else pathlib.Path(config.cache))
    cache.check(
        name,
        tokenizer=run.tokenizer.fingerprint,
        seq_len=stage.train.seq_len,
        batch_size=stage.train.batch_size,
        steps=stage.train.steps,
        top_k=config.top_k,
        teacher=model_folder.fingerprint(run.find(config.teacher)) if config.teacher else None,
    )
    return cache
