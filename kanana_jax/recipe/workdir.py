"""A workdir's own files, which belong to no stage: `config.json` and the lock."""

import contextlib
import dataclasses
import json
import pathlib
import shlex
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from importlib import metadata
from typing import Any

import jax
from jax.sharding import Mesh

from kanana_jax import config as config_lib
from kanana_jax.errors import ConfigError, UserError
from kanana_jax.files import locked, read_json, write_json
from kanana_jax.parallel import multihost
from kanana_jax.recipe.config import RecipeConfig
from kanana_jax.stages import KINDS

# Keys that may change between two starts on one workdir: where and how fast it runs, what is shown, what is kept.
# Stages add their own (`Kind.free`). All other keys affect the losses, the rows or the scores (which rank
# checkpoints and candidates, and end stages); they enter the config's hash.
FREE = (
    "mesh",
    "runtime.attention",
    "runtime.scan_layers",
    "runtime.remat",
    "samples",
    "evaluation.batch_size",
    "plan",
    "trackers",
    "report",
    "data.workers",
    "data.prefetch",
)
_MISSING = "nothing"


@contextlib.contextmanager
def held(workdir: pathlib.Path) -> Generator[None]:
    """Holds the workdir's lock for this run; process 0 takes it on behalf of all.

    Raises:
      UserError: another run holds it, or the folder cannot be made; raised on every process.
    """
    refusal: UserError | None = None
    with contextlib.ExitStack() as stack:
        if jax.process_index() == 0:
            try:
                stack.enter_context(locked(workdir))
            except UserError as error:
                refusal = error
        refusals = multihost.merge_states({"refusal": str(refusal)} if refusal else {})
        if refusals:
            raise UserError(refusals["refusal"]) from refusal
        yield


def record(config: Any, seed: int, workdir: pathlib.Path, command: Sequence[str], mesh: Mesh) -> None:
    """Checks the config against the workdir's; process 0 writes `config.json` and records each start.

    Every process calls it, so that all refuse together and none waits for one that has refused.

    Raises:
      ConfigError: the workdir was started with another config, beyond what `free_keys` allows; names every key.
    """
    file = workdir / "config.json"
    before, changed = check_unchanged(config, workdir)
    if jax.process_index():
        return
    resolved = config_lib.to_dict(config)
    here = {
        "started": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        "devices": _devices(mesh),
        "changed": {key: list(values) for key, values in sorted(changed.items())},
    }
    starts = [*before.get("starts", []), here]
    same = before and not changed and before.get("devices") == here["devices"]
    write_json(
        file,
        (
            before
            if same
            else {
                "config": resolved,
                "config_hash": config_hash(resolved),
                "command": shlex.join(command),
                "versions": _versions(),
                "git_revision": _git_revision(),
                "seed": seed,
                "devices": here["devices"],
                "started": before.get("started", here["started"]),
            }
        )
        | {"starts": starts},
    )


def _devices(mesh: Mesh) -> str:
    """A description of a run's devices, their number first."""
    axes = " × ".join(f"{name} {size}" for name, size in mesh.shape.items() if size > 1)
    processes = f" in {jax.process_count()} processes" if jax.process_count() > 1 else ""
    return f"{mesh.size} × {jax.devices()[0].device_kind}{processes}" + (f", mesh {axes}" if axes else "")


def check_unchanged(config: Any, workdir: pathlib.Path) -> tuple[dict[str, Any], dict[str, tuple[Any, Any]]]:
    """The contents of `config.json` (empty in a new workdir) and the values changed since.

    A workdir that holds nothing but shards of documents accepts another config: the first may have named a
    file that did not exist.

    Raises:
      ConfigError: the workdir was begun with another config, beyond what `free_keys` allows; names every key.
    """
    resolved = config_lib.to_dict(config)
    before = read_json(workdir / "config.json") or {}
    changed = differences(before["config"], resolved) if before else {}
    free = free_keys(resolved)
    refused = {key: values for key, values in changed.items() if not _starts_with(key, free)}
    if refused and not _begun(workdir, before["config"]):
        return {}, {}
    if refused:
        changes = "; ".join(f"{key} was {_short(old)}, is {_short(new)}" for key, (old, new) in sorted(refused.items()))
        known = dict.fromkeys(key if key in FREE else f"STAGE.{key.partition('.')[2]}" for key in free)
        raise ConfigError(
            f"{workdir} was started with another config ({changes}): use that config, or name another --workdir "
            f"(keys that may change, where a stage has them: {', '.join(known)})"
        )
    return before, changed


def _begun(workdir: pathlib.Path, config: dict[str, Any]) -> bool:
    """Returns whether the tokenizer or any stage of a plain config has been started."""
    return any((workdir / name).exists() for name in ("tokenizer", *config.get("stages", ())))


def config_hash(plain: dict[str, Any]) -> str:
    """A hash of the values that must not change between the starts of a run."""
    free = free_keys(plain)
    values = _defaults() | _flat(plain)
    return config_lib.fingerprint({key: value for key, value in values.items() if not _starts_with(key, free)})


def differences(before: Any, after: Any) -> dict[str, tuple[Any, Any]]:
    """The values that differ between two plain configs, by full key; a missing value is shown as 'nothing'."""
    old, new = _flat(before), _flat(after)
    defaults = _defaults()

    def of(flat: dict[str, Any], key: str) -> Any:
        return flat.get(key, defaults.get(key, _MISSING))

    return {
        key: (old.get(key, _MISSING), new.get(key, _MISSING))
        for key in sorted(old.keys() | new.keys())
        if of(old, key) != of(new, key)
    }


def _defaults() -> dict[str, Any]:
    """The defaults of the recipe's sections for the values that a config leaves out."""
    sections = {f.name: f.default for f in dataclasses.fields(RecipeConfig) if dataclasses.is_dataclass(f.default)}
    return _flat({name: config_lib.to_dict(default) for name, default in sections.items()})


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    if isinstance(value, dict) and value:
        return {k: v for name, item in value.items() for k, v in _flat(item, f"{key}.{name}" if key else name).items()}
    return {key: value}


def free_keys(config: dict[str, Any]) -> tuple[str, ...]:
    """The keys of a plain config that may change between two starts."""
    kinds = {name: section.get("kind") for name, section in config.items() if isinstance(section, dict)}
    known = ((name, KINDS[kind]) for name, kind in kinds.items() if isinstance(kind, str) and kind in KINDS)
    return (*FREE, *(f"{name}.{key}" for name, kind in known for key in kind.free_in(config[name])))


def _starts_with(key: str, prefixes: Sequence[str]) -> bool:
    return any(key == prefix or key.startswith(f"{prefix}.") for prefix in prefixes)


def _short(value: Any) -> str:
    text = value if value is _MISSING else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _versions() -> dict[str, str]:
    names = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "ml-collections", "numpy")
    names += ("tokenizers", "sentencepiece")
    return {"python": sys.version.split()[0], **{name: metadata.version(name) for name in names}}


def _git_revision() -> str | None:
    try:
        result = subprocess.run(
            ["git", "-C", str(pathlib.Path(__file__).parent), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()
