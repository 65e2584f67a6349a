"""Preference losses against their papers' formulas in float64, gradients against finite differences."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import log_softmax

from kanana_jax.losses.logprob import log_probs
from kanana_jax.losses.preference import Pair, PreferenceConfig, preference
from kanana_jax.parallel.mesh import MeshConfig, make_mesh

RNG = np.random.default_rng(0)
LENGTHS = Pair(np.array([1.0, 4, 9, 30]), np.array([3.0, 4, 2, 17]))
POLICY = Pair(*(-n * RNG.uniform(0.2, 2, n.shape) for n in LENGTHS))
REFERENCE = Pair(*(-n * RNG.uniform(0.2, 2, n.shape) for n in LENGTHS))


def log_sigmoid(x):
    return -np.logaddexp(0, -x)


def sigmoid(x):
    return np.exp(log_sigmoid(x))


def ratios(policy, reference=REFERENCE):
    return policy.chosen - reference.chosen, policy.rejected - reference.rejected


def means(policy):
    return policy.chosen / LENGTHS.chosen, policy.rejected / LENGTHS.rejected


def dpo(policy, beta=0.1, noise=0.0):
    c, r = ratios(policy)
    return -(1 - noise) * log_sigmoid(beta * (c - r)) - noise * log_sigmoid(beta * (r - c))


def dpo_of_means(policy):
    (c, r), (a, b) = means(policy), means(REFERENCE)
    return -log_sigmoid(5.0 * ((c - a) - (r - b)))


def robust(policy, e=0.2):
    c, r = ratios(policy)
    return (-(1 - e) * log_sigmoid(0.1 * (c - r)) + e * log_sigmoid(-0.1 * (c - r))) / (1 - 2 * e)


def orpo(policy):
    c, r = means(policy)
    odds = np.log(np.exp(c) / (1 - np.exp(c))) - np.log(np.exp(r) / (1 - np.exp(r)))
    return -c - 0.1 * log_sigmoid(odds)


def dpop(policy):
    c, r = ratios(policy)
    return -log_sigmoid(0.1 * (c - r - 50 * np.maximum(0, REFERENCE.chosen - policy.chosen)))


CASES = {
    "dpo": (PreferenceConfig(), dpo),
    "conservative": (PreferenceConfig(beta=0.3, label_smoothing=0.2), lambda p: dpo(p, 0.3, 0.2)),
    "dpo of means": (PreferenceConfig(beta=5.0, length_normalised=True), dpo_of_means),
    "dpo and nll": (PreferenceConfig(nll_weight=0.5), lambda p: dpo(p) - 0.5 * means(p)[0]),
    "hinge": (PreferenceConfig(loss="hinge", beta=0.05), lambda p: np.maximum(0, 1 - 0.05 * np.subtract(*ratios(p)))),
    "ipo": (PreferenceConfig(loss="ipo", beta=0.25), lambda p: (np.subtract(*ratios(p)) - 2) ** 2),
    "robust": (PreferenceConfig(loss="robust", label_smoothing=0.2), robust),
    "apo": (
        PreferenceConfig(loss="apo_zero"),
        lambda p: 1 - sigmoid(0.1 * ratios(p)[0]) + sigmoid(0.1 * ratios(p)[1]),
    ),
    "dpop": (PreferenceConfig(loss="dpop", penalty=50.0), dpop),
    "simpo": (
        PreferenceConfig(loss="simpo", beta=2.0, margin=0.5),
        lambda p: -log_sigmoid(2 * np.subtract(*means(p)) - 0.5),
    ),
    "orpo": (PreferenceConfig(loss="orpo", nll_weight=1.0), orpo),
}


@pytest.mark.parametrize("name", CASES)
def test_a_loss_and_its_gradient_are_those_of_the_formula(name):
    config, formula = CASES[name]
    as_arrays = [Pair(*map(jnp.float32, pair)) for pair in (POLICY, REFERENCE, LENGTHS)]
    found = preference(config, *as_arrays)
    np.testing.assert_allclose(found.loss, formula(POLICY), rtol=2e-5, atol=1e-5)
    gradient = jax.grad(lambda policy: preference(config, policy, *as_arrays[1:]).loss.sum())(as_arrays[0])
    step = 1e-5
    for key in Pair._fields:
        moved = [formula(POLICY._replace(**{key: getattr(POLICY, key) + d})) for d in (step, -step)]
        np.testing.assert_allclose(getattr(gradient, key), (moved[0] - moved[1]) / (2 * step), rtol=1e-3, atol=2e-6)


def test_a_reference_that_is_the_policy_gives_ln_2_and_is_never_differentiated():
    policy, lengths = (Pair(*map(jnp.float32, pair)) for pair in (POLICY, LENGTHS))
    found = preference(PreferenceConfig(), policy, policy, lengths)
    np.testing.assert_allclose(found.loss, np.log(2), rtol=1e-6)
    assert not np.any(found.rewards.chosen) and not np.any(found.rewards.rejected)
    by_reference = jax.grad(lambda ref: preference(PreferenceConfig(), policy, ref, lengths).loss.sum())(policy)
    assert not np.any(by_reference.chosen)
    without = PreferenceConfig(loss="simpo", beta=2.0)
    assert np.isfinite(preference(without, policy, None, lengths).loss).all()


def test_orpo_of_a_certain_answer_is_finite():
    policy, lengths = Pair(jnp.zeros(1), jnp.full(1, -3.0)), Pair(jnp.ones(1), jnp.ones(1))
    config = PreferenceConfig(loss="orpo", nll_weight=1.0)
    value, gradient = jax.value_and_grad(lambda p: preference(config, p, None, lengths).loss.sum())(policy)
    assert np.isfinite(value) and all(np.isfinite(g).all() for g in gradient)


@pytest.mark.parametrize(
    "values, words",
    [
        (dict(beta=0.0), "beta must be above 0"),
        (dict(label_smoothing=0.5), "below one half"),
        (dict(loss="ipo", label_smoothing=0.1), "'sigmoid' and 'robust', not 'ipo'"),
        (dict(margin=1.0), "margin belongs to loss 'simpo'"),
        (dict(loss="dpop"), "set preference.penalty"),
        (dict(loss="robust"), "set preference.label_smoothing"),
        (dict(loss="orpo"), "set preference.nll_weight"),
        (dict(nll_weight=-1.0), "must not be negative"),
    ],
)
def test_settings_that_mean_nothing_are_refused(values, words):
    with pytest.raises(ValueError, match=words):
        PreferenceConfig(**values)
    assert dataclasses.replace(PreferenceConfig(), beta=0.2).needs_reference


@pytest.mark.parametrize("mesh", [None, dict(data=2, fsdp=1, sequence=2, tensor=2)])
def test_log_probabilities_and_any_function_of_them(mesh):
    """Values and gradients of Σ cos(log p) by the whole softmax."""
    rng = np.random.default_rng(1)
    hidden, matrix = rng.normal(size=(4, 6, 16)), rng.normal(size=(40, 16)) / 2
    targets = rng.integers(0, 40, (4, 6))
    cap = 3.0

    def whole(hidden, matrix):
        logits = cap * jnp.tanh(hidden @ matrix.T / cap)
        log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], -1)[..., 0]
        return jnp.cos(log_p).sum(), log_p

    def ours(hidden, matrix):
        log_p = log_probs(hidden, matrix, jnp.asarray(targets), chunk=7, soft_cap=cap)
        return jnp.cos(log_p).sum(), log_p

    arrays = [jnp.asarray(x, jnp.float32) for x in (hidden, matrix)]
    want, (_, want_log_p) = jax.grad(whole, (0, 1), has_aux=True)(*arrays), whole(*arrays)
    run = jax.jit(jax.grad(ours, (0, 1), has_aux=True))
    if mesh is None:
        gradient, log_p = run(*arrays)
    else:
        with jax.set_mesh(make_mesh(MeshConfig(**mesh))):
            gradient, log_p = run(*arrays)
    by_hand = log_softmax(cap * np.tanh(hidden @ matrix.T / cap))
    np.testing.assert_allclose(log_p, np.take_along_axis(by_hand, targets[..., None], -1)[..., 0], atol=1e-5)
    np.testing.assert_allclose(log_p, want_log_p, atol=1e-5)
    for found, wanted in zip(gradient, want[0]):
        np.testing.assert_allclose(found, wanted, atol=2e-5)
