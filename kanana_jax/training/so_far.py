"""Figures of a stage that a resumed run goes on from."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from kanana_jax.training.task import Work


@dataclasses.dataclass
class SoFar:
    """Figures of a stage beside its state, which checkpoints keep.

    Attributes:
      tokens: that it was trained on.
      best: loss of its evaluations; `worse`: how many since were no better.
      judged: step of the last evaluation.
      work: of other models, by role.
    """

    tokens: int = 0
    best: float | None = None
    worse: int = 0
    judged: int = 0
    work: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)

    @staticmethod
    def of(kept: Mapping[str, Any], step: int) -> "SoFar":
        """As the checkpoint of a step keeps them; older ones lack some."""
        judged = kept.get("best"), kept.get("worse", 0), kept.get("judged", step)
        return SoFar(kept["tokens"], *judged, kept.get("work", {}))

    def add(self, work: Work) -> float:
        """Counts the work for a step; returns its FLOPs."""
        for role, spent in work.items():
            own = self.work.setdefault(role, {})
            own |= {what: own.get(what, 0) + value for what, value in spent.items()}
        return sum(spent["flops"] for spent in work.values())
