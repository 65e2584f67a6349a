"""Continual training as a natural experiment: each continual model minus the model that it started from."""

import dataclasses
from typing import TypedDict

import numpy as np
import pandas as pd

from kanana_jax.observatory import budgets, scaling
from kanana_jax.observatory.tables import Tables

Array = np.ndarray


@dataclasses.dataclass(frozen=True)
class Pairs:
    """The effect of continual training.

    Attributes:
      models, bases, families: str [n].
      tokens_b: float64 [n], local tokens (1e9) that were added; NaN where unknown.
      params: float64 [n].
      gains: float64 [n, measures], continual minus base; NaN where either lacks it.
      before: float64 [n, measures], the base's.
    """

    models: tuple[str, ...]
    bases: tuple[str, ...]
    families: Array
    tokens_b: Array
    params: Array
    gains: pd.DataFrame
    before: pd.DataFrame


class Gain(TypedDict):
    """The change of one measure over all pairs that have it.

    Attributes:
      n, up, down: pairs, those that rose and those that fell.
      ci95_family: of the mean, resampling whole families; None with fewer than three.
    """

    n: int
    mean: float
    up: int
    down: int
    ci95_family: tuple[float, float] | None


def find(tables: Tables, measures: pd.DataFrame, language: str) -> Pairs:
    """Args: measures: models × (components and tasks); language: whose tokens were added."""
    bases = tables.models["base"]
    models = tuple(m for m in tables.models.index if bases[m] in tables.models.index)
    from_ = tuple(bases[m] for m in models)
    before = measures.loc[list(from_)].set_axis(list(models))
    known = language in tables.languages
    tokens = [budgets.added_tokens(tables, m, language) if known else np.nan for m in models]
    return Pairs(
        models=models,
        bases=from_,
        families=tables.models.loc[list(models), "family"].to_numpy(str),
        tokens_b=np.array(tokens, float),
        params=tables.models.loc[list(models), "params"].to_numpy(float),
        gains=measures.loc[list(models)] - before,
        before=before,
    )


def summary(pairs: Pairs, draws: int, rng: np.random.Generator) -> dict[str, Gain]:
    """Measure → its gain; measures that no pair has are left out."""
    found: dict[str, Gain] = {}
    for name in pairs.gains.columns:
        values = pairs.gains[name].to_numpy(float)
        known = np.isfinite(values)
        values = values[known]
        if not len(values):
            continue
        interval = scaling.family_mean_interval(values, pairs.families[known], draws, rng)
        found[name] = {
            "n": len(values),
            "mean": float(values.mean()),
            "up": int((values > 0).sum()),
            "down": int((values < 0).sum()),
            "ci95_family": interval,
        }
    return found
