"""Scores of `kanana eval` against training compute, as in Figure 1 of arXiv:2502.18934."""

import math
import pathlib
from collections.abc import Mapping
from typing import Any

from kanana_jax.report.page import Figure, Page, Section, Table, write
from kanana_jax.report.scatter import Points, scatter
from kanana_jax.report.svg import standalone

Json = dict[str, Any]
# Result file of a stage that evaluates: `{"models": {stage or folder: {"results": …}}}`.
RESULT = "evaluation.json"
# A task is shown by the first of these metrics that it has. Those of the second line are in per cent.
_METRICS = (
    "acc",
    "pass@1",
    "exact_match",
    "char_f1",
    "f1",
    "rouge2",
    "exact",
    "prompt_level_strict_acc",
    "string_match",
)
_PERCENT = ("bleu", "chrf")
_SQUAD = "HasAns_exact"  # marks SQuAD's results, whose `exact` and `f1` are in per cent too
_OWN = "training FLOPs (6·N·D since the model was last cut or grown)"
_WHOLE = "training FLOPs (6·N·D, with the models that it was made from)"


def metric(result: Json) -> str | None:
    """The metric by which a task is shown; None if it has none of the known ones."""
    for wanted in (*_METRICS, *_PERCENT):
        for name in result:
            if name.split(",")[0] == wanted and isinstance(result[name], float):
                return name
    return None


def score(result: Json) -> tuple[float, float | None] | None:
    """A task's score in 0–1 and its standard error; None without a known metric."""
    name = metric(result)
    if name is None:
        return None
    scale = 100.0 if name.split(",")[0] in _PERCENT or any(key.startswith(_SQUAD) for key in result) else 1.0
    error = result.get(f"{name}_stderr")
    return result[name] / scale, None if error is None else error / scale


def table(results: Mapping[str, Json]) -> tuple[list[str], dict[str, dict[str, tuple[float, float | None]]]]:
    """The tasks, without subtasks, on which all models were evaluated, and `{model: {task: (score, error)}}`.

    Args:
      results: model → result of `kanana eval`.

    Raises:
      ValueError: models have different metrics for a task.
    """
    scores = {
        model: {task: found for task, r in value["results"].items() if (found := score(r)) is not None}
        for model, value in results.items()
    }
    shared = set.intersection(*(set(found) for found in scores.values()))
    whole = {task for value in results.values() for task, r in value["results"].items() if r.get("parts")}
    tasks = sorted(t for t in shared if not any(t.startswith(f"{w}_") for w in whole & shared if w != t))
    for task in tasks:
        metrics = {metric(value["results"][task]): model for model, value in results.items()}
        if len(metrics) > 1:
            scorers = " and ".join(f"by {name} in {model}" for name, model in metrics.items())
            raise ValueError(f"task '{task}' is scored {scorers}: evaluate both models with the same version")
    return tasks, scores


def mean(found: Mapping[str, tuple[float, float | None]], tasks: list[str]) -> tuple[float, float | None]:
    """The unweighted mean over tasks, with its standard error for independent tasks (None if one is unknown)."""
    errors = [error for t in tasks if (error := found[t][1]) is not None]
    total = math.sqrt(sum(e * e for e in errors)) / len(tasks) if len(errors) == len(tasks) else None
    return sum(found[t][0] for t in tasks) / len(tasks), total


def figure(
    flops: Mapping[str, float],
    scores: Mapping[str, tuple[float, float | None]],
    families: Mapping[str, str],
    y: str,
    x: str = _OWN,
) -> str:
    """An `<svg>` with one point per model, joined within a family, and bars of one standard error.

    Args:
      flops: model → training FLOPs.
      scores: model → (score, standard error).
      families: model → the name of its line.
      y, x: axis titles.
    """
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
    return scatter(groups, x=x, y=y, log_x=True, joined=True)


def write_plot(results: Mapping[str, Json], families: Mapping[str, str], out: pathlib.Path) -> pathlib.Path:
    """Writes an `.svg` of the mean score, or an `.html` page with a plot of every task and a table.

    Args:
      results: model → result of `kanana eval`.
      families: model → the name of its line.
      out: the file; its suffix decides which is written.

    Raises:
      ValueError: no task is common to all models, or no model has known training FLOPs.
    """
    tasks, scores = table(results)
    own, whole = ({m: cost for m, v in results.items() if (cost := _flops(v, key))} for key in (_OWN_KEY, _WHOLE_KEY))
    if not tasks:
        raise ValueError("the files have no task in common that has a score")
    if not own:
        raise ValueError("no file contains its model's training FLOPs: give --training-flops when the model is evaluated")
    means = {model: mean(found, tasks) for model, found in scores.items()}
    what = tasks[0] if len(tasks) == 1 else f"mean of {len(tasks)} tasks"
    first = figure(own, means, families, what)
    if out.suffix == ".svg":
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(standalone(first), encoding="utf-8")
        return out
    bars = "Bars are one standard error over documents."
    by = ", ".join(f"{t} by {metric(next(iter(results.values()))['results'][t])}" for t in tasks)
    blocks: list[Any] = [
        Figure(first, f"{what.capitalize()}, each counting the same: {by}. {bars} {_counted(results)}")
    ]
    if whole != own:
        blocks.append(Figure(figure(whole, means, families, what, _WHOLE), "The same, with what the parents cost."))
    order = sorted(results, key=lambda m: (own.get(m, math.inf), m))
    rows = [
        [
            m,
            results[m].get("model", {}).get("parameters"),
            own.get(m),
            whole.get(m),
            means[m][0],
            *(scores[m][t][0] for t in tasks),
        ]
        for m in order
    ]
    columns = ("model", "parameters", "training FLOPs", "with its parents", "mean", *tasks)
    formats = dict.fromkeys(("mean", *tasks), ".3f") | {
        "training FLOPs": ".3g",
        "with its parents": ".3g",
        "parameters": ",d",
    }
    numbers = Table(columns, rows, "Models without known FLOPs are only in the table.", formats)
    each = [Figure(figure(own, {m: s[t] for m, s in scores.items()}, families, t), f"{t}. {bars}") for t in tasks]
    sections = [Section("Mean", blocks), Section("Figures", [numbers])]
    sections += [Section("By task", each)] if len(tasks) > 1 else []
    lead = (
        f"{len(results)} models, {len(tasks)} tasks; FLOPs are 6 · parameters · tokens; for a model that was pruned, "
        "up-scaled or distilled, of its own training only, as in Figure 1 of arXiv:2502.18934."
    )
    return write(Page("Score against training compute", lead, sections), out)


_OWN_KEY, _WHOLE_KEY = "training_flops_own", "training_flops"


def _flops(result: Json, key: str) -> float | None:
    """Training FLOPs of a result; files of older versions have only the total, the parents' included."""
    model = result.get("model", {})
    cost = model.get(key, model.get(_WHOLE_KEY))
    return None if cost is None else float(cost)


def _counted(results: Mapping[str, Json]) -> str:
    """A caveat about models whose costs are counted differently from the axis; "" if there are none."""
    models = {name: value.get("model", {}) for name, value in results.items()}
    old = [n for n, m in models.items() if m.get(_WHOLE_KEY) and _OWN_KEY not in m]
    short = [n for n, m in models.items() if m.get("missing_parent")]
    note = f" With their parents, which older files do not separate: {', '.join(old)}." if old else ""
    return note + (f" A parent was not found, so its cost is missing: {', '.join(short)}." if short else "")
