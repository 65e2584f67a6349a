"""KTO's loss by its formula in float64, its gradient by finite differences; the KL is a constant of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kanana_jax.losses.kto import KtoConfig, kl_estimate, kto

RATIOS, GOOD = np.array([3.0, -2, 0.5, 0, -40, 12]), np.array([1, 0, 1, 0, 1, 0], bool)


@pytest.mark.parametrize("kl", [0.0, 1.7])
def test_the_loss_and_its_gradient_are_those_of_the_formula(kl):
    config = KtoConfig(beta=0.3, desirable=1.2, undesirable=0.8)

    def formula(r):
        value = np.where(GOOD, 1.2, 0.8) / (1 + np.exp(-0.3 * np.where(GOOD, r - kl, kl - r)))
        return np.where(GOOD, 1.2, 0.8) - value  # λ_y − v(x, y)

    def ours(r, z):
        return kto(config, r, jnp.asarray(GOOD), z).sum()

    ratios = jnp.asarray(RATIOS, jnp.float32)
    np.testing.assert_allclose(kto(config, ratios, jnp.asarray(GOOD), jnp.float32(kl)), formula(RATIOS), rtol=2e-5)
    by_ratio, by_kl = jax.grad(ours, (0, 1))(ratios, jnp.float32(kl))
    d = 1e-6
    np.testing.assert_allclose(by_ratio, (formula(RATIOS + d) - formula(RATIOS - d)) / (2 * d), rtol=1e-3, atol=1e-7)
    assert by_kl == 0


def test_the_kl_is_the_mean_over_answers_that_exist_and_never_negative():
    there = jnp.array([True, False, True])
    assert kl_estimate(jnp.array([1.0, 99, 4]), there) == 2.5
    assert kl_estimate(jnp.array([-1.0, 99, -4]), there) == 0
    assert kl_estimate(jnp.array([1.0, 99, 4]), jnp.zeros(3, bool)) == 0
    assert jax.grad(lambda x: kl_estimate(x, there))(jnp.ones(3)).sum() == 0


def test_settings_that_mean_nothing_are_refused():
    for values in (dict(beta=0.0), dict(desirable=0.0), dict(undesirable=-1.0)):
        with pytest.raises(ValueError, match="must be above 0"):
            KtoConfig(**values)
