"""Training compute by language, C = 6·N·D (as in arXiv:2412.14471), as intervals, and the ledger of token budgets."""

import dataclasses

import numpy as np
import pandas as pd

from kanana_jax.observatory.tables import Tables

Array = np.ndarray


@dataclasses.dataclass(frozen=True)
class Budget:
    """Training compute in one language, log10 FLOPs by model; NaN where unknown.

    Attributes:
      low, est, high: float64 [n], in the order of the models.
    """

    language: str
    low: Array
    est: Array
    high: Array

    @property
    def known(self) -> Array:
        """Mask of the models whose budget is known, bool [n]."""
        return np.isfinite(self.est)

    def draw(self, rng: np.random.Generator, count: int) -> Array:
        """Samples budgets from triangular distributions over [low, high] with their peaks at est, float64 [count, n].

        Both the shape and the independence of the models' errors are assumptions.
        """
        width = np.maximum(self.high - self.low, 0.0)
        drawn = np.tile(self.est, (count, 1))
        for i in np.flatnonzero(self.known & (width > 1e-12)):
            drawn[:, i] = rng.triangular(self.low[i], self.est[i], self.high[i], count)
        return drawn


def of_active(tables: Tables) -> Tables:
    """The tables with `params` replaced by active parameters: laws and plans count mixtures of experts alike."""
    return dataclasses.replace(tables, models=tables.models.assign(params=tables.models["active_params"]))


def budget(tables: Tables, language: str) -> Budget:
    """Training compute in a language, 6 · (the tables' `params`) · tokens."""
    params = tables.models["params"].to_numpy(float)
    ends = (tables.models[f"{language}_tokens_b_{end}"].to_numpy(float) for end in ("low", "est", "high"))
    with np.errstate(divide="ignore", invalid="ignore"):
        found = [np.log10(6 * params * tokens * 1e9) for tokens in ends]
    finite = np.isfinite(found[1])
    low = np.where(np.isfinite(found[0]), found[0], found[1] - 1)  # low = 0 tokens: a decade below the estimate
    return Budget(language, *(np.where(finite, values, np.nan) for values in (low, found[1], found[2])))


def total_compute(tables: Tables) -> Array:
    """log10 of 6·N·(tokens in all languages), float64 [n]; NaN where the total is unknown."""
    params = tables.models["params"].to_numpy(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.log10(6 * params * tables.models["tokens_b"].to_numpy(float) * 1e9)
    return np.where(np.isfinite(found), found, np.nan)


def added_tokens(tables: Tables, model: str, language: str) -> float:
    """Tokens (1e9) of a language that continual training added; all tokens if the base's budget is unknown."""
    models, column = tables.models, f"{language}_tokens_b_est"
    base = models.loc[model, "base"]
    before = models.loc[base, column] if base in models.index else np.nan
    total = models.loc[model, column]
    return float(total if np.isnan(before) else total - before)


def ledger(tables: Tables) -> pd.DataFrame:
    """One row per model and language: the base's tokens, the tokens added, and the source of the figures."""
    rows = []
    for model in tables.models.index:
        row = tables.models.loc[model]
        for language in tables.languages:
            column = f"{language}_tokens_b_est"
            base = row["base"] if row["base"] in tables.models.index else ""
            continual = bool(row["base"])
            rows.append(
                {
                    "model": model,
                    "language": language,
                    "base": row["base"],
                    "base_tokens_b": tables.models.loc[base, column] if base else np.nan,
                    "added_tokens_b": added_tokens(tables, model, language) if continual else row[column],
                    "total_low_b": row[f"{language}_tokens_b_low"],
                    "total_est_b": row[column],
                    "total_high_b": row[f"{language}_tokens_b_high"],
                    "status": row[f"{language}_status"],
                }
            )
    return pd.DataFrame(rows)
