"""Surgery in a stage's folder: shared by the kinds of stages that cut a model."""

import contextlib
import dataclasses
import logging
import pathlib
from collections.abc import Iterator
from typing import Any

import jax

from kanana_jax.data.stream.encode import TextEncoder
from kanana_jax.data.stream.packing import Rows
from kanana_jax.files import write_json
from kanana_jax.interop.card import card as new_card
from kanana_jax.interop.card import parent_path
from kanana_jax.interop.lineage import REPORT
from kanana_jax.interop.model_folder import ModelFolder
from kanana_jax.models import counts
from kanana_jax.parallel.sharding import local_rows, put_batch
from kanana_jax.stages.kind import Context, ReadingConfig, check_text
from kanana_jax.surgery import importance as importance_lib
from kanana_jax.surgery import streaming
from kanana_jax.surgery.cuts import CutList
from kanana_jax.surgery.importance import SCORES, Importance, ImportanceConfig

log = logging.getLogger("kanana")


def score_once(
    name: str, config: ReadingConfig, scoring: ImportanceConfig, seq_len: int, key: str, context: Context
) -> tuple[Importance, float]:
    """The scores of the model that a stage starts from, and the FLOPs that they took.

    They are computed on text of the stage's mixture and kept in its folder.

    Args:
      key: of `seq_len` in the stage's section.

    Raises:
      ConfigError: the model and the text do not fit.
      UserError: no calibration text.
    """
    parent, folder, shapes = context.find(config.start), context.workdir / name, context.shapes
    a = parent.architecture
    check_text(name, context, a, parent.card, key, seq_len)
    count = -(-scoring.samples // scoring.batch_size)
    tokens = count * scoring.batch_size * seq_len
    flops = importance_lib.forward_passes(scoring, a.num_layers) * counts.forward_flops_per_token(a, seq_len) * tokens
    if (folder / SCORES).is_file():
        return Importance.load(folder), flops
    log.info("scoring %s on %d rows of %d tokens", parent.path, scoring.samples, seq_len)
    model = shapes.model(a, seq_len)
    with jax.set_mesh(shapes.mesh):
        params = context.load(parent, model)
        batches = calibration_batches(name, config, context, scoring.batch_size, seq_len, count)
        scores = importance_lib.score(scoring, model, params, batches)
    if jax.process_index() == 0:
        scores.save(folder, dataclasses.asdict(scoring) | {"seq_len": seq_len, "of": str(parent.path)})
    return scores, flops


def calibration_batches(
    name: str, config: ReadingConfig, context: Context, batch_size: int, seq_len: int, count: int
) -> Iterator[Rows[jax.Array]]:
    """Yields `count` sharded batches of a stage's text, from the beginning of its sources."""
    mesh = context.shapes.mesh
    rows, encoder = local_rows(mesh, batch_size), TextEncoder(context.tokenizer)
    with contextlib.closing(context.stream(name, config, encoder, rows, batch_size, seq_len, None)) as stream:
        for _ in range(count):
            yield put_batch(mesh, rows, batch_size, next(stream))


def carry_out(
    cuts: CutList,
    parent: ModelFolder,
    folder: pathlib.Path,
    stage: str,
    flops: dict[str, float],
    more: dict[str, Any],
) -> None:
    """Writes `folder/model` and `folder/surgery.json`.

    Args:
      stage: its name, for `model.json`.
      flops: spent on it, by the kinds of `model.json`.
      more: goes into `surgery.json`.
    """
    if jax.process_index() == 0:
        write_json(folder / REPORT, cuts.report() | more)
    made = new_card(
        cuts.after,
        train_flops=flops.get("train", 0.0),
        teacher_flops=flops.get("teacher", 0.0),
        calibration_flops=flops.get("calibration", 0.0),
        parent=parent_path(parent.path, folder / "model"),
        tokenizer=parent.card.get("tokenizer"),
        stage=stage,
    )
    streaming.apply_to_folder(cuts, parent, folder / "model", made)
