"""Conversion of the harness's raw results to metrics by task and group, values by document, and the answers given."""

import hashlib
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from kanana_jax.errors import UserError

log = logging.getLogger("kanana")
Json = dict[str, Any]
_SETTINGS = ("shots", "version", "chat")


class Unscored(UserError):
    """An error after the model has answered, with its answers.

    Attributes:
      samples: a line per document that was answered, as of `said`, without target and scores.
    """

    def __init__(self, error: Exception, samples: list[Json]):
        lines = [line.strip() for line in str(error).splitlines() if any(c.isalnum() for c in line)]
        reason = lines[0][:200] if lines else "without a message"
        told = isinstance(error, UserError)
        super().__init__(str(error) if told else f"the evaluation failed ({type(error).__name__}: {reason})")
        self.samples = samples


def summary(
    raw: Json, tasks: Mapping[str, Any], groups: Mapping[str, Sequence[str]], cut: Mapping[str, set[int]], chat: bool
) -> Json:
    """The result of `run.evaluate`, from the harness's raw results.

    Args:
      tasks: the harness's task objects by name.
      groups: the tasks of each group.
      cut: by task, the documents whose prompt was truncated at its beginning; a warning gives their number.
      chat: whether prompts were in the chat format.
    """
    samples = raw["samples"]
    results = {name: of_task(name, raw) | {"chat": chat, "cut": len(cut.get(name, ()))} for name in samples}
    documents = {name: by_document(samples[name]) for name in samples}
    kinds = {name: kinds_of(tasks[name]) for name in samples}
    for name, count in ((n, r["cut"]) for n, r in results.items() if r["cut"]):
        log.warning("%d of the %d prompts of %s were truncated at their beginning", count, results[name]["n"], name)
    for name, leaves in groups.items():
        documents[name] = {
            metric: [v for leaf in leaves for v in documents[leaf][metric]]
            for metric in documents[leaves[0]]
            if is_shared(metric, leaves, results, kinds)
        }
        results[name] = of_group(name, leaves, results, kinds, documents[name])
    lines = [line for name in sorted(samples) for line in said(name, samples[name], cut.get(name, set()))]
    return {"results": {n: results[n] for n in sorted(results)}, "documents": documents, "samples": lines}


def of_task(name: str, raw: Json) -> Json:
    """A task's metrics with standard errors, and its settings."""
    samples = raw["samples"][name]
    per_document = by_document(samples)
    found: Json = {}
    for key, value in raw["results"][name].items():
        metric, _, filtered = key.partition(",")
        if not filtered or metric.endswith("_stderr") or not isinstance(value, (int, float)):
            continue
        label = _label(metric, filtered)
        found[label] = float(value)
        values = per_document.get(label, [])
        if len(values) > 1:
            found[f"{label}_stderr"] = _error(values)
    prompts = hashlib.sha256("\0".join(sorted(s["prompt_hash"] + s["target_hash"] for s in samples)).encode())
    return found | {
        "n": raw["n-samples"][name]["effective"],
        "shots": raw["n-shot"][name],
        "version": str(raw["versions"][name]),
        "prompts": prompts.hexdigest()[:16],
    }


def _error(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1) / math.sqrt(len(values)))


def by_document(samples: Sequence[Json]) -> dict[str, list[float]]:
    """Each metric's values by document, in order, without metrics that only a whole set has (perplexity, chrF)."""
    found: dict[str, list[tuple[int, float]]] = {}
    for sample in samples:
        for metric in sample["metrics"]:
            value = sample[metric]
            if isinstance(value, (bool, int, float, np.number)):
                label = _label(metric, sample["filter"])
                found.setdefault(label, []).append((sample["doc_id"], float(value)))
    return {metric: [v for _, v in sorted(values)] for metric, values in found.items()}


def _label(metric: str, filtered: str) -> str:
    return metric if filtered == "none" else f"{metric},{filtered}"


def of_group(
    name: str,
    leaves: Sequence[str],
    results: Mapping[str, Json],
    kinds: Mapping[str, Json],
    documents: Mapping[str, Sequence[float]],
) -> Json:
    """Means over a group's tasks, weighted by their number of documents, of the metrics that all of them share.

    The standard error is that of a stratified sample (Cochran, Sampling Techniques, §5.3). The variance within a task
    of one document is unknown; the error is then that of all documents as one sample, which is no smaller on average.

    A metric that some tasks lack, or define with another scale or aggregation (F1 over classes and F1 over words), is
    not averaged: it is listed under `not_averaged`, and a warning names it.

    Args:
      leaves: the group's tasks.
      kinds: task → metric → the kind of metric, equal only for metrics that may be averaged (`kinds_of`).
      documents: metric → values of all documents of the group.
    """
    parts = [results[leaf] for leaf in leaves]
    n = np.array([r["n"] for r in parts])
    names = dict.fromkeys(m for r in parts for m, v in r.items() if isinstance(v, float) and not m.endswith("_stderr"))
    shared = [m for m in names if is_shared(m, leaves, results, kinds)]
    found: Json = {}
    for metric in shared:
        found[metric] = float(np.average([r[metric] for r in parts], weights=n))
        if all(f"{metric}_stderr" in r for r in parts):
            errors = np.array([r[f"{metric}_stderr"] for r in parts])
            found[f"{metric}_stderr"] = float(np.sqrt(np.sum((n * errors) ** 2)) / n.sum())
        elif len(documents.get(metric, ())) > 1:
            found[f"{metric}_stderr"] = _error(documents[metric])
    left = [m for m in names if m not in shared]
    if left:
        log.warning("group '%s' has no mean of %s: not all of its %d tasks have it", name, ", ".join(left), len(parts))
        found["not_averaged"] = left
    prompts = hashlib.sha256("".join(r["prompts"] for r in parts).encode()).hexdigest()[:16]
    same = {key: parts[0][key] for key in _SETTINGS if len({str(r[key]) for r in parts}) == 1}
    cut = sum(r.get("cut", 0) for r in parts)
    return found | {"n": int(n.sum()), **same, "prompts": prompts, "parts": len(parts), "cut": cut}


def is_shared(metric: str, leaves: Sequence[str], results: Mapping[str, Json], kinds: Mapping[str, Json]) -> bool:
    """Whether all tasks have the metric, and of the same kind."""
    bare = metric.partition(",")[0]
    same = {kinds.get(leaf, {}).get(bare) for leaf in leaves}
    return len(same) == 1 and all(isinstance(results[leaf].get(metric), float) for leaf in leaves)


def kinds_of(task: Any) -> Json:
    """Metric → the name of its aggregation, and whether higher is better."""
    better = task.higher_is_better()
    return {metric: (_name(made), better.get(metric)) for metric, made in task.aggregation().items()}


def _name(function: Callable[..., Any]) -> str:
    return f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', repr(function))}"


def said(task: str, samples: Sequence[Json], cut: set[int]) -> Iterator[Json]:
    """Yields a line per document: the prompt, the model's answers, what the filters extracted, and the scores.

    Args:
      cut: the documents whose prompt was truncated at its beginning.
    """
    whole: dict[int, Json] = {}
    for sample in samples:
        line = whole.get(sample["doc_id"])
        if line is None:
            line = whole[sample["doc_id"]] = _asked(task, sample)
            line["cut"] = sample["doc_id"] in cut
        if "answers" in line:
            line["filtered"][sample["filter"]] = _plain(_one(sample["filtered_resps"]))
        line["metrics"] |= {_label(m, sample["filter"]): _plain(sample[m]) for m in sample["metrics"]}
    yield from (whole[doc] for doc in sorted(whole))


def answered(task: str, instances: Iterable[Any], cut: set[int]) -> Iterator[Json]:
    """Yields a line per document all of whose requests the model has answered, as `said` does, without a score.

    Args:
      instances: the harness's requests of the task.
      cut: as for `said`.
    """
    asked: dict[int, list[Any]] = {}
    for instance in sorted(instances, key=lambda instance: (instance.doc_id, instance.idx)):
        asked.setdefault(instance.doc_id, []).append(instance)
    for doc, own in asked.items():
        if all(instance.resps for instance in own):
            arguments, answers = [instance.args for instance in own], [instance.resps for instance in own]
            line = _asked(task, {"doc_id": doc, "arguments": arguments, "resps": answers})
            yield {key: line[key] for key in line if key not in ("filtered", "metrics")} | {"cut": doc in cut}


def _asked(task: str, sample: Json) -> Json:
    arguments, answers = sample["arguments"], sample["resps"]
    line: Json = {"task": task, "doc_id": sample["doc_id"], "prompt": arguments[0][0]}
    if "target" in sample:
        line["target"] = _plain(sample["target"])
    if len(arguments[0]) == 2 and isinstance(arguments[0][1], str):
        choices = [
            ({} if context == line["prompt"] else {"prompt": context})
            | {"text": text, "log_likelihood": _plain(found[0][0]), "greedy": bool(found[0][1])}
            for (context, text), found in zip(arguments, answers, strict=True)
        ]
        return line | {"choices": choices, "metrics": {}}
    if len(arguments[0]) == 1:
        return line | {"log_likelihood": _plain(answers[0][0]), "metrics": {}}
    return line | {"answers": [_plain(a) for several in answers for a in several], "filtered": {}, "metrics": {}}


def _one(values: Sequence[Any]) -> Any:
    return values[0] if len(values) == 1 else list(values)


def _plain(value: Any) -> Any:
    """The JSON form of a value; floats that JSON lacks (infinities, NaN) become text."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
