"""A cache of measurements, keyed by everything that they depend on."""

import dataclasses
import functools
import hashlib
import os
import pathlib
from importlib import metadata
from typing import Any

from kanana_jax import config as config_lib
from kanana_jax.errors import UserError
from kanana_jax.files import read_json, write_json


def default_folder() -> pathlib.Path:
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(base) / "kanana-jax" / "plans"


@functools.cache
def _code() -> str:
    """A hash of this package: a changed engine makes another program."""
    digest = hashlib.blake2b(digest_size=8)
    root = pathlib.Path(__file__).parents[1]
    for folder in ("models", "parallel", "losses", "training", "stages", "recipe", "plan", "data/stream"):
        for file in sorted((root / folder).glob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def key(**parts: Any) -> str:
    """The name of a measurement; `parts` are JSON-safe or dataclasses."""
    versions = {name: metadata.version(name) for name in ("jax", "jaxlib", "libtpu", "flax", "optax")}
    plain = {k: config_lib.to_dict(v) if dataclasses.is_dataclass(v) else v for k, v in parts.items()}
    return config_lib.fingerprint({**plain, "versions": versions, "code": _code()})


def load(folder: pathlib.Path | None, name: str) -> dict[str, Any] | None:
    """A measurement, or None: missing or unreadable (it is then made again)."""
    file = None if folder is None else folder / f"{name}.json"
    try:
        return None if file is None else read_json(file)
    except UserError:
        return None


def save(folder: pathlib.Path | None, name: str, value: dict[str, Any]) -> None:
    """Stores a measurement, if there is a folder."""
    if folder is not None:
        write_json(folder / f"{name}.json", value)
