"""Figures of a stage that a resumed run continues."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from kanana_jax.training.task import Work


@dataclasses.dataclass
class SoFar:
    """Figures of a stage that checkpoints keep besides its state.

    Attributes:
      tokens: number of tokens trained on.
      best: lowest loss of an evaluation; `worse`: number of evaluations since then.
      judged: step of the last evaluation.
      work: work of other models, by role.
    """

    tokens: int = 0
    best: float | None = None
    worse: int = 0
    judged: int = 0
    work: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)

    @staticmethod
    def of(kept: Mapping[str, Any], step: int) -> "SoFar":
        """The figures as a step's checkpoint stores them; older ones lack some."""
        judged = kept.get("best"), kept.get("worse", 0), kept.get("judged", step)
        return SoFar(kept["tokens"], *judged, kept.get("work", {}))

    def add(self, work: Work) -> float:
        """Counts the work for a step; returns its FLOPs."""
        for role, spent in work.items():
            own = self.work.setdefault(role, {})
            own |= {what: own.get(what, 0) + value for what, value in spent.items()}
        return sum(spent["flops"] for spent in work.values())
