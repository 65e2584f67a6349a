"""Surgery in a stage's folder: shared by the kinds of stages that cut a model."""

import contextlib
import dataclasses
import hashlib
import logging
import math
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from kanana_jax.data.stream.encode import TextEncoder
from kanana_jax.data.stream.packing import Rows
from kanana_jax.files import read_json, write_json
from kanana_jax.interop.card import card as new_card
from kanana_jax.interop.card import noted, parent_path
from kanana_jax.interop.lineage import REPORT
from kanana_jax.interop.model_folder import ModelFolder
from kanana_jax.models import counts
from kanana_jax.parallel.sharding import RULES, check_divisible, local_rows, put_batch
from kanana_jax.stages.kind import Context, ReadingConfig, check_text
from kanana_jax.surgery import importance as importance_lib
from kanana_jax.surgery import streaming
from kanana_jax.surgery.cuts import CutList
from kanana_jax.surgery.importance import SCORES, Importance, ImportanceConfig

_ABOUT = "importance.json"
log = logging.getLogger("kanana")


@dataclasses.dataclass
class Calibration:
    """The calibration text of the scores, counted while it is read.

    Attributes:
      rows: number of rows scored.
      different_rows: number of distinct rows among them.
      read_over: source → how often it was read, if more than once.
    """

    rows: int = 0
    different_rows: int = 0
    read_over: dict[str, float] = dataclasses.field(default_factory=dict)


def calibration_of(folder: pathlib.Path) -> dict[str, Any]:
    """Calibration fields of a stage's `surgery.json`: those of `Calibration`."""
    return (read_json(folder / _ABOUT) or {}).get("calibration", {})


def score_once(
    name: str,
    config: ReadingConfig,
    scoring: ImportanceConfig,
    seq_len: int,
    lengths: Sequence[int],
    key: str,
    context: Context,
) -> tuple[Importance, float]:
    """The scores of the model that a stage starts from, and the FLOPs spent on them.

    They are computed on text from the stage's mixture and kept in its folder.

    Args:
      lengths: the lengths of the blocks of layers that are scored.
      key: the config key of `seq_len` in the stage's section.

    Raises:
      ConfigError: the model and the text do not fit.
      UserError: no calibration text.
    """
    parent, folder, shapes = context.find(config.start), context.workdir / name, context.shapes
    a = parent.architecture
    check_text(name, context, a, parent, key, seq_len)
    check_divisible(shapes.mesh, {**counts.sizes(a), f"{name}.{key}": ("sequence", seq_len)})
    tokens = scoring.samples * seq_len
    passes = importance_lib.forward_passes(scoring, a.num_layers, lengths)
    flops = passes * counts.forward_flops_per_token(a, seq_len) * tokens
    if (folder / SCORES).is_file():
        return Importance.load(folder), flops
    log.info("scoring %s on %d rows of %d tokens", parent.path, scoring.samples, seq_len)
    model = shapes.model(a, seq_len)
    with jax.set_mesh(shapes.mesh):
        params = context.load(parent, model)
        read = Calibration()
        batches = calibration_batches(name, config, context, scoring, seq_len, read)
        scores = importance_lib.score(scoring, model, params, batches, lengths)
    if jax.process_index() == 0:
        about = {"seq_len": seq_len, "of": noted(parent.path, context.workdir), "calibration": dataclasses.asdict(read)}
        scores.save(folder, dataclasses.asdict(scoring) | about)
    return scores, flops


def calibration_batches(
    name: str, config: ReadingConfig, context: Context, scoring: ImportanceConfig, seq_len: int, counted: Calibration
) -> Iterator[Rows[jax.Array]]:
    """Yields sharded batches of the first `samples` rows of a stage's text, from the beginning of its sources.

    The rows are the same on any number of devices: batches are padded to a multiple of it.

    Args:
      counted: filled in as rows are read; complete after the last batch.
    """
    different: set[bytes] = set()
    mesh, encoder = context.shapes.mesh, TextEncoder(context.tokenizer)
    read = -(-scoring.batch_size // context.lanes) * context.lanes  # every lane yields equally many
    parts = math.prod(mesh.shape[axis] for axis in RULES["batch"])
    size = -(-read // parts) * parts
    mine = local_rows(mesh, size)
    with contextlib.closing(context.stream(name, config, encoder, range(read), read, seq_len, None)) as stream:
        for done in range(0, scoring.samples, read):
            count, rows = min(read, scoring.samples - done), next(stream)
            different.update(hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows.inputs[:count])
            filled = Rows(*(np.concatenate([x[:count], np.zeros((size - count, *x.shape[1:]), x.dtype)]) for x in rows))
            yield put_batch(mesh, mine, size, Rows(*(x[mine] for x in filled)))
        sources = context.data_report(stream.get_state())["sources"]
    counted.rows, counted.different_rows = scoring.samples, len(different)
    counted.read_over = {source: found["epochs"] for source, found in sources.items() if found["epochs"] > 1}
    if counted.read_over:
        repeated = ", ".join(f"'{source}' {epochs:.1f} times" for source, epochs in counted.read_over.items())
        log.warning(
            "stage '%s': %d rows of calibration text are more than its sources hold; %d of them are distinct, and "
            "these were read repeatedly: %s (set fewer importance.samples, or other weights)",
            name,
            counted.rows,
            counted.different_rows,
            repeated,
        )
    elif counted.different_rows < counted.rows:
        log.warning(
            "stage '%s': of %d rows of calibration text, only %d are distinct: its sources repeat themselves (run "
            "`kanana dedup`)",
            name,
            counted.rows,
            counted.different_rows,
        )


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
      flops: FLOPs spent on the model, by the kinds in `model.json`.
      more: further fields of `surgery.json`.
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
