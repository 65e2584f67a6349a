"""The mixed models of all measures of a study, on which the predictions of plans and the verdicts are based."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from kanana_jax.observatory import gls, jackknife, mixed
from kanana_jax.observatory.jackknife import Estimate
from kanana_jax.observatory.mixed import Kin, Mixed, Mixture
from kanana_jax.observatory.tables import Tables

Array = np.ndarray
MOST_MODELS = 200  # memory is quadratic and work cubic in the number of related models, which may be all of them


@dataclasses.dataclass(frozen=True)
class After:
    """The predicted values of a measure for m planned models.

    Attributes:
      model, mixture: the measure's model and the predictive distributions, on the model's scale.
      middle, low, high: median and 95% prediction interval of one new model, float64 [m], in the measure's units.
    """

    model: Mixed
    mixture: Mixture
    middle: Array
    low: Array
    high: Array

    def reaches(self, value: float) -> float:
        """Probability that the first planned model reaches at least `value`."""
        return float(self.mixture.above(mixed.stabilised(np.array(value), self.model.limits))[0])


@dataclasses.dataclass(frozen=True)
class Joint:
    """The mixed models of all measures, with the data that they were fitted on.

    Attributes:
      language: the local language.
      languages: the languages of the design's columns after the intercept.
      design: float64 [models, k], for all models of the tables.
      kin: relations between all models of the tables.
      seen: language → tokens (1e9), float64 [models], including assumed budgets.
      scores: models × measures, as fitted.
      models: measure → its mixed model.
      ends: language → the end of the budgets' intervals that was used, as in `mixed.design`.
    """

    tables: Tables
    language: str
    languages: tuple[str, ...]
    design: Array
    kin: Kin
    seen: dict[str, Array]
    scores: pd.DataFrame
    models: dict[str, Mixed]
    ends: Mapping[str, str]

    def after(self, measure: str, base: str, params: float, tokens_b: Array) -> After:
        """Predicts `base`, at `params` parameters, after training on `tokens_b` [m] (1e9) more local tokens."""
        model = self.models[measure]
        mixture = model.foretell(*self.planned(base, params, tokens_b))
        return After(model, mixture, *model.interval(mixture))

    def planned(self, base: str, params: float, tokens_b: Array) -> tuple[Array, Kin]:
        """The design rows, float64 [m, k], and the kin of such planned models."""
        at = self.tables.models.index.get_loc(base)
        rows = np.ones((len(tokens_b), 1 + len(self.languages)))
        for column, lang in enumerate(self.languages, 1):
            seen = self.seen[lang][at]
            rows[:, column] = np.log10(6 * params * (seen + (tokens_b if lang == self.language else 0.0)) * 1e9)
        one = self.kin.take(np.full(len(tokens_b), at))
        return rows, dataclasses.replace(one, continual=np.ones(len(tokens_b), bool))

    def left_out_error(self, measure: str, without: str = "") -> float | None:
        """Cross-validated root mean square error for continual models with a known base, in the measure's units.

        The continual models of each family are predicted from the other families and from the family's own models
        trained from scratch.

        Args:
          without: a language whose compute is left out of the model, if any.

        Returns:
          None if fewer than two families have continual models.
        """
        columns = [c for c in range(self.design.shape[1]) if c == 0 or self.languages[c - 1] != without]
        design, y = self.design[:, columns], self.scores[measure].to_numpy(float)
        usable = np.isfinite(y) & np.isfinite(design).all(axis=1)
        base = self.tables.models["base"].isin(self.tables.models.index).to_numpy()
        families = dict.fromkeys(self.kin.families[usable & base])
        asked = [usable & base & (self.kin.families == family) for family in families]
        kin, z = self.kin.take(usable), mixed.stabilised(y[usable], _limits(self.tables, measure))
        groups = [np.flatnonzero(rows[usable]) for rows in asked]
        parts = gls.left_out(design[usable], z[:, None], kin.blocks(), kin.among, groups) if groups else []
        errors: list[Array] = []
        for rows, others in zip(asked, parts):
            model = _fit(self.tables, measure, np.where(rows, np.nan, y), design, self.kin, others)
            if model is not None:
                found = model.foretell(design[rows], self.kin.take(rows)).mean
                errors.append(mixed.back(found, model.limits) - y[rows])
        return float(np.sqrt(np.mean(np.concatenate(errors) ** 2))) if len(errors) > 1 else None


def every(
    tables: Tables, measures: pd.DataFrame, language: str, reference: str, ends: Mapping[str, str] = mixed.NO_ENDS
) -> Joint:
    """Fits the mixed models of all measures that have enough data.

    There are none without known budgets, or for a table of more than `MOST_MODELS` models. If the two languages'
    compute is collinear, only the local language is in the models.

    Args:
      measures: models × (components and tasks), NaN where a score is not to be used.
      ends: language → the end of the budgets' intervals to use, as in `mixed.design`.
    """
    languages = tuple(lang for lang in dict.fromkeys((reference, language)) if lang in tables.languages)
    design, kin = mixed.design(tables, language, reference, ends), mixed.kin(tables)
    known = design[np.isfinite(design).all(axis=1)]
    if len(languages) == 2 and len(known) and np.linalg.matrix_rank(known) < 3:
        languages, design = languages[1:], design[:, [0, 2]]
    fitted = measures.columns if languages and len(measures) <= MOST_MODELS else []
    found = {name: _fit(tables, name, measures[name].to_numpy(float), design, kin) for name in fitted}
    models = {name: model for name, model in found.items() if model is not None}
    seen = {lang: mixed.tokens_b(tables, lang, lang == reference, ends.get(lang, "est")) for lang in languages}
    return Joint(tables, language, languages, design, kin, seen, measures, models, ends)


def slopes(joint: Joint) -> dict[str, dict[str, Estimate]]:
    """Measure → language → coefficient per decade of compute, on the model's scale, with its jackknife error.

    Measures with fewer than three families, or whose slopes are not identified when some family is left out, are
    omitted.
    """
    alike: dict[bytes, list[str]] = {}  # measures with scores of the same models share their covariances
    for name in joint.models:
        alike.setdefault(joint.scores[name].notna().to_numpy().tobytes(), []).append(name)
    return {name: found for names in alike.values() for name, found in _left_out(joint, names).items()}


def _left_out(joint: Joint, names: list[str]) -> dict[str, dict[str, Estimate]]:
    """`slopes` of measures whose scores are known for the same models."""
    x, kin = joint.models[names[0]].design, joint.models[names[0]].kin
    z = np.column_stack([joint.models[name].y for name in names])
    groups = jackknife.rows_of(kin.families)
    rests = [np.delete(np.arange(len(x)), group) for group in groups]
    if len(groups) < jackknife.MIN_FAMILIES or not all(mixed.enough(x[rest]) for rest in rests):
        return {}
    parts = []
    for rest, others in zip(rests, gls.left_out(x, z, kin.blocks(), kin.among, groups)):
        coefficients, _, likelihood = gls.restricted(others, len(rest))
        parts.append(np.einsum("rt,rkt->tk", gls.weights(likelihood), coefficients))
    found = {}
    for t, name in enumerate(names):
        if min(np.ptp(z[rest, t]) for rest in rests) < 1e-12:
            continue  # without one family, all scores are equal
        value = joint.models[name].weight @ joint.models[name].coefficients
        spread = np.sum((np.array(parts)[:, t] - value) ** 2, axis=0) * (len(groups) - 1) / len(groups)
        found[name] = {
            lang: Estimate(float(value[c]), float(np.sqrt(spread[c])), len(groups) - 1)
            for c, lang in enumerate(joint.languages, 1)
        }
    return found


def _fit(
    tables: Tables, name: str, y: Array, design: Array, kin: Kin, of_all: gls.Products | None = None
) -> Mixed | None:
    limits = _limits(tables, name)
    items = mixed.questions(tables, name) if limits else float("nan")
    return mixed.fit(design, y, kin, limits, items, of_all)


def _limits(tables: Tables, name: str) -> tuple[float, float] | None:
    """The range of a task's scores; None for a component."""
    if name not in tables.tasks.index:
        return None
    low, high = (float(tables.tasks.loc[name, end]) for end in ("low", "high"))
    return low, high


def as_json(joint: Joint, effects: Mapping[str, Any]) -> dict[str, Any]:
    """The models as stored in `components.json`; `effects` maps measure → language → effect."""
    return {
        name: {
            "n": len(model.y),
            "families": len(set(model.kin.families)),
            "continual": int(model.kin.continual.sum()),
            "shares": dict(zip(("family", "lineage", "own"), model.shares)),
            "effects": effects.get(name, {}),
        }
        for name, model in joint.models.items()
    }
