"""Policy gradients against their papers' formulas in float64, gradients against finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kanana_jax.losses.policy import PolicyConfig, advantages, policy_loss

RNG = np.random.default_rng(0)
WEIGHTS = np.array([[0, 1, 1, 1, 0], [1, 1, 0, 0, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]], np.float64)
LOG_P, SAMPLED, REFERENCE = (-RNG.uniform(0.1, 3, WEIGHTS.shape) for _ in range(3))
# Small differences, so that some ratios lie within the clip.
SAMPLED = LOG_P + RNG.uniform(-0.6, 0.6, WEIGHTS.shape)
GAINS = np.array([1.3, -0.7, 0.4, 2.0])
BY_TOKEN = np.repeat(GAINS[:, None], 5, axis=1)
SEGMENTS = np.ones(WEIGHTS.shape, np.int32)


def by_hand(config, log_p):
    """The loss, token by token."""
    total = weight = 0.0
    for row, gain in enumerate(GAINS):
        places = np.flatnonzero(WEIGHTS[row])
        if not len(places):
            continue
        x = log_p[row, places] - SAMPLED[row, places]
        ratios = np.exp(np.full(len(x), x.mean()) if config.ratio == "sequence" else x)
        values = []
        for place, ratio in zip(places, ratios):
            if config.importance == "clipped":
                low, high = 1 - config.clip_low, 1 + config.clip_high
                value = -min(ratio * gain, min(max(ratio, low), high) * gain)
            else:
                value = None  # its value has no meaning, its gradient is tested
            y = REFERENCE[row, place] - log_p[row, place]
            values.append((value or 0.0) + config.kl_weight * (np.exp(y) - 1 - y))
        share = 1.0 if config.average == "token" else 1 / len(places)
        total += share * sum(values)
        weight += share * len(places)
    return total, weight


def ours(config, log_p):
    arrays = (jnp.float32(x) for x in (SAMPLED, REFERENCE, BY_TOKEN, WEIGHTS))
    return policy_loss(config, log_p, *arrays, SEGMENTS)


CONFIGS = {
    "grpo": PolicyConfig(clip_high=0.2, average="answer", kl_weight=0.04),
    "dapo": PolicyConfig(),
    "gspo": PolicyConfig(ratio="sequence", average="answer", clip_low=0.03, clip_high=0.04),
    "wide": PolicyConfig(clip_low=0.9, clip_high=5.0, kl_weight=1.0),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_loss_and_its_gradient_are_those_of_the_formula(name):
    config = CONFIGS[name]
    found = ours(config, jnp.float32(LOG_P))
    want, weight = by_hand(config, LOG_P)
    assert float(found.loss) == pytest.approx(want, rel=1e-5) and float(found.weight) == pytest.approx(weight)
    gradient = jax.grad(lambda log_p: ours(config, log_p).loss)(jnp.float32(LOG_P))
    for at in np.ndindex(LOG_P.shape):
        low, high = LOG_P.copy(), LOG_P.copy()
        low[at] -= 1e-6
        high[at] += 1e-6
        difference = (by_hand(config, high)[0] - by_hand(config, low)[0]) / 2e-6
        assert gradient[at] == pytest.approx(difference, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("ratio", ["token", "sequence"])
def test_truncated_importance_weighs_the_gradient_of_log_p(ratio):
    config = PolicyConfig(importance="truncated", cap=1.2, ratio=ratio, average="answer")
    gradient = np.asarray(jax.grad(lambda log_p: ours(config, log_p).loss)(jnp.float32(LOG_P)))
    capped = 0
    for row, gain in enumerate(GAINS):
        x, count = LOG_P[row] - SAMPLED[row], max(WEIGHTS[row].sum(), 1)
        x = np.full_like(x, (x * WEIGHTS[row]).sum() / count) if ratio == "sequence" else x
        np.testing.assert_allclose(
            gradient[row], -np.minimum(np.exp(x), 1.2) * gain * WEIGHTS[row] / count, rtol=1e-5, atol=1e-7
        )
        capped += ((np.exp(x) > 1.2) * WEIGHTS[row]).sum() / count
    assert float(ours(config, jnp.float32(LOG_P)).metrics["clipped"]) == pytest.approx(capped) and capped


def test_on_policy_all_are_the_plain_policy_gradient():
    """At a ratio of 1 clip, cap and granularity do not matter."""
    log_p = jnp.float32(LOG_P)
    for config in (
        PolicyConfig(average="answer"),
        PolicyConfig(importance="truncated", average="answer"),
        PolicyConfig(ratio="sequence", average="answer"),
    ):

        def loss(x, config=config):
            return policy_loss(config, x, log_p, None, jnp.float32(BY_TOKEN), jnp.float32(WEIGHTS), SEGMENTS).loss

        counts = np.maximum(WEIGHTS.sum(1, keepdims=True), 1)
        np.testing.assert_allclose(jax.grad(loss)(log_p), -GAINS[:, None] * WEIGHTS / counts, rtol=1e-6)


@pytest.mark.parametrize("name", CONFIGS)
def test_answers_of_one_row_are_those_of_many(name):
    """All in one row, each a segment of its own, with padding at the end."""

    def packed(values, filled=0.0):
        return jnp.asarray([[*np.reshape(values, -1), *[filled] * 3]])

    def of_row(log_p):
        arrays = (jnp.float32(packed(x)) for x in (SAMPLED, REFERENCE, BY_TOKEN, WEIGHTS))
        ids = packed(SEGMENTS * np.arange(1, 5)[:, None], 0).astype(jnp.int32)
        return policy_loss(CONFIGS[name], log_p, *arrays, ids)

    apart, together = (f(jnp.float32(x)) for f, x in ((lambda x: ours(CONFIGS[name], x), LOG_P), (of_row, packed(LOG_P))))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), apart, together)
    apart = jax.grad(lambda x: ours(CONFIGS[name], x).loss)(jnp.float32(LOG_P))
    together = jax.grad(lambda x: of_row(x).loss)(jnp.float32(packed(LOG_P)))
    np.testing.assert_allclose(together[0, :-3], apart.reshape(-1), rtol=1e-5, atol=1e-7)


def test_metrics_are_means_over_what_is_divided_by():
    found = ours(PolicyConfig(kl_weight=0.1), jnp.float32(LOG_P))
    there = WEIGHTS > 0
    x, y = (LOG_P - SAMPLED)[there], (REFERENCE - LOG_P)[there]
    means = {name: float(value / found.weight) for name, value in found.metrics.items()}
    assert means["mismatch"] == pytest.approx(np.abs(x).mean(), rel=1e-5)
    assert means["ratio"] == pytest.approx(np.exp(x).mean(), rel=1e-5)
    assert means["kl"] == pytest.approx((np.exp(y) - 1 - y).mean(), rel=1e-5)


def test_advantages_of_groups():
    rewards = np.array([[1.0, 0, 0, 0], [2, 2, 2, 2], [0, 1, 2, 3]])
    grpo = advantages(PolicyConfig(), rewards)
    for group, found in zip(rewards, grpo):
        std = group.std()
        np.testing.assert_allclose(found, 0 if not std else (group - group.mean()) / std, rtol=1e-6)
    rloo = advantages(PolicyConfig(baseline="leave_one_out", scale=False), rewards)
    for group, found in zip(rewards, rloo):
        np.testing.assert_allclose(found, [r - np.delete(group, i).mean() for i, r in enumerate(group)], atol=1e-6)
    dr_grpo = advantages(PolicyConfig(scale=False), rewards)
    np.testing.assert_allclose(dr_grpo, rewards - rewards.mean(1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (dict(clip_low=0.0), "0 < clip_low <= 1"),
        (dict(cap=0.5), "policy.cap must be at least 1, not 0.5"),
        (dict(kl_weight=float("nan")), "must not be negative, not nan"),
        (dict(ratio="sequence"), "set policy.average='answer'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(values, told):
    with pytest.raises(ValueError, match=told):
        PolicyConfig(**values)
