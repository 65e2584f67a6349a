"""The loss of a reward model on pairs: the likelihood of the preference under the Bradley-Terry model."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.nn import log_sigmoid

from kanana_jax.losses.preference import Pair


@dataclasses.dataclass(frozen=True)
class RewardLossConfig:
    """The loss of a reward model.

    Attributes:
      margin: whether a pair's field `margin` says how far apart its rewards must be (arXiv:2307.09288, eq. 2); a pair
        without the field has 0.
      centring: weight of (r_c + r_r)², which pulls rewards to a mean of 0 (arXiv:2312.09244, eq. 2; 0.01 there).
    """

    margin: bool = False
    centring: float = 0.0

    def __post_init__(self):
        if self.centring < 0:
            raise ValueError(f"reward.centring must be a weight of at least 0, not {self.centring}")


def bradley_terry(config: RewardLossConfig, rewards: Pair[jax.Array], margins: jax.Array) -> jax.Array:
    """−log σ(r_c − r_r − m) + centring · (r_c + r_r)² for each pair (arXiv:1706.03741, eq. 1), float32 `[…]`.

    Args:
      rewards: rewards of both answers, `[…]`.
      margins: `[…]`, not read if the config uses none.
    """
    apart = rewards.chosen - rewards.rejected
    if config.margin:
        apart = apart - margins
    return -log_sigmoid(apart) + config.centring * jnp.square(rewards.chosen + rewards.rejected)
