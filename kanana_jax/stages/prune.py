"""Pruning: removal of a model's least important parts (Kanana, arXiv:2502.18934, §2.3; Minitron, arXiv:2407.14679)."""

import dataclasses

from kanana_jax.models.architecture import Architecture
from kanana_jax.stages import cut, surgery_chapter
from kanana_jax.stages.kind import Context, Kind, ReadingConfig
from kanana_jax.surgery import prune
from kanana_jax.surgery.importance import ImportanceConfig


@dataclasses.dataclass(frozen=True)
class PruneStageConfig:
    """The section `prune` of a stage: the target shape, and the scoring of parts.

    Attributes:
      shape: shape of the result.
      importance: how parts are scored.
      seq_len: tokens per row of calibration text, which comes from the stage's mixture of training documents.
    """

    shape: prune.PruneConfig
    importance: ImportanceConfig = ImportanceConfig()
    seq_len: int = 1024


@dataclasses.dataclass(frozen=True, kw_only=True)
class PruneStage(ReadingConfig):
    """A stage of this kind."""

    prune: PruneStageConfig


def architecture(name: str, config: PruneStage, before: Architecture | None) -> Architecture:
    assert before is not None  # parsing refuses 'scratch'
    return prune.shape(before, config.prune.shape, f"{name}.prune.shape")


def run(name: str, config: PruneStage, context: Context) -> None:
    """Scores the parent on calibration text, and writes `model/`, `surgery.json` and the scores."""
    own, parent = config.prune, context.find(config.start)
    architecture(name, config, parent.architecture)  # reject an impossible shape before computing anything
    lengths = prune.block_lengths(parent.architecture, [own.shape])
    scores, flops = cut.score_once(name, config, own.importance, own.seq_len, lengths, "prune.seq_len", context)
    cuts = prune.cut_list(parent.architecture, own.shape, scores, f"{name}.prune.shape")
    folder = context.workdir / name
    more = {"importance": dataclasses.asdict(own.importance), "calibration": cut.calibration_of(folder)}
    cut.carry_out(cuts, parent, folder, name, {"calibration": flops}, more)


KIND = Kind("prune", PruneStage, run, architecture=architecture, chapter=surgery_chapter.CHAPTER)
