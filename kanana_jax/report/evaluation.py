"""Scores of `kanana eval` against what the models cost to train, as in Figure 1 of arXiv:2502.18934."""

import math
import pathlib
from collections.abc import Mapping
from typing import Any

from kanana_jax.report.page import Figure, Page, Section, Table, write
from kanana_jax.report.scatter import Points, scatter
from kanana_jax.report.svg import standalone

Json = dict[str, Any]
# The metric that a task is shown by: the first that it has. Those of the second line are in per cent.
_METRICS = ("acc", "pass@1", "exact_match", "char_f1", "f1", "rouge2", "exact", "prompt_level_strict_acc")
_PERCENT = ("bleu", "chrf")
_AXIS = "training FLOPs (6·N·D, with the models that it was made from)"


def score(result: Json) -> tuple[float, float | None] | None:
    """A task's score, 0 … 1, and its standard error; None where no metric is one of those that are shown."""
    for wanted in (*_METRICS, *_PERCENT):
        for name in result:
            if name.split(",")[0] == wanted and isinstance(result[name], float):
                scale = 100.0 if wanted in _PERCENT else 1.0
                error = result.get(f"{name}_stderr")
                return result[name] / scale, None if error is None else error / scale
    return None


def table(results: Mapping[str, Json]) -> tuple[list[str], dict[str, dict[str, tuple[float, float | None]]]]:
    """The tasks that all models were asked, parts of tasks left out, and `{model: {task: (score, error)}}`.

    Args:
      results: model → what `kanana eval` has written.
    """
    scores = {
        model: {task: found for task, r in value["results"].items() if (found := score(r)) is not None}
        for model, value in results.items()
    }
    shared = set.intersection(*(set(found) for found in scores.values()))
    whole = {task for value in results.values() for task, r in value["results"].items() if r.get("parts")}
    tasks = sorted(t for t in shared if not any(t.startswith(f"{w}_") for w in whole & shared if w != t))
    return tasks, scores


def mean(found: Mapping[str, tuple[float, float | None]], tasks: list[str]) -> tuple[float, float | None]:
    """Over tasks, each counting the same, with the standard error of independent ones."""
    errors = [error for t in tasks if (error := found[t][1]) is not None]
    total = math.sqrt(sum(e * e for e in errors)) / len(tasks) if len(errors) == len(tasks) else None
    return sum(found[t][0] for t in tasks) / len(tasks), total


def figure(
    flops: Mapping[str, float],
    scores: Mapping[str, tuple[float, float | None]],
    families: Mapping[str, str],
    y: str,
) -> str:
    """One point per model, joined within a family, with bars of one standard error."""
    groups = []
    for family in dict.fromkeys(families.values()):
        models = sorted((m for m in scores if families[m] == family and m in flops), key=lambda m: (flops[m], m))
        if models:
            groups.append(
                Points(
                    family,
                    [flops[m] for m in models],
                    [scores[m][0] for m in models],
                    models,
                    [scores[m][1] or 0.0 for m in models],
                )
            )
    return scatter(groups, x=_AXIS, y=y, log_x=True, joined=True)


def write_plot(results: Mapping[str, Json], families: Mapping[str, str], out: pathlib.Path) -> pathlib.Path:
    """An `.svg` of the mean score, or an `.html` page with every task's plot and the table.

    Args:
      results: model → what `kanana eval` has written.
      families: model → the name of its line.

    Raises:
      ValueError: no task that all were asked, or no model whose training FLOPs are known.
    """
    tasks, scores = table(results)
    flops = {m: float(cost) for m, v in results.items() if (cost := v.get("model", {}).get("training_flops"))}
    if not tasks:
        raise ValueError("the files have no task in common that has a score")
    if not flops:
        raise ValueError("no file tells its model's training FLOPs: give --training-flops when it is evaluated")
    means = {model: mean(found, tasks) for model, found in scores.items()}
    what = tasks[0] if len(tasks) == 1 else f"mean of {len(tasks)} tasks"
    first = figure(flops, means, families, what)
    if out.suffix == ".svg":
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(standalone(first), encoding="utf-8")
        return out
    bars = "Bars are one standard error over documents."
    blocks: list[Any] = [Figure(first, f"{what.capitalize()} ({', '.join(tasks)}). {bars}")]
    order = sorted(results, key=lambda m: (flops.get(m, math.inf), m))
    rows = [
        [m, results[m].get("model", {}).get("parameters"), flops.get(m), means[m][0], *(scores[m][t][0] for t in tasks)]
        for m in order
    ]
    columns = ("model", "parameters", "training FLOPs", "mean", *tasks)
    formats = dict.fromkeys(("mean", *tasks), ".3f") | {"training FLOPs": ".3g", "parameters": ",d"}
    numbers = Table(columns, rows, "Models without known FLOPs stand in the table alone.", formats)
    each = [Figure(figure(flops, {m: s[t] for m, s in scores.items()}, families, t), f"{t}. {bars}") for t in tasks]
    sections = [Section("Mean", blocks), Section("Figures", [numbers])]
    sections += [Section("By task", each)] if len(tasks) > 1 else []
    lead = f"{len(results)} models, {len(tasks)} tasks; FLOPs are 6 · parameters · tokens."
    return write(Page("Score against training compute", lead, sections), out)
