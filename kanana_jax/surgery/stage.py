"""Surgery as a stage of a recipe: from the model folder of an earlier stage to one of its own."""

import dataclasses
import logging
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.sharding import Mesh

from kanana_jax.files import write_json
from kanana_jax.interop import model_folder
from kanana_jax.interop.lineage import REPORT
from kanana_jax.interop.model_folder import ModelFolder
from kanana_jax.models import counts
from kanana_jax.models.architecture import Runtime
from kanana_jax.surgery import importance as importance_lib
from kanana_jax.surgery import prune, streaming, upscale
from kanana_jax.surgery.cuts import Plan
from kanana_jax.surgery.importance import Importance, ImportanceConfig

log = logging.getLogger("kanana")


@dataclasses.dataclass(frozen=True)
class PruneStageConfig:
    """The section `prune` of a stage: the shape, and how parts are scored.

    Attributes:
      shape: what is wanted.
      importance: what is measured.
      seq_len: tokens a row of calibration text, which is drawn by the stage's mixture from what is trained on.
    """

    shape: prune.PruneConfig
    importance: ImportanceConfig = ImportanceConfig()
    seq_len: int = 1024


def run_upscale(config: upscale.UpscaleConfig, parent: ModelFolder, folder: pathlib.Path, card: dict[str, Any]) -> None:
    """Writes `folder/model` and `folder/surgery.json`."""
    carry_out(upscale.plan(parent.architecture, config), parent, folder, card, {}, {"method": config.method})


def run_prune(
    config: PruneStageConfig,
    parent: ModelFolder,
    folder: pathlib.Path,
    card: dict[str, Any],
    batches: Callable[[int], Iterator[dict[str, jax.Array]]],
    runtime: Runtime,
    implementation: str,
    mesh: Mesh,
) -> None:
    """Scores the parent on calibration text, and writes `folder/model`, `surgery.json` and the scores.

    Args:
      batches: makes so many sharded batches of calibration text.
    """
    prune.shape(parent.architecture, config.shape)  # a shape that cannot be is told before anything is computed
    scores, flops = score_once(
        config.importance, config.seq_len, parent, folder, batches, runtime, implementation, mesh
    )
    more = {"importance": dataclasses.asdict(config.importance)}
    carry_out(prune.plan(parent.architecture, config.shape, scores), parent, folder, card, {"calibration": flops}, more)


def score_once(
    config: ImportanceConfig,
    seq_len: int,
    parent: ModelFolder,
    folder: pathlib.Path,
    batches: Callable[[int], Iterator[dict[str, jax.Array]]],
    runtime: Runtime,
    implementation: str,
    mesh: Mesh,
) -> tuple[Importance, float]:
    """The parent's scores, from `folder` if they are there, and the FLOPs that they took."""
    a = parent.architecture
    count = -(-config.samples // config.batch_size)
    tokens = count * config.batch_size * seq_len
    flops = importance_lib.forward_passes(config, a.num_layers) * counts.forward_flops_per_token(a, seq_len) * tokens
    if (folder / "importance.npz").is_file():
        return Importance.load(folder), flops
    log.info("scoring %s on %d rows of %d tokens", parent.path, config.samples, seq_len)
    with jax.set_mesh(mesh):
        params = model_folder.load_params(parent, runtime, mesh)
        scores = importance_lib.score(config, a, runtime, params, batches(count), implementation)
    if jax.process_index() == 0:
        scores.save(folder, dataclasses.asdict(config) | {"seq_len": seq_len, "of": str(parent.path)})
    return scores, flops


def carry_out(
    plan: Plan,
    parent: ModelFolder,
    folder: pathlib.Path,
    card: dict[str, Any],
    flops: dict[str, float],
    more: dict[str, Any],
) -> None:
    """Writes `folder/model` and `folder/surgery.json`.

    Args:
      flops: what was spent on it, by the kinds of `model.json`.
      more: goes into `surgery.json`.
    """
    if jax.process_index() == 0:
        write_json(folder / REPORT, plan.report() | more)
    made = model_folder.card(
        plan.after,
        **{f"{kind}_flops": value for kind, value in flops.items()},
        parent=str(parent.path),
        tokenizer=parent.card.get("tokenizer"),
        **card,
    )
    streaming.apply_to_folder(plan, parent, folder / "model", made)
