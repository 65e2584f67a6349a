"""Merging of models with a common ancestor into one, the last step of Kanana's alignment (arXiv:2502.18934, §3.1).

DIR/<stage>/merge.json     the merge, the distance that each model had moved, and the weights tried
DIR/<stage>/model/         the result
"""

import dataclasses
import logging
import pathlib

import jax

from kanana_jax.files import write_json
from kanana_jax.interop.card import card as new_card
from kanana_jax.interop.card import noted, parent_path
from kanana_jax.interop.model_folder import ModelFolder
from kanana_jax.stages import merge_chapter, weight_search
from kanana_jax.stages.kind import Context, Kind, StageConfig
from kanana_jax.stages.weight_search import WeightSearch
from kanana_jax.surgery.merge import MergeConfig
from kanana_jax.surgery.merge_folders import check_alike, merge_folders

log = logging.getLogger("kanana")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MergeStage(StageConfig):
    """A stage of this kind.

    It starts from the model that differences are relative to. `linear` and `slerp` use only its tokenizer: name one of
    the merged models there.

    Attributes:
      search: tries several weights, and keeps those with the best score.
    """

    merge: MergeConfig
    search: WeightSearch | None = None

    def __post_init__(self):
        if self.search is not None:
            weight_search.points(self.merge, self.search)  # refuses a search that is too wide

    def references(self) -> dict[str, str]:
        return super().references() | {f"merge.models[{i}]": name for i, name in enumerate(self.merge.models)}

    def others(self) -> dict[str, str]:
        return {f"model {i}": name for i, name in enumerate(self.merge.models)}


def run(name: str, config: MergeStage, context: Context) -> None:
    """Writes `model/` and `merge.json`.

    Raises:
      ConfigError: models that do not fit together, or a search without a score to judge by.
    """
    folder, workdir = context.workdir / name, context.workdir
    base, models = context.find(config.start), [context.find(model) for model in config.merge.models]
    check_alike(base, models)  # before a search rather than after it
    merge, found = config.merge, None
    if config.search is not None:
        merge, found = weight_search.best(name, merge, config.search, context, base, models)
    told = carry_out(merge, base, models, folder / "model", name)
    if jax.process_index() == 0:
        about = {"base": noted(base.path, workdir), "models": [noted(model.path, workdir) for model in models]}
        write_json(folder / merge_chapter.RESULT, dataclasses.asdict(merge) | about | {"layers": told, "search": found})


def carry_out(
    config: MergeConfig, base: ModelFolder, models: list[ModelFolder], destination: pathlib.Path, stage: str
) -> dict[str, dict[str, list[float | None]]]:
    """Writes the merged model; returns the figures of `merge_folders`."""
    made = new_card(
        base.architecture,
        parent=parent_path(base.path, destination),
        tokenizer=base.card.get("tokenizer"),
        stage=stage,
        merged=[parent_path(model.path, destination) for model in models],
    )
    ways = [model.embedding for model in models]
    if ways[0] is not None and all(way == ways[0] for way in ways):
        made["embedding"] = ways[0].to_dict()
    elif any(way is not None for way in ways):
        log.warning("the models make text vectors in different ways: the merged model's folder names none of them")
    shares = ", ".join(f"{weight:g} × {model.path}" for weight, model in zip(config.weights, models))
    log.info("merging by '%s': %s", config.method, shares)
    return merge_folders(config, base, models, destination, made)


KIND = Kind("merge", MergeStage, run, chapter=merge_chapter.CHAPTER)
