"""A stage as the engine sees it: its length, parameters, batches, loss and evaluation."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, Protocol

import jax
import numpy as np

from kanana_jax.data.stream.lanes import Position
from kanana_jax.models.transformer import Params
from kanana_jax.training.checkpoint import CheckpointConfig
from kanana_jax.training.optimizer import OptimizerConfig
from kanana_jax.training.step import Batch, GuardConfig, Loss, Others

# `{"bits_per_byte": {"lang/ko": x, …}, "loss": {…}, "tasks": {task: {metric: x}}}`: figures by kind.
Evaluation = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """Tokens that a stage reads, in total and per step.

    Attributes:
      tokens: length of the stage, which takes ⌈tokens / batch_tokens⌉ steps.
      batch_tokens: tokens per step, over all devices and micro-batches.
      seq_len: tokens per row; `batch_tokens` is a multiple of it.
    """

    tokens: int
    batch_tokens: int
    seq_len: int

    def __post_init__(self):
        if self.batch_tokens % self.seq_len:
            raise ValueError(f"batch_tokens ({self.batch_tokens}) must be a multiple of seq_len ({self.seq_len})")

    @property
    def batch_size(self) -> int:
        """Rows of a global batch, `B`."""
        return self.batch_tokens // self.seq_len

    @property
    def steps(self) -> int:
        return -(-self.tokens // self.batch_tokens)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig(BatchConfig):
    """The training section of a stage.

    Attributes:
      optimizer: AdamW and its schedule.
      accumulate: micro-batches per step.
      z_loss: coefficient (Kanana §2.2: 5e-6).
      loss_chunk: tokens whose logits a device computes at once.
      log_every, eval_every: in steps; `eval_every` 0 evaluates only at the end.
      patience: number of evaluations in a row without a better score that end the stage early; 0: never.
      checkpoint: when checkpoints are written, and which are kept.
      guard: which updates are refused.
    """

    optimizer: OptimizerConfig
    accumulate: int = 1
    z_loss: float = 5e-6
    loss_chunk: int = 1024
    log_every: int = 10
    eval_every: int = 0
    patience: int = 0
    checkpoint: CheckpointConfig = CheckpointConfig()
    guard: GuardConfig = GuardConfig()

    def __post_init__(self):
        super().__post_init__()
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"the {self.batch_size} rows of a batch must be a multiple of accumulate ({self.accumulate})"
            )
        if self.tokens < 1 or self.log_every < 1:
            raise ValueError("tokens and log_every must be at least 1")
        if self.patience < 0 or (self.patience and not self.eval_every):
            raise ValueError("patience counts evaluations: it must not be negative, and needs eval_every above 0")


# `{role: {"tokens": n, "flops": x}}`: tokens that other models read and wrote for a step, and the FLOPs spent on them.
Work = Mapping[str, Mapping[str, float]]


class Frozen(NamedTuple):
    """The other models of a stage.

    Attributes:
      params: parameters of a teacher, a reference, or the base under an adapter; already sharded, constant.
      prepare: `(params, batch, step, key) → batch`, called before each step: adds values computed outside of it, for
        example on another mesh or by sampling from the current parameters. The key depends only on the seed and the
        step, so a resumed run prepares the same values.
      figures: step → figures of its preparation for the log line, besides those of the loss; called once per step.
      work: step → work of its preparation beyond the cost per token of the batch (`Task.flops`); summed over all steps.
    """

    params: Others = None
    prepare: Callable[[Params, Batch, int, jax.Array], Batch] | None = None
    figures: Callable[[int], Mapping[str, float]] = lambda step: {}
    work: Callable[[int], Work] = lambda step: {}


class Questions(NamedTuple):
    """Benchmarks that run before the first step, every `every` steps (0: none in between) and at the end.

    Attributes:
      every: steps between runs.
      ask: parameters → `{task: {metric: value}}`.
    """

    every: int
    ask: Callable[[Params], dict[str, dict[str, float]]]


class Stream(Protocol):
    """A stage's batches: this process's rows, in the order of `rows`."""

    wait_seconds: float
    filter_seconds: float

    def __next__(self) -> Batch: ...

    def get_state(self) -> Position: ...

    def set_state(self, state: Position) -> None: ...

    def close(self) -> None: ...


@dataclasses.dataclass(frozen=True)
class Score:
    """The one figure of an evaluation by which checkpoints and candidates are ranked.

    name: its key in the evaluation, which holds a number there, or numbers by name, of which those of languages
      (`lang/…`) are averaged.
        are averaged.
      better: the direction in which it improves.
    """

    name: str
    better: Literal["lower", "higher"] = "lower"

    def of(self, evaluation: Evaluation) -> float | None:
        """The figure, or None where the evaluation has none."""
        found = evaluation.get(self.name)
        if isinstance(found, Mapping):
            values = [value for key, value in found.items() if key.startswith("lang/")]
            return float(np.mean(values)) if values else None
        return None if found is None else float(found)

    def loss(self, value: float) -> float:
        """The figure with its sign set so that lower is better."""
        return value if self.better == "lower" else -value


BITS_PER_BYTE = Score("bits_per_byte")


def everything(params: Params, others: Others) -> Params:
    """The whole model's parameters, where all of them are trained."""
    del others
    return params


@dataclasses.dataclass(frozen=True)
class Task:
    """A stage as the engine sees it.

    Attributes:
      name: the stage's name, in messages and files.
      loss: see `step.LossOutput`.
      make_params: newly initialised or loaded parameters, sharded; called only if nothing is resumed.
      fresh: whether they are newly initialised, so that only `questions` are evaluated before the first step.
      abstract_params: shapes and dtypes of the parameters.
      logical_axes: axis names of the parameters.
      stream: makes batches from the given global rows.
      flops: exact matmul FLOPs per token, by purpose (`train`, `teacher`); their sum, plus that of
        `Frozen.work`, gives the MFU.
      sizes: `{what: (logical axis, size)}` that the mesh must divide.
      evaluate: the whole model's parameters → the figures of an evaluation.
      score: the figure that ranks checkpoints.
      make_frozen: loads the stage's other models.
      full: `(params, frozen) → the whole model's parameters`, to evaluate and to export; trained adapters are merged
        into the frozen base.
      questions: benchmarks besides `evaluate`.
    """

    name: str
    loss: Loss
    make_params: Callable[[], Params]
    abstract_params: Params
    logical_axes: Params
    stream: Callable[[np.ndarray], Stream]
    flops: Mapping[str, float]
    sizes: dict[str, tuple[str, int]]
    evaluate: Callable[[Params], Evaluation] | None = None
    score: Score = BITS_PER_BYTE
    make_frozen: Callable[[], Frozen] = Frozen
    full: Callable[[Params, Others], Params] = everything
    questions: Questions | None = None
    fresh: bool = False
