"""KTO: preference optimisation on answers that are desirable or not (arXiv:2402.01306), or on pairs with one of each.

The unit of the loss is an answer. The KL from policy to reference, which an answer's log-ratio is compared with, is
estimated in each batch from answers to other prompts of the same row, which are scored without gradients.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from kanana_jax.config import to_dict
from kanana_jax.data.stream import mismatched, packing
from kanana_jax.data.stream.encode import LabelledEncoder
from kanana_jax.data.stream.heldout import HeldoutRows
from kanana_jax.data.stream.lanes import Position
from kanana_jax.data.stream.packing import Array, Rows
from kanana_jax.data.tokens.tokenizer import Tokenizer
from kanana_jax.losses.kto import KtoConfig, kl_estimate, kto
from kanana_jax.models import counts
from kanana_jax.models.architecture import DType
from kanana_jax.models.model import Model
from kanana_jax.models.transformer import Params
from kanana_jax.parallel.sharding import abstract_batch
from kanana_jax.stages import text
from kanana_jax.stages.dpo import Reference, plan_reference, target_log_probs
from kanana_jax.stages.kind import SCRATCH, Context, Kind, Shapes, StagePrograms
from kanana_jax.stages.text import TrainingConfig
from kanana_jax.training import heldout
from kanana_jax.training.step import Loss, LossOutput
from kanana_jax.training.task import Evaluation, Frozen, Score, Stream

KTO_LOSS = Score("kto_loss")


@dataclasses.dataclass(frozen=True, kw_only=True)
class KtoStageConfig(TrainingConfig):
    """The section of a stage of this kind.

    Attributes:
      kto: the loss.
      reference, reference_dtype: see `DpoConfig`.
    """

    kto: KtoConfig = KtoConfig()
    reference: str = ""
    reference_dtype: DType | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.start == SCRATCH:
            raise ValueError("KTO starts from a model that can answer: name a stage or a folder in 'start'")

    @property
    def reference_model(self) -> str:
        """The stage or folder of the reference."""
        return self.reference or self.start

    def references(self) -> dict[str, str]:
        return super().references() | ({"reference": self.reference} if self.reference else {})

    def others(self) -> dict[str, str]:
        return {"reference": self.reference_model}


class KtoRows(NamedTuple, Generic[Array]):
    """Rows of `LabelledEncoder`, their mismatched rows, and log p under the reference for both, `[B, T]`."""

    rows: Rows[Array]
    other: Rows[Array]
    reference: Array
    other_reference: Array


class _Mismatching:
    """A stream of rows with their mismatched rows."""

    def __init__(self, stream: Stream):
        self._stream = stream
        self.wait_seconds = self.filter_seconds = 0.0

    def __next__(self) -> tuple[Rows[np.ndarray], Rows[np.ndarray]]:
        rows = next(self._stream)
        self.wait_seconds, self.filter_seconds = self._stream.wait_seconds, self._stream.filter_seconds
        return rows, mismatched.of_batch(rows)

    def get_state(self) -> Position:
        return self._stream.get_state()

    def set_state(self, state: Position) -> None:
        self._stream.set_state(state)

    def close(self) -> None:
        self._stream.close()


class _Answers(NamedTuple):
    """For each answer, `[B, S]`: Σ over its tokens of log π − log ρ, their number, and whether it is desirable."""

    log_ratios: jax.Array
    lengths: jax.Array
    desirable: jax.Array


def _by_answer(rows: Rows[jax.Array], log_ratios_BT: jax.Array) -> _Answers:
    """Sums over the segments of rows; a segment has at least two tokens."""
    count = (rows.inputs.shape[1] + 1) // 2 + 1
    sums = jax.vmap(lambda values, ids: jax.ops.segment_sum(values, ids, count)[1:])
    weights = jnp.abs(rows.weights)
    found, lengths, signed = (
        sums(values, rows.segment_ids) for values in (log_ratios_BT * weights, weights, rows.weights)
    )
    return _Answers(found, lengths, signed > 0)


def _judged(
    config: KtoConfig, model: Model, chunk: int, params: Params, batch: KtoRows[jax.Array]
) -> tuple[jax.Array, _Answers, jax.Array]:
    """The loss of each answer `[B, S]`, the answers, and the estimated KL."""
    fixed = jax.lax.stop_gradient(params)
    moved = target_log_probs(model, fixed, batch.other, chunk) - batch.other_reference
    others = _by_answer(batch.other, moved)
    kl = kl_estimate(others.log_ratios, others.lengths > 0)
    own = _by_answer(batch.rows, target_log_probs(model, params, batch.rows, chunk) - batch.reference)
    return kto(config, own.log_ratios, own.desirable, kl), own, kl


def make_loss(model: Model, *, config: KtoConfig, chunk: int) -> Loss:
    """Sum of the loss over answers; `desirable` is the share of such answers, `kl` nats per answer.

    `reward_…` are β·log-ratio summed over answers of that kind, per answer of either kind.
    """

    def loss(params: Params, batch: KtoRows[jax.Array], rng: jax.Array, others: None) -> LossOutput:
        del rng, others  # nothing is sampled; the reference's log-probabilities are in the batch
        value, answers, kl = _judged(config, model, chunk, params, batch)
        there = answers.lengths > 0
        count, rewards = there.sum().astype(jnp.float32), config.beta * answers.log_ratios
        good = there & answers.desirable
        by_answer = {
            "desirable": jnp.where(good, 1.0, 0.0),
            "reward_desirable": jnp.where(good, rewards, 0.0),
            "reward_undesirable": jnp.where(there & ~good, rewards, 0.0),
            "answer_tokens": answers.lengths,
        }
        metrics = {name: part.sum() for name, part in by_answer.items()} | {"kl": kl * count}
        read = (batch.rows.segment_ids > 0).sum().astype(jnp.float32)
        return LossOutput(jnp.where(there, value, 0.0).sum(), count, metrics, read)

    return loss


def make_evaluation(
    model: Model,
    held: Sequence[HeldoutRows],
    mesh: Mesh,
    *,
    config: KtoConfig,
    reference: Reference,
    batch_size: int,
    chunk: int,
) -> Callable[[Params], Evaluation] | None:
    """The loss of held-out answers, and the share whose log-ratio is on their label's side of the KL."""
    if not held:
        return None
    count = len(held)
    rows_of = heldout.batches(held, mesh, batch_size)
    other = [dataclasses.replace(h, rows=mismatched.of_batch(h.rows)) for h in held]
    others_of = heldout.batches(other, mesh, batch_size)

    @jax.jit
    def of_batch(params: Params, batch: KtoRows[jax.Array]) -> jax.Array:
        value, answers, kl = _judged(config, model, chunk, params, batch)
        there = answers.lengths > 0
        right = jnp.where(answers.desirable, answers.log_ratios > kl, answers.log_ratios < kl)
        values = [jnp.where(there, each, 0.0).sum(axis=1) for each in (value, right, 1.0)]
        return jax.vmap(lambda each: jax.ops.segment_sum(each, batch.rows.source, count))(jnp.stack(values))

    known: list[KtoRows[jax.Array]] = []

    def evaluate(params: Params) -> Evaluation:
        if not known:
            known.extend(complete(reference, rows, also) for rows, also in zip(rows_of(), others_of(), strict=True))
        sums = sum(np.asarray(jax.device_get(of_batch(params, batch)), np.float64) for batch in known)
        loss, right, answers = np.asarray(sums)
        return {
            KTO_LOSS.name: heldout.by_name(held, loss, answers),
            "label_accuracy": heldout.by_name(held, right, answers),
        }

    return evaluate


def complete(reference: Reference, rows: Rows[jax.Array], other: Rows[jax.Array]) -> KtoRows[jax.Array]:
    """Rows with log p under the reference."""
    own, of_other = reference.log_probs(rows), reference.log_probs(other)
    assert own is not None and of_other is not None  # KTO always has a reference
    return KtoRows(rows, other, own, of_other)


def encoder(config: KtoStageConfig, tokenizer: Tokenizer) -> LabelledEncoder:
    """Answers with their labels."""
    return LabelledEncoder(tokenizer, config.train.seq_len)


def run(name: str, config: KtoStageConfig, context: Context) -> None:
    """Trains on labelled answers."""
    train, shapes = config.train, context.shapes
    model = text.trained_model(name, config, shapes)
    reference = Reference(name, config, context)
    encode = encoder(config, context.tokenizer)

    def stream(rows: np.ndarray) -> Stream:
        at = context.position(config)
        return _Mismatching(context.stream(name, config, encode, rows, train.batch_size, train.seq_len, at))

    task = text.make_task(
        name,
        config,
        context,
        model,
        make_loss(model, config=config.kto, chunk=train.loss_chunk),
        encoder=encode,
        stream=stream,
        evaluation=functools.partial(make_evaluation, config=config.kto, reference=reference),
        score=KTO_LOSS,
        load_base=reference.base,
        make_frozen=lambda: Frozen(prepare=lambda params, batch, step, key: complete(reference, *batch)),
        flops=_flops(model, config),
    )
    text.train(name, config, context, model, task)


def _flops(model: Model, config: KtoStageConfig) -> dict[str, float]:
    """FLOPs beyond training: the reference reads both kinds of rows, the policy scores mismatched ones."""
    once = counts.forward_flops_per_token(model.architecture, config.train.seq_len)
    return {"reference": 2 * once, "estimate": once}


def programs(name: str, config: KtoStageConfig, shapes: Shapes) -> StagePrograms:
    """The step, preceded by the reference, which runs twice."""
    train, mesh = config.train, shapes.mesh
    model = text.trained_model(name, config, shapes)
    rows = abstract_batch(mesh, packing.shapes(train.batch_size, train.seq_len))
    by_token = abstract_batch(mesh, np.broadcast_to(np.float32(0), (train.batch_size, train.seq_len)))
    return text.step_programs(
        name,
        config,
        shapes,
        model,
        make_loss(model, config=config.kto, chunk=train.loss_chunk),
        batch=KtoRows(rows, rows, by_token, by_token),
        flops=sum(_flops(model, config).values()),
        about={"kto": to_dict(config.kto)},
        **plan_reference(config, shapes),
    )


KIND = Kind("kto", KtoStageConfig, run, free=text.FREE, decisive=text.decisive, programs=programs, encoder=encoder)
