"""Depth up-scaling: a deeper model from the layers of another (Kanana, arXiv:2502.18934, §2.2)."""

import dataclasses

from kanana_jax.models.architecture import Architecture
from kanana_jax.stages import cut, surgery_chapter
from kanana_jax.stages.kind import Context, Kind, StageConfig
from kanana_jax.surgery import upscale
from kanana_jax.surgery.upscale import UpscaleConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class UpscaleStage(StageConfig):
    """A stage of this kind."""

    upscale: UpscaleConfig


def architecture(name: str, config: UpscaleStage, before: Architecture | None) -> Architecture:
    assert before is not None  # parsing refuses 'scratch'
    return upscale.cut_list(before, config.upscale, f"{name}.upscale").after


def run(name: str, config: UpscaleStage, context: Context) -> None:
    """Writes `model/` and `surgery.json`."""
    parent = context.find(config.start)
    cuts = upscale.cut_list(parent.architecture, config.upscale, f"{name}.upscale")
    cut.carry_out(cuts, parent, context.workdir / name, name, {}, {"method": config.upscale.method})


KIND = Kind("upscale", UpscaleStage, run, architecture=architecture, chapter=surgery_chapter.CHAPTER)
