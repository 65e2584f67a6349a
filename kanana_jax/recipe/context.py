"""The surroundings of a recipe's stages: their models, rows and positions, and what the recipe shares."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from kanana_jax import config as config_lib
from kanana_jax.data import filters as filters_lib
from kanana_jax.data.read import sources
from kanana_jax.data.stream import heldout, mixture, pipeline
from kanana_jax.data.stream.encode import Encoder
from kanana_jax.data.stream.heldout import HeldoutRows
from kanana_jax.data.stream.lanes import Position
from kanana_jax.data.stream.pipeline import BatchStream
from kanana_jax.data.tokens.tokenizer import Tokenizer
from kanana_jax.errors import ConfigError, UserError
from kanana_jax.evaluation.in_training import TasksConfig, make_ask
from kanana_jax.files import load_json, read_json
from kanana_jax.inference.sampling import SamplesConfig
from kanana_jax.interop import model_folder
from kanana_jax.interop.lineage import lineage
from kanana_jax.interop.model_folder import ModelFolder
from kanana_jax.models.architecture import Architecture
from kanana_jax.models.model import Model
from kanana_jax.models.transformer import Params
from kanana_jax.recipe.config import RecipeConfig
from kanana_jax.recipe.reports import WhileTraining
from kanana_jax.stages import KINDS
from kanana_jax.stages.kind import SCRATCH, ReadingConfig, Shapes, StageConfig
from kanana_jax.training import trackers
from kanana_jax.training.heldout import EvaluationConfig
from kanana_jax.training.loop import Ahead
from kanana_jax.training.metrics import Writer
from kanana_jax.training.task import Questions
from kanana_jax.training.trackers.background import InBackground


def shapes(recipe: RecipeConfig, stages: Mapping[str, StageConfig], mesh: Mesh) -> Shapes:
    """The shapes of a recipe's stages on a mesh, as far as the config and model folders define them."""
    return Shapes(recipe.seed, recipe.runtime, mesh, stages, architectures(recipe, stages))


def architectures(recipe: RecipeConfig, stages: Mapping[str, StageConfig]) -> Callable[[str], Architecture]:
    """The architecture of a stage's model by its name, or of the model in a folder."""

    def architecture(name: str) -> Architecture:
        if name not in stages:
            return folder_architecture(name, recipe)
        stage = stages[name]
        before = None if stage.start == SCRATCH else architecture(stage.start)
        return KINDS[stage.kind].architecture(name, stage, before)

    return architecture


def folder_architecture(name: str, recipe: RecipeConfig) -> Architecture:
    """The architecture of a model folder, or of one that is not here and that `plan.models` describes.

    Raises:
      ConfigError: neither is there.
    """
    known = recipe.plan.models.get(pathlib.Path(name).name.replace(".", "_"))
    try:
        return model_folder.find(name).architecture
    except UserError as error:
        if known is not None:
            return known
        raise ConfigError(f"{error}; to plan without it, give its shape in config 'plan.models'") from error


@dataclasses.dataclass(frozen=True)
class Run:
    """A `stages.kind.Context`: one call of `kanana run`."""

    recipe: RecipeConfig
    stages: Mapping[str, StageConfig]
    prepared: dict[str, sources.PreparedSource]
    tokenizer: Tokenizer
    mesh: Mesh
    workdir: pathlib.Path
    ahead: Mapping[str, Ahead] = dataclasses.field(default_factory=dict)

    @property
    def shapes(self) -> Shapes:
        """The shapes of models on disk: a finished stage has its architecture in its folder."""
        recipe = self.recipe
        return Shapes(recipe.seed, recipe.runtime, self.mesh, self.stages, lambda name: self.find(name).architecture)

    @property
    def evaluation(self) -> EvaluationConfig:
        return self.recipe.evaluation

    @property
    def lanes(self) -> int:
        return self.recipe.data.lanes

    @property
    def samples(self) -> SamplesConfig:
        return self.recipe.samples

    def find(self, name: str) -> ModelFolder:
        return model_folder.find(self.workdir / name if name in self.stages else name)

    def lineage(self, name: str) -> Iterator[ModelFolder]:
        while name in self.stages:
            yield self.find(name)
            name = self.stages[name].start
        if name != SCRATCH:
            yield from lineage(self.find(name))

    def load(self, folder: ModelFolder, model: Model, mesh: Mesh | None = None) -> Params:
        return model_folder.load_params(folder, model.runtime, mesh or self.mesh)

    def ask(self, tasks: TasksConfig, model: Model) -> Questions:
        return Questions(tasks.every, make_ask(tasks, model, self.tokenizer, self.mesh, self.recipe.seed))

    def writers(self, folder: pathlib.Path, from_step: int) -> list[Writer]:
        values = load_json(self.workdir / "config.json")["config"]
        group = f"{self.recipe.name}/{self.workdir.name}"
        made = trackers.writers(self.recipe.trackers, folder, group, values, from_step)
        seconds = 60 * self.recipe.report.every_minutes
        if seconds:
            made.append(InBackground("the report", lambda: WhileTraining(self.workdir, seconds)))
        return made

    def position(self, config: ReadingConfig) -> Position | None:
        name = config.data_after or config.start
        while name in self.stages:
            position = read_json(self.workdir / name / "data_state.json")
            if position is not None:
                return position
            name = self.stages[name].start
        return None

    def stream(
        self,
        name: str,
        config: ReadingConfig,
        encoder: Encoder,
        rows: Sequence[int] | np.ndarray,
        batch_size: int,
        seq_len: int,
        start: Position | None,
    ) -> BatchStream:
        filters = filters_lib.Filters(self.recipe.filters)
        return BatchStream(
            self.prepared,
            self._shares(name, config),
            encoder,
            {n: filters.of(n, s.lang, config.select.get(n, {}), s.origins) for n, s in self.prepared.items()},
            self.recipe.data,
            rows=rows,
            batch_size=batch_size,
            seq_len=seq_len,
            seed=self.recipe.seed,
            start=start,
        )

    def _read(self, config: ReadingConfig) -> dict[str, sources.PreparedSource]:
        """The sources of all stages, and of those that a stage makes the ones that this stage reads."""
        made = {name for name, source in self.recipe.sources.items() if source.made_by}
        return {n: s for n, s in self.prepared.items() if n not in made or n in config.reads}

    def _shares(self, name: str, config: ReadingConfig) -> dict[str, float]:
        return mixture.normalised(config.mixture, list(self.recipe.sources), f"{name}.mixture")

    def heldout(self, encoder: Encoder, seq_len: int, config: ReadingConfig | None = None) -> list[HeldoutRows]:
        relevant = None
        if config is not None:
            read = {n for stage in self.stages.values() if isinstance(stage, ReadingConfig) for n in stage.reads}
            relevant = {name for name in self.prepared if name in config.reads or name not in read}
        return heldout.heldout_rows(self.prepared, encoder, seq_len, self.evaluation.max_bytes, relevant)

    def data_report(self, position: Position) -> dict[str, Any]:
        return pipeline.data_report(position, self.prepared)

    def about_rows(self, name: str, config: ReadingConfig) -> dict[str, Any]:
        filters = {
            "filters": dataclasses.asdict(self.recipe)["filters"],
            "select": dataclasses.asdict(config)["select"],
        }
        return {
            "seed": self.recipe.seed,
            "mixture": self._shares(name, config),
            "data.lanes": self.recipe.data.lanes,
            **({"data.packing": window} if (window := self.recipe.data.window_rows) else {}),
            "data_after": config_lib.fingerprint(self.position(config)),
            "sources": config_lib.fingerprint({n: s.digest or s.folder.name for n, s in self._read(config).items()}),
            **{key: config_lib.fingerprint(value) for key, value in filters.items()},
        }
