"""A search for a shape: every candidate is pruned and briefly distilled, and the best is kept.

DIR/<stage>/search.json                  candidates, their costs, losses at each rung, ranks
DIR/<stage>/candidates/<shape>/          a stage folder: model (as pruned), checkpoints, metrics
DIR/<stage>/model/                       the winner as pruned, for the next stage to heal
"""

import dataclasses
import json
import logging
import math
from typing import Any

import jax

from kanana_jax.errors import ConfigError, UserError
from kanana_jax.files import read_json, remove_tree, write_json
from kanana_jax.interop import model_folder
from kanana_jax.interop.model_folder import ModelFolder
from kanana_jax.models.architecture import Architecture
from kanana_jax.stages import cut, distill, search_chapter, text
from kanana_jax.stages.distill import DistillConfig, DistillStage
from kanana_jax.stages.kind import Context, Kind, ReadingConfig
from kanana_jax.surgery import prune, search
from kanana_jax.surgery.cuts import CutList
from kanana_jax.surgery.search import SearchConfig
from kanana_jax.training import loop
from kanana_jax.training.task import Score, TrainConfig

log = logging.getLogger("kanana")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchStage(ReadingConfig):
    """A stage of this kind: a budget and a space of shapes, and the short distillation that compares them."""

    search: SearchConfig
    distill: DistillConfig
    train: TrainConfig

    def __post_init__(self):
        super().__post_init__()
        if self.search.rungs[-1] != self.train.steps:
            raise ValueError(
                f"search.rungs ends at step {self.search.rungs[-1]}, but train at {self.train.steps}: the last rung "
                "must be the end of the short distillation"
            )

    def references(self) -> dict[str, str]:
        return super().references() | self.distill.references()


@dataclasses.dataclass
class Candidate:
    """The figures of a candidate shape.

    Attributes:
      rungs: steps of the short distillation → score after them, as a loss.
      pruned: score right after pruning, as a loss; None: not trained yet.
      tokens: number of tokens trained on.
      flops: FLOPs spent on it, by the kinds in `model.json`.
    """

    rungs: dict[str, float] = dataclasses.field(default_factory=dict)
    pruned: float | None = None
    tokens: int = 0
    flops: dict[str, float] = dataclasses.field(default_factory=dict)

    def standing(self) -> tuple[int, bool, float]:
        """Sort key: candidates that reached a later rung first, then the lower loss there; NaN last."""
        rung = max(self.rungs, key=int)
        return -int(rung), not math.isfinite(self.rungs[rung]), self.rungs[rung]


def architecture(name: str, config: SearchStage, before: Architecture | None) -> Architecture:
    raise ConfigError(f"the shape that stage '{name}' will find is unknown until it has run: name its model folder")


def run(name: str, config: SearchStage, context: Context) -> None:
    """Runs a search to its end, resuming where it was stopped.

    Raises:
      ConfigError: no shape is within the budget, or no source holds out text.
      UserError: see `training/loop.py`.
    """
    own, folder = config.search, context.workdir / name
    parent = context.find(config.start)
    before = parent.architecture
    shapes = {search.label(prune.shape(before, s)): s for s in search.candidates(before, own)}
    lengths = prune.block_lengths(before, shapes.values())
    scores, calibration = cut.score_once(name, config, own.importance, own.seq_len, lengths, "search.seq_len", context)
    cuts = {label: prune.cut_list(before, shape, scores) for label, shape in shapes.items()}
    log.info("stage '%s': %d candidates: %s", name, len(cuts), ", ".join(cuts))
    found: dict[str, Candidate] = {}
    alive = list(cuts)
    for place, rung in enumerate(own.rungs):
        for label in alive:
            found[label] = _reach(name, label, rung, config, context, parent, cuts[label])
        losses = {label: found[label].rungs[str(rung)] for label in alive}
        alive = search.survivors(losses, own.keep if place + 1 < len(own.rungs) else 1.0)
    ranked = sorted(cuts, key=lambda label: found[label].standing())
    if not math.isfinite(found[ranked[0]].rungs[str(own.rungs[-1])]):
        raise UserError(
            f"stage '{name}': no candidate has a finite loss after step {own.rungs[-1]}: lower config "
            f"'{name}.train.optimizer.learning_rate'"
        )
    if jax.process_index() == 0:
        rows = [
            {
                "shape": label,
                "rank": i + 1,
                **search.costs(cuts[label].after, own.budget),
                **dataclasses.asdict(found[label]),
            }
            for i, label in enumerate(ranked)
        ]
        result = {"budget": dataclasses.asdict(own.budget), "rungs": own.rungs, "candidates": rows}
        result["spearman_with_last"] = _rank_correlations(found, own.rungs)
        write_json(folder / search_chapter.RESULT, result)
    flops = {kind: sum(c.flops[kind] for c in found.values()) for kind in ("train", "teacher")}
    more = {"importance": dataclasses.asdict(own.importance), "calibration": cut.calibration_of(folder)}
    spent = flops | {"calibration": calibration}
    cut.carry_out(cuts[ranked[0]], parent, folder, name, spent, more | {"searched": ranked[0]})
    if jax.process_index() == 0:
        for label in ranked:  # weights and moments of many models are deleted; their figures stay
            remove_tree(folder / "candidates" / label / "checkpoints")
            remove_tree(folder / "candidates" / label / "model")


def _reach(
    stage: str,
    label: str,
    rung: int,
    config: SearchStage,
    context: Context,
    parent: ModelFolder,
    cuts: CutList,
) -> Candidate:
    """Trains a candidate up to a rung, unless this is done already; its figures are kept in `result.json`."""
    folder = context.workdir / stage / "candidates" / label
    written = read_json(folder / "result.json")
    found = Candidate() if written is None else Candidate(**written)
    if str(rung) in found.rungs:
        return found
    if not (folder / "model" / model_folder.CARD).is_file():
        cut.carry_out(cuts, parent, folder, label, {}, {})
    candidate = DistillStage(
        kind=distill.KIND.name,
        start=str(folder),
        mixture=config.mixture,
        select=config.select,
        data_after=config.data_after or config.start,  # every candidate reads what the stage itself would read
        train=config.train,
        distill=config.distill,
    )
    _, task = distill.make_task(label, candidate, context)
    if task.evaluate is None:
        raise ConfigError(
            f"stage '{stage}' compares candidates by {task.score.name} on held-out text, but no source holds out any: "
            "set config 'sources.NAME.holdout'"
        )
    shapes = context.shapes
    result = loop.train(task, config.train, shapes.mesh, folder, shapes.seed, stop_at=rung)
    found.rungs[str(rung)] = _loss(task.score, result.evaluation)
    found.tokens = result.tokens
    found.flops = {kind: task.flops.get(kind, 0.0) * result.tokens for kind in ("train", "teacher")}
    if jax.process_index() == 0:
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        first = next(line["eval"] for line in lines if "eval" in line and line["step"] == 0)
        found.pruned = _loss(task.score, first)
        write_json(folder / "result.json", dataclasses.asdict(found))
    return found


def _loss(score: Score, evaluation: dict[str, Any]) -> float:
    value = score.of(evaluation)
    assert value is not None  # text is held out
    return score.loss(value)


def _rank_correlations(found: dict[str, Candidate], rungs: tuple[int, ...]) -> dict[str, float | None]:
    """Spearman's ρ of earlier losses with the last rung's, among those that reached it: do ranks settle early?"""
    from scipy import stats

    last = [c for c in found.values() if str(rungs[-1]) in c.rungs]
    end = [c.rungs[str(rungs[-1])] for c in last]
    early = {"pruned": [c.pruned for c in last]} | {str(r): [c.rungs[str(r)] for c in last] for r in rungs[:-1]}
    return {
        name: float(stats.spearmanr(values, end).statistic) if len(last) > 2 else None for name, values in early.items()
    }


KIND = Kind(
    "search",
    SearchStage,
    run,
    free=(*text.TRAIN_FREE, "distill.mesh"),
    decisive=text.decisive,
    architecture=architecture,
    chapter=search_chapter.CHAPTER,
)
