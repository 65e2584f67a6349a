"""Tests for uninformative tasks: those on which all models guess, or differ only by sampling error of the items."""

import re

import numpy as np
from scipy import stats

from kanana_jax.observatory.tables import Tables

CLEAR = 0.01  # below this p-value, models are better than chance, or differ
# Metrics of answers that are right or wrong; their sampling error is at least the binomial one.
BINARY = re.compile(r"acc|exact|pass@1\b|\bEM\b", re.IGNORECASE)
MARGIN = 0.05  # if the number of items is unknown: the share of the way from chance to the best score to reach

Array = np.ndarray


def tells_nothing(tables: Tables) -> dict[str, str]:
    """Task → a sentence, for tasks on which the models do not beat chance or do not differ from each other.

    Chance: given the number of items, neither the models' mean nor any single model (Bonferroni) is above chance. If
    the number is unknown, no model has gone a twentieth of the way from chance to the best possible score. Differences:
    a χ² test of the scores about their mean. The standard error of a score is the one given in the table or, for
    answers that are right or wrong, √(p(1 − p)/items). The models answer the same items, which makes the test
    conservative.
    """
    found = {}
    for task, row in tables.tasks.iterrows():
        low, width = float(row["low"]), float(row["high"] - row["low"])
        share = (tables.scores[task].dropna().to_numpy(float) - low) / width
        chance, items = (float(row["chance"]) - low) / width, float(row["items"])
        if 0 < chance < 1 and _guessed(share, chance, items):  # chance 0: guessing never succeeds
            mean = float(share.mean() - chance) * width
            found[str(task)] = (
                f"At chance: no model is clearly better than guessing ({row['chance']:g}; mean {mean:+.3f} to it)."
            )
        elif _alike(share, *_errors(tables, str(task), share, items)):
            many = f"Its {items:.0f} items" if np.isfinite(items) else "Its items"
            found[str(task)] = f"{many} cannot tell the models apart."
    return found


def _error(share: float, items: float) -> float:
    """Standard error of a share of right answers."""
    return float(np.sqrt(share * (1 - share) / items))


def _guessed(share: Array, chance: float, items: float) -> bool:
    above = share - chance
    if not np.isfinite(items):
        return bool(above.max() < MARGIN * (1 - chance))
    z = above / _error(chance, items)
    best, together = len(z) * stats.norm.sf(z.max()), stats.norm.sf(z.sum() / np.sqrt(len(z)))
    return bool(min(best, together) > CLEAR)


def _errors(tables: Tables, task: str, share: Array, items: float) -> tuple[Array, Array]:
    """Standard errors of the shares, given or binomial, and the weights of their mean; both empty if unknown."""
    row = tables.tasks.loc[task]
    given = tables.errors[task][tables.scores[task].notna()].to_numpy(float) / float(row["high"] - row["low"])
    if (given > 0).all():
        return given, given**-2
    middle = float(share.mean())
    if np.isfinite(items) and BINARY.search(str(row["metric"])) and 0 < middle < 1:
        return np.full(len(share), _error(middle, items)), np.ones(len(share))
    return np.array([]), np.array([])


def _alike(share: Array, errors: Array, weights: Array) -> bool:
    if not len(errors):
        return False
    squares = np.sum(((share - np.average(share, weights=weights)) / errors) ** 2)
    return bool(stats.chi2.sf(squares, len(share) - 1) > CLEAR)
