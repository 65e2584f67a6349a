"""Tasks on local files: `tasks/*.yaml`, in lm-evaluation-harness's notation with a few keys more.

`files` names the file of each split below the data folder (or `microworld` a world that is asked about); `base` a file
of the harness's tasks that gives what is not said; `by` a field whose values become tasks of their own, averaged by
size; `join` a file whose fields are added by a key.
"""

import functools
import gzip
import importlib.resources
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from kanana_jax.config import ConfigError, nearest
from kanana_jax.data import microworld

Rows = list[dict[str, Any]]


def known() -> dict[str, pathlib.Path]:
    """Our tasks and their files."""
    folder = importlib.resources.files("kanana_jax.evaluation") / "tasks"
    return {file.stem: file for file in sorted(pathlib.Path(str(folder)).glob("*.yaml"))}


def load(names: Sequence[str], data_dir: pathlib.Path | None) -> tuple[list[Any], dict[str, list[str]], TaskManager]:
    """What the harness is to run, the parts of each task that is many, and what loads them.

    A name is ours where the data folder is given (or nothing is needed of one), the harness's otherwise.

    Raises:
      ConfigError: an unknown name, or files that are not in the data folder.
    """
    ours = {n: f for n, f in known().items() if n in names and (data_dir is not None or n == "microworld")}
    # Its own tasks are more than ten thousand files, which take seconds to look through.
    manager = TaskManager(include_defaults=not set(names) <= ours.keys())
    found, parts = [], {}
    for name in names:
        if name in ours:
            configs = _local(name, ours[name], data_dir)
            found += configs
            if len(configs) > 1 or configs[0]["task"] != name:
                parts[name] = [config["task"] for config in configs]
        elif name in manager.all_tasks or name in manager.all_groups or name in manager.all_tags:
            found.append(name)
        else:
            hint = "give --data-dir" if name in known() else nearest(name, [*known(), *manager.all_tasks])
            raise ConfigError(f"task '{name}' is unknown: {hint}")
    return found, parts, manager


def _local(name: str, file: pathlib.Path, data_dir: pathlib.Path | None) -> list[dict[str, Any]]:
    config = load_yaml(file, resolve_func=True)
    files, base, by, join, world = (config.pop(key, None) for key in ("files", "base", "by", "join", "microworld"))
    if base is not None:
        theirs = importlib.resources.files("lm_eval") / "tasks" / base
        config = load_yaml(pathlib.Path(str(theirs)), resolve_func=True) | config
    for key in ("tag", "dataset_name", "dataset_path"):
        config.pop(key, None)
    if world is not None:
        splits = {"test": [q for q in microworld.questions(microworld.World.create(**world)) if q["choices"]]}
    else:
        splits = {split: _read(data_dir / path, name) for split, path in files.items()}
    if join is not None:
        more = {row[join["on"]]: row for row in _read(data_dir / join["file"], name)}
        splits = {split: [row | more.get(row[join["on"]], {}) for row in rows] for split, rows in splits.items()}
    if by is None:
        return [config | {"custom_dataset": functools.partial(_datasets, splits)}]
    configs = []
    for value in sorted({row[by] for rows in splits.values() for row in rows}):
        chosen = {split: [row for row in rows if row[by] == value] for split, rows in splits.items()}
        if not chosen[config["test_split"]]:
            continue
        part = config | {
            "task": f"{name}_{value.replace('/', '_').replace(' ', '_')}",
            "custom_dataset": functools.partial(_datasets, chosen),
        }
        if "description" in part:
            part["description"] = part["description"].replace("{{by}}", value.replace("_", " "))
        configs.append(part)
    return configs


def _datasets(splits: dict[str, Rows], **_) -> dict[str, Any]:
    import datasets

    return datasets.DatasetDict({split: datasets.Dataset.from_list(rows) for split, rows in splits.items()})


def _read(file: pathlib.Path, task: str) -> Rows:
    if not file.is_file():
        raise ConfigError(f"task '{task}' needs {file}, which is not there: see docs/evaluation.md for its fields")
    text = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    rows = []
    for number, line in enumerate(text.decode("utf-8").splitlines(), 1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                raise ConfigError(f"{file}, line {number}: not JSON ({error})") from error
    if not rows:
        raise ConfigError(f"task '{task}': {file} is empty")
    return rows
