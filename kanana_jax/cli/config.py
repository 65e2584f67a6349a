"""The verb `config`."""

import argparse
import json

from kanana_jax.cli.models import CONFIG_HELP
from kanana_jax.cli.verbs import AddVerb
from kanana_jax.errors import ConfigError

_EXAMPLE = """examples:
  kanana config tiny
  kanana config configs/real.py:documents --config.runtime.compute_dtype=bfloat16 | grep runtime

Each line is a key, its value, and where that comes from: the command line, the file, or the default of the code."""


def add_verbs(verb: AddVerb) -> None:
    """Adds `config`."""
    sub = verb("config", _config, "the values of a config, defaults included, and where they come from", _EXAMPLE)
    sub.add_argument("config", metavar="FILE_OR_NAME[:ARG]", help=CONFIG_HELP)
    sub.add_argument("--config.KEY", dest="_", metavar="VALUE", help="change a value of the config")
    sub.add_argument("--json", action="store_true", help="print one JSON object: key -> {value, source}")


def _config(options: argparse.Namespace, overrides: list[str], command: list[str]) -> None:
    from kanana_jax import config as config_lib
    from kanana_jax.config.resolved import resolved

    config = config_lib.read_config_file(options.config)
    values = resolved(_built(options.config, config, overrides), config, overrides)
    if options.json:
        shown = {value.key: {"value": value.value, "source": value.source} for value in values}
        print(json.dumps(shown, ensure_ascii=False, indent=1))
        return
    where = {"file": options.config.partition(":")[0]}
    lines = [(f"{value.key} = {value.value!r}", where.get(value.source, value.source)) for value in values]
    width = min(max((len(line) for line, _ in lines), default=0), 80)
    for line, source in lines:
        print(f"{line:<{width}}  # {source}")


def _built(file: str, config, overrides: list[str]) -> dict:
    """The dataclasses of a recipe's config, or of one that has the sections of `kanana filter` or `kanana quality`."""
    from kanana_jax import config as config_lib
    from kanana_jax.config.sections import fields_of

    if "stages" in config:
        from kanana_jax.recipe import config as recipe_config

        recipe_config.override(config, overrides)
        recipe, stages = recipe_config.parse(config)
        return {field.name: getattr(recipe, field.name) for field in fields_of(type(recipe))} | stages
    from kanana_jax.data.filters import FilterConfig
    from kanana_jax.data.quality import QualityConfig

    known = {"filters": dict[str, FilterConfig], "quality": QualityConfig}
    if not any(name in config for name in known):
        raise ConfigError(f"{file} is not a config of a recipe (stages), of filters or of a quality model (quality)")
    config_lib.override(config, overrides, lambda _: known)
    built: dict = {}
    if "filters" in config:
        filters = config.filters.items()
        built["filters"] = {key: config_lib.build(FilterConfig, value, f"filters.{key}") for key, value in filters}
    if "quality" in config:
        built["quality"] = config_lib.build(QualityConfig, config.quality, "quality")
    return built
