"""Online preference optimisation: pairs of the model's own answers (Kanana, arXiv:2502.18934, §3.1; arXiv:2402.04792).

The best and the worst answer to a prompt, by reward, form a pair, which the losses of offline preference optimisation
use unchanged. The reference stays fixed: updating it made answers longer (Kanana, §3.1). A prompt whose answers all
have the same reward gives no pair.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import ClassVar, Generic, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kanana_jax.config import to_dict
from kanana_jax.data.stream.packing import Array
from kanana_jax.losses.policy import k3
from kanana_jax.losses.preference import PreferenceConfig
from kanana_jax.models.model import Model
from kanana_jax.models.transformer import Params
from kanana_jax.stages import dpo, sampling, sampling_chapter, sampling_programs, text
from kanana_jax.stages.answer_rows import AnswerRows, answer_rows
from kanana_jax.stages.answer_rows import shapes as answer_shapes
from kanana_jax.stages.dpo import DpoConfig, PairRows
from kanana_jax.stages.kind import Context, Kind, Shapes, StagePrograms
from kanana_jax.stages.sampled import Sampled
from kanana_jax.stages.sampling import SamplingStage
from kanana_jax.training.step import Loss, LossOutput


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnlineDpoStage(SamplingStage, DpoConfig):
    """The section of a stage of this kind: the sampling of answers, and the loss on their pairs with its reference."""

    answers_per_row: ClassVar[int] = 2
    least_samples: ClassVar[int] = 2
    why_several: ClassVar[str] = "a pair is the best and the worst of the answers to a prompt"

    def __post_init__(self):
        super().__post_init__()
        if self.reference_cache:
            raise ValueError("reference_cache is for answers that recur, and sampled ones are new: leave it out")


class OnlinePairs(NamedTuple, Generic[Array]):
    """A batch: rows of pairs, with log p of their targets under the sampler and under the reference."""

    answers: AnswerRows[Array]
    reference: Array | None = None


def make_loss(model: Model, *, config: PreferenceConfig, chunk: int, plain: bool) -> Loss:
    """`dpo.make_loss`, and statistics of the policy as means over the pairs' tokens.

    Args:
      plain: whether answers are sampled from the model's own distribution, so that `mismatch` measures only the
        difference between the log-probabilities of sampler and trainer. `kl` is k3 (`policy.py`).
    """

    def loss(params: Params, batch: OnlinePairs[jax.Array], rng: jax.Array, others: None) -> LossOutput:
        del rng, others  # answers are sampled before the step
        rows = batch.answers.rows
        own_BT = dpo.target_log_probs(model, params, rows, chunk)
        reference_BT = jnp.zeros_like(own_BT) if batch.reference is None else batch.reference
        found = dpo.pair_loss(config, PairRows(rows, reference_BT), own_BT)
        # Means over tokens, as sums over pairs.
        share_BT = rows.weights * found.weight / jnp.maximum(rows.weights.sum(), 1.0)
        metrics = {}
        if plain:
            metrics["mismatch"] = (jnp.abs(own_BT - batch.answers.log_probs) * share_BT).sum()
        if batch.reference is not None:
            metrics["kl"] = (k3(own_BT, reference_BT) * share_BT).sum()
        return found._replace(metrics=found.metrics | jax.lax.stop_gradient(metrics))

    return loss


def make_rows(config: OnlineDpoStage, found: Sampled, counts: Sequence[int]) -> OnlinePairs[np.ndarray]:
    """The best and the worst answer to each prompt, on the host; the first among equals."""
    assert found.rewards is not None  # a stage without rewards is refused
    pairs = []
    for question, group, rewards in zip(found.questions, found.answers, found.rewards):
        best, worst = int(rewards.argmax()), int(rewards.argmin())
        differ = rewards[best] > rewards[worst]
        pairs.append([(question.ids, group[i]) for i in (best, worst)] if differ else [])
    return OnlinePairs(answer_rows(pairs, config.train.seq_len, False, counts).answers)


def _loss(config: OnlineDpoStage, model: Model, tokens: int) -> Loss:
    own = config.rollout.sampling
    plain = own.temperature == 1 and own.top_p == 1 and not own.top_k and tokens == model.architecture.vocab_size
    return make_loss(model, config=config.preference, chunk=config.train.loss_chunk, plain=plain)


def run(name: str, config: OnlineDpoStage, context: Context) -> None:
    """Trains on pairs of the model's own answers."""
    model = text.trained_model(name, config, context.shapes)
    reference = dpo.Reference(name, config, context)
    sampling.run(
        name,
        config,
        context,
        model,
        _loss(config, model, context.tokenizer.vocab_size),
        functools.partial(make_rows, config),
        complete=lambda batch: batch._replace(reference=reference.log_probs(batch.answers.rows)),
        load_base=reference.base,
        flops=dpo.reference_flops(reference.model, config),
    )


def programs(name: str, config: OnlineDpoStage, shapes: Shapes) -> StagePrograms:
    """The sampler, the reference, and the step."""
    train = config.train
    model, reference = text.trained_model(name, config, shapes), dpo.reference_model(config, shapes)
    answers = answer_shapes(train.batch_size, train.seq_len, with_cuts=False)
    return sampling_programs.programs(
        name,
        config,
        shapes,
        model,
        _loss(config, model, model.architecture.vocab_size),
        batch=OnlinePairs(answers, None if reference is None else answers.log_probs),
        flops=sum(dpo.reference_flops(reference, config).values()),
        about={"preference": to_dict(config.preference)},
        **dpo.plan_reference(config, shapes, answers.rows),
    )


KIND = Kind(
    "online_dpo",
    OnlineDpoStage,
    run,
    free=text.FREE,
    decisive=text.decisive,
    programs=programs,
    chapter=sampling_chapter.CHAPTER,
    encoder=sampling.encoder,
)
