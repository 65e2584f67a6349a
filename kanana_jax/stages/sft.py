"""Supervised fine-tuning: next-token cross-entropy on the assistant's turns of conversations (Kanana, §3.1).

The loss is a mean over the assistant's tokens; tokens per second, MFU and `model.json` count all
tokens that the model reads. Checkpoints are ranked by the same loss on held-out conversations.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
from jax.sharding import Mesh

from kanana_jax.data.stream.encode import ConversationEncoder
from kanana_jax.data.stream.heldout import HeldoutRows
from kanana_jax.data.stream.packing import Rows
from kanana_jax.data.tokens.tokenizer import Tokenizer
from kanana_jax.losses.cross_entropy import cross_entropy
from kanana_jax.models.model import Model
from kanana_jax.models.transformer import Params
from kanana_jax.stages import text
from kanana_jax.stages.kind import Context, Kind, Shapes, StagePrograms
from kanana_jax.stages.text import TrainingConfig
from kanana_jax.training import heldout
from kanana_jax.training.step import Loss, LossOutput
from kanana_jax.training.task import Evaluation, Score

ANSWER_LOSS = Score("answer_loss")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SftStage(TrainingConfig):
    """The section of a stage of this kind.

    Attributes:
      replay: whether the mixture may contain sources of plain texts, in which every token counts, to rehearse what the
        model would forget. Otherwise a record that is not a conversation is refused.
    """

    replay: bool = False


def make_loss(model: Model, *, chunk: int) -> Loss:
    """Sum of cross-entropy over the assistant's tokens."""

    def loss(params: Params, batch: Rows[jax.Array], rng: jax.Array, others: None) -> LossOutput:
        del rng, others  # nothing is sampled, no other model is needed
        hidden_BTD, unembedding_VD = model(params, batch)
        cap = model.architecture.logits_softcap
        output = cross_entropy(hidden_BTD, unembedding_VD, batch.targets, batch.weights, chunk=chunk, soft_cap=cap)
        read = (batch.segment_ids > 0).sum().astype(batch.weights.dtype)
        return LossOutput(output.loss, batch.weights.sum(), {"nll": output.nll}, read)

    return loss


def make_evaluation(
    model: Model, rows: Sequence[HeldoutRows], mesh: Mesh, *, batch_size: int, chunk: int
) -> Callable[[Params], Evaluation] | None:
    """Nats per token of held-out answers: `{"answer_loss": {"lang/ko": x, "source/chat": y}}`; None without any."""
    if not rows:
        return None
    sums = heldout.make_sums(model, rows, mesh, batch_size=batch_size, chunk=chunk)
    return lambda params: {ANSWER_LOSS.name: heldout.by_name(rows, *sums(params))}


def encoder(config: SftStage, tokenizer: Tokenizer) -> ConversationEncoder:
    """Conversations."""
    return ConversationEncoder(tokenizer, config.train.seq_len, replay=config.replay)


def run(name: str, config: SftStage, context: Context) -> None:
    """Trains on conversations."""
    model = text.trained_model(name, config, context.shapes)
    task = text.make_task(
        name,
        config,
        context,
        model,
        make_loss(model, chunk=config.train.loss_chunk),
        encoder=encoder(config, context.tokenizer),
        evaluation=make_evaluation,
        score=ANSWER_LOSS,
    )
    text.train(name, config, context, model, task)


def programs(name: str, config: SftStage, shapes: Shapes) -> StagePrograms:
    """The step."""
    model = text.trained_model(name, config, shapes)
    return text.step_programs(name, config, shapes, model, make_loss(model, chunk=config.train.loss_chunk))


KIND = Kind("sft", SftStage, run, free=text.FREE, decisive=text.decisive, programs=programs, encoder=encoder)
