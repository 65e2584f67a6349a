"""Distillation from a frozen teacher on the final logits (Kanana, arXiv:2502.18934, §2.3; arXiv:2407.14679, §3).

The teacher runs on the same packed rows as the student, with the same document masks, sharded in the same way.
"""

import dataclasses

import jax

from kanana_jax.config import ConfigError
from kanana_jax.models.architecture import Architecture, Runtime
from kanana_jax.models.transformer import Params, bind
from kanana_jax.training.distillation import DistillationConfig, distillation
from kanana_jax.training.step import Batch, Loss, LossOutput


@dataclasses.dataclass(frozen=True)
class DistillConfig:
    """The section `distill` of a stage.

    Attributes:
      teacher: name of an earlier stage, or a model folder.
      loss: divergence, temperature, cross-entropy.
      dtype: in which the teacher is held and runs.
    """

    teacher: str
    loss: DistillationConfig = DistillationConfig()
    dtype: str = "bfloat16"

    def __post_init__(self):
        if self.dtype not in ("bfloat16", "float32"):
            raise ValueError(f"dtype must be 'bfloat16' or 'float32', not '{self.dtype}'")


def make_loss(
    architecture: Architecture,
    runtime: Runtime,
    implementation: str,
    teacher: Architecture,
    teacher_runtime: Runtime,
    teacher_implementation: str,
    *,
    config: DistillationConfig,
    chunk: int,
) -> Loss:
    """Sum of the divergence (and cross-entropy) over the tokens that carry loss; `frozen` is the teacher."""

    def loss(params: Params, batch: Batch, rng: jax.Array, frozen: Params) -> LossOutput:
        del rng  # nothing is drawn
        model = bind(architecture, runtime, params)
        teaching = bind(teacher, teacher_runtime, jax.lax.stop_gradient(frozen))
        rows = {"positions": batch["positions"], "segment_ids": batch["segment_ids"]}
        output = distillation(
            model(batch["inputs"], implementation=implementation, **rows),
            model.unembedding_matrix(),
            teaching(batch["inputs"], implementation=teacher_implementation, **rows),
            teaching.unembedding_matrix(),
            batch["targets"],
            batch["weights"],
            config=config,
            chunk=chunk,
        )
        return LossOutput(output.loss, batch["weights"].sum(), {"divergence": output.divergence, "nll": output.nll})

    return loss


def check_teacher(
    name: str, student: Architecture, teacher: Architecture, student_tokens: str, teacher_tokens: str | None
):
    """A teacher must speak the student's vocabulary.

    Args:
      student_tokens, teacher_tokens: fingerprints of the tokenizers; None where a foreign folder has none.

    Raises:
      ConfigError: names both.
    """
    if teacher.vocab_size != student.vocab_size:
        raise ConfigError(
            f"stage '{name}': the teacher has {teacher.vocab_size} pieces, the student {student.vocab_size}: "
            "logits can only be compared over one vocabulary"
        )
    if teacher_tokens is not None and teacher_tokens != student_tokens:
        raise ConfigError(
            f"stage '{name}': the teacher's tokenizer is another ({teacher_tokens[:12]}…, the recipe's is "
            f"{student_tokens[:12]}…): distil with the tokenizer that the teacher was trained with"
        )
