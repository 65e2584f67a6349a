"""Training on text: shared by the kinds of stages that train a language model and evaluate it on held-out text."""

import dataclasses
import logging
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from kanana_jax.data.stream import packing
from kanana_jax.data.stream.encode import Encoder, TextEncoder
from kanana_jax.data.tokens.folder import end_ids
from kanana_jax.data.tokens.tokenizer import continuation, encode_prompt
from kanana_jax.evaluation.in_training import TasksConfig
from kanana_jax.files import write_json
from kanana_jax.inference.generate import generate
from kanana_jax.interop import model_folder
from kanana_jax.interop.card import card as new_card
from kanana_jax.interop.card import parent_path
from kanana_jax.interop.model_folder import ModelFolder
from kanana_jax.models import counts, lora, reward, transformer
from kanana_jax.models.architecture import Architecture, DType, Runtime
from kanana_jax.models.embedding import Embedding
from kanana_jax.models.lora import LoraConfig
from kanana_jax.models.model import Model
from kanana_jax.models.transformer import Params
from kanana_jax.parallel import multihost
from kanana_jax.parallel.sharding import abstract_batch, abstract_tree, tree_shardings
from kanana_jax.stages.adapters import (
    Added,
    WithBase,
    abstract_adapters,
    adapted_loss,
    adapted_task,
    base_model,
    write_adapter,
)
from kanana_jax.stages.kind import (
    SCRATCH,
    Context,
    Program,
    ReadingConfig,
    Shapes,
    StagePrograms,
    check_length,
    check_text,
    device_bytes,
)
from kanana_jax.training import heldout, loop
from kanana_jax.training.step import Batch, Loss, Others
from kanana_jax.training.task import BITS_PER_BYTE, Evaluation, Frozen, Score, Stream, Task, TrainConfig

log = logging.getLogger("kanana")
# Samples of the model that a stage starts from, if it was not made by an earlier stage.
BEFORE = "samples_before.json"
# Makes an evaluation, see `heldout.make_evaluation`.
Evaluate = Callable[..., Callable[[Params], Evaluation] | None]
# Keys of `TrainingConfig` that may change between two starts: none of them affects a loss.
TRAIN_FREE = ("train.accumulate", "train.loss_chunk", "train.log_every", "train.eval_every", "train.checkpoint")
FREE = ("tasks", *TRAIN_FREE)


def decisive(section: Mapping[str, Any]) -> tuple[str, ...]:
    """Keys of `TRAIN_FREE` that decide when a stage ends: patience counts evaluations."""
    return ("train.eval_every",) if section.get("train", {}).get("patience") else ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig(ReadingConfig):
    """The section of a stage that trains.

    Attributes:
      model: the architecture, if the stage starts from scratch.
      vocab_multiple: vocab_size is rounded up to a multiple of this, so that `mesh.tensor` divides it; ids beyond the
        tokenizer's are in the softmax like others, but are never a target and never sampled.
      train: length, batch, optimizer, logging, checkpoints.
      tasks: benchmarks that run while it trains.
      lora: low-rank adapters are trained in place of the model's own weights, and merged at the end.
    """

    model: Architecture | None = None
    vocab_multiple: int = 1
    train: TrainConfig
    tasks: TasksConfig | None = None
    lora: LoraConfig | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.start == SCRATCH and self.model is None:
            raise ValueError("a stage that starts from 'scratch' needs a model section")
        if self.start != SCRATCH and self.model is not None:
            raise ValueError(f"the stage starts from the model of '{self.start}': remove its model section")
        if self.start == SCRATCH and self.lora is not None:
            raise ValueError(
                "lora adapts an existing model: name a stage or a folder in 'start', or leave out 'lora'"
            )
        if self.vocab_multiple < 1 or (self.vocab_multiple > 1 and self.model is None):
            raise ValueError("vocab_multiple pads a new model's vocabulary, and must be at least 1")
        if self.model is not None:
            padded = -(-self.model.vocab_size // self.vocab_multiple) * self.vocab_multiple
            object.__setattr__(self, "model", dataclasses.replace(self.model, vocab_size=padded))


def trained_model(name: str, config: TrainingConfig, shapes: Shapes) -> Model:
    """The model that a stage trains.

    Raises:
      ConfigError: rows beyond the model's length, or an attention that cannot run on the mesh.
    """
    architecture = config.model or shapes.architecture(config.start)
    check_length(name, architecture, "train.seq_len", config.train.seq_len)
    return shapes.model(architecture, config.train.seq_len)


def frozen_runtime(runtime: Runtime, dtype: DType) -> Runtime:
    """The runtime of a model that is not trained: stored and run in one dtype, without rematerialisation."""
    return dataclasses.replace(runtime, param_dtype=dtype, compute_dtype=dtype, remat="none")


def make_task(
    name: str,
    config: TrainingConfig,
    context: Context,
    model: Model,
    loss: Loss,
    *,
    encoder: Encoder | None = None,
    stream: Callable[[np.ndarray], Stream] | None = None,
    evaluation: Evaluate = heldout.make_evaluation,
    score: Score = BITS_PER_BYTE,
    make_frozen: Callable[[], Frozen] = Frozen,
    flops: Mapping[str, float] | None = None,
    added: Added = Added(),
    load_base: Callable[[Model], Params] | None = None,
) -> Task:
    """A stage as the engine's task: its parameters, its rows, its evaluation.

    Args:
      encoder: makes sequences from records; default: texts.
      stream: makes the batches, if they are more than rows of the mixture.
      evaluation: makes the evaluation on held-out records.
      score: the figure of the evaluation that ranks checkpoints.
      make_frozen: loads the stage's other models.
      flops: FLOPs per token of the other models.
      added: the parts that the stage adds to the model.
      load_base: loads the base under adapters; default: the model that the stage starts from.

    Raises:
      ConfigError: the model and the tokenizer do not fit.
    """
    shapes, train, mesh = context.shapes, config.train, context.shapes.mesh
    parent = None if config.start == SCRATCH else context.find(config.start)
    check_text(name, context, model.architecture, parent, "train.seq_len", train.seq_len)
    log.info(
        "stage '%s': %s parameters, %d steps of %d tokens, attention '%s' on %s, mesh %s",
        name,
        f"{counts.parameters(model.architecture):,}",
        train.steps,
        train.batch_tokens,
        model.implementation,
        mesh.devices.flat[0].platform,
        dict(mesh.shape),
    )
    encoder = encoder or TextEncoder(context.tokenizer)

    def make_params() -> Params:
        own = new_params(model, shapes) if parent is None else context.load(parent, model)
        return {**own, **added.make()}

    def rows_of_mixture(rows: np.ndarray) -> Stream:
        start = context.position(config)
        return context.stream(name, config, encoder, rows, train.batch_size, train.seq_len, start)

    held = context.heldout(encoder, train.seq_len, config)
    task = Task(
        name=name,
        loss=loss,
        make_params=make_params,
        fresh=parent is None,
        abstract_params={**model.abstract_params(), **added.abstract},
        logical_axes={**model.logical_axes(), **added.axes},
        stream=stream or rows_of_mixture,
        flops={"train": counts.train_flops_per_token(model.architecture, train.seq_len), **(flops or {})},
        sizes=counts.sizes(model.architecture),
        evaluate=evaluation(model, held, mesh, batch_size=context.evaluation.batch_size, chunk=train.loss_chunk),
        score=score,
        make_frozen=make_frozen,
        questions=None if config.tasks is None else context.ask(config.tasks, model),
    )
    if config.lora is None or parent is None:
        return task
    load = load_base or (lambda held: context.load(parent, held))
    return adapted_task(config.lora, task, model, shapes, train.seq_len, parent, load, added)


def new_params(model: Model, shapes: Shapes) -> Params:
    """Newly initialised parameters, sharded."""
    make = jax.jit(
        lambda key: transformer.init_params(model.architecture, model.runtime, key),
        out_shardings=tree_shardings(shapes.mesh, model.logical_axes()),
        compiler_options=_once(model.architecture, shapes),
    )
    return make(jax.random.key(shapes.seed))


def _once(architecture: Architecture, shapes: Shapes) -> dict[str, Any] | None:
    """Compiler options for a program that initialises a small model on a CPU and runs once.

    Optimising it costs more than it saves: for 2.4M parameters, compiling takes 2.1 seconds of a core instead of 8.5,
    and running 0.4 instead of 0.05.
    """
    small = counts.parameters(architecture) < 20_000_000
    on_cpu = shapes.mesh.devices.flat[0].platform == "cpu"
    return {"xla_backend_optimization_level": 0} if small and on_cpu else None


def train(
    name: str,
    config: TrainingConfig,
    context: Context,
    model: Model,
    task: Task,
    cache: str | None = None,
    embedding: Embedding | None = None,
) -> None:
    """Trains to the end and writes the stage's folder: model, samples, data position and report.

    Args:
      cache: folder of the stage's cached teacher, recorded in `model.json`.
      embedding: the way the model makes text vectors, likewise recorded.

    Raises:
      UserError: see `training/loop.py`.
    """
    shapes, folder = context.shapes, context.workdir / name
    parent = None if config.start == SCRATCH else context.find(config.start)
    ends = ends_of(config, context, model)
    headless = reward.HEAD not in task.abstract_params
    speaks = headless and model.causal and embedding is None  # a model of rewards or vectors writes no text
    if speaks and parent is not None and config.start not in shapes.stages:
        _sample_before(context, model, parent, folder / BEFORE, ends)
    ahead = context.ahead.get(name)
    result = loop.train(task, config.train, shapes.mesh, folder, shapes.seed, ahead=ahead, more_writers=context.writers)
    with jax.set_mesh(shapes.mesh):
        samples = _samples(context, model, result.params, ends) if speaks else []
    if jax.process_index() == 0:
        write_json(folder / "data_state.json", result.data)
        write_json(folder / "data_report.json", context.data_report(result.data))
        write_json(folder / "samples.json", [{"step": result.step, **sample} for sample in samples])
    card = new_card(
        model.architecture,
        tokens=result.tokens,
        train_flops=task.flops["train"] * result.tokens,
        teacher_flops=sum(flops for role, flops in task.flops.items() if role != "train") * result.tokens,
        parent=None if parent is None else parent_path(parent.path, folder / "model"),
        tokenizer=context.tokenizer.fingerprint,
        stage=name,
        evaluation=result.evaluation,
        flops_six_n_d=counts.six_n_d(model.architecture, result.tokens),
    )
    if result.work:
        flops: Any = {**card["flops"], **{role: spent["flops"] for role, spent in result.work.items()}}
        card["flops"] = flops
        card["other_tokens"] = {role: int(spent["tokens"]) for role, spent in result.work.items()}
    if cache is not None:
        card["cache"] = cache
    if embedding is not None:
        card["embedding"] = embedding.to_dict()
    tokenizer = context.tokenizer
    eos = ends if len(ends) > 1 else tokenizer.eos_id
    special = {"bos_token_id": tokenizer.bos_id, "eos_token_id": eos, "pad_token_id": None}
    if config.lora is not None and parent is not None and headless:  # its format has no place for a reward head
        write_adapter(folder / "adapter", config.lora, result.trained, parent)
    parts = (model.architecture, result.params, card, context.workdir / "tokenizer", special)
    model_folder.write(folder / "model", *parts, head=result.params.get(reward.HEAD))


def ends_of(config: TrainingConfig, context: Context, model: Model) -> list[int]:
    """The ids that end a text of a stage's model, EOS first; all ends of a model from elsewhere are kept."""
    known = range(model.architecture.vocab_size)
    own = () if config.start == SCRATCH else end_ids(context.find(config.start).path)
    return list(
        dict.fromkeys([context.tokenizer.eos_id, *(i for i in (*context.tokenizer.end_ids, *own) if i in known)])
    )


def _sample_before(context: Context, model: Model, parent: ModelFolder, file: pathlib.Path, ends: list[int]) -> None:
    """Samples of an outside model before it is trained; an earlier stage's samples are in that stage's folder."""
    there = jax.process_index() == 0 and file.is_file()
    if not context.samples.prompts or multihost.merge_states({"there": True} if there else {}):
        return
    with jax.set_mesh(context.shapes.mesh):
        samples = _samples(context, model, context.load(parent, model), ends)
    if jax.process_index() == 0:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, [{"step": 0, **sample} for sample in samples])


def _samples(context: Context, model: Model, params: Params, ends: list[int]) -> list[dict[str, str]]:
    config, tokenizer = context.samples, context.tokenizer
    flat = [(lang, prompt) for lang, prompts in config.prompts.items() for prompt in prompts]
    if not flat:
        return []
    ids = [encode_prompt(tokenizer, prompt) for _, prompt in flat]
    outputs = generate(
        params,
        model,
        ids,
        max_new_tokens=config.max_new_tokens,
        sampling=config.sampling,
        stop=ends,
        tokens=tokenizer.vocab_size,
        seed=context.shapes.seed,
    )
    return [
        {"lang": lang, "prompt": prompt, "text": continuation(tokenizer, before, out)}
        for (lang, prompt), before, out in zip(flat, ids, outputs)
    ]


def step_programs(
    name: str,
    config: TrainingConfig,
    shapes: Shapes,
    model: Model,
    loss: Loss,
    *,
    batch: Batch = None,
    others: Others = None,
    before: tuple[Program, ...] = (),
    architectures: Mapping[str, Architecture] | None = None,
    flops: float = 0.0,
    resident: Mapping[str, int] | None = None,
    about: Mapping[str, Any] | None = None,
    added: Added = Added(),
) -> StagePrograms:
    """The engine's own step on shapes alone; no array is made.

    Args:
      batch: shapes with shardings; default: rows of text.
      others: the same for the step's other models.
      before: programs that run before the step.
      architectures, flops, resident, about: of the other models (`StagePrograms`).
      added: the parts that the stage adds to the model.

    Raises:
      ConfigError: a mesh that does not divide the model or the batch.
    """
    train, mesh = config.train, shapes.mesh
    loop.check_divisible(mesh, counts.sizes(model.architecture), train)
    trained, axes, frozen = model.abstract_params(), model.logical_axes(), {}
    own_flops = counts.train_flops_per_token(model.architecture, train.seq_len)
    if config.lora is not None:
        base = abstract_tree(base_model(config.lora, model).abstract_params(), tree_shardings(mesh, axes))
        loss, others, frozen = adapted_loss(config.lora, loss), WithBase(base, others), {"base": device_bytes(base)}
        trained, axes = abstract_adapters(config.lora, model), lora.logical_axes(config.lora, model.architecture)
        own_flops = lora.train_flops_per_token(config.lora, model.architecture, train.seq_len)
    step = loop.sharded_step(loss, {**trained, **added.abstract}, {**axes, **added.axes}, train, mesh, shapes.seed)
    if batch is None:
        batch = abstract_batch(mesh, packing.shapes(train.batch_size, train.seq_len))
    arguments = {"state": step.state, "batch": batch, "others": others}
    own = {"parameters": device_bytes(step.state.params), "optimizer": device_bytes(step.state.opt_state)}
    return StagePrograms(
        name,
        config.kind,
        train,
        model,
        dict(architectures or {}),
        mesh,
        own_flops + flops,
        own | frozen | dict(resident or {}),
        device_bytes(batch),
        (*before, Program("step", step.function, arguments, mesh)),
        dict(about or {}),
    )
