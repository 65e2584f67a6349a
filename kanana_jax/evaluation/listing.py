"""The tasks that `kanana tasks` lists: our own, and those on published data sets.

Everything is read from task files without importing the harness, which takes seconds to load and half a minute to index
its own tasks.
"""

import dataclasses
import importlib.resources
import importlib.util
import pathlib
from collections.abc import Mapping
from typing import Any, Literal

import yaml

from kanana_jax.errors import install
from kanana_jax.evaluation import function_calls, published

_FOLDER = importlib.resources.files("kanana_jax.evaluation")
# The keys of a task file whose templates use fields of a row.
_TEMPLATES = ("doc_to_text", "doc_to_target", "doc_to_choice", "description")
Reads = Literal["files", "published files", "calls", "nothing"]


@dataclasses.dataclass(frozen=True)
class Listed:
    """A task, as `kanana tasks` shows it.

    Attributes:
      name: name for `--tasks`.
      summary: what the task asks, and how.
      reads: `files`: local files in the layout of this package; `published files`: local files in their publisher's
        layout; `calls`: files of a set of function calls, directly in the data folder; `nothing`: the questions are
        generated.
      files: paths in the data folder; for published files, a folder and the usual names.
      columns: fields that a row must have; empty if only the harness knows.
      hub: the data set that is read without `--data-dir`; empty: none.
      needs: packages needed besides the harness, and how to install them.
      settings: shots, metrics and other settings of the task file.
    """

    name: str
    summary: str
    reads: Reads
    files: tuple[str, ...]
    columns: tuple[str, ...]
    hub: str
    needs: Mapping[str, str]
    settings: Mapping[str, str]

    def missing(self, data_dir: pathlib.Path) -> list[str]:
        """The files that are missing in a data folder; for a published data set, its folder if that is missing."""
        if self.reads == "published files":
            return [] if published.folder(data_dir, self.hub) is not None else list(self.files[:1])
        return [file for file in self.files if not any(data_dir.glob(file))]


class _Loader(yaml.SafeLoader):
    """Loads task files without resolving `!function NAME`."""


_Loader.add_constructor("!function", lambda loader, node: None)


def groups() -> dict[str, dict[str, Any]]:
    """Our groups: `{name: {"chat": bool, "tasks": {task: shots or None}}}`."""
    return yaml.safe_load((_FOLDER / "groups.yaml").read_text(encoding="utf-8"))


def listed() -> dict[str, Listed]:
    """All tasks that read local files or generate their questions, by name."""
    ours = {file.name.removesuffix(".yaml"): file for file in (_FOLDER / "tasks").iterdir() if _is_task(file.name)}
    found = {name: _ours(name, file.read_text(encoding="utf-8")) for name, file in sorted(ours.items())}
    for path, about in published.table().items():
        for name in about.get("tasks", ()):
            if name not in found:
                found[name] = _published(name, path)
    for name, about in function_calls.sets().items():
        needs = {"llguidance": install("calls")}
        found[name] = Listed(name, about.summary, "calls", about.files, (), "", needs, {"metrics": "accuracy"})
    return dict(sorted(found.items()))


def _is_task(name: str) -> bool:
    return name.endswith(".yaml")


def _loaded(text: str) -> dict[str, Any]:
    """A task file, merged with the file that it includes and the harness's file that it is based on."""
    config = yaml.load(text, _Loader)
    included, base = config.pop("include", None), config.pop("base", None)
    if included is not None:
        config = _loaded((_FOLDER / "tasks" / included).read_text(encoding="utf-8")) | config
    harness = importlib.util.find_spec("lm_eval")  # found, not imported
    if base is not None and harness is not None and harness.origin is not None:
        file = pathlib.Path(harness.origin).parent / "tasks" / base
        config = yaml.load(file.read_text(encoding="utf-8"), _Loader) | config
    return config


def _ours(name: str, text: str) -> Listed:
    config, summary = _loaded(text), _summary(text)
    needs, hub = config.get("needs") or {}, config.get("dataset_path") or ""
    settings = _settings(config)
    if "microworld" in config:
        return Listed(name, summary, "nothing", (), (), "", needs, settings)
    if config.get("files"):
        joined = [config["join"]["file"]] if config.get("join") else []
        files = tuple(dict.fromkeys((*config["files"].values(), *joined)))
        return Listed(name, summary, "files", files, _columns(config), hub, needs, settings)
    path = hub or _data_set(config.get("like", ""))
    return Listed(name, summary, "published files", _layout(path), _columns(config), path, needs, settings)


def _published(name: str, path: str) -> Listed:
    columns = published.table()[path].get("columns", [])
    if isinstance(columns, Mapping):
        parts = {name.rpartition("_")[2]: columns.get(name.rpartition("_")[2])}
        columns = parts[name.rpartition("_")[2]] or sorted({c for of_part in columns.values() for c in of_part})
    summary = f"lm-evaluation-harness's `{name}`, on {path}."
    return Listed(name, summary, "published files", _layout(path), tuple(columns), path, {}, {})


def _data_set(harness_task: str) -> str:
    """The data set of one of the harness's tasks; empty if it is not in `published.yaml`."""
    found = (path for path, about in published.table().items() if harness_task in about.get("tasks", ()))
    return next(found, "")


def _layout(path: str) -> tuple[str, ...]:
    """The paths at which a published data set is looked for, the folder first."""
    if not path:
        return ()
    about = published.table().get(path, {})
    folder = about.get("folder") or path.rpartition("/")[2]
    named = tuple(f"{folder}/{file}.*" for file in dict.fromkeys(about.get("files", {}).values()))
    return (f"{folder}/", *(named or (f"{folder}/PART/SPLIT.*", f"{folder}/data/PART-SPLIT.*")))


def _summary(text: str) -> str:
    """The comment at the head of a task file."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return " ".join(lines)


def _columns(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The fields of a row that a task uses; without jinja2 installed, only those under `columns`."""
    asked = set(map(str, config.get("columns") or ()))
    if importlib.util.find_spec("jinja2") is None:
        return tuple(sorted(asked))
    import jinja2
    from jinja2 import meta

    environment = jinja2.Environment(autoescape=False)
    environment.filters["regex_replace"] = str
    for template in (config.get(key) for key in _TEMPLATES):
        if isinstance(template, str):
            parsed = environment.parse(f"{{{{{template}}}}}" if template.isidentifier() else template)
            asked.update(meta.find_undeclared_variables(parsed))
    return tuple(sorted(asked - {"folder"}))


def _settings(config: Mapping[str, Any]) -> dict[str, str]:
    metrics = [str(metric.get("metric")) for metric in config.get("metric_list") or []]
    asked = {"generate_until": "text", "multiple_choice": "log-likelihood of choices"}
    made = {
        "asks for": asked.get(str(config.get("output_type")), ""),
        "shots": "" if config.get("num_fewshot") is None else str(config["num_fewshot"]),
        "metrics": ", ".join(metrics),
        "split into": f"one task for each {config['by']}" if config.get("by") else "",
        "runs code": "in the sandbox" if config.get("runs_code") else "",
        "like": f"the harness's {config['like']}" if config.get("like") else "",
    }
    return {name: value for name, value in made.items() if value}
