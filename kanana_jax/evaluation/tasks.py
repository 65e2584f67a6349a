"""Tasks of ours: `tasks/*.yaml`, in lm-evaluation-harness's notation with a few keys more, and `groups.yaml`.

`files` names the file of each split below the data folder, `ranges` the values of a field that each split has of it,
`join` a file whose fields are added by a key, `by` a field whose values become tasks of their own, averaged by size;
`microworld` a world that is asked about; `base` a file of the harness's tasks that gives what is not said; `like` a
task or group of the harness whose data sets are asked about, one task each. `runs_code`: what the model writes is run,
in the sandbox. What the scoring needs beside the harness is named in `needs`: `{package: what to install}`.
"""

import functools
import gzip
import importlib.resources
import importlib.util
import logging
import pathlib
import zlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import yaml
from jinja2 import meta
from jinja2.sandbox import SandboxedEnvironment
from lm_eval.tasks import TaskManager
from lm_eval.tasks._index import Entry, Kind
from lm_eval.tasks._yaml_loader import load_yaml

from kanana_jax import jsonl
from kanana_jax.data import microworld
from kanana_jax.errors import ConfigError, UserError, nearest

if TYPE_CHECKING:
    import datasets

log = logging.getLogger("kanana")
Rows = list[dict[str, Any]]
_KEYS = ("files", "ranges", "base", "like", "by", "join", "microworld", "runs_code", "needs")
_FOLDER = pathlib.Path(str(importlib.resources.files("kanana_jax.evaluation")))


class Loaded(NamedTuple):
    """The tasks to be run.

    Attributes:
      specs: for the harness: names of its tasks, and configs of ours.
      shots: by asked name, where a group says them.
      parts: the parts of each task of ours that is many.
      manager: what loads them.
      runs_code: whether the sandbox is needed.
      chat: whether a group asks in the chat format.
    """

    specs: list[Any]
    shots: dict[str, int]
    parts: dict[str, list[str]]
    manager: TaskManager
    runs_code: bool
    chat: bool


def known() -> dict[str, pathlib.Path]:
    """Our tasks and their files."""
    return {file.stem: file for file in sorted((_FOLDER / "tasks").glob("*.yaml"))}


def groups() -> dict[str, dict[str, Any]]:
    """Our groups: `{name: {"chat": bool, "tasks": {task: shots or None}}}`."""
    return yaml.safe_load((_FOLDER / "groups.yaml").read_text(encoding="utf-8"))


def load(names: Sequence[str], data_dir: pathlib.Path | None) -> Loaded:
    """Finds every task.

    A name is ours where it reads a file and the data folder is given, a hub's data set, or a microworld; the
    harness's otherwise. A group's name stands for its tasks.

    Raises:
      ConfigError: an unknown name, a data folder or files in it that are not there or broken, a task of the harness
        that runs code, a chat group beside other tasks.
      UserError: a package that is not installed.
    """
    if data_dir is not None and not data_dir.is_dir():
        told = "is no folder" if data_dir.exists() else "does not exist"
        raise ConfigError(f"data folder {data_dir} {told}: give --data-dir a folder of evaluation sets")
    bundles = groups()
    shots = {task: n for name in names for task, n in bundles.get(name, {}).get("tasks", {}).items() if n is not None}
    chat = [bool(bundles.get(name, {}).get("chat")) for name in names]
    if any(chat) and not all(chat):
        one = names[chat.index(True)]
        raise ConfigError(f"group '{one}' is asked in the chat format, the other tasks are not: ask for it alone")
    names = list(dict.fromkeys(task for name in names for task in bundles.get(name, {"tasks": [name]})["tasks"]))
    configs = {name: load_yaml(file, resolve_func=False) for name, file in known().items() if name in names}
    ours = {name for name, config in configs.items() if _is_ours(config, data_dir)}
    manager = _manager(not set(names) <= ours or any("like" in configs[name] for name in ours))
    specs, parts = [], {}
    for name in names:
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
        if any(_config(leaf).get("unsafe_code") for leaf in leaves(name, manager)):
            raise ConfigError(
                f"task '{name}' of the harness runs what the model has written in this process, which is never done: "
                f"those that run it in a sandbox are {', '.join(n for n in known() if _runs_code(n))}"
            )
        specs.append(name)
    return Loaded(specs, shots, parts, manager, any(configs[n].get("runs_code") for n in ours), any(chat))


@functools.cache
def _manager(include_defaults: bool) -> TaskManager:
    """With the harness's own tasks or without: they are more than ten thousand files, half a minute to look through."""
    return TaskManager(include_defaults=include_defaults)


def leaves(name: str, manager: TaskManager) -> list[Entry]:
    """The tasks that a task, group or tag of the harness stands for, their functions not yet looked up."""
    entry = manager.task_index[name]
    if entry.kind == Kind.TAG:
        return [leaf for member in sorted(entry.tags) for leaf in leaves(member, manager)]
    if entry.kind == Kind.GROUP:
        members = [m if isinstance(m, str) else m.get("task", m.get("group")) for m in _config(entry)["task"]]
        return [leaf for m in members if m in manager.task_index for leaf in leaves(m, manager)]
    return [entry]


def _config(entry: Entry) -> dict[str, Any]:
    return entry.cfg or {}


def _runs_code(name: str) -> bool:
    return bool(load_yaml(known()[name], resolve_func=False).get("runs_code"))


def _is_ours(config: dict[str, Any], data_dir: pathlib.Path | None) -> bool:
    if "microworld" in config or "like" in config:
        return True
    return bool(config.get("files")) if data_dir is not None else bool(config.get("dataset_path"))


def _make(name: str, data_dir: pathlib.Path | None, manager: TaskManager) -> list[dict[str, Any]]:
    """The harness's configs of a task of ours."""
    config = load_yaml(known()[name], resolve_func=True)
    special = {key: config.pop(key, None) for key in _KEYS}
    for package, install in (special["needs"] or {}).items():
        if _missing(package):
            raise UserError(f"task '{name}' needs the package {package}: {install}")
    if special["base"] is not None:
        theirs = importlib.resources.files("lm_eval") / "tasks" / special["base"]
        config = load_yaml(pathlib.Path(str(theirs)), resolve_func=True) | config
    config.pop("tag", None)
    config = {key: value for key, value in config.items() if value is not None or key.endswith("_split")}
    if special["like"] is not None:
        return [
            config
            | {key: _config(leaf)[key] for key in ("dataset_path", "dataset_name") if key in _config(leaf)}
            | {"task": f"{name}_{_config(leaf).get('dataset_name', leaf.name)}"}
            for leaf in leaves(special["like"], manager)
        ]
    if special["microworld"] is None and not _is_here(name, special["files"], config, data_dir):
        return [config]
    for key in ("dataset_name", "dataset_path", "dataset_kwargs"):
        config.pop(key, None)
    return _local(name, config, special, data_dir)


def _missing(package: str) -> bool:
    return importlib.util.find_spec(package) is None


def _is_here(name: str, files: dict[str, str], config: dict[str, Any], data_dir: pathlib.Path | None) -> bool:
    """Whether a task is read from files: where none of them is there, a hub's data set of the same fields will do."""
    if data_dir is None:
        return False
    if any((data_dir / path).exists() for path in files.values()) or "dataset_path" not in config:
        return True
    log.warning("task '%s': %s has none of its files, so it is read from %s", name, data_dir, config["dataset_path"])
    return False


def _local(
    name: str, config: dict[str, Any], special: dict[str, Any], data_dir: pathlib.Path | None
) -> list[dict[str, Any]]:
    """A task on rows that are here, in one part or one for each value of `by`."""
    by, join, ranges = special["by"], special["join"], special["ranges"] or {}
    if special["microworld"] is not None:
        splits = _microworld(**special["microworld"])
    else:
        asked = [*filter(None, (by, ranges.get("by"))), *([join["on"]] if join else _fields(config))]
        splits = {split: _read(data_dir / path, name, asked) for split, path in special["files"].items()}
    for split in splits.keys() & ranges.keys():
        low, high = ranges[split]
        splits[split] = [row for row in splits[split] if low <= row[ranges["by"]] <= high]
    if join is not None:
        on, file = join["on"], data_dir / join["file"]
        more = {row[on]: row for row in _read(file, name, [on])}
        splits = {split: [row | more.get(row[on], {}) for row in rows] for split, rows in splits.items()}
        for row in (row for rows in splits.values() for row in rows):
            for field in _fields(config):
                if field not in row:
                    raise ConfigError(
                        f"task '{name}' needs the field '{field}', which neither {data_dir / special['files']['test']} "
                        f"nor {file} has for {on} '{row[on]}': see docs/evaluation.md"
                    )
    if by is None:
        return [config | {"custom_dataset": functools.partial(_datasets, splits)}]
    configs = []
    for value in sorted({row[by] for rows in splits.values() for row in rows}):
        chosen = {split: [row for row in rows if row[by] == value] for split, rows in splits.items()}
        if not chosen[config["test_split"]]:
            continue
        part: dict[str, Any] = config | {
            "task": f"{name}_{value.replace('/', '_').replace(' ', '_')}",
            "custom_dataset": functools.partial(_datasets, chosen),
        }
        if "description" in part:
            part["description"] = part["description"].replace("{{by}}", value.replace("_", " "))
        configs.append(part)
    return configs


def _microworld(seed: int, size: int, ask: str, per_task: int = 200) -> dict[str, Rows]:
    """Questions of the tasks that begin with `ask`; those to learn from have other wordings."""
    world = microworld.World.create(seed, size)
    if ask == "code":
        return {"test": microworld.problems(per_task)}
    made = {split: microworld.questions(world, split, per_task) for split in ("heldout", "train")}
    return {
        name: [q for q in made[split] if q["task"].startswith(ask)]
        for name, split in (("test", "heldout"), ("train", "train"))
    }


def _datasets(splits: dict[str, Rows], **_: Any) -> "datasets.DatasetDict":
    import datasets

    return datasets.DatasetDict({split: datasets.Dataset.from_dict(_columns(rows)) for split, rows in splits.items()})


def _columns(rows: Rows) -> dict[str, list[Any]]:
    """By field; those with lists of unlike things (JEMHopQA's derivations), which Arrow cannot hold, are left out."""
    found = {}
    for key in dict.fromkeys(key for row in rows for key in row):
        values = [row.get(key) for row in rows]
        try:
            pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            continue
        found[key] = values
    return found


def _fields(config: dict[str, Any]) -> list[str]:
    """The fields that a task asks of a document. A row without one would be asked with 'None' in its place."""
    found: set[str] = set()
    for key in ("doc_to_text", "doc_to_target", "doc_to_choice", "gen_prefix"):
        template = config.get(key)
        if isinstance(template, str) and template.isidentifier():
            found.add(template)
        elif isinstance(template, str):
            found |= meta.find_undeclared_variables(SandboxedEnvironment().parse(template))
    return sorted(found)


def _read(file: pathlib.Path, task: str, fields: Sequence[str]) -> Rows:
    if not file.is_file():
        raise ConfigError(f"task '{task}' needs {file}, which is not there: see docs/evaluation.md for its fields")
    rows = []
    for number, line in _lines(file, task):
        try:
            row = jsonl.parse(line)
        except ValueError as error:
            raise ConfigError(f"{file}, line {number}: not JSON ({error})") from error
        if not isinstance(row, dict):
            raise ConfigError(f"{file}, line {number}: not a JSON object, as each row of a data set must be")
        for field in fields:
            if field not in row:
                raise ConfigError(
                    f"{file}, line {number}: no field '{field}', which task '{task}' needs: see docs/evaluation.md"
                )
        rows.append(row)
    if not rows:
        raise ConfigError(f"task '{task}': {file} is empty")
    return rows


def _lines(file: pathlib.Path, task: str) -> Iterator[tuple[int, bytes]]:
    """Numbers and lines that are not blank. (Not by `splitlines`: questions may hold U+2028 and its like.)"""
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            for number, line in enumerate(jsonl.lines(stream), 1):
                if line is None:
                    raise ConfigError(f"{file}, line {number}: more than {jsonl.MAX_LINE} bytes")
                if line.strip():
                    yield number, line
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise ConfigError(f"task '{task}': {file} cannot be read ({error}): write it anew") from error
