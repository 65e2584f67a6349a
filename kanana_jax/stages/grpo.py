"""Policy gradients on verified answers: GRPO, RLOO, DAPO's and GSPO's variants (`losses/policy.py`).

An answer's ratio refers to the distribution that it was sampled from, at the same temperature and with the same top-p,
so that it is 1 if the parameters have not changed.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import ClassVar, Generic, NamedTuple

import jax
import numpy as np

from kanana_jax.config import to_dict
from kanana_jax.data.stream.packing import Array
from kanana_jax.losses.logprob import Drawn
from kanana_jax.losses.policy import PolicyConfig, advantages, policy_loss
from kanana_jax.models.architecture import DType
from kanana_jax.models.model import Model
from kanana_jax.models.transformer import Params
from kanana_jax.stages import dpo, sampling, sampling_chapter, sampling_programs, text
from kanana_jax.stages.answer_rows import AnswerRows, answer_rows
from kanana_jax.stages.answer_rows import shapes as answer_shapes
from kanana_jax.stages.kind import Context, Kind, Shapes, StagePrograms
from kanana_jax.stages.sampled import Sampled
from kanana_jax.stages.sampling import SamplingStage
from kanana_jax.training.step import Loss, LossOutput


@dataclasses.dataclass(frozen=True, kw_only=True)
class GrpoStage(SamplingStage):
    """The section of a stage of this kind.

    Attributes:
      policy: the loss.
      reference: the fixed model of the KL, an earlier stage or a folder; empty: the stage's start. Read only
        with a `policy.kl_weight`.
      reference_dtype: dtype in which it is stored and runs; None: the runtime's compute_dtype.
    """

    policy: PolicyConfig = PolicyConfig()
    reference: str = ""
    reference_dtype: DType | None = None
    least_samples: ClassVar[int] = 2
    why_several: ClassVar[str] = "an answer is compared with the others to its prompt"

    def __post_init__(self):
        super().__post_init__()
        if self.reference and not self.policy.kl_weight:
            raise ValueError("nothing reads the reference: set policy.kl_weight, or leave out 'reference'")

    @property
    def reference_model(self) -> str:
        """The stage or folder of the reference; empty where there is none."""
        return (self.reference or self.start) if self.policy.kl_weight else ""

    def references(self) -> dict[str, str]:
        return super().references() | ({"reference": self.reference} if self.reference else {})

    def others(self) -> dict[str, str]:
        return super().others() | ({"reference": self.reference_model} if self.reference_model else {})


class PolicyRows(NamedTuple, Generic[Array]):
    """A batch: answers, the advantage of each token's answer, and log p under the reference, float32 `[R, T]`.

    The latter is None where nothing needs it.
    """

    answers: AnswerRows[Array]
    advantages: Array
    reference: Array | None = None


def _drawn(config: GrpoStage, tokens: int) -> Drawn:
    return Drawn(config.rollout.sampling.temperature, tokens)


def _cuts(config: SamplingStage) -> bool:
    return config.rollout.sampling.top_p < 1 or config.rollout.sampling.top_k > 0


def make_loss(model: Model, *, config: PolicyConfig, drawn: Drawn, chunk: int) -> Loss:
    """Sum over tokens or answers, see `policy.PolicyLoss`."""

    def loss(params: Params, batch: PolicyRows[jax.Array], rng: jax.Array, others: None) -> LossOutput:
        del rng, others  # answers are sampled before the step; the reference's log-probabilities are in the batch
        rows = batch.answers.rows
        own_BT = dpo.target_log_probs(model, params, rows, chunk, drawn, batch.answers.cuts)
        sampled_BT, gains_BT = batch.answers.log_probs, batch.advantages
        found = policy_loss(
            config, own_BT, sampled_BT, batch.reference, gains_BT, rows.weights, rows.segment_ids
        )
        read = (rows.segment_ids > 0).sum().astype(own_BT.dtype)
        return LossOutput(found.loss, found.weight, found.metrics, read)

    return loss


def make_rows(config: GrpoStage, found: Sampled, counts: Sequence[int]) -> PolicyRows[np.ndarray]:
    """The answers of a step with their advantages, on the host."""
    assert found.rewards is not None  # a stage without rewards is refused
    flat = [(q.ids, answer) for q, group in zip(found.questions, found.answers) for answer in group]
    rows, index = answer_rows([[each] for each in flat], config.train.seq_len, _cuts(config), counts)
    gains_RT = np.append(advantages(config.policy, found.rewards), np.float32(0))[index]  # no answer (−1): 0, the last
    if not config.policy.unfinished:
        ended_RT = np.array([*(answer.ended for _, answer in flat), False])[index]
        rows = rows._replace(rows=rows.rows._replace(weights=rows.rows.weights * ended_RT))
    return PolicyRows(rows, gains_RT)


def run(name: str, config: GrpoStage, context: Context) -> None:
    """Trains on its own answers."""
    model = text.trained_model(name, config, context.shapes)
    drawn = _drawn(config, context.tokenizer.vocab_size)
    # The reference's distribution is not cut: k3 uses all of it, at the sampler's temperature.
    reference = dpo.Reference(name, config, context, drawn)
    sampling.run(
        name,
        config,
        context,
        model,
        make_loss(model, config=config.policy, drawn=drawn, chunk=config.train.loss_chunk),
        functools.partial(make_rows, config),
        complete=lambda batch: batch._replace(reference=reference.log_probs(batch.answers.rows)),
        load_base=reference.base,
        flops=dpo.reference_flops(reference.model, config),
    )


def programs(name: str, config: GrpoStage, shapes: Shapes) -> StagePrograms:
    """The sampler, the reference if there is one, and the step."""
    train = config.train
    model, reference = text.trained_model(name, config, shapes), dpo.reference_model(config, shapes)
    drawn = _drawn(config, model.architecture.vocab_size)
    count = train.batch_size * config.rollout.samples
    answers = answer_shapes(count, train.seq_len, _cuts(config))
    return sampling_programs.programs(
        name,
        config,
        shapes,
        model,
        make_loss(model, config=config.policy, drawn=drawn, chunk=train.loss_chunk),
        batch=PolicyRows(answers, answers.log_probs, None if reference is None else answers.log_probs),
        flops=sum(dpo.reference_flops(reference, config).values()),
        about={"policy": to_dict(config.policy)},
        **dpo.plan_reference(config, shapes, answers.rows, drawn),
    )


KIND = Kind(
    "grpo",
    GrpoStage,
    run,
    free=text.FREE,
    decisive=text.decisive,
    programs=programs,
    chapter=sampling_chapter.CHAPTER,
    encoder=sampling.encoder,
)
