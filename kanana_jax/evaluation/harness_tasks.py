"""Tasks of lm-evaluation-harness: resolution of names, and configs that read local copies of published files."""

import functools
import logging
import pathlib
from collections.abc import Mapping
from typing import Any

from lm_eval.tasks import TaskManager
from lm_eval.tasks._index import Entry, Kind
from lm_eval.tasks._yaml_loader import load_yaml

from kanana_jax.errors import ConfigError
from kanana_jax.evaluation import published
from kanana_jax.evaluation.rows import as_datasets

log = logging.getLogger("kanana")


def config_of(entry: Entry) -> dict[str, Any]:
    """A task's config, with its functions unresolved."""
    return entry.cfg or {}


def leaves(name: str, manager: TaskManager) -> list[Entry]:
    """The tasks that the name of a task, group or tag stands for, with their functions unresolved."""
    return _below(manager.task_index[name], manager, {})


def _below(entry: Entry, manager: TaskManager, groups: dict[str, list[str]]) -> list[Entry]:
    """The tasks below an entry; adds each group on the way (but no tag) and its tasks to `groups`."""
    if entry.kind == Kind.TAG:
        members = sorted(entry.tags)
    elif entry.kind == Kind.GROUP:
        members = [m if isinstance(m, str) else m.get("task", m.get("group")) for m in config_of(entry)["task"]]
    else:
        return [entry]
    known = [manager.task_index[m] for m in members if m in manager.task_index]
    found = [leaf for member in known for leaf in _below(member, manager, groups)]
    if entry.kind == Kind.GROUP:
        groups[entry.name] = [leaf.name for leaf in found]
    return found


def on_files(
    name: str, data_dir: pathlib.Path, manager: TaskManager
) -> tuple[list[dict[str, Any]], dict[str, list[str]]]:
    """Configs that make a name's tasks read published files in `data_dir`, and the tasks of each group by name.

    Both are empty if the folder has no file of any task. If files of some tasks are missing, a warning names them, and
    these tasks are left out.
    """
    groups: dict[str, list[str]] = {}
    found, missing = [], []
    for leaf in _below(manager.task_index[name], manager, groups):
        config = localised(config_of(leaf), data_dir)
        if config is None:
            missing.append(leaf.name)
        else:
            whole = load_yaml(leaf.yaml_path, resolve_func=True) if leaf.yaml_path else config_of(leaf)
            found.append({**whole, **config, "task": leaf.name})
    if not found:
        return [], {}
    if missing:
        few = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        log.warning("task '%s': %s has no files of %s: the other %d are evaluated", name, data_dir, few, len(found))
    here = {config["task"] for config in found}
    kept = {group: [m for m in members if m in here] for group, members in groups.items()}
    return [_plain(config) for config in found], {group: members for group, members in kept.items() if members}


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config without keys for data sets on a hub, and with the harness's own metrics instead of scripts on a hub."""
    dropped = ("tag", "group", "dataset_name", "dataset_path", "dataset_kwargs")
    made = {key: value for key, value in config.items() if key not in dropped}
    metrics = made.get("metric_list") or []
    return made | {"metric_list": [{k: v for k, v in m.items() if k != "hf_evaluate"} for m in metrics]}


def localised(config: Mapping[str, Any], data_dir: pathlib.Path | None) -> dict[str, Any] | None:
    """Keys of a config that make it read its data set's published files in `data_dir`; None if they are not there.

    If the file of examples is missing, examples come from the test questions.

    Raises:
      ConfigError: a file cannot be read or lacks a column, or the name of a split is not text.
    """
    path, part = config.get("dataset_path"), config.get("dataset_name")
    asked = config.get("test_split") or config.get("validation_split")
    if data_dir is None or not isinstance(path, str) or not path or not asked:
        return None
    others = [config.get(key) for key in ("fewshot_split", "training_split", "validation_split")]
    splits = {asked: True} | {split: False for split in others if split and split != asked}
    files = published.find(data_dir, path, part, splits)
    if asked not in files:
        return None
    if any(not isinstance(s, str) for s in splits):
        raise ConfigError(f"task '{config.get('task')}' names a split that is not text")
    rows = published.read(files, str(config.get("task")), path, part)
    made: dict[str, Any] = {"custom_dataset": functools.partial(as_datasets, rows)}
    made |= {k: None for k in ("training_split", "validation_split") if config.get(k) not in (None, *files)}
    examples = config.get("fewshot_split")
    if (examples is not None and examples not in files) or len(files) == 1:
        made["fewshot_split"] = asked
    return made
