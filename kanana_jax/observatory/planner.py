"""Predicted gains from a local-language token budget for one base model, and the tokens needed to reach a score."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import TypedDict

import numpy as np
import pandas as pd

from kanana_jax.errors import ConfigError, nearest
from kanana_jax.languages import tag
from kanana_jax.observatory import budget_ends, cells
from kanana_jax.observatory.jackknife import MIN_FAMILIES
from kanana_jax.observatory.joint import Joint
from kanana_jax.observatory.pairs import MIN_PAIRS, Pairs
from kanana_jax.observatory.tables import Tables


@dataclasses.dataclass(frozen=True)
class Plan:
    """A plan to train `base` on `tokens` (a raw count) of `language` text; None if the tokens are the question."""

    base: str
    language: str
    params: float
    tokens: float | None


class Prediction(TypedDict):
    """One measure before and after the plan; intervals are 95% prediction intervals for one new model.

    Attributes:
      language: the task's language; None for a component.
      rises: probability of any rise; the change is clear if the interval excludes zero.
      after, after_ci95: clipped to the task's range.
      gain_over_budgets, gain_ci95_over_budgets: the smallest and largest gain, and the hull of the intervals, over the
        estimated token budgets and the ends of their intervals.
      unpredicted_budget_ends: ends that are not included, since the measure has no model of the same form there.
      lofo_rmse: leave-one-family-out error of the model on continual models with known bases.
      pairs: number of pairs with the measure and known tokens.
      extrapolates: the respects in which the plan lies outside the range of the observed pairs.
    """

    measure: str
    language: str | None
    before: float
    gain: float
    gain_ci95: list[float]
    rises: float
    after: float
    after_ci95: list[float]
    gain_over_budgets: list[float]
    gain_ci95_over_budgets: list[float]
    unpredicted_budget_ends: list[str]
    lofo_rmse: float | None
    pairs: int
    extrapolates: list[str]


class Inverse(TypedDict):
    """The number of tokens at which a target is predicted to be reached.

    Attributes:
      tokens: by the median prediction; None if more than 1e14.
      tokens_ci95: where the upper and the lower end of the prediction interval reach the target.
      seen: the range of tokens that the pairs added.
    """

    target: str
    value: float
    before: float
    tokens: float | None
    tokens_ci95: list[float | None]
    seen: list[float]
    extrapolates: bool


def parse(text: str, tables: Tables, language: str) -> Plan:
    """Parses a plan such as `base=Llama-3-8B,params=8e9,ja_tokens=100e9`; params default to the base's.

    Raises:
      ConfigError: unknown key or model, a value that is not a positive number, or a base that was itself trained
        further on an unknown number of tokens.
    """
    parts: dict[str, str] = {}
    for key, _, value in (part.partition("=") for part in text.replace(" ", "").split(",") if part):
        key = f"{tag(key.removesuffix('_tokens'))}_tokens" if key.endswith("_tokens") else key
        if key.isdecimal():
            raise ConfigError(f"--plan: ',' separates keys, and '{key}' is not one: write 100,000,000,000 as 100e9")
        if key in parts:
            raise ConfigError(f"--plan: '{key}' is given twice: keep one")
        parts[key] = value
    known = ("base", "params", f"{language}_tokens")
    for key in parts:
        if key not in known:
            raise ConfigError(f"--plan: unknown key '{key}', {nearest(key, known)}")
    if not parts.get("base"):
        raise ConfigError(f"--plan needs base=MODEL, as in --plan base=MODEL,params=8e9,{language}_tokens=100e9")
    numbers = {}
    for key in known[1:]:
        if key in parts:
            numbers[key] = float(parts[key]) if cells.is_number(parts[key]) else -1.0
            if numbers[key] <= 0:
                raise ConfigError(f"--plan: {key} '{parts[key]}' is not a positive number{cells.way_out(parts[key])}")
    base = resolve(parts["base"], tables)
    params = numbers.get("params", float(tables.models.loc[base, "params"]))
    if not np.isfinite(params):
        raise ConfigError(f"--plan: the parameters of '{base}' are unknown: give params=N")
    seen = f"{language}_tokens_b_est"
    if tables.models.loc[base, "base"] and seen in tables.models and np.isnan(tables.models.loc[base, seen]):
        raise ConfigError(
            f"--plan: '{base}' was trained further on an unknown number of {language} tokens, so the effect of "
            f"more cannot be predicted: give it {seen} in models.csv, or plan on '{tables.models.loc[base, 'base']}'"
        )
    tokens = numbers.get(known[2])
    if tokens is not None and tokens < 1e6:
        raise ConfigError(f"--plan: {known[2]} is {tokens:g}; it is a number of tokens, such as 100e9")
    return Plan(base, language, params, tokens)


def resolve(name: str, tables: Tables) -> str:
    """Finds a model by its id, its label or the last part of its id, ignoring case and punctuation.

    Raises:
      ConfigError: no model, or several, match.
    """
    plain = lambda text: re.sub("[^a-z0-9]", "", text.lower())  # noqa: E731
    names = {m: {plain(m), plain(m.rsplit("/", 1)[-1]), plain(label)} for m, label in tables.labels.items()}
    found = [m for m in names if m == name] or [m for m, all_ in names.items() if plain(name) in all_]
    if len(found) == 1:
        return found[0]
    if len(found) > 1:
        raise ConfigError(f"--plan: '{name}' could be {' or '.join(found)}: give the whole name")
    raise ConfigError(
        f"--plan: base '{name}' is not a model of the table; {nearest(name, [*names, *tables.labels.values()])}"
    )


def predict(
    plan: Plan,
    pairs: Pairs,
    tables: Tables,
    measures: pd.DataFrame,
    joint: Joint,
    errors: Mapping[str, float | None],
    ends: Sequence[Joint] = (),
) -> list[Prediction]:
    """Predicts each requested measure that has enough pairs.

    Args:
      measures: models × (components and tasks).
      joint: the mixed models.
      errors: requested measure → leave-one-family-out error of its model.
      ends: the mixed models with token budgets at the ends of their intervals.

    Raises:
      ValueError: the plan has no number of tokens.
    """
    if plan.tokens is None:
        raise ValueError("a plan without tokens predicts nothing")
    tokens_b = plan.tokens / 1e9
    trained = _trained_already(plan, pairs, tables)
    rows: list[Prediction] = []
    for name, error in errors.items():
        level, known = float(measures.loc[plan.base, name]), with_tokens(pairs, name)
        if known.sum() < MIN_PAIRS or name not in joint.models or not np.isfinite(level):
            continue
        found = joint.after(name, plan.base, plan.params, np.array([tokens_b]))
        after = [float(value[0]) for value in (found.middle, found.low, found.high)]
        at_ends, without = budget_ends.gains(ends, joint, measures, name, plan.base, plan.params, tokens_b)
        over = np.array([[value - level for value in after], *at_ends])
        rows.append(
            {
                "measure": name,
                "language": tables.tasks.loc[name, "language"] if name in tables.tasks.index else None,
                "before": level,
                "gain": after[0] - level,
                "gain_ci95": [after[1] - level, after[2] - level],
                "rises": found.reaches(level),
                "after": after[0],
                "after_ci95": after[1:],
                "gain_over_budgets": [float(over[:, 0].min()), float(over[:, 0].max())],
                "gain_ci95_over_budgets": [float(over[:, 1].min()), float(over[:, 2].max())],
                "unpredicted_budget_ends": without,
                "lofo_rmse": error,
                "pairs": int(known.sum()),
                "extrapolates": _outside(pairs, name, tokens_b, level) + trained,
            }
        )
    return rows


def with_tokens(pairs: Pairs, measure: str) -> np.ndarray:
    """Mask of the pairs with a score of the measure and known local tokens, bool [n]."""
    return pairs.gains[measure].notna().to_numpy() & (pairs.tokens_b > 0)


def token_range(pairs: Pairs, measure: str) -> tuple[float, float]:
    """The fewest and the most tokens (1e9) that the pairs of `with_tokens` added."""
    tokens = pairs.tokens_b[with_tokens(pairs, measure)]
    return float(tokens.min()), float(tokens.max())


def _trained_already(plan: Plan, pairs: Pairs, tables: Tables) -> list[str]:
    """A note if the plan's base has seen more of the language than any base of the pairs is known to have."""
    column = f"{plan.language}_tokens_b_est"
    if column not in tables.models.columns:
        return []
    own, others = float(tables.models.loc[plan.base, column]), tables.models.loc[list(pairs.bases), column].max()
    most = float(np.nanmax([others, np.nanmin(np.append(pairs.tokens_b, np.inf))]))
    if not own > most:
        return []
    return [f"a base trained on {own:,.0f}e9 {plan.language} tokens, those of the pairs on hardly any"]


def _outside(pairs: Pairs, measure: str, tokens_b: float, level: float) -> list[str]:
    found = []
    fewest, most = token_range(pairs, measure)
    if not fewest <= tokens_b <= most:
        found.append(f"{tokens_b:g}e9 tokens, seen {fewest:g}–{most:g}e9")
    levels = pairs.before[measure].to_numpy(float)[with_tokens(pairs, measure)]
    if not levels.min() <= level <= levels.max():
        found.append(f"a base at {level:.3f}, seen {levels.min():.3f}–{levels.max():.3f}")
    return found


def warnings(plan: Plan, pairs: Pairs, tables: Tables) -> list[str]:
    """Warnings about respects in which no pair resembles the plan."""
    found = []
    known = pairs.tokens_b > 0
    if known.any() and plan.tokens is not None:
        low, high = pairs.tokens_b[known].min() * 1e9, pairs.tokens_b[known].max() * 1e9
        if not low <= plan.tokens <= high:
            found.append(f"Extrapolation: {plan.tokens:.3g} tokens, while the pairs added {low:.3g} to {high:.3g}.")
    sizes = pairs.params[np.isfinite(pairs.params)]
    if len(sizes) and not sizes.min() <= plan.params <= sizes.max():
        found.append(
            f"Extrapolation: {plan.params:.3g} parameters, while the pairs have {sizes.min():.3g} to {sizes.max():.3g}."
        )
    families = len(set(pairs.families[known]))
    if known.any() and families < MIN_FAMILIES:
        found.append(
            f"The pairs are of {'one family' if families == 1 else 'two families'}: intervals and probabilities hold "
            "for recipes like theirs."
        )
    own = float(tables.models.loc[plan.base, "params"])
    if np.isfinite(own) and abs(np.log(plan.params / own)) > np.log(1.2):
        found.append(f"The plan has {plan.params:.3g} parameters, its base {own:.3g}: 'before' is the base as it is.")
    if tables.models.loc[plan.base, "base"] and not (tables.models["base"].reindex(pairs.bases) > "").any():
        found.append(f"'{plan.base}' has been trained on already; the pairs start from models that were not.")
    family = tables.models.loc[plan.base, "family"]
    if family not in pairs.families:
        found.append(f"No pair is of the family {family}; gains are predicted from those of other families.")
    return found


def tokens_for(
    plan: Plan, pairs: Pairs, measures: pd.DataFrame, target: str, value: float, joint: Joint
) -> Inverse:
    """The local tokens at which `target` is predicted to reach `value`.

    Raises:
      ConfigError: the base has no score or already reaches the value, there are too few pairs, or added tokens do not
        predict the target.
    """
    level = float(measures.loc[plan.base, target])
    if not np.isfinite(level):
        raise ConfigError(f"--target: '{plan.base}' has no score on '{target}'")
    if value <= level:
        raise ConfigError(f"--target: '{plan.base}' has {level:.3f} on '{target}' already, which is {value:g} or more")
    local = plan.language
    if with_tokens(pairs, target).sum() < MIN_PAIRS or target not in joint.models or local not in joint.languages:
        raise ConfigError(
            f"--target: fewer than {MIN_PAIRS} continual models with '{target}' and known tokens to predict from"
        )
    grid = 10 ** np.linspace(-2, 5, 281)  # 1e9 tokens
    found = joint.after(target, plan.base, plan.params, grid)
    if found.middle[-1] <= found.middle[0]:
        raise ConfigError(f"--target: '{target}' does not rise with added {local} tokens in these models")
    own, flat = joint.left_out_error(target), joint.left_out_error(target, without=local)
    if own is not None and flat is not None and own > flat:
        raise ConfigError(
            f"--target: tokens do not predict the gain of '{target}': with them the error on unseen families is "
            f"larger ({own:.3f}) than without ({flat:.3f}), so no number of tokens can be given; the mean gain of the "
            f"pairs is {pairs.gains[target].mean():+.3f}"
        )
    tokens, most, fewest = (_first(grid, curve, value) for curve in (found.middle, found.low, found.high))
    low, high = (t * 1e9 for t in token_range(pairs, target))
    return {
        "target": target,
        "value": value,
        "before": level,
        "tokens": tokens,
        "tokens_ci95": [fewest, most],
        "seen": [low, high],
        "extrapolates": tokens is None or not low <= tokens <= high,
    }


def _first(tokens_b: np.ndarray, curve: np.ndarray, value: float) -> float | None:
    """The fewest tokens (raw count) at which the curve reaches the value, interpolated in log tokens; None if never."""
    reached = np.flatnonzero(curve >= value)
    if not len(reached):
        return None
    at = int(reached[0])
    if at == 0:
        return float(tokens_b[0] * 1e9)
    part = (value - curve[at - 1]) / (curve[at] - curve[at - 1])
    return float(1e9 * tokens_b[at - 1] ** (1 - part) * tokens_b[at] ** part)
