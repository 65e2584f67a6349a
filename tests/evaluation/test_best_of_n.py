"""Best-of-N by all subsets, its KL by sampling, and the choice among scorers."""

import itertools

import numpy as np
import pytest

from kanana_jax.errors import UserError
from kanana_jax.evaluation import best_of_n

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_the_expectation_is_that_over_all_subsets_with_ties_shared(n):
    keys, values = RNG.integers(0, 4, (20, 5)).astype(float), RNG.normal(size=(20, 5))
    want = []
    for key, value in zip(keys, values):
        found = []
        for subset in itertools.combinations(range(5), n):
            top = max(key[i] for i in subset)
            found.append(np.mean([value[i] for i in subset if key[i] == top]))
        want.append(np.mean(found))
    np.testing.assert_allclose(best_of_n.expected(keys, values, n), want, rtol=1e-12)


def test_many_answers_do_not_overflow():
    keys = np.arange(2000.0)[None]
    assert best_of_n.expected(keys, keys, 2000) == 1999
    assert best_of_n.expected(keys, keys, 1) == pytest.approx(999.5)
    assert best_of_n.expected(keys, keys, 512) == pytest.approx(512 / 513 * 2001 - 1)


@pytest.mark.parametrize("n", [1, 2, 4, 16])
def test_the_kl_is_that_of_the_highest_of_n_uniform_scores(n):
    """Of density n·u^(n − 1) to 1, by the midpoints of a fine grid."""
    u = (np.arange(1_000_000) + 0.5) / 1_000_000
    density = n * u ** (n - 1)
    kl = np.mean(np.where(density > 0, density * np.log(np.maximum(density, 1e-300)), 0.0))
    assert best_of_n.kl_bound(n) == pytest.approx(kl, abs=1e-4)


def test_the_scorer_whose_choices_are_judged_best_is_selected():
    truth = RNG.normal(size=(200, 8))
    asked = []

    def sample(prompts, n):
        asked.append(n)
        return [[f"{p} {i}" for i in range(n)] for p in prompts]

    def noisy(noise):
        drawn = np.random.default_rng(1).normal(size=truth.shape) * noise + truth

        def score(prompts, texts):
            assert all(text.split()[0] == str(prompt) for prompt, text in zip(prompts, texts, strict=True))
            return np.array([drawn[prompt, int(text.split()[1])] for prompt, text in zip(prompts, texts)])

        return score

    scorers = {"bad": noisy(3.0), "good": noisy(0.5), "useless": lambda prompts, texts: np.zeros(len(texts))}
    found = best_of_n.best_of_n(range(200), sample, scorers, noisy(0.0), 8)
    assert found.best == "good" and asked == [8] and set(found.ahead) == {"bad", "useless"}
    assert [point.n for point in found.curves["good"]] == [1, 2, 4, 8]
    ends = {name: [point.score for point in points] for name, points in found.curves.items()}
    assert sorted(ends["good"]) == ends["good"] and ends["good"][0] == pytest.approx(truth.mean())
    assert ends["useless"] == pytest.approx([truth.mean()] * 4)
    apart = ends["good"][-1] - ends["bad"][-1]
    assert found.ahead["bad"] == (pytest.approx(apart), pytest.approx(0.06, abs=0.04))
    assert found.to_dict()["curves"]["good"][-1]["kl"] == pytest.approx(np.log(8) - 7 / 8)
    assert best_of_n.sizes(12) == [1, 2, 4, 8, 12]


@pytest.mark.parametrize("right", [0, 1, 2, 19, 20])
def test_the_interval_of_a_share_stays_between_nothing_and_all(right):
    judged = np.repeat(np.arange(20) < right, 4).reshape(20, 4).astype(float)
    for point in best_of_n.curve(RNG.normal(size=(20, 4)), judged):
        low, high = point.to_dict()["score_ci95"]
        assert 0 <= low <= point.score <= high <= 1
        if right == 2:  # two of twenty: the normal interval is 0.1 ± 0.135
            assert (low, high) == (0, pytest.approx(0.1 + 1.96 * np.sqrt(0.09 / 19)))


def test_preferences_pair_the_best_with_the_worst_while_scores_differ():
    texts = ["a", "b", " a", "c", "", "d", "cut off", "e"]
    scores = np.array([1.0, 3.0, 1.0, 0.0, 9.0, 1.0, 8.0, 2.0])
    usable = [text != "cut off" for text in texts]
    # Left are b 3, e 2, a 1, d 1, c 0: of the last two of the middle, neither is better.
    assert best_of_n.preferences(texts, scores, usable, 9) == [(1, 3), (7, 5)]
    assert best_of_n.preferences(texts, scores, usable, 1) == [(1, 3)]
    assert best_of_n.preferences(texts, np.ones(8), usable, 9) == []
    assert best_of_n.preferences(["right", "wrong", "right"], np.array([1.0, 0, 1]), [True] * 3, 9) == [(0, 1)]


@pytest.mark.parametrize(
    "score, words",
    [
        (lambda prompts, texts: np.zeros(3), "4 answers got scores of shape"),
        (lambda prompts, texts: [0, np.nan, 1, 2], "got the score nan"),
    ],
)
def test_scores_that_are_none_are_refused(score, words):
    with pytest.raises(UserError, match=words):
        best_of_n.best_of_n(range(2), lambda p, n: [["a", "b"]] * 2, {"s": score}, lambda p, t: np.zeros(len(t)), 2)
    with pytest.raises(UserError, match="needs prompts, a scorer"):
        best_of_n.best_of_n([], lambda p, n: [], {"s": score}, score, 2)
