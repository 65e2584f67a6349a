"""Paired comparison of two models' results on the same tasks, document by document."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from kanana_jax.errors import ConfigError, UserError


class Difference(NamedTuple):
    """The difference b − a of a metric, with a 95% interval (percentiles of a paired bootstrap over documents).

    Attributes:
      a, b: mean of each model.
      low, high: ends of the interval.
      n: number of documents.
    """

    task: str
    metric: str
    a: float
    b: float
    difference: float
    low: float
    high: float
    n: int


def read(file: pathlib.Path, needs: Sequence[str] = ()) -> dict[str, Any]:
    """Reads a result file of `kanana eval`.

    Args:
      needs: keys that each task's results must have.

    Raises:
      UserError: it is not a result file, or a key is missing.
    """
    try:
        value = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} is not a results file ({error}): write one with 'kanana eval … --output'") from error
    if not isinstance(value, dict) or not all(isinstance(value.get(key), dict) for key in ("results", "documents")):
        raise UserError(f"{file} contains no results of 'kanana eval': the keys results and documents are required")
    for task in dict.fromkeys([*value["results"], *value["documents"]]):
        result = value["results"].get(task)
        lacking = "".join(f", {k} is missing" for k in needs if not isinstance(result, dict) or k not in result)
        if not isinstance(result, dict) or lacking or not isinstance(value["documents"].get(task, {}), dict):
            raise UserError(
                f"{file}: task '{task}' is not as 'kanana eval' writes it{lacking}: evaluate the model again"
            )
    return value


def compare(a: dict[str, Any], b: dict[str, Any], *, resamples: int = 9999, seed: int = 0) -> list[Difference]:
    """Compares every task and metric that both results have.

    Args:
      a, b: results, as `read` returns them.
      resamples: number of bootstrap samples.
      seed: seed of the bootstrap.

    Raises:
      ConfigError: the results share no task with scores by document, or a task was asked differently (shots, wording,
        documents).
    """
    rows = []
    for task, metrics in a["documents"].items():
        if task not in b["documents"]:
            continue
        one, two = a["results"][task], b["results"][task]
        if any(one.get(key) != two.get(key) for key in ("prompts", "version")):
            raise ConfigError(
                f"task '{task}' was not asked in the same way in both ({_differing(a, b, task)}): run it again with "
                "the same settings"
            )
        for metric, values in metrics.items():
            x, y = np.asarray(values), np.asarray(b["documents"][task].get(metric, []))
            if len(x) != len(y) or len(x) < 2:
                continue
            change = y - x
            low = high = float(change.mean())
            if np.ptp(change) > 0:
                found = stats.bootstrap(
                    (change,), np.mean, n_resamples=resamples, method="percentile", rng=np.random.default_rng(seed)
                ).confidence_interval
                low, high = float(found.low), float(found.high)
            rows.append(Difference(task, metric, x.mean(), y.mean(), change.mean(), low, high, len(x)))
    if not rows:
        both = unscored(a, b, rows)
        if not both:
            raise ConfigError("the two files have no task in common: evaluate both models with the same --tasks")
        raise ConfigError(
            f"the two files share {', '.join(both)}, which have no score per document (like chrF and BLEU, or with a "
            "single document): compare a task that has one, or look at the files"
        )
    return rows


def _differing(a: dict[str, Any], b: dict[str, Any], task: str) -> str:
    """Describes which of the settings that determine a task's prompts differ."""
    one, two = ({**_settings(x), **x["results"][task]} for x in (a, b))
    pairs = [(key, one.get(key), two.get(key)) for key in ("n", "shots", "version", "chat", "limit", "seed")]
    differences = [f"{key} {x} and {y}" for key, x, y in pairs if x != y]
    return ", ".join(differences) or "other documents, examples or wording: the hashes of the prompts differ"


def _settings(result: dict[str, Any]) -> dict[str, Any]:
    settings = result.get("settings")
    return settings if isinstance(settings, dict) else {}


def unscored(a: dict[str, Any], b: dict[str, Any], rows: Sequence[Difference]) -> list[str]:
    """The tasks that both files have but no row compares, because their metrics exist only for the whole set."""
    compared = {row.task for row in rows}
    return [task for task in a["results"] if task in b["results"] and task not in compared]
