"""The inputs of a run in its bucket, checked before TPUs are asked for.

A missing folder would otherwise be found by hosts that are billed.
"""

import importlib.util
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from kanana_jax.errors import ConfigError, UserError

from . import gcloud

# Sources that are no files.
_ADDRESSES = ("microworld://", "hf://", "seqio://")


def addresses(config: str, overrides: Sequence[str], bucket: str, root: pathlib.Path) -> list[str]:
    """The `gs://` addresses that a config reads: sources, tokenizer, models that stages start from or learn from.

    Args:
      config: `FILE_OR_NAME[:ARG]`, as the hosts see it.
      overrides: `--config.KEY=VALUE`; those that name a place count.
      root: of the repository, whose files the hosts have.

    Raises:
      ConfigError: a place that the hosts do not have.
      UserError: the config cannot be loaded on this machine.
    """
    named = _named(_loaded(config, overrides))
    found = []
    for key, path in named:
        if path.startswith(_ADDRESSES):
            continue
        if path.startswith(f"{gcloud.MOUNT}/"):
            path = f"gs://{bucket}/{path.removeprefix(f'{gcloud.MOUNT}/')}"
        if "://" not in path:
            if pathlib.PurePath(path).is_absolute() or not (root / path).exists():
                raise ConfigError(
                    f"config {key} is '{path}', which the hosts do not have: copy it to the bucket and name it "
                    f"gs://{bucket}/…"
                )
            continue
        found.append(path)
    return list(dict.fromkeys(found))


def check(addresses: Sequence[str], call: Callable[[list[str]], tuple[int, str]]) -> None:
    """Looks for all of them.

    Raises:
      UserError: names those that are missing, or the first thing that gcloud says where it fails otherwise.
    """
    missing = []
    for address in addresses:
        code, text = call(gcloud.look_for(address))
        if code and "matched no objects" not in text and "not found" not in text.lower():
            raise UserError(
                f"`gcloud storage ls {address}` failed: {(text.strip().splitlines() or ['no message'])[-1]}"
            )
        if code:
            missing.append(address)
    if missing:
        raise UserError(
            f"the config reads {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not there: copy it "
            "with `gcloud storage cp --recursive`, then start again; no TPU was requested"
        )


def _loaded(file: str, overrides: Sequence[str]) -> Any:
    if importlib.util.find_spec("ml_collections") is None:
        raise UserError("the package is not installed in this Python, so the config cannot be read")
    from kanana_jax.config import read_config_file

    try:
        config = read_config_file(file)
    except UserError as error:  # it may need what the hosts alone have
        raise UserError(str(error)) from error
    with config.unlocked(), config.ignore_type():
        for override in overrides:
            key, _, value = override.removeprefix("--config.").partition("=")
            if key.rpartition(".")[2] in ("path", "start", "teacher"):
                config.update_from_flattened_dict({key: value})
    return config


def _named(config: Any) -> list[tuple[str, str]]:
    """Key and value of every place; what a stage of the run writes is no place yet."""
    given = {name: source for name, source in config.get("sources", {}).items() if not source.get("made_by")}
    places = [(f"sources.{name}.path", source.path) for name, source in given.items()]
    tokenizer = config.get("tokenizer", {}).get("path", "")
    places += [("tokenizer.path", tokenizer)] if tokenizer else []
    stages = config.get("stages", ())
    for name in stages:
        stage = config[name]
        for key, value in (("start", stage.get("start")), ("distill.teacher", stage.get("distill", {}).get("teacher"))):
            if value and value not in stages and value != "scratch":
                places.append((f"{name}.{key}", value))
    return [(key, str(value)) for key, value in places]
