"""Effects of compute in a language on a measure, from the mixed models, in interpretable units."""

from typing import TypedDict

import numpy as np

from kanana_jax.observatory import joint as joint_lib
from kanana_jax.observatory.joint import Joint
from kanana_jax.observatory.mixed import Mixed

Array = np.ndarray


class Effect(TypedDict):
    """The effect of one language's compute, with the other language's held fixed.

    Attributes:
      per_decade, ci95: change per tenfold compute, in the measure's units near its mean; the interval is a jackknife
        over families.
      p_rises: one-sided p-value for a positive change: the larger of the jackknife's and the mixed model's, since
      either
        alone is sometimes overconfident in simulations.
      p_falls: the same for a negative change.
      typical_sd: the effect of a typical difference in compute, in standard deviations of the measure. For the local
        language, the typical difference is what pairs added on average (tenfold if there are no pairs); for the
        reference language, one standard deviation of its log compute.
    """

    per_decade: float
    ci95: tuple[float, float]
    p_rises: float
    p_falls: float
    typical_sd: float


def every(joint: Joint) -> dict[str, dict[str, Effect]]:
    """Measure → language → effect; measures without an effect are left out."""
    found = {}
    for name, slopes in joint_lib.slopes(joint).items():
        model = joint.models[name]
        unit, spread = _unit(model), float(np.std(model.y, ddof=1))
        found[name] = {}
        for column, (lang, slope) in enumerate(slopes.items(), 1):
            low, high = slope.ci95
            above = float(model.effect(np.eye(model.design.shape[1])[column]).above(0)[0])
            change = _added(model, column) if lang == joint.language else float(np.std(model.design[:, column], ddof=1))
            found[name][lang] = Effect(
                per_decade=unit * slope.value,
                ci95=(unit * low, unit * high),
                p_rises=max(slope.p_above, 1 - above),
                p_falls=max(1 - slope.p_above, above),
                typical_sd=slope.value * change / spread,
            )
    return found


def _unit(model: Mixed) -> float:
    """The measure's units per unit of the model's scale, at the mean: the derivative of low + width · sin²."""
    if model.limits is None:
        return 1.0
    low, high = model.limits
    return (high - low) * float(np.sin(2 * np.clip(model.y.mean(), 0, np.pi / 2)))


def _added(model: Mixed, column: int) -> float:
    """Decades of compute that continual training added to the bases, on average; 1 if there are no continual models."""
    more = []
    for at in np.flatnonzero(model.kin.continual):
        start = np.flatnonzero((model.kin.roots == model.kin.roots[at]) & ~model.kin.continual)
        more += [model.design[at, column] - model.design[start[0], column]] if len(start) else []
    return float(np.mean(more)) if more else 1.0
