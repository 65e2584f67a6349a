"""The verb `tasks`."""

import argparse
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kanana_jax.cli.verbs import AddVerb, place
from kanana_jax.errors import ConfigError, UserError, install, nearest

if TYPE_CHECKING:
    from kanana_jax.evaluation.listing import Listed

_EXAMPLE = """examples:
  kanana tasks
  kanana tasks --data-dir DATA
  kanana tasks kmmlu_cot
  kanana tasks faq.jsonl

Every other task of lm-evaluation-harness works by its name too if its data set can be loaded. With --data-dir each
task is marked by whether its files are there."""
_READS = {
    "files": "local files, below --data-dir",
    "published files": "published files, below --data-dir in OWNER/NAME/, NAME/ or this folder, in the hub's layout",
    "calls": "function calls, asked in a run of their own; --data-dir is the folder of the set",
    "nothing": "no files",
}


def add_verbs(verb: AddVerb) -> None:
    """Adds `tasks`."""
    sub = verb("tasks", _tasks, "list the evaluation tasks and the files that they read", _EXAMPLE)
    sub.add_argument(
        "name", nargs="?", metavar="NAME", help="show one task or group, or how a file of own questions is understood"
    )
    sub.add_argument("--data-dir", type=place, metavar="DIR", help="mark the tasks whose files are in this folder")
    sub.add_argument("--json", action="store_true", help="print one JSON object: task -> its properties")


def _tasks(options: argparse.Namespace, overrides: list[str], command: list[str]) -> None:
    import dataclasses

    from kanana_jax.evaluation import listing, own_sets

    if options.data_dir is not None and not options.data_dir.is_dir():
        raise ConfigError(f"--data-dir {options.data_dir} is not a folder: give a folder of evaluation sets")
    if options.name is not None and own_sets.is_file(options.name):
        _show_own(options.name, options.json)
        return
    known, groups = listing.listed(), listing.groups()
    if options.name in groups:
        _show_group(options.name, groups[options.name], known)
        return
    if options.name is not None and options.name not in known:
        _show_harness(options.name, [*known, *groups])
        return
    chosen = known if options.name is None else {options.name: known[options.name]}
    if options.json:
        shown = {name: dataclasses.asdict(task) for name, task in chosen.items()}
        print(json.dumps(shown, ensure_ascii=False, indent=1))
    elif options.name is not None:
        _show(chosen[options.name], groups, options.data_dir)
    else:
        _list(known, groups, options.data_dir)


def _list(known: Mapping[str, "Listed"], groups: Mapping[str, Any], data_dir: pathlib.Path | None) -> None:
    for reads, title in _READS.items():
        print(f"{title}:")
        rows = []
        for name, task in known.items():
            if task.reads == reads:
                here = "" if data_dir is None or not task.files else "missing" if task.missing(data_dir) else "here"
                places = task.files[:1] if reads in ("published files", "calls") else task.files
                rows.append((name, here, ", ".join(places), task.summary.partition(". ")[0]))
        _table(rows)
    print("groups, each with its paper's shots:")
    _table([(name, ", ".join(group["tasks"])) for name, group in groups.items()])


def _show(task: "Listed", groups: Mapping[str, Any], data_dir: pathlib.Path | None) -> None:
    rows = [("task", task.name), ("what", task.summary), ("reads", _READS[task.reads])]
    rows += [("files", file) for file in task.files]
    rows += [("columns", ", ".join(task.columns))] if task.columns else []
    rows += [("without --data-dir", f"the hub's {task.hub}" if task.hub else "not possible")] if task.files else []
    if data_dir is not None and task.files:
        missing = task.missing(data_dir)
        rows.append((str(data_dir), f"lacks {', '.join(missing)}" if missing else "has the files"))
    rows += [(f"needs {package}", how) for package, how in task.needs.items()]
    rows += list(task.settings.items())
    member = [f"{name} ({shots}-shot)" if shots is not None else name for name, shots in _groups_of(task.name, groups)]
    rows += [("groups", ", ".join(member))] if member else []
    _table(rows)


def _groups_of(task: str, groups: Mapping[str, Any]) -> Iterable[tuple[str, int | None]]:
    return ((name, group["tasks"][task]) for name, group in groups.items() if task in group["tasks"])


def _show_group(name: str, group: Mapping[str, Any], known: Mapping[str, "Listed"]) -> None:
    print(f"group {name}{', asked in the chat format' if group.get('chat') else ''}:")
    rows = []
    for task, shots in group["tasks"].items():
        reads = ", ".join(known[task].files) or "no files" if task in known else "the harness's data set"
        rows.append((task, "" if shots is None else f"{shots}-shot", reads))
    _table(rows)


def _show_own(file: str, as_json: bool) -> None:
    from kanana_jax.evaluation import own_sets, own_tasks

    found = own_sets.read(file)
    made, metrics, first = own_tasks.task(found, chat=False), own_tasks.METRICS[found.form], found.rows[0]
    plain, chat = (own_tasks.Prompt(found.form, found.language, chat)(first) for chat in (False, True))
    right = own_sets.LETTERS[first["right"]] if found.form == "choices" else " | ".join(first["answers"])
    if as_json:
        about: dict[str, Any] = {
            "file": file,
            "form": found.form,
            "questions": len(found.rows),
            "language": found.language,
        }
        about |= {"metrics": metrics, "prompt": plain, "chat_prompt": chat, "right": right, "unread": found.unread}
        print(json.dumps({found.name: about}, ensure_ascii=False, indent=1))
        return
    rows = [("task", found.name), ("what", f"own questions, {_OWN[found.form]}"), ("questions", str(len(found.rows)))]
    rows += [("metrics", ", ".join(metrics)), ("language", found.language), ("version", made["metadata"]["version"])]
    rows += [("fields not read", ", ".join(found.unread))] if found.unread else []
    for title, prompt in {"first prompt": plain, "with --chat": chat}.items():
        rows += [("" if number else title, line) for number, line in enumerate(prompt.splitlines())]
    _table([*rows, ("right answer", right)])


_OWN = {
    "choices": "each with choices: the likeliest letter",
    "answers": "each with a short answer: generated, compared when normalised",
    "reference": "each with a reference text: generated, compared by characters",
}


def _show_harness(name: str, ours: Sequence[str]) -> None:
    """A task of the harness, for which its ten thousand files are looked through."""
    near = nearest(name, ours)
    try:
        from kanana_jax.evaluation import harness_tasks
        from kanana_jax.evaluation.tasks import harness_manager
    except ImportError as error:
        raise UserError(f"task '{name}' is not one of ours ({near}); the harness's need {install('eval')}") from error
    manager = harness_manager()
    if name not in manager.all_tasks:
        raise ConfigError(f"task '{name}' is unknown: {nearest(name, [*ours, *manager.all_tasks])}")
    leaves = harness_tasks.leaves(name, manager)
    sets = dict.fromkeys(str(harness_tasks.config_of(leaf).get("dataset_path") or "its own") for leaf in leaves)
    rows = [("task", name), ("what", f"lm-evaluation-harness's, {len(leaves)} part(s)")]
    _table([*rows, *(("data set", path) for path in sets), ("parts", ", ".join(leaf.name for leaf in leaves[:20]))])


def _table(rows: Sequence[Sequence[str]]) -> None:
    if not rows:
        return
    last = len(rows[0]) - 1
    kept = [column for column in range(last + 1) if any(row[column] for row in rows)]
    widths = {column: min(max(len(row[column]) for row in rows), 56) for column in kept}
    for row in rows:
        print("  " + "  ".join(f"{row[c]:<{widths[c] if c != kept[-1] else 0}}" for c in kept).rstrip())
