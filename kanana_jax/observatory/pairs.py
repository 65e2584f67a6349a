"""Continual training as a natural experiment: each continually trained model compared with its own base."""

import dataclasses
import re
from typing import TypedDict

import numpy as np
import pandas as pd
from scipy import stats

from kanana_jax.observatory import budgets, informative, jackknife
from kanana_jax.observatory.tables import Tables

Array = np.ndarray
MIN_PAIRS = 5  # fewer pairs are not enough to judge or predict a gain


@dataclasses.dataclass(frozen=True)
class Pairs:
    """n pairs of a continual model and its base.

    Attributes:
      models, bases, families: str [n].
      tokens_b: float64 [n], local tokens (1e9) added to the base; NaN where unknown.
      params: float64 [n].
      gains: float64 [n, measures], continual model minus base; NaN where either score is missing.
      before: float64 [n, measures], the base's scores.
      without: continual models left out because no tokens of the language were added.
    """

    models: tuple[str, ...]
    bases: tuple[str, ...]
    families: Array
    tokens_b: Array
    params: Array
    gains: pd.DataFrame
    before: pd.DataFrame
    without: tuple[str, ...] = ()


class Gain(TypedDict):
    """The change of one measure over all pairs with scores of it.

    Attributes:
      n, families, bases: number of pairs, of their families and of their base models.
      mean: mean gain, in the measure's units.
      up, down: number of pairs that rose and that fell.
      bases_up: number of base models whose continual models rose on average.
      ci95_family: jackknife interval of the mean over families; None with fewer than three families.
      ci95_bootstrap: bootstrap interval over families, too narrow when they are few; None with fewer than three.
      p_family: two-sided jackknife p-value for a mean of zero; None with fewer than three families.
      p_direction: two-sided p-value of the sign test over base models: the direction in *these* families.
    """

    n: int
    families: int
    bases: int
    mean: float
    up: int
    down: int
    bases_up: int
    ci95_family: tuple[float, float] | None
    ci95_bootstrap: tuple[float, float] | None
    p_family: float | None
    p_direction: float


def find(tables: Tables, measures: pd.DataFrame, language: str) -> Pairs:
    """Finds the pairs of a model table.

    Args:
      measures: models × (components and tasks).
      language: the language whose tokens were added; "" finds no pairs.
    """
    bases = tables.models["base"]
    continual = [m for m in tables.models.index if language and bases[m] in tables.models.index]
    known = language in tables.languages
    added = {m: budgets.added_tokens(tables, m, language) if known else np.nan for m in continual}
    models = tuple(m for m in continual if not added[m] <= 0)  # NaN (unknown) is kept
    from_ = tuple(bases[m] for m in models)
    before = measures.loc[list(from_)].set_axis(list(models))
    return Pairs(
        models=models,
        bases=from_,
        families=tables.models.loc[list(models), "family"].to_numpy(str),
        tokens_b=np.array([added[m] for m in models], float),
        params=tables.models.loc[list(models), "params"].to_numpy(float),
        gains=measures.loc[list(models)] - before,
        before=before,
        without=tuple(m for m in continual if added[m] <= 0),
    )


def summary(pairs: Pairs, draws: int, rng: np.random.Generator) -> dict[str, Gain]:
    """Measure → its gain over the pairs; measures without any pair are left out."""
    found: dict[str, Gain] = {}
    for name in pairs.gains.columns:
        values = pairs.gains[name].to_numpy(float)
        known = np.flatnonzero(np.isfinite(values))
        values = values[known]
        if not len(values):
            continue
        families, bases = pairs.families[known], np.array(pairs.bases)[known]
        groups = jackknife.rows_of(families)
        mean = jackknife.estimate(np.ones((len(values), 1)), values, groups, 0)
        by_base = np.array([values[g].mean() for g in jackknife.rows_of(bases)])
        spread = 1e-9 * float(np.abs(values).max())  # gains that cancel may average to 1e-17, which is not a gain
        rose, fell = int((by_base > spread).sum()), int((by_base < -spread).sum())
        found[name] = {
            "n": len(values),
            "families": len(groups),
            "bases": len(by_base),
            "mean": float(values.mean()),
            "up": int((values > 0).sum()),
            "down": int((values < 0).sum()),
            "bases_up": rose,
            "ci95_family": mean.ci95 if mean else None,
            "ci95_bootstrap": jackknife.bootstrap_mean(values, families, draws, rng),
            "p_family": mean.p if mean else None,
            "p_direction": float(stats.binomtest(rose, rose + fell).pvalue) if rose + fell else 1.0,
        }
    return found


def years(pairs: Pairs, tables: Tables) -> tuple[int, int] | None:
    """The first and last year of the continual models with a date in the table; None if there is none.

    Losses in other tasks depend on the recipes of the time: later recipes also add English and code.
    """
    dates = tables.models.loc[list(pairs.models), "date"] if "date" in tables.models.columns else ()
    found = [int(m[0]) for m in (re.search(r"\b20\d\d\b", str(date)) for date in dates) if m]
    return (min(found), max(found)) if found else None


def told_apart(pairs: Pairs, language: str) -> str:
    """A warning about the pairs that added no local text, which are left out."""
    many = "1 pair" if len(pairs.without) == 1 else f"{len(pairs.without)} pairs"
    words = f"{many} added no {language} text, left out of the effect of {language} text"
    return f"{words}: {informative.cut(list(pairs.without))}."


def counted(gain: Gain) -> str:
    """States in how many pairs a measure rose: 'up in 12 of 12 pairs of two families'."""
    words = f"up in {gain['up']} of {gain['n']} pairs of {_number(gain['families'], 'family', 'families')}"
    if gain["ci95_family"] is None and gain["up"] in (0, gain["n"]) and gain["n"] >= MIN_PAIRS:
        words += ": direction clear, size not"
    return words


def _number(n: int, one: str, many: str) -> str:
    return f"{('no', 'one', 'two', 'three', 'four', 'five', 'six')[n] if n < 7 else n} {one if n == 1 else many}"
