"""A search for the weights of a merge: each point of a grid is merged and scored; only the best is kept.

DIR/<stage>/candidates/<point>/result.json     its score, so that a stopped search resumes
"""

import dataclasses
import itertools
import logging
from collections.abc import Callable
from typing import Any, Literal

import jax

from kanana_jax.data.stream.encode import ConversationEncoder, TextEncoder
from kanana_jax.errors import ConfigError
from kanana_jax.evaluation.in_training import TasksConfig
from kanana_jax.files import read_json, remove_tree, write_json
from kanana_jax.interop import model_folder
from kanana_jax.interop.card import card
from kanana_jax.interop.model_folder import ModelFolder
from kanana_jax.models.model import Model
from kanana_jax.models.transformer import Params
from kanana_jax.parallel import multihost
from kanana_jax.stages import sft
from kanana_jax.stages.kind import Context, check_text
from kanana_jax.surgery.merge import MergeConfig
from kanana_jax.surgery.merge_folders import merge_folders
from kanana_jax.training import heldout
from kanana_jax.training.task import BITS_PER_BYTE

log = logging.getLogger("kanana")
_MOST = 200  # points
_CHUNK = 4096  # tokens whose logits are held at once


@dataclasses.dataclass(frozen=True)
class WeightSearch:
    """The points to try, and the score that ranks them.

    Attributes:
      resolution: weights are multiples of 1 / resolution and sum to 1.
      scales: scales of the difference, each tried with all weights; empty: `merge.scale`.
      records: kind of the held-out records that give the score unless `by` names another: bits per byte of
        `text`, or nats per token of the answers in `conversations`.
      seq_len: length of the held-out rows.
      tasks: benchmarks run at every point; reported, and used as the score if `by` names one of their figures.
      by: `TASK.METRIC`, the higher the better.
    """

    resolution: int = 4
    scales: tuple[float, ...] = ()
    records: Literal["text", "conversations"] = "text"
    seq_len: int = 1024
    tasks: TasksConfig | None = None
    by: str = ""

    def __post_init__(self):
        if self.resolution < 1 or self.seq_len < 2:
            raise ValueError("search.resolution must be at least 1 and search.seq_len at least 2")
        if self.by and (self.tasks is None or "." not in self.by):
            raise ValueError(f"search.by is '{self.by}': it must be TASK.METRIC of a task in search.tasks.names")


def points(config: MergeConfig, search: WeightSearch) -> list[MergeConfig]:
    """The merges to try.

    Raises:
      ValueError: there are too many.
    """
    parts, count = search.resolution, len(config.models)
    scales = search.scales or (config.scale,)
    found = []
    # Weights that sum to 1 correspond to bars among `parts` stars.
    for bars in itertools.combinations(range(parts + count - 1), count - 1):
        edges = (-1, *bars, parts + count - 1)
        weights = tuple((after - before - 1) / parts for before, after in itertools.pairwise(edges))
        found += [dataclasses.replace(config, weights=weights, scale=scale) for scale in scales]
        if len(found) > _MOST:
            raise ValueError(f"search.resolution {parts} makes more than {_MOST} merges of {count} models: lower it")
    return found


def label(point: MergeConfig) -> str:
    """The name of a point's folder."""
    return "-".join(f"{weight:.4g}" for weight in point.weights) + f"-scale{point.scale:.4g}"


def best(
    name: str,
    config: MergeConfig,
    search: WeightSearch,
    context: Context,
    base: ModelFolder,
    models: list[ModelFolder],
) -> tuple[MergeConfig, dict[str, Any]]:
    """The merge with the best score, and the figures of all, the best first.

    Raises:
      ConfigError: there is no score: no source holds out records, or no task has the figure.
    """
    found = []
    folder, judge = context.workdir / name / "candidates", None
    for point in points(config, search):
        own = folder / label(point)
        scored = read_json(own / "result.json")
        multihost.barrier("looked for a candidate")
        if scored is None:
            judge = judge or _judge(name, search, context, base)
            merge_folders(point, base, models, own / "model", card(base.architecture))
            scored = judge(model_folder.find(own / "model"))
            if jax.process_index() == 0:
                write_json(own / "result.json", scored)
                remove_tree(own / "model")
            log.info("stage '%s': weights %s: %s %.4f", name, label(point), scored["score"], scored["value"])
        found.append((point, scored))
    lower = found[0][1]["better"] == "lower"
    found.sort(key=lambda row: row[1]["value"] if lower else -row[1]["value"])
    rows = [{"weights": point.weights, "scale": point.scale, **scored} for point, scored in found]
    return found[0][0], {"score": found[0][1]["score"], "points": rows}


def _judge(
    name: str, search: WeightSearch, context: Context, base: ModelFolder
) -> Callable[[ModelFolder], dict[str, Any]]:
    """Model → `{"score", "better", "value", "evaluation"}`."""
    shapes, config = context.shapes, context.evaluation
    check_text(name, context, base.architecture, base, "search.seq_len", search.seq_len)
    model = shapes.model(base.architecture, search.seq_len)
    chats = search.records == "conversations"
    encoder = ConversationEncoder(context.tokenizer, search.seq_len) if chats else TextEncoder(context.tokenizer)
    make = sft.make_evaluation if chats else heldout.make_evaluation
    score = sft.ANSWER_LOSS if chats else BITS_PER_BYTE
    rows = context.heldout(encoder, search.seq_len)
    evaluate = make(model, rows, shapes.mesh, batch_size=config.batch_size, chunk=_CHUNK)
    if evaluate is None and not search.by:
        raise ConfigError(
            f"stage '{name}' compares weights by {score.name} of held-out {search.records}, and no source holds any "
            f"out: set config 'sources.NAME.holdout', or '{name}.search.by'"
        )
    ask = None if search.tasks is None else context.ask(search.tasks, model).ask

    def judge(folder: ModelFolder) -> dict[str, Any]:
        params = _load(context, folder, model)
        with jax.set_mesh(shapes.mesh):
            evaluation = dict(evaluate(params)) if evaluate is not None else {}
            answers = ask(params) if ask is not None else {}
        if search.by:
            task, _, metric = search.by.partition(".")
            value = answers.get(task, {}).get(metric)
            if value is None:
                known = ", ".join(f"{t}.{m}" for t, found in answers.items() for m in found if "stderr" not in m)
                raise ConfigError(f"config '{name}.search.by' is '{search.by}', which no task has: name one of {known}")
            told = {"score": search.by, "better": "higher", "value": value}
        else:
            told = {"score": score.name, "better": score.better, "value": score.of(evaluation)}
        return told | {"evaluation": evaluation, "tasks": answers}

    return judge


def _load(context: Context, folder: ModelFolder, model: Model) -> Params:
    with jax.set_mesh(context.shapes.mesh):
        return context.load(folder, model)
