"""Sampled answers: log-probabilities against a nucleus in float64 and the trainer's own; seeds, ends, devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import log_softmax

from kanana_jax.inference.generate import generate
from kanana_jax.inference.rollout import Answer, RolloutConfig, rollout
from kanana_jax.inference.sampling import SamplingConfig
from kanana_jax.losses.logprob import Drawn, log_probs
from kanana_jax.models.architecture import Architecture, Runtime
from kanana_jax.models.model import Model
from kanana_jax.models.transformer import init_params
from kanana_jax.parallel.mesh import MeshConfig, make_mesh
from kanana_jax.parallel.sharding import tree_shardings
from kanana_jax.stages.answer_rows import answer_rows, row_counts

A = Architecture(
    vocab_size=32,
    embed_dim=32,
    mlp_dim=32,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    max_seq_len=64,
    init_std=0.3,
)
PROMPTS = [np.array(p, np.int32) for p in ([1, 5, 6, 7, 8], [2], [1, 20, 3])]
TOKENS, NEW, N = 29, 8, 4  # three ids are padding of the vocabulary
CASES = {
    "hot": SamplingConfig(temperature=1.7),
    "nucleus": SamplingConfig(temperature=0.8, top_p=0.7),
    "top k": SamplingConfig(temperature=1.3, top_k=4, top_p=0.9),
}


@pytest.fixture(scope="module")
def params():
    return init_params(A, Runtime(), jax.random.key(3))


def _rolled(params, sampling, key=0):
    config = RolloutConfig(samples=N, max_new_tokens=NEW, sampling=sampling)
    how = {"stop": [4, 9], "tokens": TOKENS, "key": jax.random.key(key), "width": 16}
    return rollout(params, Model(A), PROMPTS, config, **how)


@functools.partial(jax.jit, static_argnames="drawn")
def _trained_on(params, rows, cuts, drawn):
    """Logits, and log-probabilities as a stage trains with them."""
    hidden, matrix = Model(A)(params, rows)
    return hidden @ matrix.T, log_probs(hidden, matrix, rows.targets, chunk=16, drawn=drawn, cuts=cuts)


def _support(log_p, sampling):
    """Ids that are drawn from, by the definition: the best k, of these the fewest that hold top_p."""
    order = np.argsort(-log_p, kind="stable")
    kept = order[: sampling.top_k or None]
    share = np.exp(log_p[kept]) / np.exp(log_p[kept]).sum()
    return kept[np.cumsum(share) - share < sampling.top_p]


@pytest.mark.parametrize("name", CASES)
def test_log_probs_are_those_of_what_was_drawn_from(params, name):
    """By the whole model again without a cache, in float64; and by the function that trains."""
    sampling = CASES[name]
    groups = _rolled(params, sampling)
    pairs = [[(prompt, answer)] for prompt, group in zip(PROMPTS, groups) for answer in group]
    made = answer_rows(pairs, 24, with_cuts=True).answers
    logits, again = _trained_on(params, made.rows, made.cuts, Drawn(sampling.temperature, TOKENS))
    log_p = log_softmax(np.asarray(logits, np.float64)[..., :TOKENS] / sampling.temperature)
    checked = 0
    for row, target in zip(*np.nonzero(made.rows.weights)):
        token, support = made.rows.targets[row, target], _support(log_p[row, target], sampling)
        assert token in support
        want = log_p[row, target, token] - np.logaddexp.reduce(log_p[row, target, support])
        assert made.log_probs[row, target] == pytest.approx(want, abs=2e-5)
        assert again[row, target] == pytest.approx(want, abs=2e-5)
        checked += 1
    assert checked == sum(len(answer.ids) for group in groups for answer in group) > 30
    assert made.rows.weights.sum() == checked and (made.log_probs[made.rows.weights == 0] == 0).all()


def test_packed_answers_are_what_they_are_alone(params):
    """Their tokens, log-probabilities and cuts, and log p by the function that trains."""
    sampling = CASES["nucleus"]
    groups = _rolled(params, sampling)
    pairs = [[(prompt, answer)] for prompt, group in zip(PROMPTS, groups) for answer in group]
    alone, packed = answer_rows(pairs, 24, with_cuts=True), answer_rows(pairs, 60, with_cuts=True, counts=(1, 3, 9))
    filled = (packed.answers.rows.segment_ids > 0).any(axis=1)
    assert filled.tolist() == [True, True, False] and len(pairs) > 4
    assert sorted(set(packed.index.flat)) == [-1, *range(len(pairs))]
    assert ((packed.index >= 0) == (packed.answers.rows.weights > 0)).all()
    drawn = Drawn(sampling.temperature, TOKENS)
    trained = [_trained_on(params, made.answers.rows, made.answers.cuts, drawn)[1] for made in (alone, packed)]
    for i, [(_, answer)] in enumerate(pairs):
        for made, log_p in zip((alone, packed), trained):
            own = made.index == i
            assert made.answers.rows.targets[own].tolist() == answer.ids.tolist()
            assert made.answers.log_probs[own].tolist() == answer.log_probs.tolist()
            assert made.answers.cuts[own].tolist() == answer.cuts.tolist()
            np.testing.assert_allclose(log_p[own], answer.log_probs, atol=2e-5)


def test_pairs_stay_together_and_numbers_of_rows_are_few():
    """Pairs of 6, 4 and 4 tokens in rows of 10. A step has as few rows as all pairs fit in, of those that are allowed."""

    def pair(n):
        return [(np.full(n, 5, np.int32), Answer(np.full(1, 6, np.int32), np.zeros(1), np.zeros(1), True))] * 2

    found = answer_rows([pair(2), [], pair(1), pair(1)], 9, with_cuts=False, counts=(2, 4)).answers
    assert found.cuts is None and found.rows.segment_ids.tolist() == [[1, 1, 1, 2, 2, 2, 3, 3, 4], [1, 1, 2, 2] + [0] * 5]
    mesh = make_mesh(MeshConfig(data=2, fsdp=2), jax.devices()[:4])
    assert row_counts(64, 1, mesh) == (8, 16, 32, 64) and row_counts(24, 2, mesh) == (24,)
    assert row_counts(8, 2, mesh) == (8,)


def test_gradients_of_cut_log_probs_are_those_of_differences():
    rng = np.random.default_rng(0)
    hidden, matrix = (rng.normal(size=shape) for shape in ((1, 3, 4), (6, 4)))
    targets, drawn = np.array([[2, 0, 5]], np.int32), Drawn(0.8, 5)
    cuts = np.array([[-1.6, -np.inf, -2.0]])
    weights = rng.normal(size=(1, 3))
    supports = []
    for h, target, cut in zip(hidden[0], targets[0], cuts[0]):
        z = h @ matrix.T / 0.8
        inside = [i for i in range(6) if i < 5 or i == target]
        log_p = z - np.logaddexp.reduce(z[inside])
        supports.append([i for i in inside if log_p[i] > cut or i == target])
    assert sorted(map(len, supports))[0] < 5

    def formula(hidden, matrix):
        z = hidden[0] @ matrix.T / 0.8
        values = [z[i, targets[0, i]] - np.logaddexp.reduce(z[i, s]) for i, s in enumerate(supports)]
        return (np.array(values) * weights[0]).sum()

    def ours(hidden, matrix):
        found = log_probs(hidden, matrix, targets, chunk=2, drawn=drawn, cuts=jnp.float32(cuts))
        return (found * weights).sum()

    arrays = jnp.float32(hidden), jnp.float32(matrix)
    assert float(ours(*arrays)) == pytest.approx(formula(hidden, matrix), rel=1e-5)
    for found, place in zip(jax.jit(jax.grad(ours, argnums=(0, 1)))(*arrays), range(2)):
        for at in np.ndindex(found.shape):
            low, high = ([hidden.copy(), matrix.copy()] for _ in range(2))
            low[place][at] -= 1e-5
            high[place][at] += 1e-5
            assert found[at] == pytest.approx((formula(*high) - formula(*low)) / 2e-5, abs=2e-5)


def test_answers_depend_on_key_and_place_alone(params):
    hot = CASES["hot"]
    one, again, other = _rolled(params, hot), _rolled(params, hot), _rolled(params, hot, key=1)
    ids = [[answer.ids.tolist() for group in groups for answer in group] for groups in (one, again, other)]
    assert ids[0] == ids[1] != ids[2]
    assert len({tuple(answer) for answer in ids[0]}) > 8  # the samples of a prompt differ
    for answer in (answer for group in one for answer in group):
        assert answer.ended == (answer.ids[-1] in (4, 9)) and not set(answer.ids[:-1].tolist()) & {4, 9}
        assert 1 <= len(answer.ids) <= NEW and answer.ids.max() < TOKENS
        assert answer.ended or len(answer.ids) == NEW
    assert any(answer.ended for group in one for answer in group)


def test_the_same_tokens_as_generation_writes(params):
    """One way to decode: the ids of `generate` are those of a rollout without its end."""
    sampling = CASES["nucleus"]
    each = [prompt for prompt in PROMPTS for _ in range(N)]
    written = generate(params, Model(A), each, max_new_tokens=NEW, sampling=sampling, stop=[4, 9], tokens=TOKENS)
    rolled = [answer for group in _rolled(params, sampling) for answer in group]
    assert [a.ids[: len(a.ids) - a.ended].tolist() for a in rolled] == [ids.tolist() for ids in written]


def test_eight_devices_sample_as_one(params):
    want = _rolled(params, CASES["nucleus"])
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    with jax.set_mesh(mesh):
        found = _rolled(jax.device_put(params, tree_shardings(mesh, Model(A).logical_axes())), CASES["nucleus"])
    for one, other in zip((a for group in want for a in group), (a for group in found for a in group)):
        assert one.ids.tolist() == other.ids.tolist() and one.ended == other.ended
        np.testing.assert_allclose(one.log_probs, other.log_probs, atol=1e-5)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (dict(samples=0), "at least 1, not 0 and"),
        (dict(max_new_tokens=0), "at least 1, not 8 and 0"),
        (dict(sampling=SamplingConfig(temperature=0.0)), "all answers to a prompt are the same"),
    ],
)
def test_settings_that_sample_nothing_are_refused(values, told):
    with pytest.raises(ValueError, match=told):
        RolloutConfig(**values)
