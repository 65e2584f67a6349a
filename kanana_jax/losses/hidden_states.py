"""Hidden states of a student, compared with the teacher's states that they were cut from.

A pruned student's residual stream is made of channels of its teacher's, and each of its blocks is one of its teacher's,
so that both can be compared without a learned projection. Next to the divergence of the logits such terms help only
after deep cuts of depth (Minitron, arXiv:2407.14679, §3).
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from kanana_jax.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class HiddenConfig:
    """A further term of a distillation loss.

    Attributes:
      weight: weight of the term.
      kind: `cosine`: 1 − cos(student, teacher); `mse`: |student − teacher|² / |teacher|²; for the states of each token.
      layers: layers of the student whose outputs are compared; empty: four spread evenly, including the last.
    """

    weight: float = 1.0
    kind: Literal["cosine", "mse"] = "cosine"
    layers: tuple[int, ...] = ()

    def __post_init__(self):
        if self.weight <= 0:
            raise ValueError(f"hidden.weight must be positive, not {self.weight}: leave out 'hidden' for none")
        if len(set(self.layers)) != len(self.layers):
            raise ValueError(f"hidden.layers names a layer twice: {self.layers}")


@dataclasses.dataclass(frozen=True)
class Matching:
    """Pairs of states to compare.

    Attributes:
      student: layers of the student, ascending.
      teacher: the teacher's layer for each.
      channels: channels of the teacher's residual stream that are the student's, in order; None: all.
    """

    student: tuple[int, ...]
    teacher: tuple[int, ...]
    channels: tuple[int, ...] | None


def match(config: HiddenConfig, layers: tuple[int, ...], channels: tuple[int, ...] | None, key: str) -> Matching:
    """The states to compare by a config.

    Args:
      layers: for each of the student's layers, the teacher's layer that it was.
      channels: see `Matching`.
      key: key of the config's section, for messages.

    Raises:
      ConfigError: a layer that the student does not have.
    """
    total = len(layers)
    count = min(4, total)
    chosen = tuple(sorted(config.layers)) or tuple((i + 1) * total // count - 1 for i in range(count))
    if chosen[0] < 0 or chosen[-1] >= total:
        raise ConfigError(f"config '{key}.layers' is {config.layers}: the student's layers are 0 … {total - 1}")
    return Matching(chosen, tuple(layers[i] for i in chosen), channels)


_LEAST = 1e-12  # least squared length: a state of zeros has no direction


def hidden_term(kind: str, student: jax.Array, teacher: jax.Array, weights: jax.Array) -> jax.Array:
    """Sum over tokens of the mean over layers, float32 scalar.

    Args:
      kind: see `HiddenConfig`.
      student, teacher: `[N, B, T, D]`, of N layers; the teacher gets no gradient.
      weights: `[B, T]`.
    """
    s, t = student.astype(jnp.float32), jax.lax.stop_gradient(teacher).astype(jnp.float32)
    length_NBT = jnp.square(t).sum(axis=-1) + _LEAST
    if kind == "cosine":
        lengths_NBT = (jnp.square(s).sum(axis=-1) + _LEAST) * length_NBT
        each_NBT = 1 - (s * t).sum(axis=-1) * jax.lax.rsqrt(lengths_NBT)
    else:
        each_NBT = jnp.square(s - t).sum(axis=-1) / length_NBT
    return (each_NBT.mean(axis=0) * weights).sum()
