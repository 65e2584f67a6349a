"""Results of lm-evaluation-harness: `results_DATE.json` in a folder for each model."""

import datetime
import pathlib
from collections.abc import Iterator, Mapping

from kanana_jax.observatory import task_names
from kanana_jax.observatory.result_files import score
from kanana_jax.observatory.result_files.score import Json, Score


def is_harness(value: Json) -> bool:
    """Whether the content of a file is a result of lm-evaluation-harness."""
    return isinstance(value.get("results"), dict) and isinstance(value.get("versions"), dict)


def scores(file: pathlib.Path, value: Json) -> Iterator[Score]:
    """The scores of a file for which `is_harness` holds.

    A task's metric is the one that `kanana eval` reports, or else the first share for which higher is better.
    """
    config = value.get("config") or {}
    name = str(value.get("model_name") or _pretrained(config.get("model_args")) or file.parent.name)
    results = {task: _plain(found) for task, found in {**(value.get("groups") or {}), **value["results"]}.items()}
    better = value.get("higher_is_better") or {}
    known = {t: s for t, r in results.items() if (s := score.of_result(r) or _share(r, better.get(t) or {}))}
    children = {task: list(found) for task, found in (value.get("group_subtasks") or {}).items() if found}
    parts = {task: list(_leaves(task, children)) for task in children}
    shots, counts = value.get("n-shot") or {}, value.get("n-samples") or {}
    chat = "chat" if value.get("chat_template") else ""
    limit = f"limit {config['limit']:g}" if isinstance(config.get("limit"), (int, float)) else ""
    for task in sorted(score.chosen(known, parts)):
        number, error, metric = known[task]
        few = shots.get(task, "")
        settings = (f"{value['versions'].get(task, '')}", f"{few}-shot" if few != "" else "", chat, limit, metric)
        yield Score(
            models=(name, name.rstrip("/").rsplit("/", 1)[-1]),
            task=task,
            value=number,
            error=error,
            items=_items(counts, task, parts.get(task, ())),
            metric=metric,
            source=f"{file.parent.name}/{file.name}",
            language=task_names.language(task),
            version=", ".join(["lm-evaluation-harness", *filter(None, settings)]),
            shots=str(few),
            date=_date(value.get("date")),
        )


def _plain(result: Mapping[str, object]) -> Json:
    """A task's results with the keys of `kanana eval`: 'acc,none' → 'acc', 'acc_stderr,none' → 'acc_stderr'."""
    found: Json = {}
    for key, value in result.items():
        metric, _, filtered = key.partition(",")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or key == "sample_len":
            continue
        end = "_stderr" if metric.endswith("_stderr") else ""
        label = metric.removesuffix("_stderr")
        found[(label if filtered in ("", "none") else f"{label},{filtered}") + end] = float(value)
    return found


def _share(result: Json, better: Mapping[str, object]) -> tuple[float, float | None, str] | None:
    for label, value in result.items():
        if not label.endswith("_stderr") and better.get(label.split(",")[0]) is True and 0 <= value <= 1:
            return value, result.get(f"{label}_stderr"), label
    return None


def _leaves(task: str, children: Mapping[str, list[str]], seen: frozenset[str] = frozenset()) -> Iterator[str]:
    """Yields all subtasks of a task, at any depth, groups included."""
    for part in children.get(task, ()):
        if part not in seen:
            yield part
            yield from _leaves(part, children, seen | {part})


def _items(counts: Mapping[str, Json], task: str, parts: tuple[str, ...] | list[str]) -> int | None:
    named = [counts[t].get("effective") for t in ([task] if task in counts else parts) if t in counts]
    own = [n for n in named if isinstance(n, int)]
    return sum(own) if own and len(own) == len(named) else None


def _pretrained(arguments: object) -> str:
    """The model named in the harness's model arguments, a string or a mapping."""
    pairs = arguments if isinstance(arguments, dict) else dict(
        part.split("=", 1) for part in str(arguments or "").split(",") if "=" in part
    )  # fmt: skip
    return next((str(pairs[key]) for key in ("peft", "delta", "pretrained", "model", "path") if pairs.get(key)), "")


def _date(seconds: object) -> str:
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        return ""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")
