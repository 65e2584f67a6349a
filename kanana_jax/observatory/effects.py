"""What compute in a language does to a measure, by the mixed model, in units that can be read."""

from typing import TypedDict

import numpy as np

from kanana_jax.observatory import joint as joint_lib
from kanana_jax.observatory.joint import Joint
from kanana_jax.observatory.mixed import Mixed

Array = np.ndarray


class Effect(TypedDict):
    """One language's compute, the other's held fixed.

    Attributes:
      per_decade, ci95: change with ten times the compute, in the measure's units about its mean, by family left out.
      p_rises: one-sided p-value for a change above zero: the larger one of the jackknife and of the mixed model's own
        mixture of Student's t, since either alone is now and then too sure of itself (simulated).
      p_falls: likewise for a change below zero.
      typical_sd: what a typical difference does, in standard deviations of the measure: of the local language what
        pairs added on average (ten times without pairs), of the reference one standard deviation of its log compute.
    """

    per_decade: float
    ci95: tuple[float, float]
    p_rises: float
    p_falls: float
    typical_sd: float


def every(joint: Joint) -> dict[str, dict[str, Effect]]:
    """Measure → language → its effect; measures without one are left out."""
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
    """The measure's units in one of the model's, at the mean: the derivative of low + width · sin²."""
    if model.limits is None:
        return 1.0
    low, high = model.limits
    return (high - low) * float(np.sin(2 * np.clip(model.y.mean(), 0, np.pi / 2)))


def _added(model: Mixed, column: int) -> float:
    """Decades that the continual models have more than the model that they come from, on average; without any, one."""
    more = []
    for at in np.flatnonzero(model.kin.continual):
        start = np.flatnonzero((model.kin.roots == model.kin.roots[at]) & ~model.kin.continual)
        more += [model.design[at, column] - model.design[start[0], column]] if len(start) else []
    return float(np.mean(more)) if more else 1.0
