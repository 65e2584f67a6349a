"""Two results of the same tasks, document by document."""

import json
import pathlib
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from kanana_jax.errors import ConfigError, UserError


class Difference(NamedTuple):
    """`b − a` of a metric with a 95% interval (paired bootstrap over documents, percentiles)."""

    task: str
    metric: str
    a: float
    b: float
    difference: float
    low: float
    high: float
    n: int


def read(file: pathlib.Path) -> dict[str, Any]:
    """Raises UserError: no file of results."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file} is no file of results ({error}): write one with 'kanana eval … --output'") from error
    if not isinstance(value, dict) or not {"results", "documents"} <= value.keys():
        raise UserError(f"{file} holds no results of 'kanana eval': it needs the keys results and documents")
    return value


def compare(a: dict[str, Any], b: dict[str, Any], *, resamples: int = 9999, seed: int = 0) -> list[Difference]:
    """Of every task and metric that both have, of the same prompts.

    Raises:
      ConfigError: nothing in common, or a task was asked in another way (shots, wording, documents).
    """
    rows = []
    for task, metrics in a["documents"].items():
        if task not in b["documents"]:
            continue
        one, two = a["results"][task], b["results"][task]
        if one["prompts"] != two["prompts"]:
            told = ", ".join(f"{k} {one.get(k)} and {two.get(k)}" for k in ("n", "shots", "version"))
            raise ConfigError(
                f"task '{task}' was not asked in the same way in both ({told}): run it again with the same"
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
        raise ConfigError("the two files have no task in common")
    return rows
