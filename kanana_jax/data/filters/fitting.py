"""Thresholds for a language, fitted on its reference text (the idea of FineWeb2, arXiv:2506.20920, §4.2).

English thresholds let a certain share of good English text pass. For another language each bound is set so that
the same share of good text of that language passes, which is a quantile of its reference text.
A bound that more than half of the English text breaks is not fitted, since this text is not an example of what it asks.
Good text is of several kinds (statutes, literature, documentation), and a bound should let that share of *each* pass:
the loosest of the kinds' bounds is used. A rule without an English counterpart starts from the bound in its config.
A bound that (nearly) all of the English text meets says little about its right value: it is set to pass the inner 99.5%
of the other text, or stays as it is if that is looser.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from kanana_jax.data.filters.rules import Filter, FilterConfig, Rule
from kanana_jax.data.filters.signals import NAMES
from kanana_jax.data.read.record import Record
from kanana_jax.errors import UserError

TAIL = 0.005  # share of documents below which a quantile depends on single ones
ALONE = 1.5  # so that no single unusual document sets a bound
FEW = 20  # with fewer applicable documents, a rule keeps its bound
MINIMUM = 200  # documents; with fewer, a 1% tail is at most two of them


def measure_all(config: FilterConfig, texts: Iterable[Record]) -> np.ndarray:
    """Signals of all documents, float64 `[N, S]`; rules are ignored."""
    judge = Filter(
        FilterConfig(config.unit, config.stop_words, config.stop_endings, config.spam, config.boilerplate, c4=config.c4)
    ).judge
    texts, rows = iter(texts), []
    while batch := list(itertools.islice(texts, 64)):
        rows += [verdict.signals for verdict in judge(batch)]
    return np.array(rows, np.float64).reshape(-1, len(NAMES))


def fit(rules: Mapping[str, Rule], english: np.ndarray, other: np.ndarray) -> tuple[dict[str, Rule], tuple[str, ...]]:
    """The rules with bounds moved so that they pass as much of `other` as of `english`.

    Args:
      english, other: signals of reference documents, `[N, S]` and `[M, S]`.

    Returns:
      The fitted rules, and the names of those that were not fitted.

    Raises:
      UserError: too few documents.
    """
    for name, table in (("English", english), ("target", other)):
        if len(table) < MINIMUM:
            raise UserError(f"the {name} reference has {len(table)} documents: fitting needs {MINIMUM} or more")
    fitted, unfit, passed = {}, [], passing(rules, english)
    for name, rule in rules.items():
        if rule.signal not in NAMES:
            raise UserError(f"rule '{name}' looks at '{rule.signal}', which is not a signal of the text: leave it out")
        if passed[name] < 0.5:
            unfit.append(name)
            continue
        fitted[name] = _fitted(rule, _values(rule, english), _values(rule, other))
    return fitted, tuple(unfit)


def widen(rules: Mapping[str, Rule], table: np.ndarray) -> dict[str, Rule]:
    """Rules without English counterparts: the inner 99.5% of good text pass, and everything that passed before."""
    return {name: _fitted(rule, np.zeros(0), _values(rule, table)) for name, rule in rules.items()}


def _fitted(rule: Rule, english: np.ndarray, other: np.ndarray) -> Rule:
    low, high = _bound(rule.min, english, other, lower=True), _bound(rule.max, english, other, lower=False)
    return dataclasses.replace(rule, min=low, max=high)


def _values(rule: Rule, table: np.ndarray) -> np.ndarray:
    """A rule's signal in the documents that it applies to, `[n]`."""
    return table[_asked(rule, table), NAMES.index(rule.signal)]


def _bound(bound: float, english: np.ndarray, other: np.ndarray, lower: bool) -> float:
    if math.isinf(bound) or len(other) < FEW:
        return bound
    share = 0.0
    if len(english):
        share = float(np.mean(english < bound)) if lower else float(np.mean(english > bound))
    tail = max(share, TAIL, ALONE / len(other))
    if lower:
        value = float(np.quantile(other, tail, method="lower"))
        return _rounded(value if share > TAIL else min(bound, value), math.floor)
    value = float(np.quantile(other, 1 - tail, method="higher"))
    return _rounded(value if share > TAIL else max(bound, value), math.ceil)


def _rounded(value: float, to: Callable[[float], int]) -> float:
    """Rounds to three significant digits, in the direction that lets more text pass."""
    if not value:
        return 0.0
    step = 10.0 ** (math.floor(math.log10(abs(value))) - 2)
    return float(f"{to(value / step) * step:.6g}")


def loosest(fits: Sequence[Mapping[str, Rule]]) -> dict[str, Rule]:
    """The loosest bounds of rules that were fitted on several kinds of text."""
    return {
        name: dataclasses.replace(rule, min=min(f[name].min for f in fits), max=max(f[name].max for f in fits))
        for name, rule in fits[0].items()
    }


def passing(rules: Mapping[str, Rule], table: np.ndarray) -> dict[str, float]:
    """Share of documents that each rule lets pass, and under `all` those that break none."""
    passed = {name: ~_broken(rule, table) for name, rule in rules.items()}
    everything = np.logical_and.reduce(list(passed.values())) if passed else np.ones(len(table), bool)
    return {**{name: float(np.mean(p)) for name, p in passed.items()}, "all": float(np.mean(everything))}


def _asked(rule: Rule, table: np.ndarray) -> np.ndarray:
    """The documents that a rule applies to."""
    return np.logical_and.reduce(
        [np.ones(len(table), bool), *(table[:, NAMES.index(name)] >= least for name, least in rule.where.items())]
    )


def _broken(rule: Rule, table: np.ndarray) -> np.ndarray:
    values = table[:, NAMES.index(rule.signal)]
    return _asked(rule, table) & ((values < rule.min) | (values > rule.max))


def document(
    rules: Mapping[str, Rule],
    own: Mapping[str, Rule],
    fixed: Mapping[str, Rule],
    english: np.ndarray,
    kinds: Mapping[str, np.ndarray],
    description: str,
) -> dict[str, Any]:
    """Fitted thresholds in file form, with their origin and the share of text that they let pass.

    Args:
      rules: the English ones.
      own: the rules of the target language alone.
      fixed: the rules of either whose bounds stay as they are.
      english: signals of English reference documents.
      kinds: signals of the target language's reference documents, by kind.
    """
    fits = [fit(rules, english, table) for table in kinds.values()]
    fitted = loosest([shared | widen(own, table) | dict(fixed) for (shared, _), table in zip(fits, kinds.values())])
    return {
        "provenance": {
            "method": "each bound passes as much of every kind of text as the English one passes of the English text",
            "references": description,
            "documents": {"english": len(english), "target": sum(len(table) for table in kinds.values())},
            "kinds": {name: len(table) for name, table in kinds.items()},
            "not_fitted": [*fits[0][1], *fixed],
            "passing": {
                kind: {name: round(share, 4) for name, share in passing(fitted, table).items() if share < 1}
                for kind, table in kinds.items()
            },
        },
        "rules": {
            name: {end: value for end in ("min", "max") if not math.isinf(value := getattr(rule, end))}
            for name, rule in fitted.items()
            if name not in fixed
        },
    }
