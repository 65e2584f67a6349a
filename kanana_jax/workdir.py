"""The file of a workdir that belongs to no stage: `config.json`."""

import json
import pathlib
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import jax
from jax.sharding import Mesh

from kanana_jax import config as config_lib
from kanana_jax.config import ConfigError
from kanana_jax.files import write_json

# What may change between two calls on one workdir: where and how fast it runs, and what is shown of it.
_FREE = ("mesh", "runtime", "samples", "evaluation", "plan")


def record(config: Any, seed: int, workdir: pathlib.Path, command: Sequence[str], mesh: Mesh) -> None:
    """Writes `config.json`; when it is there with the same config, it stays as it is.

    Raises:
      ConfigError: the workdir was begun with another config (only mesh, runtime, samples and evaluation may differ).
    """
    file = workdir / "config.json"
    resolved = config_lib.to_dict(config)
    if file.is_file():
        before = json.loads(file.read_text())["config"]
        if before == resolved:
            return
        different = sorted(
            key for key in before.keys() | resolved.keys() if before.get(key) != resolved.get(key) and key not in _FREE
        )
        if different:
            raise ConfigError(
                f"{workdir} was begun with another config (differs in: {', '.join(different)}): "
                "use that config, or name another --workdir"
            )
    write_json(
        file,
        {
            "config": resolved,
            "command": shlex.join(command),
            "versions": _versions(),
            "git_revision": _git_revision(),
            "seed": seed,
            "devices": f"{mesh.size} × {jax.devices()[0].device_kind}, {jax.process_count()} process(es), "
            f"mesh {dict(mesh.shape)}",
            "started": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        },
    )


def _versions() -> dict[str, str]:
    names = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "ml-collections", "numpy", "sentencepiece")
    return {"python": sys.version.split()[0], **{name: metadata.version(name) for name in names}}


def _git_revision() -> str | None:
    try:
        result = subprocess.run(
            ["git", "-C", str(pathlib.Path(__file__).parent), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()
