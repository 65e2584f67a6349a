"""Scaling laws of every component and task in the compute of every language, and their interpretation."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from kanana_jax.observatory import budgets, effects, informative, pairs, sampling, scaling, undisclosed, verdicts
from kanana_jax.observatory.options import Options
from kanana_jax.observatory.tables import Tables

CURVE = 25  # points of a fitted line
FEW_FAMILIES = 4  # with fewer families a jackknife has at most two degrees of freedom
Laws = dict[str, dict[str, scaling.Fit | None]]  # measure → language → law in that language's compute
Budgets = dict[str, budgets.Budget]  # by language


def every(tables: Tables, measures: pd.DataFrame, by_language: Budgets, options: Options) -> Laws:
    """Fits every measure against the compute of every language."""
    families = tables.models["family"].to_numpy(str)
    laws: Laws = {}
    for i, (lang, budget) in enumerate(by_language.items()):
        drawn = budget.draw(options.rng(10 + i), options.draws)
        for name in measures.columns:
            y = measures[name].to_numpy(float)
            laws.setdefault(name, {})[lang] = scaling.fit(
                budget.est, y, families, options.draws, options.rng(20), drawn
            )
    return laws


def roles(laws: Laws, shown: list[str], language: str, reference: str) -> tuple[str | None, str | None]:
    """The components among `shown` that follow the reference and the local language's compute best, in that order."""

    def best(lang: str, without: str | None) -> str | None:
        fits = {n: laws[n].get(lang) for n in shown if n != without and n in laws}
        strength = {n: fit.r2 for n, fit in fits.items() if fit is not None}
        return max(strength, key=lambda n: strength[n], default=None)

    general = best(reference, None) or (shown[0] if shown else None)
    return general, best(language, general)


def falls(together: pairs.Pairs, laws: Laws, local: str, language: str) -> bool:
    """Whether the local component falls when local text is added in pairs; without pairs, with local compute."""
    gains = together.gains[local].dropna()
    fit = laws[local].get(language)
    if len(gains) >= pairs.MIN_PAIRS:
        return float(gains.mean()) < 0
    return fit is not None and fit.slope < 0


def with_undisclosed(
    tables: Tables, measures: pd.DataFrame, shown: list[str], language: str, options: Options
) -> list[dict[str, Any]]:
    """Laws in the local language that include models with zero or undisclosed local tokens."""
    if language not in tables.languages:
        return []
    budget, added, without_total = undisclosed.budget(tables, language)
    if not added:
        return []
    families = tables.models["family"].to_numpy(str)
    drawn = budget.draw(options.rng(30), options.draws)
    fits = {
        name: scaling.fit(budget.est, measures[name].to_numpy(float), families, options.draws, options.rng(20), drawn)
        for name in shown
    }
    about = {"undisclosed_models": added, "assumed_share": undisclosed.SHARE, "undisclosed_totals": without_total,
             "assumed_total_b": undisclosed.TYPICAL_TOKENS_B}  # fmt: skip
    return [{**as_json(name, language, fit), **about} for name, fit in fits.items() if fit]


def evidence(
    tables: Tables,
    laws: Laws,
    by_language: Budgets,
    paired: dict[str, pairs.Gain],
    options: Options,
    by_joint: dict[str, dict[str, effects.Effect]],
) -> dict[str, verdicts.Evidence]:
    """Collects the evidence on every task; exact zeros that look like scoring faults are ignored.

    Args:
      paired: measure → gain in pairs.
      by_joint: measure → language → effect in the mixed model.
    """
    families = tables.models["family"].to_numpy(str)
    trusted = informative.trusted(tables.scores, tables.scores)
    silent = sampling.tells_nothing(tables)
    found = {}
    for task in tables.scores.columns:
        y = trusted[task]
        zeros = int(tables.scores[task].notna().sum() - y.notna().sum())
        fits, note = laws.get(task, {}), ""
        if zeros:
            fits = {
                lang: scaling.fit(b.est, y.to_numpy(float), families, options.draws, options.rng(20))
                for lang, b in by_language.items()
            }
            note = f"The exact zeros of {zeros} models are left out: probably a fault of the scoring."
        found[task] = verdicts.Evidence(fits, paired.get(task), float(y.std()), silent.get(task, ""), note,
                                        by_joint.get(task, {}))  # fmt: skip
    return found


def family_warnings(tables: Tables, laws: Laws, language: str) -> list[str]:
    """Warnings about related models, which are not independent samples, and about missing laws."""
    found = []
    counts = tables.models["family"].value_counts()
    if len(counts) == 1:
        found.append(
            f"All models are of one family ({counts.index[0]}): there is no interval by family and no error on unseen "
            "families, so it is unknown how far this carries over to other models."
        )
    elif len(counts) < len(tables.models):
        if len(counts) < FEW_FAMILIES:
            found.append(
                f"The models are of {len(counts)} families only ({', '.join(map(str, counts.index))}): a direction may "
                "be clear, but sizes and intervals may be those of one developer's recipe."
            )
        found.append(
            f"{counts.iloc[0]} of {len(tables.models)} models are of the family {counts.index[0]}: "
            "they are not independent."
        )
    if not language:
        known = set(tables.tasks["language"]) - {""}
        words = "All tasks are in one language" if known else "The languages of the tasks are unknown"
        found.append(f"{words}: nothing can be said about local text.")
    for lang in sorted({language, *tables.languages} - {""}):
        known = sum(1 for fits in laws.values() if fits.get(lang))
        if not known:
            found.append(
                f"No law for {lang} compute: fewer than {scaling.MIN_POINTS} models with different known budgets."
            )
    return found


def rows(laws: Laws, names: Iterable[str]) -> list[dict[str, Any]]:
    """The laws of these measures, JSON-ready except for NumPy numbers."""
    return [as_json(name, lang, fit) for name in names for lang, fit in laws.get(name, {}).items() if fit]


def as_json(name: str, lang: str, fit: scaling.Fit) -> dict[str, Any]:
    """A law as stored in `components.json`, with points of its line."""
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
        "ci95_bootstrap": fit.ci95_bootstrap,
        "ci95_naive": fit.ci95_naive,
        "ci95_family_and_tokens": fit.ci95_tokens,
        "lofo_rmse": fit.lofo_rmse,
        "sd": fit.sd,
        "family_share": fit.unseen.share,
        "x_range": fit.x_range,
        "curve": {"x": grid, "y": middle, "low": low, "high": high},
    }
