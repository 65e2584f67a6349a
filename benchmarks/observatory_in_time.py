"""A standing test in time: each dated snapshot of a leaderboard predicts the models that are new in the next one.

Run by `benchmarks/observatory.py --out-of-time`. Models are predicted from their size, tokens and family, and continual
ones from their base, whose scores are there beforehand. All methods predict the same cells. `ours` takes a law for a
model from scratch and the pairs for a continual one, `mixed` one model for both. An interval of these two is the
observatory's own; one of a baseline has its errors on families that are left out of the known models, with Student's t
of families − 1 degrees of freedom, apart for models whose base is measured and for the others. All are kept within the
range of the tasks.
"""

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import observatory_gains as gains_lib
import pandas as pd
from observatory_baselines import BASELINES, Baseline, Models
from scipy import stats

from kanana_jax.observatory import budgets, informative, joint, laws, pairs, scaling
from kanana_jax.observatory.options import Options
from kanana_jax.observatory.tables import Tables

Array = np.ndarray
LOCAL, REFERENCE = "ja", "en"
MOVED = 0.01  # a task whose scores of the same models differ by more was scored otherwise, and is left out
ALPHA = 0.05
_ENDS = ("middle", "low", "high")


@dataclasses.dataclass(frozen=True)
class Foretold:
    """Scores with 95% intervals, float64 [models, tasks]."""

    middle: Array
    low: Array
    high: Array


def extended(known: Tables, snapshot: pathlib.Path, about: pd.DataFrame) -> tuple[Tables, list[str]]:
    """The tables with the models of a later snapshot, and tasks that are left out since they were scored otherwise.

    Args:
      about: budgets of new models, indexed by model.
    """
    later = pd.read_csv(snapshot).set_index("model")
    later = later[[t for t in known.scores.columns if t in later.columns]]
    both = later.index.intersection(known.scores.index)
    distance = (later.loc[both] - known.scores.loc[both, later.columns]).abs().median()
    moved = [t for t in known.scores.columns if t not in later.columns or distance[t] > MOVED]
    tasks = [t for t in known.scores.columns if t not in moved]
    new = later.loc[~later.index.isin(known.scores.index), tasks].dropna()
    rows = pd.DataFrame(index=new.index, columns=known.models.columns)
    for model in new.index:
        given = about.loc[model] if model in about.index else pd.Series(dtype=object)
        text = lambda key, other: given[key] if isinstance(given.get(key), str) else other  # noqa: B023, E731
        rows.loc[model, ["label", "family", "base"]] = [
            model.rsplit("/", 1)[-1],
            text("family", model),
            text("base", ""),
        ]
        tokens = {lang: float(given.get(f"{lang}_tokens_b", np.nan)) for lang in (LOCAL, REFERENCE)}
        size = float(given.get("params", np.nan))
        rows.loc[model, ["params", "active_params", "tokens_b"]] = [
            size,
            size,
            np.nansum(list(tokens.values())) or np.nan,
        ]
        for lang, value in tokens.items():
            rows.loc[model, [f"{lang}_tokens_b_{end}" for end in ("low", "est", "high")]] = value
    models = pd.concat([known.models, rows]).astype(known.models.dtypes.to_dict())
    scores = pd.concat([known.scores[tasks], new])
    return dataclasses.replace(
        known, scores=scores, tasks=known.tasks.loc[tasks], models=models, sources=scores.astype(str)
    ), moved


def foretell(known: Tables, later: Tables) -> tuple[list[str], dict[str, Foretold]]:
    """The new models whose size and tokens are known, and method → their scores."""
    fresh = later.models.loc[~later.models.index.isin(known.models.index)]
    tokens = fresh[[f"{LOCAL}_tokens_b_est", f"{REFERENCE}_tokens_b_est"]].notna().any(axis=1)
    names = list(fresh.index[tokens & fresh["params"].notna()])
    tasks = list(later.scores.columns)
    old = dataclasses.replace(known, scores=known.scores[tasks], tasks=known.tasks.loc[tasks])
    train, asked = _models(old, later, list(known.models.index)), _models(old, later, names)
    found = {"ours": _ours(old, later, names), "mixed": _mixed(old, later, names)}
    for name, baseline in BASELINES.items():
        found[name] = _with_errors(baseline, train, asked)
    return names, {method: within(foretold, old.tasks) for method, foretold in found.items()}


def within(foretold: Foretold, tasks: pd.DataFrame) -> Foretold:
    """Scores and intervals kept within the range of each task."""
    low, high = (tasks[end].to_numpy(float) for end in ("low", "high"))
    return Foretold(*(np.clip(part, low, high) for part in (foretold.middle, foretold.low, foretold.high)))


def _models(known: Tables, later: Tables, names: list[str]) -> Models:
    rows = later.models.loc[names]
    start = pd.DataFrame([later.scores.loc[b] if b in later.scores.index else pd.Series(np.nan, later.scores.columns)
                          for b in rows["base"]], index=names)  # fmt: skip
    params, tokens = (rows[key].to_numpy(float) for key in ("params", "tokens_b"))
    families, bases = (rows[key].to_numpy(str) for key in ("family", "base"))
    return Models(later.scores.loc[names], start, params, tokens * 1e9, families, bases)


def _with_errors(baseline: Baseline, known: Models, asked: Models) -> Foretold:
    """A baseline's predictions; interval from its errors on families left out, of models with a base and of others.

    A kind that fewer than two of the known families have takes the errors of all.
    """
    errors = np.full(known.scores.shape, np.nan)
    for family in dict.fromkeys(known.families):
        out = known.families == family
        errors[out] = baseline(known.take(~out), known.take(out)) - known.scores[out].to_numpy(float)
    middle = baseline(known, asked)
    half = np.zeros(middle.shape)
    of_known, of_asked = (models.start.notna().all(axis=1).to_numpy() for models in (known, asked))
    for kind in (False, True):
        seen = of_known == kind
        if len(set(known.families[seen])) < 2:
            seen = np.ones(len(seen), bool)
        t = stats.t.ppf(1 - ALPHA / 2, len(set(known.families[seen])) - 1)
        half[of_asked == kind] = t * np.sqrt(np.nanmean(errors[seen] ** 2, axis=0))
    return Foretold(middle, middle - half, middle + half)


def _ours(known: Tables, later: Tables, names: list[str]) -> Foretold:
    """Law and pairs apart: a continual model from its base and the pairs, another from the law that a task follows."""
    options = Options(draws=100)
    by_language = {lang: budgets.budget(known, lang) for lang in known.languages}
    by_task = laws.every(known, known.scores, by_language, options)
    compute = {lang: budgets.budget(later, lang).est[later.models.index.get_indexer(names)] for lang in known.languages}
    together = pairs.find(known, informative.trusted(known.scores, known.scores), LOCAL)
    found = np.full((3, len(names), len(known.scores.columns)), np.nan)
    for j, task in enumerate(known.scores.columns):
        gain = gains_lib.best(gains_lib.gain_models(together, task))
        for i, name in enumerate(names):
            base, added = later.models.loc[name, "base"], budgets.added_tokens(later, name, LOCAL)
            if gain is not None and base in later.scores.index and added > 0:
                level = float(later.scores.loc[base, task])
                found[:, i, j] = level + np.array(gain.predict(added, level))
            else:
                found[:, i, j] = _by_law(by_task[task], {lang: c[i] for lang, c in compute.items()}, known.scores[task])
    return Foretold(*found)


def _by_law(fits: dict[str, scaling.Fit | None], compute: dict[str, float], scores: pd.Series) -> Array:
    usable = {lang: fit for lang, fit in fits.items() if fit is not None and np.isfinite(compute[lang])}
    if not usable:
        half = stats.t.ppf(1 - ALPHA / 2, len(scores) - 1) * scores.std()
        return np.array([scores.mean(), scores.mean() - half, scores.mean() + half])
    best = max(usable, key=lambda lang: usable[lang].r2)
    return np.array(usable[best].predict(compute[best])).ravel()


def _mixed(known: Tables, later: Tables, names: list[str]) -> Foretold:
    """The mixed model of the known ones; for continual models, of these and of the bases that are measured."""
    found = np.full((3, len(names), len(known.scores.columns)), np.nan)
    bases = [b for b in dict.fromkeys(later.models.loc[names, "base"]) if b in later.scores.index]
    continual = later.models.loc[names, "base"].isin(bases).to_numpy()
    for rows, more in ((~continual, []), (continual, bases)):
        asked = [name for name, chosen in zip(names, rows) if chosen]
        given = list(dict.fromkeys([*known.scores.index, *more]))
        if not asked:
            continue
        every = _chosen(later, [*given, *(n for n in asked if n not in given)])
        scores = informative.trusted(later.scores.loc[given], later.scores.loc[given]).reindex(every.scores.index)
        fitted = joint.every(every, scores[known.scores.columns], LOCAL, REFERENCE)
        at = every.models.index.get_indexer(asked)
        for j, task in enumerate(known.scores.columns):
            model = fitted.models.get(task)
            if model is not None:
                found[:, rows, j] = model.interval(model.foretell(fitted.design[at], fitted.kin.take(at)))
    return Foretold(*found)


def _chosen(tables: Tables, names: list[str]) -> Tables:
    return dataclasses.replace(
        tables, scores=tables.scores.loc[names], models=tables.models.loc[names], sources=tables.sources.loc[names]
    )


def families_left_out(known: Tables) -> Iterator[dict[str, Any]]:
    """A line for each of our methods on the known models: each family foretold from the others.

    Its models from scratch are foretold without any of the family, then its continual ones with these at hand.
    """
    families, continual = known.models["family"], known.models["base"].isin(known.models.index)
    for name, method in (("ours", _ours), ("mixed", _mixed)):
        parts: dict[str, list[tuple[Foretold, Array]]] = {"from scratch": [], "continual": []}
        for family in dict.fromkeys(families):
            for kind, asked in (("from scratch", ~continual), ("continual", continual)):
                names = list(known.models.index[(families == family) & asked])
                left = (families != family) | (~continual if kind == "continual" else False)
                if names:
                    rest = _chosen(known, list(known.models.index[left]))
                    foretold = within(method(rest, known, names), known.tasks)
                    parts[kind].append((foretold, known.scores.loc[names].to_numpy(float)))
        parts["all"] = [*parts["from scratch"], *parts["continual"]]
        for kind, every in parts.items():
            foretold = Foretold(*(np.concatenate([getattr(f, end) for f, _ in every]) for end in _ENDS))
            yield {"what": "families left out", "models": kind, "n": len(foretold.middle), "method": name,
                   **judged(foretold, np.concatenate([seen for _, seen in every]))}  # fmt: skip


def judged(foretold: Foretold, seen: Array) -> dict[str, float]:
    """Coverage, interval score (Gneiting and Raftery 2007, JASA 102:359, eq. 43; smaller is better) and error."""
    below, above = np.maximum(foretold.low - seen, 0), np.maximum(seen - foretold.high, 0)
    score = foretold.high - foretold.low + 2 / ALPHA * (below + above)
    return {
        "covered": float(np.mean((below == 0) & (above == 0))),
        "interval_score": float(np.mean(score)),
        "rmse": float(np.sqrt(np.mean((foretold.middle - seen) ** 2))),
    }


def lines(known: Tables, snapshots: list[pathlib.Path], about: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """A line for each method, over all models and by family, for each snapshot that follows another."""
    for snapshot in snapshots:
        later, moved = extended(known, snapshot, about)
        names, found = foretell(known, later)
        seen = later.scores.loc[names].to_numpy(float)
        yield {"what": "snapshot", "file": snapshot.name, "known": len(known.scores), "predicted": len(names),
               "cells": seen.size, "left_out": moved}  # fmt: skip
        families = later.models.loc[names, "family"].to_numpy(str)
        groups = {"all": np.ones(len(names), bool), "continual": (later.models.loc[names, "base"] != "").to_numpy()}
        groups |= {family: families == family for family in dict.fromkeys(families)}
        for group, rows in groups.items():
            for method, foretold in found.items():
                part = Foretold(foretold.middle[rows], foretold.low[rows], foretold.high[rows])
                yield {
                    "what": "out of time",
                    "models": group,
                    "n": int(rows.sum()),
                    "method": method,
                    **judged(part, seen[rows]),
                }
        known = later
