"""The loss of reward models by its formula in float64; its gradient by finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kanana_jax.losses.preference import Pair
from kanana_jax.losses.reward import RewardLossConfig, bradley_terry

CHOSEN, REJECTED, MARGINS = np.array([[1.0, -2, 9, 0], [0.5, 0.1, -30, 0], [0, 1, 0.5, 2]])


@pytest.mark.parametrize("margin, centring", [(False, 0.0), (True, 0.0), (True, 0.3)])
def test_the_loss_and_its_gradient_are_those_of_the_formula(margin, centring):
    def formula(c, r):
        return np.log1p(np.exp(-(c - r - margin * MARGINS))) + centring * (c + r) ** 2

    config = RewardLossConfig(margin, centring)

    def ours(c, r):
        return bradley_terry(config, Pair(c, r), jnp.asarray(MARGINS, jnp.float32)).sum()

    arrays = jnp.asarray(CHOSEN, jnp.float32), jnp.asarray(REJECTED, jnp.float32)
    found = bradley_terry(config, Pair(*arrays), jnp.asarray(MARGINS, jnp.float32))
    np.testing.assert_allclose(found, formula(CHOSEN, REJECTED), rtol=1e-5)
    d = 1e-6
    by_chosen, by_rejected = jax.grad(ours, (0, 1))(*arrays)
    want = (formula(CHOSEN + d, REJECTED) - formula(CHOSEN - d, REJECTED)) / (2 * d)
    np.testing.assert_allclose(by_chosen, want, rtol=1e-3, atol=1e-6)
    want = (formula(CHOSEN, REJECTED + d) - formula(CHOSEN, REJECTED - d)) / (2 * d)
    np.testing.assert_allclose(by_rejected, want, rtol=1e-3, atol=1e-6)


def test_a_negative_centring_is_refused():
    with pytest.raises(ValueError, match="centring must be a weight of at least 0"):
        RewardLossConfig(centring=-1.0)
