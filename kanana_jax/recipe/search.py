"""A search as a stage: every candidate is pruned, distilled for a while by the one engine, and the best one stays.

DIR/<stage>/search.json                  candidates, their costs, losses at each rung, ranks
DIR/<stage>/candidates/<shape>/          a stage folder each: model (as pruned), checkpoints, metrics
DIR/<stage>/model/                       the winner as pruned, for the next stage to heal
"""

import contextlib
import dataclasses
import json
import logging
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from kanana_jax.errors import ConfigError
from kanana_jax.files import write_json
from kanana_jax.interop import model_folder
from kanana_jax.parallel.sharding import local_rows, put_batch
from kanana_jax.recipe.config import StageConfig
from kanana_jax.recipe.task import Run, training
from kanana_jax.surgery import cuts as plan_lib
from kanana_jax.surgery import prune, search
from kanana_jax.surgery import stage as surgery
from kanana_jax.surgery.importance import ImportanceConfig
from kanana_jax.training import loop

log = logging.getLogger("kanana")
RESULT = "search.json"


def run_search(name: str, stage: StageConfig, run: Run) -> None:
    """Runs a search to its end, going on where it was stopped.

    Raises:
      ConfigError: no shape is within the budget, or rungs that do not end where `train` does.
      UserError: see `training/loop.py`.
    """
    config, folder = stage.search, run.workdir / name
    if config.rungs[-1] != stage.train.steps:
        raise ConfigError(
            f"config '{name}.search.rungs' ends at step {config.rungs[-1]}, {name}.train at {stage.train.steps}: the "
            "last rung is the end of the short distillation"
        )
    parent = run.find(stage.start)
    before = parent.architecture
    run.check_text(name, before, parent.card, "search.seq_len", config.seq_len)
    shapes = {search.label(prune.shape(before, s)): s for s in search.candidates(before, config)}
    scores, calibration = surgery.score_once(
        config.importance,
        config.seq_len,
        parent,
        folder,
        lambda count: calibration_batches(name, stage, run, config.importance, config.seq_len, count),
        run.recipe.runtime,
        run.implementation(run.recipe.runtime, before, config.seq_len),
        run.mesh,
    )
    plans = {label: prune.plan(before, shape, scores) for label, shape in shapes.items()}
    log.info("stage '%s': %d candidates: %s", name, len(plans), ", ".join(plans))
    found: dict[str, dict[str, Any]] = {label: {} for label in plans}
    alive = list(plans)
    for place, rung in enumerate(config.rungs):
        for label in alive:
            _reach(found[label], rung, label, stage, run, parent, plans[label], folder / "candidates" / label)
        losses = {label: found[label]["rungs"][str(rung)] for label in alive}
        alive = search.survivors(losses, config.keep if place + 1 < len(config.rungs) else 1.0)
    ranked = sorted(plans, key=lambda label: _standing(found[label]))
    rows = [
        {"shape": label, "rank": i + 1, **search.costs(plans[label].after, config.budget), **found[label]}
        for i, label in enumerate(ranked)
    ]
    if jax.process_index() == 0:
        result = {"budget": dataclasses.asdict(config.budget), "rungs": config.rungs, "candidates": rows}
        write_json(folder / RESULT, result | {"spearman_with_last": _rank_correlations(found, config.rungs)})
    flops = {kind: sum(row["flops"][kind] for row in rows) for kind in ("train", "teacher")}
    surgery.carry_out(
        plans[ranked[0]],
        parent,
        folder,
        {"stage": name},
        flops | {"calibration": calibration},
        {"importance": dataclasses.asdict(config.importance), "searched": ranked[0]},
    )
    if jax.process_index() == 0:
        for label in ranked:  # weights and moments of many models; their figures stay
            shutil.rmtree(folder / "candidates" / label / "checkpoints", ignore_errors=True)
            shutil.rmtree(folder / "candidates" / label / "model", ignore_errors=True)


def calibration_batches(
    name: str, stage: StageConfig, run: Run, config: ImportanceConfig, seq_len: int, count: int
) -> Iterator[dict[str, jax.Array]]:
    """So many sharded batches of a stage's text, from the beginning of its sources."""
    rows = local_rows(run.mesh, config.batch_size)
    with contextlib.closing(run.stream(name, stage, rows, config.batch_size, seq_len, None)) as stream:
        for _ in range(count):
            yield put_batch(run.mesh, rows, config.batch_size, next(stream))


def _reach(
    found: dict[str, Any],
    rung: int,
    label: str,
    stage: StageConfig,
    run: Run,
    parent: model_folder.ModelFolder,
    plan: plan_lib.Plan,
    folder: pathlib.Path,
) -> None:
    """Trains a candidate up to a rung, unless that is done; its figures go into `found` and `result.json`."""
    file = folder / "result.json"
    if not found and file.is_file():
        found.update(json.loads(file.read_text()))
    if str(rung) in found.get("rungs", {}):
        return
    if not (folder / "model" / model_folder.CARD).is_file():
        surgery.carry_out(plan, parent, folder, {"stage": label}, {}, {})
    # Every candidate reads what the stage itself would read.
    after = stage.data_after or stage.start
    candidate = dataclasses.replace(stage, kind="distill", start=str(folder), search=None, data_after=after)
    made = training(label, candidate, run, run.find(str(folder)))
    result = loop.train(made.task, stage.train, run.mesh, folder, run.recipe.seed, stop_at=rung)
    found.setdefault("rungs", {})[str(rung)] = _mean_bits(result.evaluation)
    found |= {
        "tokens": result.tokens,
        "flops": {"train": made.flops_per_token * result.tokens, "teacher": made.teacher_flops * result.tokens},
    }
    if jax.process_index() == 0:
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        found["pruned"] = _mean_bits(next(row["eval"] for row in rows if "eval" in row and row["step"] == 0))
        write_json(file, found)


def _mean_bits(evaluation: dict[str, Any]) -> float:
    """Held-out bits per byte, the mean of all languages."""
    return float(np.mean([v for k, v in evaluation["bits_per_byte"].items() if k.startswith("lang/")]))


def _standing(found: dict[str, Any]) -> tuple[int, float]:
    """Whoever came farther is ahead; of those the lower loss there."""
    rung = max(found["rungs"], key=int)
    return -int(rung), found["rungs"][rung]


def _rank_correlations(found: dict[str, dict[str, Any]], rungs: tuple[int, ...]) -> dict[str, float | None]:
    """Spearman's ρ of earlier losses with those of the last rung, over who reached it: do rankings settle early?"""
    from scipy import stats

    last = [f for f in found.values() if str(rungs[-1]) in f["rungs"]]
    end = [f["rungs"][str(rungs[-1])] for f in last]
    early = {"pruned": [f["pruned"] for f in last]} | {str(r): [f["rungs"][str(r)] for f in last] for r in rungs[:-1]}
    return {
        name: float(stats.spearmanr(values, end).statistic) if len(last) > 2 else None for name, values in early.items()
    }
