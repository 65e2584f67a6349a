"""The config of a recipe: what its stages share, and the stages."""

import dataclasses
from typing import Any, Literal

from kanana_jax import config as config_lib
from kanana_jax.data import filters as filters_lib
from kanana_jax.data.read import sources
from kanana_jax.data.stream import mixture, pipeline, teacher_cache
from kanana_jax.data.tokens.training import TokenizerConfig
from kanana_jax.errors import ConfigError, nearest
from kanana_jax.evaluation.in_training import TasksConfig
from kanana_jax.inference.sampling import SamplingConfig
from kanana_jax.interop import model_folder
from kanana_jax.models.architecture import Architecture, Runtime
from kanana_jax.parallel.mesh import MeshConfig
from kanana_jax.stages.cache_teacher import CacheTeacherConfig
from kanana_jax.stages.distill import DistillConfig
from kanana_jax.surgery.search import SearchConfig
from kanana_jax.surgery.stage import PruneStageConfig
from kanana_jax.surgery.upscale import UpscaleConfig
from kanana_jax.training import loop


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """Held-out text: `max_bytes` a source, evaluated `batch_size` rows at a time."""

    max_bytes: int = 100_000
    batch_size: int = 8


@dataclasses.dataclass(frozen=True)
class SamplesConfig:
    """Prompts by language that every finished stage continues, for the report."""

    prompts: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    max_new_tokens: int = 64
    sampling: SamplingConfig = SamplingConfig(temperature=0.7, top_p=0.9)


# kind → the sections that a stage of this kind has; `train` also asks for a mixture.
SECTIONS = {
    "pretrain": ("train",),
    "distill": ("train", "distill"),
    "upscale": ("upscale",),
    "prune": ("prune",),
    "search": ("search", "distill", "train"),
    "cache_teacher": ("cache_teacher",),
}
# kind → the file that a finished stage of it leaves, where that is not a model's card.
RESULTS = {"cache_teacher": teacher_cache.INDEX}


@dataclasses.dataclass(frozen=True)
class StageConfig:
    """One stage: training, or surgery.

    Attributes:
      kind: the file in `stages/` that it runs, or the surgery.
      start: `scratch`, the name of an earlier stage, or a model folder.
      model: the architecture, where the stage starts from scratch.
      mixture: weights of the sources, as shares of tokens; for `prune` those of the calibration text.
      train: length, batch, optimizer, logging, checkpoints.
      distill: the teacher.
      upscale, prune: what becomes of the model.
      search: among which shapes the best is looked for, by short distillations.
      cache_teacher: how much of the model's logits is kept, and over which rows.
      select: source → further rules for its documents in this stage: how a high-quality slice is cut.
      tasks: what the model is asked while it trains.
      data_after: the stage whose position in the sources is kept; empty: the last that it comes from and that read any.
    """

    kind: Literal["pretrain", "distill", "upscale", "prune", "search", "cache_teacher"]
    start: str = "scratch"
    model: Architecture | None = None
    mixture: dict[str, float] = dataclasses.field(default_factory=dict)
    train: loop.TrainConfig | None = None
    distill: DistillConfig | None = None
    upscale: UpscaleConfig | None = None
    prune: PruneStageConfig | None = None
    search: SearchConfig | None = None
    cache_teacher: CacheTeacherConfig | None = None
    tasks: TasksConfig | None = None
    data_after: str = ""
    select: dict[str, dict[str, filters_lib.Rule]] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if (self.start == "scratch") != (self.model is not None):
            raise ValueError("a stage that starts from 'scratch' needs a model section, any other takes none")
        for section in dict.fromkeys(section for sections in SECTIONS.values() for section in sections):
            if (getattr(self, section) is not None) != (section in SECTIONS[self.kind]):
                needs = "needs a" if section in SECTIONS[self.kind] else "has no"
                raise ValueError(f"a stage of kind '{self.kind}' {needs} section '{section}'")
        if self.tasks is not None and SECTIONS[self.kind][:1] != ("train",):
            raise ValueError(f"a stage of kind '{self.kind}' has no section 'tasks'")
        if self.kind in ("upscale", "prune", "search", "cache_teacher") and self.start == "scratch":
            raise ValueError(f"a stage of kind '{self.kind}' starts from another stage or a model folder")
        if bool(self.mixture) != (self.kind != "upscale"):
            raise ValueError("a stage needs a mixture, unless it is of kind 'upscale'")

    @property
    def result(self) -> str:
        """The file in the stage's folder that says that it is finished."""
        return RESULTS.get(self.kind, f"model/{model_folder.CARD}")


@dataclasses.dataclass(frozen=True)
class PlanConfig:
    """What `kanana plan` cannot know, and nothing else reads.

    Attributes:
      prices: of an hour of one chip, by chip (`v5p`, `v6e` …); 0 or left out: not known, none is assumed.
      models: shapes of model folders that are not on this machine, by the folder's name (dots as underscores).
      dcn_bandwidth: bytes/s between slices for one chip, by chip; 0 or left out: as `parallel/chips.py` has it.
    """

    prices: dict[str, float] = dataclasses.field(default_factory=dict)
    models: dict[str, Architecture] = dataclasses.field(default_factory=dict)
    dcn_bandwidth: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class RecipeConfig:
    """What the stages share."""

    name: str
    stages: tuple[str, ...]
    sources: dict[str, sources.SourceConfig]
    tokenizer: TokenizerConfig = TokenizerConfig()
    seed: int = 0
    mesh: MeshConfig = MeshConfig()
    runtime: Runtime = Runtime()
    data: pipeline.PipelineConfig = pipeline.PipelineConfig()
    filters: dict[str, filters_lib.FilterConfig] = dataclasses.field(default_factory=dict)
    evaluation: EvaluationConfig = EvaluationConfig()
    samples: SamplesConfig = SamplesConfig()
    plan: PlanConfig = PlanConfig()

    def __post_init__(self):
        if not self.stages or len(set(self.stages)) != len(self.stages):
            raise ValueError("stages must name at least one stage, each once")


def parse(config: Any) -> tuple[RecipeConfig, dict[str, StageConfig]]:
    """The recipe and its stages.

    Raises:
      ConfigError: names the key that is unknown, missing or wrong.
    """
    values = dict(config.items())
    names = tuple(values.get("stages", ()))
    sections = {}
    for name in names:
        if name == "scratch":
            raise ConfigError("config 'stages' names a stage 'scratch', which means no stage: call it otherwise")
        if name not in values:
            raise ConfigError(f"config 'stages' names '{name}', but there is no section config.{name}")
        sections[name] = values.pop(name)
    # Stages that `stages` leaves out may stay in the file.
    values = {k: v for k, v in values.items() if not (hasattr(v, "keys") and "kind" in v)}
    recipe = config_lib.build(RecipeConfig, values, "")
    langs = {source.lang for source in recipe.sources.values()}
    filters_lib.check_names(recipe.filters, (*recipe.sources, *sorted(langs)), "filters")
    stages = {name: config_lib.build(StageConfig, section, name) for name, section in sections.items()}
    for i, (name, stage) in enumerate(stages.items()):
        if stage.mixture:
            mixture.normalised(stage.mixture, list(recipe.sources), f"{name}.mixture")
        for source, rules in stage.select.items():
            if source not in recipe.sources:
                known = nearest(source, list(recipe.sources))
                raise ConfigError(f"config '{name}.select.{source}' is no source: {known}")
            filters_lib.check_select(
                recipe.filters, source, recipe.sources[source].lang, rules, f"{name}.select.{source}"
            )
        earlier = names[:i]
        for key in ("start", "data_after"):
            value = getattr(stage, key)
            if value in names and value not in earlier:
                raise ConfigError(f"config '{name}.{key}' is '{value}', which does not come before it in 'stages'")
        for key in ("teacher", "cache"):
            value = getattr(stage.distill, key, "")
            if value in names and value not in earlier:
                raise ConfigError(f"config '{name}.distill.{key}' is '{value}', which does not come before it")
        if stage.data_after and stage.data_after not in earlier:
            raise ConfigError(
                f"config '{name}.data_after' is '{stage.data_after}': {nearest(stage.data_after, earlier)}"
            )
    return recipe, stages
