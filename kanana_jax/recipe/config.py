"""The config of a recipe: the values that its stages share, and the stages, each a section of its kind."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kanana_jax import config as config_lib
from kanana_jax.data import filters as filters_lib
from kanana_jax.data.read import sources
from kanana_jax.data.stream import mixture, pipeline
from kanana_jax.data.tokens.training import TokenizerConfig
from kanana_jax.errors import ConfigError, nearest
from kanana_jax.files import place
from kanana_jax.inference.sampling import SamplesConfig
from kanana_jax.interop import model_folder
from kanana_jax.models.architecture import Architecture, Runtime
from kanana_jax.parallel.mesh import MeshConfig
from kanana_jax.recipe.reports import ReportConfig
from kanana_jax.stages import KINDS
from kanana_jax.stages.kind import SCRATCH, ReadingConfig, StageConfig
from kanana_jax.training.heldout import EvaluationConfig
from kanana_jax.training.trackers import TrackersConfig


@dataclasses.dataclass(frozen=True)
class PlanConfig:
    """Settings that only `kanana plan` reads.

    Attributes:
      prices: price of one chip for an hour, by chip (`v5p`, `v6e` …); 0 or left out: unknown, and no cost is shown.
      models: shapes of model folders that are not on this machine, by folder name (dots as underscores).
      dcn_bandwidth: bytes/s per chip between slices, by chip; 0 or left out: the value in `parallel/chips.py`.
    """

    prices: dict[str, float] = dataclasses.field(default_factory=dict)
    models: dict[str, Architecture] = dataclasses.field(default_factory=dict)
    dcn_bandwidth: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class RecipeConfig:
    """The values that the stages share.

    Attributes:
      profiles: named groups of assignments `a.b=value`, such as those for a short run.
      profile: the profile in use; empty: none. `--config.profile=NAME` applies it.
    """

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
    trackers: TrackersConfig = TrackersConfig()
    report: ReportConfig = ReportConfig()
    profiles: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    profile: str = ""

    def __post_init__(self):
        if not self.stages or len(set(self.stages)) != len(self.stages):
            raise ValueError("stages must name at least one stage, each once")


def parse(config: Any) -> tuple[RecipeConfig, dict[str, StageConfig]]:
    """The recipe and its stages.

    Raises:
      ConfigError: names the key that is unknown, missing or wrong.
    """
    values = dict(config.items())
    own = {field.name for field in dataclasses.fields(RecipeConfig)}
    names = values.get("stages", ())
    if isinstance(names, str):
        raise ConfigError(f"config 'stages' must be a list of names, not {names!r}")
    names, sections = tuple(names), {}
    for name in dict.fromkeys(names):
        if name == SCRATCH:
            raise ConfigError(f"config 'stages' names a stage '{SCRATCH}', which is reserved: rename this stage")
        if name in own:
            raise ConfigError(f"config 'stages' names '{name}', which is a section of the recipe: rename this stage")
        if name not in values:
            raise ConfigError(f"config 'stages' names '{name}', but there is no section config.{name}")
        sections[name] = values.pop(name)
    unused = left_out(config)
    for name in unused:
        del values[name]
    recipe = config_lib.build(RecipeConfig, values, "")
    langs = {source.lang for source in recipe.sources.values()}
    filters_lib.check_names(recipe.filters, (*recipe.sources, *sorted(langs)), "filters")
    stages = {name: _stage(section, name) for name, section in sections.items()}
    _check_made(recipe, stages, unused)
    for i, (name, stage) in enumerate(stages.items()):
        _check(name, stage, recipe, names, names[:i])
    return recipe, stages


def mistakes(config: Any) -> list[str]:
    """Every mistake that `parse` finds in a config, one sentence each; `parse` itself stops at the first.

    Whether stages and sources fit together is checked once each of them is valid by itself.
    """
    try:
        parse(config)
        return []
    except ConfigError as error:
        first = str(error)
    names, unused = tuple(config.get("stages", ())), left_out(config)
    shared = {key: value for key, value in config.items() if key not in names and key not in unused}
    found = config_lib.mistakes(RecipeConfig, shared, "")
    stages = {name: _try(_stage, config[name], name) for name in names if name in config}
    for name, stage in stages.items():
        found += _stage_mistakes(config[name], name, stage) if isinstance(stage, str) else []
    if not found:
        recipe = config_lib.build(RecipeConfig, shared, "")
        found = [sentence for sentence in [_try(_check_made, recipe, stages, unused)] if sentence is not None]
        checked = (_try(_check, n, stage, recipe, names, names[:i]) for i, (n, stage) in enumerate(stages.items()))
        found += [sentence for sentence in checked if sentence is not None]
    return found if first in found else [first, *found]


def _stage_mistakes(section: Any, name: str, first: str) -> list[str]:
    """All mistakes in a stage's section, given the first."""
    kind = KINDS.get(str(section.get("kind", ""))) if hasattr(section, "items") else None
    if kind is None:
        return [first]
    given = {key: value for key, value in section.items() if value is not None}
    found = config_lib.mistakes(kind.config, given, name)
    return found if first in found else [first, *found]


def _try(function: Callable[..., Any], *arguments: Any) -> Any:
    """The return value of a function, or the message of its `ConfigError`."""
    try:
        return function(*arguments)
    except ConfigError as error:
        return str(error)


def override(config: Any, assignments: Sequence[str]) -> None:
    """Applies `a.b=value` to a recipe's config in place; a stage's keys are those of its kind (`config/overrides.py`).

    `profile=NAME` stands for the assignments in `profiles.NAME`; the others override them, whatever their order.

    Raises:
      ConfigError: malformed assignment, unknown key or profile, or a value of the wrong type.
    """
    chosen = [name for key, _, name in (each.partition("=") for each in assignments) if key == "profile" and name]
    profiles = config.get("profiles", {})
    for name in chosen[-1:]:
        if name not in profiles:
            raise ConfigError(f"config 'profile': there is no profile '{name}'; {nearest(name, list(profiles))}")
        config_lib.override(config, tuple(profiles[name]), schema)
    config_lib.override(config, assignments, schema)


def schema(config: Any) -> dict[str, Any]:
    """The types of a recipe's top-level keys."""
    own = config_lib.schema_of(RecipeConfig)(config)
    names = {key for key, value in config.items() if key not in own and hasattr(value, "keys")}
    kinds = {
        name: KINDS.get(str((config.get(name) or {}).get("kind", ""))) for name in names | set(config.get("stages", ()))
    }
    return dict(own) | {name: StageConfig if kind is None else kind.config for name, kind in kinds.items()}


def left_out(config: Any) -> list[str]:
    """Sections of stages that a config has but does not list in `stages`."""
    known = {field.name for field in dataclasses.fields(RecipeConfig)} | set(config.get("stages", ()))
    return [key for key, value in config.items() if key not in known and hasattr(value, "keys") and "kind" in value]


def _stage(section: Any, name: str) -> StageConfig:
    """A stage's section as the config of its kind."""
    if not hasattr(section, "items"):
        raise ConfigError(f"config '{name}' must be a section of keys, not {section!r}")
    given = {key: value for key, value in section.items() if value is not None}
    kind = KINDS.get(str(given.get("kind", "")))
    if kind is None:
        is_what = f"is {given['kind']!r}; it must be" if "kind" in given else "is missing: set it to"
        raise ConfigError(f"config '{name}.kind' {is_what} one of {', '.join(repr(known) for known in KINDS)}")
    fields = {field.name: field for field in dataclasses.fields(kind.config)}
    if given.get("start", SCRATCH) == SCRATCH and "model" not in fields:
        raise ConfigError(
            f"config '{name}': '{SCRATCH}' needs a model section, and a stage of kind '{kind.name}' has none: it "
            "starts from another stage or a model folder"
        )
    for key, field in fields.items():
        if key not in given and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"config '{name}': a stage of kind '{kind.name}' needs a section '{key}'")
    for key in given:
        if key not in fields and any(key in _fields(other.config) for other in KINDS.values()):
            raise ConfigError(f"config '{name}': a stage of kind '{kind.name}' has no section '{key}'")
    return config_lib.build(kind.config, given, name)


def check_references(stages: Mapping[str, StageConfig], known: Sequence[str]) -> None:
    """Refuses a stage that starts or learns from something that is neither one of the `known` stages nor a folder.

    Raises:
      ConfigError: names the key.
    """
    for name, stage in stages.items():
        for key, value in stage.references().items():
            if value not in known and not place(value).exists():
                near = nearest(value, [other for other in known if other != name])
                raise ConfigError(
                    f"config '{name}.{key}' is '{value}': there is no stage and no folder of that name; {near}"
                )


def check_models(stages: Mapping[str, StageConfig], known: Sequence[str]) -> None:
    """Refuses model folders with mismatched contents before programs of their shapes are compiled.

    Raises:
      UserError: see `model_folder.open_weights`.
    """
    names = {name for stage in stages.values() for name in (stage.start, *stage.others().values())}
    for name in sorted(names - {SCRATCH, *known}):
        model_folder.open_weights(model_folder.find(name), headers_only=True)


def _check_made(recipe: RecipeConfig, stages: Mapping[str, StageConfig], unused: Sequence[str]) -> None:
    """Refuses sources made by a stage that does not exist, or from files that the stage does not write.

    Args:
      unused: sections of stages that do not run; other stages cannot read their sources either.
    """
    for name, source in recipe.sources.items():
        if not source.made_by or source.made_by in unused:
            continue
        if source.made_by not in stages:
            near = nearest(source.made_by, list(stages))
            raise ConfigError(f"config 'sources.{name}.made_by' is '{source.made_by}', which is not a stage; {near}")
        kind = KINDS[stages[source.made_by].kind]
        if source.path not in kind.records:
            writes = f"it writes {' and '.join(kind.records)}" if kind.records else "it writes no records"
            raise ConfigError(
                f"config 'sources.{name}.path' is '{source.path}', which stage '{source.made_by}' of kind "
                f"'{kind.name}' does not write: {writes}"
            )


def _fields(config: type) -> set[str]:
    return {field.name for field in config_lib.fields_of(config)}


def _check(
    name: str, stage: StageConfig, recipe: RecipeConfig, names: tuple[str, ...], earlier: tuple[str, ...]
) -> None:
    """Refuses a stage that names an unknown source, or a stage that does not come before it."""
    for key, value in stage.references().items():
        if value in names and value not in earlier:
            why = "the stage itself: name one" if value == name else "which does not come before it: name one"
            raise ConfigError(f"config '{name}.{key}' is '{value}', {why} before '{name}' in 'stages'")
    if not isinstance(stage, ReadingConfig):
        return
    for source in mixture.normalised(stage.mixture, list(recipe.sources), f"{name}.mixture"):
        maker = recipe.sources[source].made_by
        if maker and maker not in earlier:
            raise ConfigError(
                f"config '{name}.mixture.{source}': stage '{maker}', which makes its documents, does not come before "
                f"'{name}' in 'stages': move it there"
            )
    for source, rules in stage.select.items():
        if source not in recipe.sources:
            known = nearest(source, list(recipe.sources))
            raise ConfigError(f"config '{name}.select.{source}' is not a source: {known}")
        lang = recipe.sources[source].lang
        filters_lib.check_select(recipe.filters, source, lang, rules, f"{name}.select.{source}")
    if stage.data_after and stage.data_after not in earlier:
        what = "which does not come before it in 'stages'" if stage.data_after in names else "which is not a stage"
        near = nearest(stage.data_after, earlier)
        raise ConfigError(f"config '{name}.data_after' is '{stage.data_after}', {what}: {near}")
