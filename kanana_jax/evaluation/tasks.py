"""Our tasks: `tasks/*.yaml`, in lm-evaluation-harness's notation with a few additional keys, and `groups.yaml`.

Additional keys:
`files`: the file of each split in the data folder; a pattern may match several, and each row then has its `folder`.
`columns`: fields that rows must have in addition to those that a template uses.
`ranges`: for each split, the range of a field's values that belong to it.
`join`: a second file, whose fields are added by a common key.
`by`: a field whose values become separate tasks, averaged weighted by size.
`microworld`: a generated world to ask about.
`base`: a file of the harness's tasks that provides all other keys.
`like`: a task or group of the harness; each of its data sets becomes a task.
`runs_code`: the model's answers are run, in the sandbox.
`needs`: packages that scoring needs besides the harness: `{package: what to install}`; `nltk:PATH` is a resource of
NLTK's data.
"""

import functools
import importlib.resources
import importlib.util
import logging
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from kanana_jax.data import microworld
from kanana_jax.errors import ConfigError, UserError, nearest
from kanana_jax.evaluation import own_sets, own_tasks, templates
from kanana_jax.evaluation.harness_tasks import config_of, leaves, localised, on_files
from kanana_jax.evaluation.listing import groups
from kanana_jax.evaluation.rows import Rows, as_datasets, read_rows
from kanana_jax.files import local_copy

log = logging.getLogger("kanana")
_KEYS = ("files", "ranges", "base", "like", "by", "join", "microworld", "runs_code", "needs", "columns")
_NLTK = "nltk:"
_FOLDER_FIELD, _NO_FOLDER = "folder", ("data", "synthetic")
_FOLDER = pathlib.Path(str(importlib.resources.files("kanana_jax.evaluation")))
templates.confine_harness()


class Loaded(NamedTuple):
    """The tasks to run.

    Attributes:
      specs: what the harness is given: names of its own tasks, and configs of ours.
      shots: number of examples by name, if a group sets it.
      parts: names of the parts of each of our tasks that has several.
      manager: the harness's loader.
      runs_code: whether the sandbox is needed.
      chat: whether a group uses the chat format.
    """

    specs: list[Any]
    shots: dict[str, int]
    parts: dict[str, list[str]]
    manager: TaskManager
    runs_code: bool
    chat: bool


def known() -> dict[str, pathlib.Path]:
    """The files of our tasks, by name."""
    return {file.stem: file for file in sorted((_FOLDER / "tasks").glob("*.yaml"))}


def load(names: Sequence[str], data_dir: pathlib.Path | None, chat: bool = False) -> Loaded:
    """Finds every task.

    A name that ends like a data file is a set of own questions (`own_sets.py`), and the name of a group stands for its
    tasks. Any other name is one of our tasks if that can be read: from the data folder if one is given, from a hub's
    data set, or from a microworld. Otherwise it is a task of the harness.

    Args:
      data_dir: folder of local files; None: none are read.
      chat: whether the chat format will be used, for which own questions are worded differently.

    Raises:
      ConfigError: a name is unknown, the data folder or a file is missing or damaged, a file of own questions has the
        name of another task, a task of the harness runs code, or a chat group is combined with other tasks.
      UserError: a package is not installed.
    """
    if data_dir is not None and not data_dir.is_dir():
        problem = "is not a folder" if data_dir.exists() else "does not exist"
        raise ConfigError(f"data folder {data_dir} {problem}: give --data-dir a folder of evaluation sets")
    data_dir = None if data_dir is None else local_copy(data_dir)
    bundles = groups()
    shots = {task: n for name in names for task, n in bundles.get(name, {}).get("tasks", {}).items() if n is not None}
    in_chat = [bool(bundles.get(name, {}).get("chat")) for name in names]
    if any(in_chat) and not all(in_chat):
        one = names[in_chat.index(True)]
        raise ConfigError(f"group '{one}' is asked in the chat format, the other tasks are not: evaluate it alone")
    names = list(dict.fromkeys(task for name in names for task in bundles.get(name, {"tasks": [name]})["tasks"]))
    own = _own(names)
    configs = {name: load_yaml(file, resolve_func=False) for name, file in known().items() if name in names}
    ours = {name for name, config in configs.items() if _is_ours(config, data_dir)}
    manager = _manager(not set(names) <= ours | own.keys() or any("like" in configs[name] for name in ours))
    specs, parts = [], {}
    for name in names:
        if name in own:
            specs.append(own_tasks.task(own[name], chat))
            continue
        if name in ours:
            made = _make(name, data_dir, manager)
            specs += made
            if len(made) > 1 or made[0]["task"] != name:
                parts[name] = [config["task"] for config in made]
            continue
        if name not in manager.all_tasks:
            if name in configs:
                raise ConfigError(f"task '{name}' is read from local files: give --data-dir (see docs/evaluation.md)")
            raise ConfigError(f"task '{name}' is unknown: {nearest(name, [*known(), *bundles, *manager.all_tasks])}")
        if any(config_of(leaf).get("unsafe_code") for leaf in leaves(name, manager)):
            raise ConfigError(
                f"task '{name}' of the harness runs code written by the model in this process, which is never allowed: "
                f"those that run it in a sandbox are {', '.join(n for n in known() if _runs_code(n))}"
            )
        local, members = ([], {}) if data_dir is None else on_files(name, data_dir, manager)
        if data_dir is not None and not local:
            log.warning("task '%s': %s has no published files of it, so it is read from its hub", name, data_dir)
        specs += local or [name]
        parts |= members
    if data_dir is not None and all(name in own or "microworld" in configs.get(name, {}) for name in names):
        raise ConfigError(f"--data-dir has no effect on {', '.join(names)}, which read no files: leave it out")
    return Loaded(specs, shots, parts, manager, any(configs[n].get("runs_code") for n in ours), any(in_chat))


def _own(names: Sequence[str]) -> dict[str, own_sets.OwnSet]:
    """The sets of own questions among the names; refuses one whose name is taken."""
    found = {name: own_sets.read(name) for name in names if own_sets.is_file(name)}
    taken = {*known(), *groups(), *names}
    for file, made in found.items():
        if made.name in taken:
            raise ConfigError(f"{file} would be a second task '{made.name}': rename the file, whose name is the task's")
        taken.add(made.name)
    return found


def harness_manager() -> TaskManager:
    """The harness's loader with all its own tasks."""
    return _manager(True)


@functools.cache
def _manager(include_defaults: bool) -> TaskManager:
    """The harness's loader, cached: indexing its own tasks, more than ten thousand files, takes half a minute."""
    return TaskManager(include_defaults=include_defaults)


def _runs_code(name: str) -> bool:
    return bool(load_yaml(known()[name], resolve_func=False).get("runs_code"))


def _is_ours(config: dict[str, Any], data_dir: pathlib.Path | None) -> bool:
    if "microworld" in config or "like" in config:
        return True
    return bool(config.get("files")) if data_dir is not None else bool(config.get("dataset_path"))


def _make(name: str, data_dir: pathlib.Path | None, manager: TaskManager) -> list[dict[str, Any]]:
    """The harness's configs for one of our tasks."""
    config = load_yaml(known()[name], resolve_func=True)
    special = {key: config.pop(key, None) for key in _KEYS}
    for package, install in (special["needs"] or {}).items():
        if _missing(package):
            resource = package.removeprefix(_NLTK)
            needed = f"the package {package}" if resource == package else f"NLTK's data {resource}"
            raise UserError(f"task '{name}' needs {needed}: {install}")
    if special["base"] is not None:
        theirs = importlib.resources.files("lm_eval") / "tasks" / special["base"]
        config = load_yaml(pathlib.Path(str(theirs)), resolve_func=True) | config
    config.pop("tag", None)
    config = {key: value for key, value in config.items() if value is not None or key.endswith("_split")}
    return [templates.as_functions(one) for one in _many(name, config, special, data_dir, manager)]


def _many(
    name: str, config: dict[str, Any], special: dict[str, Any], data_dir: pathlib.Path | None, manager: TaskManager
) -> list[dict[str, Any]]:
    """The config, once per data set or part."""
    if special["like"] is not None:
        made = [
            config
            | {key: config_of(leaf)[key] for key in ("dataset_path", "dataset_name") if key in config_of(leaf)}
            | {"task": f"{name}_{config_of(leaf).get('dataset_name', leaf.name)}"}
            for leaf in leaves(special["like"], manager)
        ]
        local = [_without_hub(one) | found for one in made if (found := localised(one, data_dir)) is not None]
        if local and len(local) < len(made):
            log.warning("task '%s': %s has the files of %d of its %d parts", name, data_dir, len(local), len(made))
        return local or made
    if special["microworld"] is None and not _has_files(special["files"], data_dir):
        found = localised(config, data_dir)
        if found is not None:
            return [_without_hub(config) | found]
        if not _is_here(name, config, data_dir):
            return [config]
    return _local(name, _without_hub(config), special, data_dir)


def _without_hub(config: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in config.items() if k not in ("dataset_name", "dataset_path", "dataset_kwargs")}


def _missing(package: str) -> bool:
    if not package.startswith(_NLTK):
        return importlib.util.find_spec(package) is None
    if importlib.util.find_spec("nltk") is None:
        return True
    import nltk

    try:
        nltk.data.find(package.removeprefix(_NLTK))
    except LookupError:
        return True
    return False


def _has_files(files: dict[str, str] | None, data_dir: pathlib.Path | None) -> bool:
    return data_dir is not None and any(any(data_dir.glob(path)) for path in (files or {}).values())


def _is_here(name: str, config: dict[str, Any], data_dir: pathlib.Path | None) -> bool:
    """Whether a task is read from files; if not, a warning names the data set on a hub that is read instead."""
    if data_dir is None:
        return False
    if "dataset_path" not in config:
        return True
    log.warning("task '%s': %s has none of its files, so it is read from %s", name, data_dir, config["dataset_path"])
    return False


def _local(
    name: str, config: dict[str, Any], special: dict[str, Any], data_dir: pathlib.Path | None
) -> list[dict[str, Any]]:
    """Configs of a task on local or generated rows: one, or one per value of `by`."""
    by, join, ranges = special["by"], special["join"], special["ranges"] or {}
    if special["microworld"] is not None:
        splits = _microworld(**special["microworld"])
    else:
        asked: dict[str, type] = {join["on"]: str} if join else dict.fromkeys(_fields(config), object)
        asked |= dict.fromkeys(special["columns"] or (), object)
        asked |= {by: str} if by and by != _FOLDER_FIELD else {}
        asked |= {ranges["by"]: int} if ranges else {}
        splits = {
            split: _read(data_dir or pathlib.Path(), path, name, asked) for split, path in special["files"].items()
        }
    for split in splits.keys() & ranges.keys():
        low, high = ranges[split]
        splits[split] = [row for row in splits[split] if low <= row[ranges["by"]] <= high]
    if join is not None:
        files = [data_dir / special["files"]["test"], data_dir / join["file"]]
        splits = _joined(name, config, splits, join["on"], *files)
    if by is None:
        return [config | {"custom_dataset": functools.partial(as_datasets, splits)}]
    configs = []
    for part in sorted({_part(row[by]) for rows in splits.values() for row in rows}):
        chosen = {split: [row for row in rows if _part(row[by]) == part] for split, rows in splits.items()}
        if chosen[config["test_split"]]:
            dataset = functools.partial(as_datasets, chosen)
            configs.append(config | {"task": f"{name}_{part}", "custom_dataset": dataset})
    return configs


def _read(data_dir: pathlib.Path, path: str, name: str, asked: dict[str, type]) -> Rows:
    """The rows of a file, or of all files that a pattern matches, with the folder names that its wildcards matched."""
    if "*" not in path:
        return read_rows(data_dir / path, name, asked)
    files, root = sorted(data_dir.glob(path)), data_dir / path.partition("*")[0]
    if not files:
        raise ConfigError(f"task '{name}' needs {data_dir / path}, none of which is there: see docs/evaluation.md")
    return [
        row | {_FOLDER_FIELD: "_".join(p for p in file.parent.relative_to(root).parts if p not in _NO_FOLDER)}
        for file in files
        for row in read_rows(file, name, asked)
    ]


def _part(value: str) -> str:
    """The suffix that a value adds to the task's name; values with the same suffix form one part."""
    return value.replace("/", "_").replace(" ", "_")


def _joined(
    name: str, config: dict[str, Any], splits: dict[str, Rows], on: str, first: pathlib.Path, second: pathlib.Path
) -> dict[str, Rows]:
    """Rows extended by the fields of a second file."""
    more = {row[on]: row for row in read_rows(second, name, {on: str})}
    splits = {split: [row | more.get(row[on], {}) for row in rows] for split, rows in splits.items()}
    for row in (row for rows in splits.values() for row in rows):
        for field in _fields(config):
            if field not in row:
                raise ConfigError(
                    f"task '{name}' needs the field '{field}', which neither {first} nor {second} has for {on} "
                    f"'{row[on]}': see docs/evaluation.md"
                )
    return splits


def _microworld(seed: int, size: int, ask: str, per_task: int = 200) -> dict[str, Rows]:
    """Questions of the microworld's tasks whose names begin with `ask`; training questions are worded differently.

    In a small world facts are few: what is asked twice is kept once, since repeated answers are not independent.
    """
    world = microworld.World.create(seed, size)
    if ask == "code":
        return {"test": microworld.problems(per_task)}
    found: dict[str, dict[Any, dict[str, Any]]] = {"test": {}, "train": {}}
    for name, split in (("test", "heldout"), ("train", "train")):
        for asked in microworld.questions(world, split, per_task):
            if asked["task"].startswith(ask):
                found[name].setdefault((asked["task"], asked["question"]), asked)
    return {name: [*rows.values()] for name, rows in found.items()}


def _fields(config: dict[str, Any]) -> list[str]:
    """The fields of a document that a task's templates use; without the check, a missing one would read 'None'."""
    found: set[str] = set()
    for key in ("doc_to_text", "doc_to_target", "doc_to_choice", "gen_prefix", "description"):
        template = config.get(key)
        if isinstance(template, str):
            found |= {template} if template.isidentifier() else templates.fields(template)
    return sorted(found)
