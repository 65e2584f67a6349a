"""The whole study on one set of tables: a dictionary that is `components.json`, and the files of `kanana observe`."""

import dataclasses
import pathlib
from typing import Any

import numpy as np
import pandas as pd

from kanana_jax.errors import ConfigError, nearest
from kanana_jax.files import load_json
from kanana_jax.languages import tag
from kanana_jax.observatory import (
    DISCLAIMER,
    associations,
    budgets,
    components,
    downstream,
    pairs,
    planner,
    scaling,
    verdicts,
)
from kanana_jax.observatory.tables import Tables

Array = np.ndarray
SHOWN = 3  # components that are related to compute
DESCRIBED = ("name", "language", "ability", "metric", "metric_version", "shots", "items", "source")  # of a task
CURVE = 25  # points of a fitted line
Laws = dict[str, dict[str, scaling.Fit | None]]  # measure → language → against the compute in it
Budgets = dict[str, budgets.Budget]  # by language


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of a study.

    Attributes:
      language: the local language; "" takes the one other than `reference` that most tasks are in.
      reference: the language that models are mostly trained on.
      active_params: of mixtures of experts count the parameters that a token meets.
      draws: of every bootstrap and Monte Carlo.
      cutoff: quantile of training compute below which downstream laws are fitted.
      plan, target: as on the command line.
    """

    language: str = ""
    reference: str = "en"
    active_params: bool = False
    draws: int = 2000
    seed: int = 0
    cutoff: float = 0.6
    plan: str = ""
    target: str = ""

    def __post_init__(self):
        for key in ("language", "reference"):
            object.__setattr__(self, key, tag(getattr(self, key)))
        if self.draws < 100:
            raise ConfigError(f"--draws {self.draws}: intervals need at least 100")
        if self.seed < 0:
            raise ConfigError(f"--seed {self.seed} is negative")
        if not 0 < self.cutoff < 1:
            raise ConfigError(f"--flops-cutoff {self.cutoff:g} is a quantile between 0 and 1")
        if self.target and not self.plan:
            raise ConfigError("--target needs --plan base=MODEL")


def local_language(tables: Tables, options: Options) -> str:
    """The local language.

    Raises:
      ConfigError: it has no task, is the reference, or nothing is known of the reference.
    """
    counts = tables.tasks["language"].value_counts()
    if options.reference not in {*counts.index, *tables.languages}:
        known = sorted({*counts.index, *tables.languages})
        raise ConfigError(
            f"--reference '{options.reference}' has neither a task nor token budgets, "
            f"{nearest(options.reference, known)}"
        )
    if options.language == options.reference:
        raise ConfigError(f"--language '{options.language}' is the reference language: give another --reference")
    if options.language:
        if options.language not in counts.index:
            raise ConfigError(
                f"--language '{options.language}' has no task, {nearest(options.language, list(counts.index))}"
            )
        return options.language
    others = [lang for lang in counts.index if lang != options.reference]
    if not others:
        raise ConfigError(
            f"all tasks are in '{options.reference}': there is no local language to study: give --language"
        )
    return others[0]


def run(tables: Tables, options: Options) -> dict[str, Any]:
    """Everything that is known about the tables, JSON-ready."""
    language = local_language(tables, options)
    warnings = list(tables.warnings)
    anchors = {anchor: task for task, anchor in zip(tables.tasks.index, tables.tasks["anchor"]) if anchor}
    found = components.fit(tables.scores, anchors)
    noise = components.parallel_analysis(*tables.scores.shape, min(options.draws, 1000), _rng(options, 0))
    kept = [bool(e > t) for e, t in zip(found.eigenvalues, noise)]
    axes = components.bootstrap_axes(found, min(options.draws, 1000), _rng(options, 1))
    hidden = components.hidden_cells(tables.scores, 20, _rng(options, 2))

    shown = list(found.names[:SHOWN])
    measures = tables.scores.join(pd.DataFrame(found.scores[:, :SHOWN], tables.scores.index, shown))
    by_language = {lang: budgets.budget(tables, lang, options.active_params) for lang in tables.languages}
    laws = _laws(tables, measures, by_language, options)
    warnings += _family_warnings(tables, laws, language)
    general, local = _roles(laws, shown, language, options.reference)

    together = pairs.find(tables, measures, language)
    paired = pairs.summary(together, options.draws, _rng(options, 3))
    judged = _judged(tables, laws, by_language, paired, language, options)
    correlation = associations.correlations(tables.scores)
    result = {
        "evidence": DISCLAIMER,
        "language": language,
        "reference": options.reference,
        "models": len(tables.scores),
        "tasks": {t: {k: row[k] for k in DESCRIBED} for t, row in tables.tasks.iterrows()},
        "labels": tables.labels,
        "families": dict(tables.models["family"]),
        "seed": options.seed,
        "draws": options.draws,
        "active_params": options.active_params,
        "warnings": warnings,
        "explained_variance_ratio": found.ratio,
        "eigenvalues": found.eigenvalues,
        "parallel_analysis": noise,
        "kept": [name for name, k in zip(found.names, kept) if k and all(kept[: found.names.index(name)])],
        "axes": axes,
        "missing_cells": hidden,
        "loadings": {name: dict(zip(found.tasks, row)) for name, row in zip(found.names, found.loadings)},
        "scores": {name: dict(zip(found.models, column)) for name, column in zip(found.names, found.scores.T)},
        "correlations": {a: dict(correlation[a]) for a in correlation.columns},
        "clusters": associations.clusters(correlation),
        "cross_lingual": associations.cross_lingual(correlation, tables.tasks),
        "general_component": general,
        "local_component": local,
        "log10_compute": {lang: dict(zip(found.models, b.est)) for lang, b in by_language.items()},
        "fits": [_fit(name, lang, fit) for name in shown for lang, fit in laws.get(name, {}).items() if fit],
        "task_fits": [_fit(name, lang, fit) for name in found.tasks for lang, fit in laws.get(name, {}).items() if fit],
        "pairs": {
            "models": list(zip(together.models, together.bases, together.families, together.tokens_b)),
            "summary": paired,
        },
        "verdicts": {
            task: {"verdict": v.verdict, "reasons": v.reasons, "language": tables.tasks.loc[task, "language"],
                   "pooled_r": {lang: f.r for lang, f in laws.get(task, {}).items() if f},
                   "paired": paired.get(task)}
            for task, v in judged.items()
        },
        "downstream": _downstream(tables, options),
    }  # fmt: skip
    if options.plan:
        result["plan"] = _plan(tables, options, together, measures, shown, laws, local, language)
    return _plain(result)


def _rng(options: Options, part: int) -> np.random.Generator:
    """One stream per part, so that none shifts another."""
    return np.random.default_rng([options.seed, part])


def _laws(tables: Tables, measures: pd.DataFrame, by_language: Budgets, options: Options) -> Laws:
    """Every measure against the compute of every language."""
    families = tables.models["family"].to_numpy(str)
    laws: Laws = {}
    for i, (lang, budget) in enumerate(by_language.items()):
        drawn = budget.draw(_rng(options, 10 + i), options.draws)
        for name in measures.columns:
            y = measures[name].to_numpy(float)
            laws.setdefault(name, {})[lang] = scaling.fit(
                budget.est, y, families, options.draws, _rng(options, 20), drawn
            )
    return laws


def _judged(
    tables: Tables,
    laws: Laws,
    by_language: Budgets,
    paired: dict[str, pairs.Gain],
    language: str,
    options: Options,
) -> dict[str, verdicts.Verdict]:
    """A verdict for every task; exact zeros, a suspected fault of the scoring, must not decide it."""
    families = tables.models["family"].to_numpy(str)
    judged = {}
    for task in tables.scores.columns:
        y = tables.scores[task]
        zeros = int((y == 0).sum())
        fits = laws.get(task, {})
        if zeros:
            clean = y.where(y != 0).to_numpy(float)
            fits = {
                lang: scaling.fit(b.est, clean, families, options.draws, _rng(options, 20))
                for lang, b in by_language.items()
            }
        found = verdicts.judge(fits, paired.get(task), float(y.std()), language, options.reference)
        if zeros:
            note = (
                f"Pooled figures leave out the exact zeros of {zeros} models, which look like a fault of the scoring."
            )
            found = dataclasses.replace(found, reasons=(*found.reasons, note))
        judged[task] = found
    return judged


def _roles(laws: Laws, shown: list[str], language: str, reference: str) -> tuple[str | None, str | None]:
    """The components that follow the reference's and the local language's compute best."""

    def best(lang: str, without: str | None) -> str | None:
        fits = {n: laws[n].get(lang) for n in shown if n != without and n in laws}
        strength = {n: fit.r2 for n, fit in fits.items() if fit is not None}
        return max(strength, key=lambda n: strength[n], default=None)

    general = best(reference, None) or (shown[0] if shown else None)
    return general, best(language, general)


def _family_warnings(tables: Tables, laws: Laws, language: str) -> list[str]:
    found = []
    counts = tables.models["family"].value_counts()
    if len(counts) == 1:
        found.append(
            f"All models are of one family ({counts.index[0]}): there is no interval by family and no error on unseen "
            "families, so nothing says how far this carries over to other models."
        )
    elif len(counts) < len(tables.models):
        found.append(
            f"{counts.iloc[0]} of {len(tables.models)} models are of the family {counts.index[0]}: "
            "they are not independent."
        )
    for lang in sorted({language, *tables.languages}):
        known = sum(1 for fits in laws.values() if fits.get(lang))
        if not known:
            found.append(
                f"No law for {lang} compute: fewer than {scaling.MIN_POINTS} models with different known budgets."
            )
    return found


def _fit(name: str, lang: str, fit: scaling.Fit) -> dict[str, Any]:
    grid = np.linspace(*fit.x_range, CURVE)
    middle, low, high = fit.predict(grid)
    return {
        "component": name,
        "language": lang,
        "n": fit.n,
        "families": fit.families,
        "r": fit.r,
        "r2": fit.r2,
        "slope_per_decade": fit.slope,
        "intercept": fit.intercept,
        "ci95_family": fit.ci95_family,
        "ci95_naive": fit.ci95_naive,
        "ci95_family_and_tokens": fit.ci95_tokens,
        "lofo_rmse": fit.lofo_rmse,
        "sd": fit.sd,
        "x_range": fit.x_range,
        "curve": {"x": grid, "y": middle, "low": low, "high": high},
    }


def _downstream(tables: Tables, options: Options) -> dict[str, Any]:
    flops = budgets.total_compute(tables, options.active_params)
    known = flops[np.isfinite(flops)]
    if len(known) < 10:
        return {"cutoff_log10_flops": None, "tasks": []}
    cutoff = float(np.quantile(known, options.cutoff))
    rows = [
        downstream.held_out(tables.scores, task, flops, cutoff, low=low, high=high)
        for task, low, high in zip(tables.tasks.index, tables.tasks["low"], tables.tasks["high"])
    ]
    return {"cutoff_log10_flops": cutoff, "tasks": [row for row in rows if row]}


def _plan(
    tables: Tables,
    options: Options,
    together: pairs.Pairs,
    measures: pd.DataFrame,
    shown: list[str],
    laws: Laws,
    local: str | None,
    language: str,
) -> dict[str, Any]:
    plan = planner.parse(options.plan, tables, language)
    result: dict[str, Any] = {"base": plan.base, "params": plan.params, "language": language, "tokens": plan.tokens}
    result["warnings"] = planner.warnings(plan, together, tables)
    if options.target:
        name, _, value = options.target.partition("=")
        if name not in measures.columns:
            raise ConfigError(f"--target: '{name}' is not a task, {nearest(name, list(measures.columns))}")
        try:
            wanted = float(value)
        except ValueError:
            raise ConfigError(f"--target '{options.target}' must be TASK=VALUE, such as NIILC=0.55") from None
        if name in tables.tasks.index and not wanted <= tables.tasks.loc[name, "high"]:
            raise ConfigError(
                f"--target: {wanted:g} is above the highest possible '{name}', {tables.tasks.loc[name, 'high']:g}"
            )
        result["inverse"] = planner.tokens_for(plan, together, measures, name, wanted)
        if plan.tokens is None and result["inverse"]["tokens"]:
            plan = dataclasses.replace(plan, tokens=result["inverse"]["tokens"])
            result["tokens"] = plan.tokens
    if plan.tokens is None:
        if not options.target:
            raise ConfigError(f"--plan needs {language}_tokens=N, or --target TASK=VALUE to find them")
        return result
    result["measures"] = planner.predict(plan, together, tables, measures, [*shown, *tables.scores.columns])
    if not result["measures"]:
        raise ConfigError(
            f"--plan: fewer than {planner.MIN_PAIRS} continual models with a base in the table and known {language} "
            "tokens to predict from"
        )
    law = laws[local].get(language) if local in laws else None
    if law is not None:
        before = tables.models.loc[plan.base, f"{language}_tokens_b_est"]
        tokens = plan.tokens + (0.0 if np.isnan(before) else before * 1e9)
        x = float(np.log10(6 * plan.params * tokens))
        level = float(measures.loc[plan.base, local])
        middle, low, high = (float(v) - level for v in law.predict(x))
        result["pooled_law"] = {"component": local, "log10_compute": x, "gain": middle, "gain_ci95": [low, high],
                                "base_tokens_known": bool(np.isfinite(before)),
                                "extrapolates": law.extrapolates(x)}  # fmt: skip
    return result


def _plain(value: Any) -> Any:
    """NumPy → Python; what is not finite → None."""
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
    """A finished study."""
    return load_json(folder / "components.json")
