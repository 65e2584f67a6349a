"""The whole study of one set of tables; its result is the content of `components.json`."""

import dataclasses
import pathlib
from typing import Any

import numpy as np
import pandas as pd

from kanana_jax.files import load_json
from kanana_jax.observatory import (
    DISCLAIMER,
    associations,
    budget_ends,
    budgets,
    components,
    dimensions,
    downstream,
    effects,
    filling,
    informative,
    joint,
    laws,
    pairs,
    question,
    verdicts,
)
from kanana_jax.observatory.options import Options, local_language
from kanana_jax.observatory.tables import Tables

Array = np.ndarray
SHOWN = 3  # components for which laws in compute are fitted
# Columns of the task table that are kept in the result.
DESCRIBED = ("name", "language", "ability", "metric", "metric_version", "shots", "items", "low", "high", "source")


def run(tables: Tables, options: Options) -> dict[str, Any]:
    """Runs every analysis and returns the results, JSON-ready, as stored in `components.json`.

    Raises:
      ConfigError: the plan, target or language of the options does not fit the tables.
    """
    tables = budgets.of_active(tables) if options.active_params else tables
    language = local_language(tables, options)
    asked = question.read(tables, options, language, SHOWN)
    warnings = list(tables.warnings)
    anchors = {anchor: task for task, anchor in zip(tables.tasks.index, tables.tasks["anchor"]) if anchor}
    hidden = filling.hidden_cells(tables.scores, 20, options.rng(2))
    found = components.fit(tables.scores, anchors, hidden.penalty)
    shown = list(found.names[:SHOWN])
    measures = tables.scores.join(pd.DataFrame(found.scores[:, :SHOWN], tables.scores.index, shown))
    by_language = {lang: budgets.budget(tables, lang) for lang in tables.languages}
    by_measure = laws.every(tables, measures, by_language, options)
    warnings += laws.family_warnings(tables, by_measure, language)
    noise, kept = _above_noise(tables, found, hidden.penalty, options)
    general, local = laws.roles(by_measure, [name for name in shown if name in kept], language, options.reference)
    if local and laws.falls(pairs.find(tables, measures, language), by_measure, local, language):
        found = components.turned(found, local)
        measures[local] = -measures[local]
        by_measure |= laws.every(tables, measures[[local]], by_language, options)
        if local in anchors:
            against = f"{local} is turned against its anchor '{anchors[local]}'"
            warnings.append(f"{against}, so that it rises with {language} compute.")
    trusted = informative.trusted(measures, tables.scores)
    together = pairs.find(tables, trusted, language)
    if together.without:
        warnings.append(pairs.told_apart(together, language))
    paired = pairs.summary(together, options.draws, options.rng(3))
    models = joint.every(tables, trusted, language, options.reference)
    if models.languages and len(trusted) > joint.MOST_MODELS:
        many = f"{len(trusted)} models are more than the mixed model supports ({joint.MOST_MODELS})"
        warnings.append(f"{many}: verdicts weigh laws and pairs separately, and nothing is planned.")
    by_joint, ends = effects.every(models), budget_ends.every(models, options.reference)
    evidence = laws.evidence(tables, by_measure, by_language, paired, options, by_joint)
    judged = verdicts.judge_all(evidence, language, options.reference) if language else {}
    judged = budget_ends.judged(judged, evidence, ends, options.reference) if language else {}
    correlation = associations.correlations(tables.scores)
    result = {
        **_asked(tables, options, language),
        "warnings": warnings,
        "missing_cells": dataclasses.asdict(hidden),
        **_dimensions(tables, found, noise, kept, options),
        "correlations": {a: dict(correlation[a]) for a in correlation.columns},
        "clusters": associations.clusters(correlation),
        "cross_lingual": associations.cross_lingual(correlation, tables.tasks),
        "general_component": general,
        "local_component": local,
        "log10_compute": {lang: dict(zip(found.models, b.est)) for lang, b in by_language.items()},
        "fits": laws.rows(by_measure, shown),
        "fits_with_undisclosed": laws.with_undisclosed(tables, measures, shown, language, options),
        "task_fits": laws.rows(by_measure, found.tasks),
        "pairs": {
            "models": list(zip(together.models, together.bases, together.families, together.tokens_b)),
            "summary": paired,
            "without_local_text": list(together.without),
            "years": pairs.years(together, tables),
        },
        "mixed": joint.as_json(models, by_joint),
        "verdicts": {
            task: verdicts.as_json(verdict, evidence[task], tables.tasks.loc[task, "language"])
            for task, verdict in judged.items()
        },
        "downstream": _downstream(tables, options),
    }  # fmt: skip
    if asked:
        known = question.Findings(together, trusted, shown, by_measure, local, judged, models, ends)
        result["plan"] = question.answer(asked, tables, known, options)
    return _plain(result)


def _asked(tables: Tables, options: Options, language: str) -> dict[str, Any]:
    """A description of the tables and options of the study."""
    return {
        "evidence": DISCLAIMER,
        "language": language,
        "reference": options.reference,
        "models": len(tables.scores),
        "tasks": {t: {k: row[k] for k in DESCRIBED} for t, row in tables.tasks.iterrows()},
        "labels": tables.labels,
        "families": dict(tables.models["family"]),
        "params": dict(tables.models["params"]),
        "seed": options.seed,
        "draws": options.draws,
        "active_params": options.active_params,
    }


def _above_noise(
    tables: Tables, found: components.Components, penalty: float, options: Options
) -> tuple[Array, list[str]]:
    """The noise thresholds of the eigenvalues, and the names of the leading components above them."""
    table, families = tables.scores.to_numpy(float), tables.models["family"].to_numpy(str)
    noise = dimensions.noise_thresholds(table, penalty, families, min(options.draws, 400), options.rng(4))
    above = [bool(e > t) for e, t in zip(found.eigenvalues, noise)]
    return noise, [name for i, name in enumerate(found.names) if all(above[: i + 1])]


def _dimensions(
    tables: Tables, found: components.Components, noise: Array, kept: list[str], options: Options
) -> dict[str, Any]:
    """The components, with thresholds under noise."""
    models, tasks = tables.scores.shape
    return {
        "explained_variance_ratio": found.ratio,
        "eigenvalues": found.eigenvalues,
        "parallel_analysis": dimensions.parallel_analysis(models, tasks, min(options.draws, 1000), options.rng(0)),
        "noise_thresholds": noise,
        "kept": kept,
        "axes": components.bootstrap_axes(found, min(options.draws, 1000), options.rng(1)),
        "loadings": {name: dict(zip(found.tasks, row)) for name, row in zip(found.names, found.loadings)},
        "scores": {name: dict(zip(found.models, column)) for name, column in zip(found.names, found.scores.T)},
    }


def _downstream(tables: Tables, options: Options) -> dict[str, Any]:
    flops = budgets.total_compute(tables)
    known = flops[np.isfinite(flops)]
    if len(known) < 10:
        return {"cutoff_log10_flops": None, "tasks": []}
    cutoff = float(np.quantile(known, options.cutoff))
    rows = [
        downstream.held_out(tables.scores, task, flops, cutoff, low=low, high=high)
        for task, low, high in zip(tables.tasks.index, tables.tasks["low"], tables.tasks["high"])
    ]
    return {"cutoff_log10_flops": cutoff, "tasks": [row for row in rows if row]}


def _plain(value: Any) -> Any:
    """Converts NumPy values to Python's; NaN and infinity become None."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(v) for v in value]
    if isinstance(value, (np.bool_, bool)):
        return bool(value)
    if isinstance(value, (np.integer, int)):
        return int(value)
    if isinstance(value, (np.floating, float)):
        return float(value) if np.isfinite(value) else None
    return value


def read(folder: pathlib.Path) -> dict[str, Any]:
    """Reads the result of a finished study."""
    return load_json(folder / "components.json")
