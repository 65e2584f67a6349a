"""The one training loop: every stage runs through `train`, adding only its loss and its batches."""

import contextlib
import dataclasses
import pathlib
import signal
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from kanana_jax.errors import ConfigError, UserError
from kanana_jax.parallel import chips, heartbeat, multihost, sharding
from kanana_jax.training import metrics as metrics_lib
from kanana_jax.training.checkpoint import CheckpointConfig, Checkpoints
from kanana_jax.training.optimizer import OptimizerConfig, make_optimizer
from kanana_jax.training.step import Batch, GuardConfig, Loss, TrainState, init_state, make_train_step, state_shardings


class Preempted(UserError):
    """The run was told to stop (SIGTERM or the cluster's notice) and has saved its state."""

    exit_code = 75  # EX_TEMPFAIL: run the same command again


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How long and how a stage trains.

    Attributes:
      tokens: length of the stage; the steps are ⌈tokens / batch_tokens⌉.
      batch_tokens: tokens a step, all devices and micro-batches together.
      seq_len: tokens a row; `batch_tokens` is a multiple of it.
      optimizer: AdamW and its schedule.
      accumulate: micro-batches a step.
      z_loss: coefficient (Kanana §2.2: 5e-6).
      loss_chunk: tokens whose logits a device holds at once.
      log_every, eval_every: steps; `eval_every` 0 evaluates at the end only.
      checkpoint: when and what is kept.
      guard: which updates are refused.
    """

    tokens: int
    batch_tokens: int
    seq_len: int
    optimizer: OptimizerConfig
    accumulate: int = 1
    z_loss: float = 5e-6
    loss_chunk: int = 1024
    log_every: int = 10
    eval_every: int = 0
    checkpoint: CheckpointConfig = CheckpointConfig()
    guard: GuardConfig = GuardConfig()

    def __post_init__(self):
        if self.batch_tokens % self.seq_len:
            raise ValueError(f"batch_tokens ({self.batch_tokens}) must be a multiple of seq_len ({self.seq_len})")
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"the {self.batch_size} rows of a batch must be a multiple of accumulate ({self.accumulate})"
            )
        if self.tokens < 1 or self.log_every < 1:
            raise ValueError("tokens and log_every must be at least 1")

    @property
    def batch_size(self) -> int:
        """Rows of a global batch, `B`."""
        return self.batch_tokens // self.seq_len

    @property
    def steps(self) -> int:
        return -(-self.tokens // self.batch_tokens)


class Frozen(NamedTuple):
    """What a loss needs beside its own model.

    Attributes:
      params: the stage's other models (a teacher, a reference), already sharded.
      prepare: adds to every batch what is computed outside of the step, say on another mesh.
    """

    params: Any = None
    prepare: Callable[[Batch], Batch] | None = None


class Questions(NamedTuple):
    """Tasks that are asked at the beginning, every so many steps (0: not between) and at the end.

    Attributes:
      every: steps.
      ask: parameters → `{task: {metric: value}}`.
    """

    every: int
    ask: Callable[[Any], dict[str, dict[str, float]]]


class Stream(Protocol):
    """A stage's batches: this process's rows, in the order of `rows`."""

    wait_seconds: float
    filter_seconds: float

    def __next__(self) -> dict[str, np.ndarray]: ...

    def get_state(self) -> dict[str, Any]: ...

    def set_state(self, state: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


@dataclasses.dataclass(frozen=True)
class Task:
    """A stage as the engine sees it.

    Attributes:
      name: shown and written.
      loss: see `step.LossOutput`.
      make_params: fresh or loaded parameters, already sharded; called only where nothing is resumed.
      drawn: they are fresh, so that there is nothing to evaluate before the first step but `questions`.
      abstract_params: their shapes and dtypes.
      logical_axes: their axis names.
      stream: makes the batches of the given global rows.
      flops_per_token: exact matmul FLOPs of training on one token, for MFU.
      sizes: `{what: (logical axis, size)}` that the mesh must divide.
      evaluate: parameters → `{"bits_per_byte": {name: value}, …}`.
      make_frozen: loads the stage's other models.
      questions: asked beside `evaluate`.
    """

    name: str
    loss: Loss
    make_params: Callable[[], Any]
    abstract_params: Any
    logical_axes: Any
    stream: Callable[[np.ndarray], Stream]
    flops_per_token: float
    sizes: dict[str, tuple[str, int]]
    evaluate: Callable[[Any], dict[str, Any]] | None = None
    make_frozen: Callable[[], Frozen] = Frozen
    questions: Questions | None = None
    drawn: bool = False


@dataclasses.dataclass(frozen=True)
class Result:
    """A finished stage: its last state, data position, evaluation and tokens that carried loss."""

    state: TrainState
    data: dict[str, Any]
    evaluation: dict[str, Any]
    tokens: int


# A step that is being compiled: called like `ShardedStep.function`.
Ahead = futures.Future[Callable[[TrainState, Batch, Any], tuple[TrainState, dict[str, jax.Array]]]]


# LLVM's full effort makes no step of a CPU faster that was measured, and takes 13 seconds of a core instead of 9.
_CPU_OPTIONS = {"xla_backend_optimization_level": 1}


class ShardedStep(NamedTuple):
    """The step of a stage on a mesh, before there are any arrays.

    Attributes:
      function: `(state, batch, frozen) → (state, metrics)`, jitted; it takes its state's memory for the next one.
      state: shapes, dtypes and shardings of its state.
      optimizer: that began it.
    """

    function: Any
    state: TrainState
    optimizer: optax.GradientTransformation


def sharded_step(
    loss: Loss, abstract_params: Any, logical_axes: Any, config: TrainConfig, mesh: Mesh, seed: int
) -> ShardedStep:
    """What `train` runs and `kanana plan` compiles: one function, so that a plan is of the program that trains."""
    optimizer = make_optimizer(config.optimizer, config.steps)
    abstract = jax.eval_shape(lambda p: init_state(p, optimizer, seed), abstract_params)
    shardings = state_shardings(mesh, abstract, logical_axes)
    function = jax.jit(
        make_train_step(loss, optimizer, accumulate=config.accumulate, guard=config.guard),
        donate_argnums=0,
        out_shardings=(shardings, None),
        compiler_options=_CPU_OPTIONS if mesh.devices.flat[0].platform == "cpu" else None,
    )
    state = jax.tree.map(lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), abstract, shardings)
    return ShardedStep(function, state, optimizer)


def check_divisible(mesh: Mesh, sizes: dict[str, tuple[str, int]], config: TrainConfig) -> None:
    """Raises ConfigError where the mesh does not divide the model (`Task.sizes`) or a micro-batch."""
    rows = {
        "rows of a micro-batch": ("batch", config.batch_size // config.accumulate),
        "seq_len": ("sequence", config.seq_len),
    }
    sharding.check_divisible(mesh, sizes | rows)


def train(
    task: Task,
    config: TrainConfig,
    mesh: Mesh,
    folder: pathlib.Path,
    seed: int,
    stop_at: int | None = None,
    ahead: Ahead | None = None,
) -> Result:
    """Trains to the end, resuming from the newest checkpoint in `folder`.

    Args:
      stop_at: steps after which it ends early, evaluated and saved; called again without it, or with a larger one, it
        goes on as if it had never stopped.
      ahead: its step, where that is being compiled already.

    Raises:
      Preempted: told to stop; the state is saved.
      UserError: too many refused updates in a row, or a checkpoint that cannot be read or written.
      ConfigError: a mesh that does not divide the model or the batch.
    """
    check_divisible(mesh, task.sizes, config)
    compiled = sharded_step(task.loss, task.abstract_params, task.logical_axes, config, mesh, seed)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, compiled.state)
    checkpoints = Checkpoints(folder / "checkpoints", config.checkpoint)
    rows = sharding.local_rows(mesh, config.batch_size)
    stream = task.stream(rows)

    with jax.set_mesh(mesh), contextlib.closing(checkpoints), contextlib.closing(stream):
        start = checkpoints.latest()
        if start is None:
            begin = jax.jit(lambda p: init_state(p, compiled.optimizer, seed), out_shardings=shardings)
            state, tokens = begin(task.make_params()), 0
        else:
            if start > config.steps:
                raise ConfigError(
                    f"stage '{task.name}' has a checkpoint at step {start}, beyond the {config.steps} steps of this "
                    "config: restore the config it was written with, or name another workdir"
                )
            state, data = checkpoints.restore(start, compiled.state)
            stream.set_state(data["stream"])
            tokens = data["tokens"]
        frozen = task.make_frozen()
        end = config.steps if stop_at is None else max(start or 0, min(stop_at, config.steps))
        run = _Run(task, config, mesh, folder, checkpoints, start or 0, tokens, end)
        try:
            with termination() as terminated:
                function = compiled.function if ahead is None else ahead.result()
                return run.loop(state, stream, rows, function, frozen, terminated)
        finally:
            run.close()


class _Run:
    """The moving parts of one call of `train`: clocks, writers, pending metrics."""

    def __init__(self, task, config, mesh, folder, checkpoints, start, tokens, end):
        self.task, self.config, self.mesh, self.checkpoints = task, config, mesh, checkpoints
        self.start, self.tokens, self.end = start, tokens, end
        rate, self.peak_source = chips.peak_flops(jax.local_devices()[0])
        self.peak = rate * mesh.size
        self.schedule = _multiple(config)
        self.writers: list[metrics_lib.Writer] = []
        if jax.process_index() == 0:
            self.writers = [
                metrics_lib.JsonLines(folder / "metrics.jsonl", start),
                metrics_lib.TensorBoard(folder / "events", start),
                metrics_lib.Terminal(task.name, end, start),
            ]
        self.clock, self.clock_tokens, self.waited, self.filtered = time.perf_counter(), 0.0, 0.0, 0.0
        self.timed_steps = 0
        self.evaluation: dict[str, Any] = {}
        self.mark = heartbeat.Marks()

    def close(self):
        self.mark(self.end, heartbeat.OUTSIDE)
        for writer in self.writers:
            writer.close()

    def write(self, line: dict[str, Any]) -> None:
        for writer in self.writers:
            writer.write(line)

    def loop(self, state, stream, rows, step_function, frozen, terminated) -> Result:
        config, pending = self.config, None
        self.mark(self.start, heartbeat.COMPILE)
        if self.start == 0 and (self.asks(0) or not self.task.drawn):
            self.evaluate(0, state.params)
        for step in range(self.start + 1, self.end + 1):
            first = step == self.start + 1
            self.mark(step, heartbeat.COMPILE if first else heartbeat.BATCH)
            local = next(stream)
            self.waited += stream.wait_seconds
            self.filtered += stream.filter_seconds
            data = stream.get_state()
            batch = sharding.put_batch(self.mesh, rows, config.batch_size, local)
            if frozen.prepare is not None:
                batch = frozen.prepare(batch)
            if not first:
                self.mark(step, heartbeat.STEP)
            state, values = step_function(state, batch, frozen.params)
            # The figures of a step are read once the next one is under way, so that the device never waits.
            if pending is not None:
                self.digest(*pending)
            pending = (step, values)
            last = step == self.end
            evaluated = last or self.asks(step) or (config.eval_every > 0 and step % config.eval_every == 0)
            stopping = terminated() or self.checkpoints.preempted(step)
            saving = last or stopping or step % config.checkpoint.every == 0
            if evaluated or saving:
                self.digest(*pending)
                pending = None
            if evaluated and not stopping:
                self.mark(step, heartbeat.EVALUATE)
                self.evaluate(step, state.params)
            if saving:
                self.mark(step, heartbeat.SAVE)
                self.save(step, state, data)
            if stopping and not last:
                self.checkpoints.wait()
                raise Preempted(
                    f"stage '{self.task.name}' was told to stop and is saved at step {step} of {self.end}: "
                    "run the same command again to go on"
                )
        self.checkpoints.wait()
        if self.start == self.end:
            data = stream.get_state()
            self.evaluate(self.end, state.params)
        return Result(state, multihost.merge_states(data), self.evaluation, self.tokens)

    def save(self, step, state, data):
        bits = self.evaluation.get("bits_per_byte", {})
        mean = float(np.mean([v for k, v in bits.items() if k.startswith("lang/")])) if bits else None
        self.checkpoints.save(
            step,
            state,
            {"stream": multihost.merge_states(data), "tokens": self.tokens},
            None if mean is None else {"bits_per_byte": mean},
        )

    def digest(self, step: int, values: dict[str, jax.Array]) -> None:
        """Reads a step's figures, stops a run that no longer learns, and logs every `log_every`."""
        config = self.config
        values = {name: float(value) for name, value in jax.device_get(values).items()}
        self.tokens += int(values["weight"])
        if values["skipped_in_a_row"] >= config.guard.stop_after:
            raise UserError(
                f"stage '{self.task.name}' stopped at step {step}: {config.guard.stop_after} updates in a row were "
                f"refused (loss {values['loss']:.4g}, gradient norm {values['grad_norm']:.4g}); the last good "
                f"checkpoint is step {self.checkpoints.latest()}: lower the learning rate or look at the data"
            )
        now = time.perf_counter()
        if step == self.start + 1:  # compilation is not throughput
            self.clock, self.waited, self.filtered, self.timed_steps = now, 0.0, 0.0, 0
        else:
            self.timed_steps += 1
            self.clock_tokens += values["weight"]
        if step % config.log_every and step != self.end and step != self.start + 1:
            return
        seconds = now - self.clock
        line = {
            "step": step,
            "tokens": self.tokens,
            "loss": values["loss"],
            "lr": config.optimizer.learning_rate * self.schedule(step - 1),
            "grad_norm": values["grad_norm"],
            "skipped": int(values["skipped"]),
        }
        known = {"loss", "weight", "grad_norm", "skipped", "skipped_in_a_row"}
        line |= {name: value for name, value in values.items() if name not in known}
        if self.timed_steps:
            rate = self.clock_tokens / seconds
            line |= {
                "tokens_per_s": rate,
                "mfu": rate * self.task.flops_per_token / self.peak,
                "data_wait_s": self.waited / self.timed_steps,
                "data_wait_share": self.waited / seconds,
                "filter_share": self.filtered / seconds,
                "step_s": seconds / self.timed_steps,
                "eta_s": (self.end - step) * seconds / self.timed_steps,
            }
        self.write(line)
        self.clock, self.clock_tokens, self.waited, self.filtered, self.timed_steps = now, 0.0, 0.0, 0.0, 0

    def asks(self, step: int) -> bool:
        questions = self.task.questions
        if questions is None:
            return False
        return step in (0, self.end) or (questions.every > 0 and step % questions.every == 0)

    def evaluate(self, step: int, params: Any) -> None:
        task = self.task
        if task.evaluate is None and not self.asks(step):
            return
        began = time.perf_counter()
        self.evaluation = {"bits_per_byte": {}} if task.evaluate is None else task.evaluate(params)
        if self.asks(step):
            self.evaluation["tasks"] = task.questions.ask(params)
        self.write({"step": step, "tokens": self.tokens, "eval": self.evaluation})
        self.clock += time.perf_counter() - began


def _multiple(config: TrainConfig) -> Callable[[int], float]:
    from kanana_jax.training.schedule import make_schedule

    schedule = make_schedule(config.optimizer.schedule, config.steps)
    return lambda step: float(schedule(step))


@contextlib.contextmanager
def termination() -> Iterator[Callable[[], bool]]:
    """Turns SIGTERM into a question that the loop asks after each step.

    With several processes JAX's own pre-emption service listens instead, so that all agree on the step.
    """
    received = []
    if jax.process_count() > 1:
        yield lambda: False
        return
    try:
        previous = signal.signal(signal.SIGTERM, lambda *_: received.append(True))
    except ValueError:  # not the main thread: a notebook or a test
        yield lambda: False
        return
    try:
        yield lambda: bool(received)
    finally:
        signal.signal(signal.SIGTERM, previous)
