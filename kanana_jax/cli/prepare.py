"""The verb `prepare`."""

import argparse
import time

from kanana_jax.cli.models import CONFIG_HELP
from kanana_jax.cli.verbs import AddVerb, place
from kanana_jax.errors import ConfigError

_EXAMPLE = """example:
  kanana prepare --config configs/real.py:documents --workdir runs/real --workers 8
  kanana run --config configs/real.py:documents --workdir runs/real

Converts the config's sources into shards and trains its tokenizer, so that a run with the same config and workdir
starts training at once. No accelerator is needed. Run it again to resume: finished shards stay. The result does not
depend on the number of workers."""


def add_verbs(verb: AddVerb) -> None:
    """Adds `prepare`."""
    sub = verb("prepare", _prepare, "convert a recipe's documents and train its tokenizer beforehand", _EXAMPLE)
    sub.add_argument("--config", required=True, metavar="FILE_OR_NAME[:ARG]", help=CONFIG_HELP)
    sub.add_argument("--workdir", required=True, type=place, metavar="DIR", help="the workdir of the run")
    sub.add_argument("--workers", type=int, default=0, metavar="N", help="processes; default: one per core")
    sub.add_argument("--config.KEY", dest="_", metavar="VALUE", help="change a value of the config")


def _prepare(options: argparse.Namespace, overrides: list[str], command: list[str]) -> None:
    if options.workers < 0:
        raise ConfigError(f"--workers must be at least 1, not {options.workers}")
    from kanana_jax import config as config_lib
    from kanana_jax.files import locked
    from kanana_jax.parallel import chips, heartbeat
    from kanana_jax.progress import duration
    from kanana_jax.recipe import config as recipe_config
    from kanana_jax.recipe import inputs

    heartbeat.start()
    began = time.monotonic()
    config = config_lib.read_config_file(options.config)
    recipe_config.override(config, overrides)
    recipe, _ = recipe_config.parse(config)
    with locked(options.workdir):
        prepared = inputs.prepare(recipe, options.workdir, options.workers or chips.cores())
    documents = sum(source.documents(split) for source in prepared.values() for split in ("train", "heldout"))
    print(f"{documents:,} documents in {duration(time.monotonic() - began)}: {options.workdir / 'data'}")
