"""Losses on preference pairs, as functions of four log-probabilities and two lengths.

h is the difference of log-ratios, (log π(c) − log ρ(c)) − (log π(r) − log ρ(r)), of the chosen answer c and the
rejected answer r under the policy π and the reference ρ.
"""

import dataclasses
from typing import Generic, Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.nn import log_sigmoid

Value = TypeVar("Value")
Name = Literal["sigmoid", "hinge", "ipo", "robust", "apo_zero", "dpop", "simpo", "orpo"]
# Losses that use no reference.
REFERENCE_FREE: tuple[Name, ...] = ("simpo", "orpo")


class Pair(NamedTuple, Generic[Value]):
    """Two values: for the chosen and for the rejected answer."""

    chosen: Value
    rejected: Value


def by_pair(values_BT: jax.Array, segment_ids_BT: jax.Array) -> Pair[jax.Array]:
    """Sums of values for each answer, `[B, P]`; 0 where a row has fewer than P pairs.

    A chosen answer is an odd segment of its row, its rejected one the next segment. An answer has at least two tokens,
    so P = (T + 1) // 4.
    """
    count = 2 * ((segment_ids_BT.shape[1] + 1) // 4) + 1
    sums = jax.vmap(lambda values, ids: jax.ops.segment_sum(values, ids, count))(values_BT, segment_ids_BT)
    return Pair(sums[:, 1::2], sums[:, 2::2])


@dataclasses.dataclass(frozen=True)
class PreferenceConfig:
    """A loss of preference pairs.

    Attributes:
      loss: `sigmoid`: DPO (arXiv:2305.18290, eq. 7); `hinge`: SLiC-HF (arXiv:2305.10425, eq. 2) of log-ratios; `ipo`
        (arXiv:2310.12036, eq. 17); `robust` (arXiv:2403.00409, eq. 12); `apo_zero` (arXiv:2408.06266, eq. 7); `dpop`
        (arXiv:2402.13228, eq. 3); `simpo` (arXiv:2405.14734, eq. 6); `orpo` (arXiv:2403.07691, eq. 6 and 7).
      beta: strength of the reference's pull: rewards are β times log-ratios; the weight λ of the odds in ORPO.
      length_normalised: use means of log-probabilities over tokens, not sums (Tülu 3, arXiv:2411.15124, eq. 6).
        SimPO and ORPO always use means. TRL's IPO uses them, the paper's formula does not.
      label_smoothing: probability that a pair's preference is reversed; for `sigmoid` (conservative DPO) and
        `robust`.
      margin: SimPO's γ.
      penalty: DPOP's λ, on chosen answers that become less likely than under the reference.
      nll_weight: weight of the mean negative log-likelihood of the chosen answer (arXiv:2404.19733, eq. 1); ORPO: 1.
    """

    loss: Name = "sigmoid"
    beta: float = 0.1
    length_normalised: bool = False
    label_smoothing: float = 0.0
    margin: float = 0.0
    penalty: float = 0.0
    nll_weight: float = 0.0

    def __post_init__(self):
        if not self.beta > 0:
            raise ValueError(f"preference.beta must be above 0, not {self.beta}")
        if not 0 <= self.label_smoothing < 0.5:
            raise ValueError("preference.label_smoothing must be a probability below one half")
        if self.nll_weight < 0:
            raise ValueError("preference.nll_weight must not be negative")
        self._only("label_smoothing", "sigmoid", "robust")
        self._only("margin", "simpo")
        self._only("penalty", "dpop")
        if self.loss == "robust" and not self.label_smoothing:
            raise ValueError("the robust loss needs a label_smoothing above 0: set preference.label_smoothing")
        if self.loss == "dpop" and not self.penalty:
            raise ValueError("DPOP without a penalty is DPO: set preference.penalty (50 in the paper)")
        if self.loss == "orpo" and not self.nll_weight:
            raise ValueError("ORPO adds the odds term to a likelihood: set preference.nll_weight (1 in the paper)")

    def _only(self, key: str, *losses: Name) -> None:
        if getattr(self, key) and self.loss not in losses:
            raise ValueError(f"preference.{key} belongs to loss {' and '.join(map(repr, losses))}, not '{self.loss}'")

    @property
    def needs_reference(self) -> bool:
        return self.loss not in REFERENCE_FREE

    @property
    def takes_means(self) -> bool:
        """Whether log-probabilities are means over tokens instead of sums."""
        return self.length_normalised or not self.needs_reference


class Preference(NamedTuple):
    """A loss for each pair, and its components; float32 `[…]` over pairs.

    Attributes:
      loss: the value to minimise.
      rewards: β times the log-ratio of each answer; without a reference, β times its log-probability.
      nll: mean negative log-likelihood of the chosen answer's tokens.
    """

    loss: jax.Array
    rewards: Pair[jax.Array]
    nll: jax.Array


def preference(
    config: PreferenceConfig,
    policy: Pair[jax.Array],
    reference: Pair[jax.Array] | None,
    lengths: Pair[jax.Array],
) -> Preference:
    """A preference loss for each pair.

    Args:
      policy, reference: Σ log p of each answer's tokens, float32 `[…]`; `reference` is not read if the loss needs
        none.
      lengths: tokens of each answer, at least 1.
    """
    means = Pair(*(log_p / length for log_p, length in zip(policy, lengths)))
    scores = means if config.takes_means else policy
    if config.needs_reference:
        assert reference is not None
        scale = lengths if config.takes_means else Pair(1.0, 1.0)
        scores = Pair(*(own - jax.lax.stop_gradient(ref) / n for own, ref, n in zip(scores, reference, scale)))
    rewards = Pair(*(config.beta * score for score in scores))
    loss = _pairwise(config, scores, rewards) + config.nll_weight * -means.chosen
    return Preference(loss, rewards, -means.chosen)


def _pairwise(config: PreferenceConfig, scores: Pair[jax.Array], rewards: Pair[jax.Array]) -> jax.Array:
    beta, noise = config.beta, config.label_smoothing
    h = scores.chosen - scores.rejected
    match config.loss:
        case "sigmoid":
            return -(1 - noise) * log_sigmoid(beta * h) - noise * log_sigmoid(-beta * h)
        case "robust":
            return (-(1 - noise) * log_sigmoid(beta * h) + noise * log_sigmoid(-beta * h)) / (1 - 2 * noise)
        case "hinge":
            return jax.nn.relu(1 - beta * h)
        case "ipo":
            return jnp.square(h - 1 / (2 * beta))
        case "apo_zero":
            return jax.nn.sigmoid(-rewards.chosen) + jax.nn.sigmoid(rewards.rejected)
        case "dpop":
            return -log_sigmoid(beta * (h - config.penalty * jax.nn.relu(-scores.chosen)))
        case "simpo":
            return -log_sigmoid(beta * h - config.margin)
        case "orpo":
            return -beta * log_sigmoid(h - _log1mexp(scores.chosen) + _log1mexp(scores.rejected))


def _log1mexp(x: jax.Array) -> jax.Array:
    """log(1 − exp x) for x < 0; if exp x rounds to 1, the value at the next smaller x."""
    return jnp.log(-jnp.expm1(jnp.minimum(x, -1e-7)))
