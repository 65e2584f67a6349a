"""The one training loop: every stage runs through `train`, adding only its loss and its batches."""

import contextlib
import dataclasses
import math
import pathlib
import time
from collections.abc import Callable
from concurrent import futures
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from kanana_jax.data.stream.lanes import Position
from kanana_jax.errors import ConfigError, UserError
from kanana_jax.models.transformer import Params
from kanana_jax.parallel import chips, heartbeat, multihost, sharding
from kanana_jax.training import metrics as metrics_lib
from kanana_jax.training.checkpoint import CheckpointConfig, Checkpoints
from kanana_jax.training.optimizer import make_optimizer
from kanana_jax.training.preemption import Preempted, termination
from kanana_jax.training.schedule import make_schedule
from kanana_jax.training.so_far import SoFar
from kanana_jax.training.staged import StagedCheckpoints
from kanana_jax.training.step import Batch, Loss, Others, TrainState, init_state, make_train_step, state_shardings
from kanana_jax.training.task import Evaluation, Frozen, Stream, Task, TrainConfig, Work


@dataclasses.dataclass(frozen=True)
class Result:
    """A finished stage.

    Attributes:
      params: parameters of the whole model.
      step, data: its last step, and the data position there.
      evaluation: at the last step.
      tokens, trained: number of tokens trained on; the parameters that were trained: only adapters in some stages.
      work: work of other models, over all steps (`task.Frozen`).
    """

    params: Params
    step: int
    data: Position
    evaluation: Evaluation
    tokens: int
    trained: Params
    work: Work


# A step that is being compiled: called like `ShardedStep.function`.
StepFunction = Callable[[TrainState, Batch, Others], tuple[TrainState, dict[str, jax.Array]]]
Ahead = futures.Future[StepFunction]
# Keeps the random numbers of `Frozen.prepare` apart from those of the same step's loss.
_PREPARE = 0x70726570


# On a CPU, LLVM's full effort made no measured step faster, and takes 13 seconds of a core instead of 9.
_CPU_OPTIONS = {"xla_backend_optimization_level": 1}


class ShardedStep(NamedTuple):
    """The step of a stage on a mesh, before any arrays exist.

    Attributes:
      function: `(state, batch, others) → (state, metrics)`, jitted; the new state reuses the old one's memory.
      state: shapes, dtypes and shardings of its state.
      optimizer: the optimizer that initialises the state.
    """

    function: jax.stages.Wrapped
    state: TrainState
    optimizer: optax.GradientTransformation


def sharded_step(
    loss: Loss, abstract_params: Params, logical_axes: Params, config: TrainConfig, mesh: Mesh, seed: int
) -> ShardedStep:
    """The step that `train` runs and `kanana plan` compiles, so that a plan describes the program that trains."""
    optimizer = make_optimizer(config.optimizer, config.steps, logical_axes)
    abstract = jax.eval_shape(lambda p: init_state(p, optimizer, seed), abstract_params)
    shardings = state_shardings(mesh, abstract, logical_axes)
    function = jax.jit(
        make_train_step(loss, optimizer, accumulate=config.accumulate, guard=config.guard),
        donate_argnums=0,
        out_shardings=(shardings, None),
        compiler_options=_CPU_OPTIONS if mesh.devices.flat[0].platform == "cpu" else None,
    )
    state = sharding.abstract_tree(abstract, shardings)
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
    more_writers: metrics_lib.MakeWriters | None = None,
) -> Result:
    """Trains to the end, resuming from the newest checkpoint in `folder`.

    Args:
      stop_at: step after which training ends early, evaluated and saved; called again without it, or with a larger
        one, training resumes as if it had never stopped.
      ahead: the training step, where it is already being compiled.
      more_writers: writers on process 0 besides `metrics.jsonl`, TensorBoard and the terminal.

    Raises:
      Preempted: asked to stop; the state is saved.
      UserError: too many refused updates in a row, or a checkpoint that cannot be read or written.
      ConfigError: a mesh that does not divide the model or the batch.
    """
    check_divisible(mesh, task.sizes, config)
    if config.patience and task.evaluate is None:
        raise ConfigError(
            f"config '{task.name}.train.patience' counts evaluations, but no source holds out documents: set config "
            "'sources.NAME.holdout'"
        )
    compiled = sharded_step(task.loss, task.abstract_params, task.logical_axes, config, mesh, seed)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, compiled.state)
    checkpoints = _checkpoints(folder / "checkpoints", config.checkpoint)
    rows = sharding.local_rows(mesh, config.batch_size)
    stream = task.stream(rows)

    with jax.set_mesh(mesh), contextlib.closing(checkpoints), contextlib.closing(stream):
        start = checkpoints.latest()
        if start is None:
            begin = jax.jit(lambda p: init_state(p, compiled.optimizer, seed), out_shardings=shardings)
            state, so_far = begin(task.make_params()), SoFar()
        else:
            if start > config.steps:
                raise ConfigError(
                    f"stage '{task.name}' has a checkpoint at step {start}, beyond the {config.steps} steps of this "
                    "config: restore the config it was written with, or name another workdir"
                )
            state, data = checkpoints.restore(start, compiled.state)
            stream.set_state(data["stream"])
            so_far = SoFar.of(data, start)
        frozen = task.make_frozen()
        end = config.steps if stop_at is None else max(start or 0, min(stop_at, config.steps))
        if config.patience and so_far.worse >= config.patience:
            end = start or 0
        run = _Run(task, config, mesh, folder, checkpoints, start or 0, so_far, end, seed)
        if more_writers is not None and jax.process_index() == 0:
            run.writers += more_writers(folder, start or 0)
        try:
            with termination() as terminated:
                function = compiled.function if ahead is None else ahead.result()
                return run.loop(state, stream, rows, function, frozen, terminated)
        finally:
            run.close()


def _checkpoints(folder: pathlib.Path, config: CheckpointConfig) -> Checkpoints | StagedCheckpoints:
    """Orbax's, where Orbax can write: to disks and to Google Cloud Storage."""
    if str(folder).startswith("s3://"):
        return StagedCheckpoints(folder, config)
    return Checkpoints(folder, config)


class _Run:
    """The moving parts of one call of `train`: clocks, writers, pending metrics."""

    def __init__(
        self,
        task: Task,
        config: TrainConfig,
        mesh: Mesh,
        folder: pathlib.Path,
        checkpoints: Checkpoints | StagedCheckpoints,
        start: int,
        so_far: SoFar,
        end: int,
        seed: int,
    ):
        self.task, self.config, self.mesh, self.checkpoints = task, config, mesh, checkpoints
        self.start, self.so_far, self.end = start, so_far, end
        self.key = jax.random.fold_in(jax.random.key(seed), _PREPARE)
        rate, self.peak_source = chips.peak_flops(jax.local_devices()[0])
        self.peak = rate * mesh.size
        self.schedule = _multiple(config)
        self.writers: list[metrics_lib.Writer] = []
        if jax.process_index() == 0:
            self.writers = [
                # A start evaluates again at step 0, at the end, and where a save came before its evaluation.
                metrics_lib.JsonLines(folder / "metrics.jsonl", start, so_far.judged if 0 < start < end else start - 1),
                metrics_lib.TensorBoard(folder / "events", start),
                metrics_lib.Terminal(task.name, end, start),
            ]
        self.clock, self.clock_tokens, self.waited, self.filtered = time.perf_counter(), 0.0, 0.0, 0.0
        self.timed_steps, self.clock_work = 0, 0.0
        self.evaluation: Evaluation = {}
        self.mark = heartbeat.Marks()

    def close(self) -> None:
        self.mark(self.end, heartbeat.OUTSIDE)
        for writer in self.writers:
            writer.close()

    def write(self, line: metrics_lib.Line) -> None:
        for writer in self.writers:
            writer.write(line)

    def loop(
        self,
        state: TrainState,
        stream: Stream,
        rows: np.ndarray,
        step_function: StepFunction,
        frozen: Frozen,
        terminated: Callable[[], bool],
    ) -> Result:
        config, pending, data, step, seen = self.config, None, stream.get_state(), self.start, frozenset()
        self.prepared, self.work = frozen.figures, frozen.work
        self.mark(self.start, heartbeat.COMPILE)
        if self.start == 0 and (self.asks(0) or not self.task.fresh):
            self.evaluate(0, state.params, frozen)
        elif self.start < self.end and self.due(self.start) and self.so_far.judged < self.start:
            loss = self.judge(self.start, state.params, frozen)  # skipped when the run stopped there
            if loss is not None:
                self.checkpoints.judged(self.start, loss)
        for step in range(self.start + 1, self.end + 1):
            first = step == self.start + 1
            self.mark(step, heartbeat.COMPILE if first else heartbeat.BATCH)
            local = next(stream)
            self.waited += stream.wait_seconds
            self.filtered += stream.filter_seconds
            data = stream.get_state()
            batch = sharding.put_batch(self.mesh, rows, config.batch_size, local)
            if frozen.prepare is not None:
                batch = frozen.prepare(state.params, batch, step, jax.random.fold_in(self.key, step))
            shape = tuple(x.shape for x in jax.tree.leaves(batch))
            new, seen = shape not in seen, seen | {shape}
            if not first:
                self.mark(step, heartbeat.COMPILE if new else heartbeat.STEP)
            jax.block_until_ready(state if new else ())  # steps still running are not part of compiling
            began = time.perf_counter()
            state, values = step_function(state, batch, frozen.params)
            self.clock += time.perf_counter() - began if new else 0.0  # compilation does not count as throughput
            # A step's figures are read once the next step is under way, so that the device never waits.
            if pending is not None:
                self.digest(*pending)
            pending = (step, values)
            last = step == self.end
            stopping = terminated() or self.checkpoints.preempted(step)
            evaluated = self.due(step) and not stopping
            keeping = evaluated and config.checkpoint.keep_best > 0
            saving = last or stopping or keeping or step % config.checkpoint.every == 0
            if evaluated or saving:
                self.digest(*pending)
                pending = None
            loss = None
            if evaluated:
                self.mark(step, heartbeat.EVALUATE)
                loss = self.judge(step, state.params, frozen)
                if config.patience and self.so_far.worse >= config.patience and not last:
                    last, self.end = True, step
                    if self.task.questions is not None and "tasks" not in self.evaluation:
                        self.evaluate(step, state.params, frozen)  # with the questions of the end
            if saving or last:
                self.mark(step, heartbeat.SAVE)
                self.save(step, state, data, loss)
            if stopping:
                self.checkpoints.wait()
                raise Preempted(
                    f"stage '{self.task.name}' was stopped and saved at step {step} of {self.end}: "
                    "run the same command again to resume"
                )
            if last:
                break
        self.checkpoints.wait()
        if self.start == self.end:
            self.evaluate(self.end, state.params, frozen)
        params = self.task.full(state.params, frozen.params)
        data, so_far = multihost.merge_states(data), self.so_far
        return Result(params, step, data, self.evaluation, so_far.tokens, state.params, so_far.work)

    def save(self, step: int, state: TrainState, data: Position, loss: float | None) -> None:
        position = {"stream": multihost.merge_states(data), **dataclasses.asdict(self.so_far)}
        for writer in self.writers:  # first, so that no checkpoint is of steps whose lines are lost
            if isinstance(writer, metrics_lib.Flushable):
                writer.flush()
        self.checkpoints.save(step, state, position, loss)

    def digest(self, step: int, arrays: dict[str, jax.Array]) -> None:
        """Reads a step's figures, stops a run that no longer learns, and logs every `log_every`."""
        config = self.config
        values = {name: float(value) for name, value in jax.device_get(arrays).items()} | dict(self.prepared(step))
        tokens = values.get("tokens", values["weight"])
        self.so_far.tokens += int(tokens)
        work = self.so_far.add(self.work(step))
        if values["skipped_in_a_row"] >= config.guard.stop_after:
            raise UserError(
                f"stage '{self.task.name}' stopped at step {step}: {config.guard.stop_after} updates in a row were "
                f"refused (loss {values['loss']:.4g}, gradient norm {values['grad_norm']:.4g}); the last good "
                f"checkpoint is step {self.checkpoints.latest()}: lower the learning rate or inspect the data"
            )
        now = time.perf_counter()
        if step == self.start + 1:  # compilation does not count as throughput
            self.clock, self.waited, self.filtered, self.timed_steps, self.clock_work = now, 0.0, 0.0, 0, 0.0
        else:
            self.timed_steps += 1
            self.clock_tokens += tokens
            self.clock_work += work
        if step % config.log_every and step != self.end and step != self.start + 1:
            return
        seconds = now - self.clock
        applied = step - 1 - int(values["skipped"]) + (values["skipped_in_a_row"] > 0)  # updates before this step's
        line: metrics_lib.Line = {
            "step": step,
            "tokens": self.so_far.tokens,
            "loss": values["loss"],
            "lr": config.optimizer.learning_rate * self.schedule(applied),
            "grad_norm": values["grad_norm"],
            "skipped": int(values["skipped"]),
        }
        known = {"loss", "weight", "tokens", "grad_norm", "skipped", "skipped_in_a_row"}
        line |= {name: value for name, value in values.items() if name not in known}
        line |= {f"{role}_tokens": spent["tokens"] for role, spent in self.so_far.work.items()}
        if self.timed_steps:
            rate = self.clock_tokens / seconds
            line |= {
                "tokens_per_s": rate,
                "mfu": chips.utilisation(
                    rate * sum(self.task.flops.values()) + self.clock_work / seconds, self.peak, self.peak_source
                ),
                "data_wait_s": self.waited / self.timed_steps,
                "data_wait_share": self.waited / seconds,
                "filter_share": self.filtered / seconds,
                "step_s": seconds / self.timed_steps,
                "eta_s": (self.end - step) * seconds / self.timed_steps,
            }
        self.write(line)
        self.clock, self.clock_tokens, self.waited, self.filtered, self.timed_steps = now, 0.0, 0.0, 0.0, 0
        self.clock_work = 0.0

    def due(self, step: int) -> bool:
        every = self.config.eval_every
        return step == self.end or self.asks(step) or (every > 0 and step % every == 0)

    def asks(self, step: int) -> bool:
        questions = self.task.questions
        if questions is None:
            return False
        return step in (0, self.end) or (questions.every > 0 and step % questions.every == 0)

    def evaluate(self, step: int, params: Params, frozen: Frozen) -> None:
        task = self.task
        asks = task.questions if self.asks(step) else None
        if task.evaluate is None and asks is None:
            return
        began = time.perf_counter()
        whole = task.full(params, frozen.params)
        self.evaluation = {task.score.name: {}} if task.evaluate is None else task.evaluate(whole)
        if asks is not None:
            self.evaluation["tasks"] = asks.ask(whole)
        line: metrics_lib.Line = {"step": step, "tokens": self.so_far.tokens, "eval": self.evaluation}
        value = task.score.of(self.evaluation)
        if value is not None:
            line["score"] = {"name": task.score.name, "better": task.score.better, "value": value}
        self.write(line)
        self.clock += time.perf_counter() - began

    def judge(self, step: int, params: Params, frozen: Frozen) -> float | None:
        """Evaluates, and returns the score as a loss, if the evaluation has a finite one."""
        self.evaluate(step, params, frozen)
        value, so_far, config = self.task.score.of(self.evaluation), self.so_far, self.config
        so_far.judged = step
        if value is None:
            return None
        finite = math.isfinite(value)  # otherwise it beats no other, and no checkpoint is kept for it
        loss = self.task.score.loss(value) if finite else None
        if step != config.steps and (not config.eval_every or step % config.eval_every):
            return loss  # at a pause or a benchmark: an uninterrupted run would not evaluate here
        if loss is not None and (so_far.best is None or loss < so_far.best):
            so_far.best, so_far.worse = loss, 0
        else:
            so_far.worse += 1
        return loss


def _multiple(config: TrainConfig) -> Callable[[int], float]:
    schedule = make_schedule(config.optimizer.schedule, config.steps)
    return lambda step: float(schedule(jnp.asarray(step)))
