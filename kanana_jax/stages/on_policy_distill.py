"""Distillation on the student's own answers (GKD, arXiv:2306.13649; MiniLLM, arXiv:2306.08543).

The student answers prompts, and learns at each of its own tokens from the teacher's whole distribution, so it is taught
on the texts that it writes itself. The divergences are those of distillation on texts; both share one tokenizer.
"""

import dataclasses
import functools
from collections.abc import Sequence

from kanana_jax.config import to_dict
from kanana_jax.data.stream import packing
from kanana_jax.losses.distillation import DistillationConfig
from kanana_jax.models import counts
from kanana_jax.models.architecture import DType
from kanana_jax.models.model import Model
from kanana_jax.parallel.sharding import abstract_tree, tree_shardings
from kanana_jax.stages import distill, sampling, sampling_chapter, sampling_programs, text
from kanana_jax.stages.answer_rows import answer_rows
from kanana_jax.stages.kind import Context, Kind, Shapes, StagePrograms, check_text, device_bytes
from kanana_jax.stages.sampled import Sampled
from kanana_jax.stages.sampling import RewardConfig, SamplingStage
from kanana_jax.training.task import Frozen


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnPolicyStage(SamplingStage):
    """The section of a stage of this kind.

    Attributes:
      teacher: name of an earlier stage, or a model folder.
      loss: divergence and its temperature; `reverse` by default, `mixed` where answers grow or lose their variety.
      dtype: dtype in which the teacher is stored and runs.
      reward: only logged and evaluated; none by default.
    """

    teacher: str
    loss: DistillationConfig = DistillationConfig(divergence="reverse")
    dtype: DType = "bfloat16"
    rollout: sampling.RolloutConfig = sampling.RolloutConfig(samples=1)
    reward: RewardConfig = RewardConfig(verifiers={})

    def __post_init__(self):
        super().__post_init__()
        if not self.teacher:
            raise ValueError("on-policy distillation needs a teacher: name an earlier stage or a model folder")

    def references(self) -> dict[str, str]:
        return super().references() | {"teacher": self.teacher}

    def others(self) -> dict[str, str]:
        return super().others() | {"teacher": self.teacher}


def make_rows(config: OnPolicyStage, found: Sampled, counts: Sequence[int]) -> packing.Rows:
    """The answers of a step, on the host."""
    flat = [[(q.ids, answer)] for q, group in zip(found.questions, found.answers) for answer in group]
    return answer_rows(flat, config.train.seq_len, False, counts).answers.rows


def _teacher(config: OnPolicyStage, shapes: Shapes) -> Model:
    runtime = text.frozen_runtime(shapes.runtime, config.dtype)
    return shapes.model(shapes.architecture(config.teacher), config.train.seq_len, runtime)


def run(name: str, config: OnPolicyStage, context: Context) -> None:
    """Trains a student on its own answers."""
    train = config.train
    model, teacher = text.trained_model(name, config, context.shapes), _teacher(config, context.shapes)
    folder = context.find(config.teacher)
    check_text(name, context, teacher.architecture, folder, "train.seq_len", train.seq_len, "teacher")
    sampling.run(
        name,
        config,
        context,
        model,
        distill.make_loss(model, teacher, config=config.loss, chunk=train.loss_chunk),
        functools.partial(make_rows, config),
        make_frozen=lambda: Frozen(context.load(folder, teacher)),
        flops={"teacher": counts.forward_flops_per_token(teacher.architecture, train.seq_len)},
    )


def programs(name: str, config: OnPolicyStage, shapes: Shapes) -> StagePrograms:
    """The sampler, and the step with the teacher in it."""
    train, mesh = config.train, shapes.mesh
    model, teacher = text.trained_model(name, config, shapes), _teacher(config, shapes)
    params = abstract_tree(teacher.abstract_params(), tree_shardings(mesh, teacher.logical_axes()))
    return sampling_programs.programs(
        name,
        config,
        shapes,
        model,
        distill.make_loss(model, teacher, config=config.loss, chunk=train.loss_chunk),
        batch=packing.shapes(train.batch_size * config.rollout.samples, train.seq_len),
        others=params,
        architectures={"teacher": teacher.architecture},
        flops=counts.forward_flops_per_token(teacher.architecture, train.seq_len),
        resident={"teacher": device_bytes(params)},
        about={"loss": to_dict(config.loss)},
    )


KIND = Kind(
    "on_policy_distill",
    OnPolicyStage,
    run,
    free=text.FREE,
    decisive=text.decisive,
    programs=programs,
    chapter=sampling_chapter.CHAPTER,
    encoder=sampling.encoder,
)
