"""Training on the model's own answers: shared by online DPO, GRPO and on-policy distillation.

A row of the stream is a prompt, a batch has ⌊batch_tokens / seq_len⌋ of them, and each gets N answers before the step
(`inference/rollout.py`), from which the stage makes its batch. A step's answers are a function of the parameters, the
seed and the step, so a resumed stage samples the same answers again.

With `staleness` k, step s learns from answers written by the parameters of step s − k, where they were ordered: never
from older ones, always in order, and from all of them, however long they took.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax
import numpy as np
from jax.sharding import Mesh

from kanana_jax.data.stream.encode import PromptEncoder
from kanana_jax.data.stream.heldout import HeldoutRows
from kanana_jax.data.stream.packing import Rows
from kanana_jax.data.tokens.tokenizer import Tokenizer
from kanana_jax.evaluation.verifiers import RECORD, Scorer, checked, verify
from kanana_jax.files import read_json, write_json
from kanana_jax.inference.prefix import rounded
from kanana_jax.inference.reward_model import RewardModel
from kanana_jax.inference.rollout import RolloutConfig
from kanana_jax.models import counts
from kanana_jax.models.architecture import Architecture, DType
from kanana_jax.models.model import Model
from kanana_jax.models.transformer import Params
from kanana_jax.parallel.mesh import MeshConfig, rearranged
from kanana_jax.parallel.sharding import check_divisible, local_rows, put_batch, replicated
from kanana_jax.stages import text
from kanana_jax.stages.answer_rows import row_counts
from kanana_jax.stages.kind import SCRATCH, Context
from kanana_jax.stages.orders import Ahead, Orders
from kanana_jax.stages.sampled import Sampled, Sampler, figures, questions_of, work
from kanana_jax.stages.text import TrainingConfig
from kanana_jax.training import heldout
from kanana_jax.training.step import Batch, Loss
from kanana_jax.training.task import Evaluation, Frozen, Score, Stream, Task, Work

REWARD = Score("reward", "higher")
# Answers to held-out prompts, before the stage and at its last evaluation.
ANSWERS = "answers.json"
_SHOWN = 24  # the number of them that is kept


@dataclasses.dataclass(frozen=True)
class RewardConfig:
    """The reward of an answer.

    Attributes:
      verifiers: weights of programmatic rewards, by name (`evaluation/verifiers.py`); `record`: the record's own.
        None: `record`, unless a model is given; empty: no programmatic reward.
      model: a reward model, an earlier stage or a folder, whose scores are added.
      dtype: dtype in which it is stored and runs.
      unfinished: added to the reward of an answer that was cut off by its length; 0 or less.
    """

    verifiers: dict[str, float] | None = None
    model: str = ""
    dtype: DType = "bfloat16"
    unfinished: float = 0.0

    def __post_init__(self):
        verify(self.weights)
        if not self.unfinished <= 0:
            raise ValueError(f"reward.unfinished is the penalty of an answer cut off: 0 or less, not {self.unfinished}")

    @property
    def weights(self) -> dict[str, float]:
        """Of the verifiers."""
        if self.verifiers is None:
            return {} if self.model else {RECORD: 1.0}
        return dict(self.verifiers)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingStage(TrainingConfig):
    """The section of a stage that samples; a row of `train.batch_tokens` is a prompt with room for its answer.

    Attributes:
      rollout: answers to each prompt.
      reward: the reward of the answers.
      staleness: k, the updates between the parameters that write an answer and those that learn from it; 0: none.
      sampler_mesh: the sampler's mesh, over the same devices; parameters are copied to it before they are used. None:
        the stage's mesh, without a copy. Under fsdp every token gathers all weights; `tensor` and `data` avoid this.
    """

    rollout: RolloutConfig = RolloutConfig()
    reward: RewardConfig = RewardConfig()
    staleness: int = 0
    sampler_mesh: MeshConfig | None = None
    answers_per_row: ClassVar[int] = 1
    least_samples: ClassVar[int] = 1
    why_several: ClassVar[str] = ""

    def __post_init__(self):
        super().__post_init__()
        if self.start == SCRATCH:
            raise ValueError(
                "a stage that samples starts from a model that can answer: name a stage or a folder in 'start'"
            )
        if self.staleness < 0:
            raise ValueError(
                f"staleness counts updates: it must be 0 (sampled just before the update) or more, not {self.staleness}"
            )
        if self.rollout.samples < self.least_samples:
            raise ValueError(
                f"rollout.samples must be at least {self.least_samples}, not {self.rollout.samples}: {self.why_several}"
            )
        if self.least_samples > 1 and not self.reward.weights and not self.reward.model:
            raise ValueError("nothing distinguishes good answers: name reward.verifiers or a reward.model")
        if self.longest_prompt < 1:
            told = "" if self.answers_per_row == 1 else f" and holds {self.answers_per_row} answers with their prompt"
            raise ValueError(
                f"rollout.max_new_tokens ({self.rollout.max_new_tokens}) leaves no room for a prompt: a row has "
                f"{self.train.seq_len} tokens (train.seq_len){told}"
            )

    def references(self) -> dict[str, str]:
        return super().references() | ({"reward.model": self.reward.model} if self.reward.model else {})

    def others(self) -> dict[str, str]:
        return super().others() | ({"reward": self.reward.model} if self.reward.model else {})

    @property
    def answers_per_step(self) -> int:
        return self.train.batch_size * self.rollout.samples

    @property
    def most_rows(self) -> int:
        """The number of rows of a step if no two answers (or pairs of them) fit into one row."""
        return self.train.batch_size if self.answers_per_row > 1 else self.answers_per_step

    @property
    def read_at_once(self) -> int:
        """Answers that a reward model reads at once: as many as a micro-batch has rows, or 16."""
        return max(16, self.train.batch_size // self.train.accumulate)

    @property
    def longest_prompt(self) -> int:
        """The most tokens of a prompt that leave its answers enough room in a row."""
        return (self.train.seq_len + 1) // self.answers_per_row - self.rollout.max_new_tokens


def encoder(config: SamplingStage, tokenizer: Tokenizer) -> PromptEncoder:
    """Makes a prompt's row from its record."""
    return PromptEncoder(tokenizer, config.train.seq_len, config.longest_prompt)


def make_scorer(config: SamplingStage, context: Context) -> Scorer | None:
    """The sum of an answer's rewards; None: there are none.

    Raises:
      ConfigError: a reward model with another tokenizer.
      UserError: there is no such reward model.
    """
    own = config.reward
    parts: list[Scorer] = [verify(own.weights)] if own.weights else []
    if own.model:
        devices = list(context.shapes.mesh.devices.flat)
        scorer = RewardModel.load(str(context.find(own.model).path), own.dtype, devices)
        scorer.check(context.tokenizer)
        parts.append(dataclasses.replace(scorer, batch_size=config.read_at_once))
    if not parts:
        return None
    return lambda questions, texts: np.sum([checked(part, questions, texts) for part in parts], axis=0)


def sampler_mesh(config: SamplingStage, mesh: Mesh, model: Model) -> Mesh:
    """The mesh that answers are written on.

    Raises:
      ConfigError: it does not divide the devices, the model or the answers.
    """
    if config.sampler_mesh is None:
        return mesh
    own = rearranged(mesh, config.sampler_mesh)
    rows = {"answers of a step": ("batch", config.answers_per_step)}
    check_divisible(own, counts.sizes(model.architecture, "sampler") | rows)
    return own


# (answers of a step, allowed numbers of rows) → arrays `[R, …]` of all its rows, on the host.
MakeRows = Callable[[Sampled, Sequence[int]], Any]


def make_evaluation(
    model: Model,
    held: Sequence[HeldoutRows],
    mesh: Mesh,
    *,
    batch_size: int,
    chunk: int,
    sampler: Sampler,
    folder: pathlib.Path,
) -> Callable[[Params], Evaluation] | None:
    """The reward of greedy answers to held-out prompts, by language and by source; some are written to a file."""
    del model, mesh, batch_size, chunk  # a sampler has its own
    if not held:
        return None
    questions = [questions_of(h.rows) for h in held]
    counts_of = np.array([len(each) for each in questions], np.float64)

    def evaluate(params: Params) -> Evaluation:
        with jax.set_mesh(sampler.mesh):
            moved = sampler.move(params)
            found = [sampler.greedy(moved, each) for each in questions]
        values: dict[str, list[float]] = {
            REWARD.name: [float(f.rewards.sum()) for f in found if f.rewards is not None],
            "answer_tokens": [float(sum(len(a.ids) for (a,) in f.answers)) for f in found],
            "ended": [float(sum(a.ended for (a,) in f.answers)) for f in found],
        }
        if jax.process_index() == 0:
            _write_answers(folder / ANSWERS, found)
        return {name: heldout.by_name(held, np.array(sums), counts_of) for name, sums in values.items() if sums}

    return evaluate


def _write_answers(file: pathlib.Path, found: Sequence[Sampled]) -> None:
    """Keeps the stage's first answers in a file, next to its last."""
    lines = [
        {"lang": q.lang, "prompt": q.text, "text": f.texts[i][0]}
        | ({} if f.rewards is None else {"reward": float(f.rewards[i, 0])})
        for f in found
        for i, q in enumerate(f.questions[: max(1, _SHOWN // len(found))])
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    before = (read_json(file) or {}).get("before", lines)
    write_json(file, {"before": before, "after": lines})


def run(
    name: str,
    config: SamplingStage,
    context: Context,
    model: Model,
    loss: Loss,
    make_rows: MakeRows,
    *,
    complete: Callable[[Any], Batch] = lambda rows: rows,
    make_frozen: Callable[[], Frozen] = Frozen,
    load_base: Callable[[Model], Params] | None = None,
    flops: dict[str, float],
) -> None:
    """Trains a stage that samples.

    Args:
      make_rows: makes a step's packed rows from its answers.
      complete: adds the outputs of frozen models to these rows, on the mesh.
      make_frozen, load_base, flops: see `text.make_task`.
    """
    mesh, train, k = context.shapes.mesh, config.train, config.staleness
    sampler = Sampler(
        config.rollout,
        model,
        sampler_mesh(config, mesh, model),
        config.sampler_mesh is not None,
        context.tokenizer,
        text.ends_of(config, context, model),
        make_scorer(config, context),
        config.reward.unfinished,
        rounded(config.longest_prompt),
        config.answers_per_step,
    )
    encode = encoder(config, context.tokenizer)

    def stream(rows: np.ndarray) -> Stream:
        at = context.position(config)
        return Ahead(context.stream(name, config, encode, rows, train.batch_size, train.seq_len, at), k)

    task = text.make_task(
        name,
        config,
        context,
        model,
        loss,
        encoder=encode,
        stream=stream,
        evaluation=functools.partial(make_evaluation, sampler=sampler, folder=context.workdir / name),
        score=REWARD,
        make_frozen=make_frozen,
        load_base=load_base,
        flops=flops,
    )
    critic = context.shapes.architecture(config.reward.model) if config.reward.model else None
    orders = Orders(sampler.sample, sampler.mesh, k, train.steps, model.runtime.compute_dtype)
    counts = row_counts(config.most_rows, train.accumulate, mesh)

    def pack(found: Sampled) -> Any:
        return make_rows(found, counts)

    try:
        text.train(name, config, context, model, _sampling(task, sampler, orders, mesh, critic, pack, complete))
    finally:
        orders.close()


def _sampling(
    task: Task,
    sampler: Sampler,
    orders: Orders[Sampled],
    mesh: Mesh,
    critic: Architecture | None,
    pack: Callable[[Sampled], Any],
    complete: Callable,
) -> Task:
    """The task whose batches are prompts and whose steps learn from the answers to them."""
    said: dict[int, dict[str, float]] = {}
    spent: dict[int, Work] = {}
    everywhere = jax.jit(lambda x: x, out_shardings=replicated(mesh))

    def make_frozen() -> Frozen:
        frozen = task.make_frozen()

        def prepare(params: Params, batches: Sequence[Rows[jax.Array]], step: int, key: jax.Array) -> Batch:
            asked = [questions_of(jax.device_get(everywhere(rows))) for rows in batches]
            found, age, waited = orders.take(
                params, lambda: sampler.move(task.full(params, frozen.params)), asked, step, key
            )
            said[step] = {**figures(found), "staleness": float(age), "sampling_wait_s": waited}
            spent[step] = work(found, sampler.model.architecture, critic)
            return complete(put_whole(mesh, pack(found)))

        return frozen._replace(prepare=prepare, figures=said.pop, work=spent.pop)

    return dataclasses.replace(task, make_frozen=make_frozen)


def put_whole(mesh: Mesh, rows: Any) -> Any:
    """Global arrays `[R, …]` from a tree of them that every process has whole."""
    (count,) = {len(x) for x in jax.tree.leaves(rows)}
    mine = local_rows(mesh, count)
    return put_batch(mesh, mine, count, jax.tree.map(lambda x: x[mine], rows))
