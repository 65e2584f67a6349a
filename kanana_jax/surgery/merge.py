"""Merging: one model from the weights of several of one shape, a tensor at a time in float32.

linear           Σ wᵢ·θᵢ / Σ wᵢ                     model soups, arXiv:2203.05482, §2
slerp            along the arc from θ₁ to θ₂         Shoemake, SIGGRAPH 1985
task_arithmetic  θ₀ + λ·Σ wᵢ·τᵢ                      arXiv:2212.04089, §2; τᵢ = θᵢ − θ₀
ties             trim, elect signs, disjoint mean    arXiv:2306.01708, §3
dare_ties        drop and rescale, elect, mean       arXiv:2311.03099, §3.2
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

Method = Literal["linear", "slerp", "task_arithmetic", "ties", "dare_ties"]
# Two tensors with at least this cosine count as parallel: the arc is the line between them.
_PARALLEL = 0.9995


@dataclasses.dataclass(frozen=True)
class MergeConfig:
    """A merge.

    Attributes:
      models: stages, or model folders, of one architecture and tokenizer.
      method: see above; all but `linear` and `slerp` add differences from the model that the stage starts from.
      weights: weights of the models; empty: all 1. `linear`, `ties` and `dare_ties` divide by their sum. Of `slerp` the
        second's share is the position on the arc.
      scale: λ, the factor on the merged difference.
      density: the share of each difference that `ties` keeps (the largest values of each tensor) or `dare_ties` keeps
        at random.
      seed: seed for `dare_ties`.
    """

    models: tuple[str, ...]
    method: Method = "linear"
    weights: tuple[float, ...] = ()
    scale: float = 1.0
    density: float = 0.2
    seed: int = 0

    def __post_init__(self):
        count, weights = len(self.models), self.weights or (1.0,) * len(self.models)
        if not count or len(set(self.models)) < count:
            raise ValueError("merge.models must name at least one model, and each only once")
        if count != len(weights):
            raise ValueError(f"merge.weights has {len(weights)} numbers for {count} models")
        if self.method == "slerp" and count != 2:
            raise ValueError(f"'slerp' merges two models, not {count}: use 'linear', or merge in steps")
        if self.method != "task_arithmetic" and (min(weights) < 0 or sum(weights) <= 0):
            raise ValueError(f"merge.weights of '{self.method}' must not be negative, and at least one must be above 0")
        if not 0 < self.density <= 1:
            raise ValueError(f"merge.density must be above 0 and at most 1, not {self.density}")
        if self.seed < 0:
            raise ValueError(f"merge.seed must not be negative, not {self.seed}")
        object.__setattr__(self, "weights", tuple(float(weight) for weight in weights))

    @property
    def from_base(self) -> bool:
        """Whether the method merges differences from a base."""
        return self.method not in ("linear", "slerp")

    @property
    def used(self) -> tuple[int, ...]:
        """The indices of the models whose weight is not 0; the others are not read."""
        return tuple(i for i, weight in enumerate(self.weights) if weight)


def merged(config: MergeConfig, base: np.ndarray, models: Sequence[np.ndarray], draw: Sequence[int] = ()) -> np.ndarray:
    """One tensor of the result, float32.

    Args:
      base: the tensor of the base model.
      models: the same tensor of `config.used`.
      draw: the tensor's name, for the random choices of `dare_ties`.
    """
    weights = [np.float32(config.weights[i]) for i in config.used]
    values = [value.astype(np.float32) for value in models]
    if config.method == "linear":
        return values[0] if len(values) == 1 else _sum(weights, values) / np.float32(sum(weights))
    if config.method == "slerp":
        return values[0] if len(values) == 1 else slerp(*values, float(weights[1] / sum(weights)))
    base = base.astype(np.float32)
    tasks = [value - base for value in values]
    if config.method == "task_arithmetic":
        return base + np.float32(config.scale) * _sum(weights, tasks)
    if config.method == "ties":
        tasks = [trimmed(task, config.density) for task in tasks]
    else:
        tasks = [
            dropped(task, config.density, np.random.default_rng([config.seed, i, *draw]))
            for i, task in zip(config.used, tasks)
        ]
    return base + np.float32(config.scale) * elected(weights, tasks, rescaled=config.method == "dare_ties")


def _sum(weights: Sequence[np.float32], values: Sequence[np.ndarray]) -> np.ndarray:
    total = weights[0] * values[0]
    for weight, value in zip(weights[1:], values[1:]):
        total += weight * value
    return total


def slerp(first: np.ndarray, second: np.ndarray, place: float) -> np.ndarray:
    """The point at `place` (0: the first, 1: the second) of the arc between two tensors, treated as vectors.

    Lengths are interpolated with the directions, as in the formula for vectors of any length. Tensors
    that are nearly parallel, or zero, are interpolated linearly.
    """
    a, b = first.reshape(-1).astype(np.float64), second.reshape(-1).astype(np.float64)
    lengths = np.sqrt(a @ a) * np.sqrt(b @ b)
    cosine = 1.0 if lengths == 0 else float(np.clip(a @ b / lengths, -1.0, 1.0))
    if abs(cosine) > _PARALLEL:
        shares = (1.0 - place, place)
    else:
        angle = np.arccos(cosine)
        shares = tuple(np.sin(part * angle) / np.sin(angle) for part in (1.0 - place, place))
    return (shares[0] * first.astype(np.float64) + shares[1] * second.astype(np.float64)).astype(np.float32)


def trimmed(task: np.ndarray, density: float) -> np.ndarray:
    """The largest values by magnitude, the others 0; ties at the border all stay."""
    sizes = np.abs(task).reshape(-1)
    cut = len(sizes) - int(np.ceil(density * len(sizes)))
    return np.where(np.abs(task) >= np.partition(sizes, cut)[cut], task, np.float32(0))


def dropped(task: np.ndarray, density: float, draws: np.random.Generator) -> np.ndarray:
    """Values kept at random and divided by their share, so that the mean over draws is the task vector."""
    return np.where(draws.random(task.shape, np.float32) < density, task / np.float32(density), np.float32(0))


def elected(weights: Sequence[np.float32], tasks: Sequence[np.ndarray], *, rescaled: bool) -> np.ndarray:
    """The mean of the values that have the sign of the weighted sum.

    Args:
      rescaled: whether the rest makes up for values dropped at random: the mean is then over all models, not over
        those that agree, which would count it twice.
    """
    sign = np.sign(_sum(weights, tasks))
    kept = [np.where(np.sign(task) == sign, task, np.float32(0)) for task in tasks]
    if rescaled:
        return _sum(weights, kept) / np.float32(sum(weights))
    shares = _sum(weights, [(value != 0).astype(np.float32) for value in kept])
    return _sum(weights, kept) / np.where(shares > 0, shares, np.float32(1))
