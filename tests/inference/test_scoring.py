"""Log-likelihoods with shared beginnings against the definition: one forward pass a request, all logits."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp

from kanana_jax.inference import scoring
from kanana_jax.models.architecture import Architecture, Runtime
from kanana_jax.models.model import Model
from kanana_jax.models.transformer import abstract_params, bind, init_params
from kanana_jax.parallel.mesh import MeshConfig, make_mesh

A = Architecture(
    vocab_size=40, embed_dim=16, mlp_dim=24, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8, max_seq_len=64,
    init_std=0.4,
)  # fmt: skip
R = Runtime()
PARAMS = init_params(A, R, jax.random.key(0))


def definition(context, continuation):
    whole = np.concatenate([context, continuation])[-(A.max_seq_len + 1) :]
    padded = np.zeros((1, A.max_seq_len), np.int32)  # causal: what follows does not matter
    padded[0, : len(whole) - 1] = whole[:-1]
    logits = np.asarray(_logits(padded), np.float64)[0, : len(whole) - 1][-len(continuation) :]
    log_p = logits - logsumexp(logits, axis=-1, keepdims=True)
    return log_p[np.arange(len(continuation)), continuation].sum(), bool((logits.argmax(-1) == continuation).all())


_logits = jax.jit(lambda tokens: (lambda m: m.unembed(m(tokens)))(bind(A, R, PARAMS)))


def check(requests, found):
    for (context, continuation), (log_likelihood, greedy) in zip(requests, found, strict=True):
        expected, best = definition(np.asarray(context), np.asarray(continuation))
        assert log_likelihood == pytest.approx(expected, abs=1e-4)
        assert greedy == best


def questions(rng):
    """Few-shot prompts of two subjects, four answers each, some of one token, and others alone."""
    requests = []
    for _ in range(2):
        shots = rng.integers(0, 40, 30)
        for _ in range(5):
            context = np.concatenate([shots, rng.integers(0, 40, rng.integers(1, 9))])
            requests += [(context, rng.integers(0, 40, rng.choice([1, 1, 3]))) for _ in range(4)]
    requests += [(rng.integers(0, 40, n), rng.integers(0, 40, m)) for n, m in [(1, 1), (3, 60), (70, 2), (20, 64)]]
    return [requests[i] for i in rng.permutation(len(requests))]


def test_shared_beginnings_change_no_score():
    requests = questions(np.random.default_rng(0))
    counted = []
    check(requests, scoring.score(PARAMS, Model(A, R), requests, batch_size=4, progress=counted.append))
    assert sum(counted) == len(requests)


def test_eight_devices_score_as_one():
    requests = questions(np.random.default_rng(1))
    with jax.set_mesh(make_mesh(MeshConfig(data=2, fsdp=2, sequence=1, tensor=2))):
        check(requests, scoring.score(PARAMS, Model(A, R), requests, batch_size=4))


def test_answers_of_one_token_cost_one_row_a_question():
    context = np.arange(20)
    rows = scoring._rows([(context, np.array([i])) for i in range(4)] + [(context, np.array([1, 2]))], 64)
    assert len(rows) == 1 and len(rows[0].requests) == 5
    (batch,) = scoring._batches(scoring._rows([(context, np.array([i, i])) for i in range(4)], 64), 8)
    assert batch[0] == 19 and len(batch[1]) == 4


def test_the_greedy_continuation_is_known_as_such():
    context, tokens = np.array([5, 6, 7]), []
    for _ in range(4):
        padded = np.zeros((1, 64), np.int32)
        so_far = np.concatenate([context, tokens]).astype(np.int32)
        padded[0, : len(so_far)] = so_far
        tokens.append(int(jnp.argmax(_logits(padded)[0, len(so_far) - 1])))
    other = [*tokens[:-1], (tokens[-1] + 1) % 40]
    found = scoring.score(PARAMS, Model(A, R), [(context, np.array(tokens)), (context, np.array(other))])
    assert [s.greedy for s in found] == [True, False]


def test_of_equal_logits_the_first_is_the_greedy_one():
    """As argmax and the harness's own models have it: parameters of zero give one logit to all."""
    zero = jax.tree.map(jnp.zeros_like, PARAMS)
    found = scoring.score(zero, Model(A, R), [(np.array([5]), np.array([i])) for i in (0, 1, 39)])
    assert [s.greedy for s in found] == [True, False, False]
    assert [s.log_likelihood for s in found] == pytest.approx([-np.log(40)] * 3)


@given(st.lists(st.tuples(st.lists(st.integers(0, 2), min_size=1, max_size=40), st.lists(st.integers(0, 2), min_size=1, max_size=4)), min_size=1, max_size=12))  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_every_request_has_one_row_that_it_is_a_beginning_of(requests):
    requests = [(np.array(a), np.array(b)) for a, b in requests]
    seen = []
    for shared, rows in scoring._batches(scoring._rows(requests, 64), 4):
        assert len(rows) <= 4
        for row in rows:
            assert shared <= row.first and (row.tokens[:shared] == rows[0].tokens[:shared]).all()
            for index, position, targets in row.requests:
                seen.append(index)
                context, continuation = requests[index]
                whole = np.concatenate([context, continuation])
                assert (row.tokens[: len(whole) - 1] == whole[:-1]).all()
                assert position == len(context) - 1 and (targets == continuation).all()
    assert sorted(seen) == list(range(len(requests)))


@pytest.mark.parametrize("context, continuation", [([], [1]), ([1], []), ([1], [0] * 65)])
def test_what_cannot_be_scored_is_refused(context, continuation):
    with pytest.raises(ValueError, match="request 0"):
        scoring.score(PARAMS, Model(A, R), [(np.array(context), np.array(continuation))])


@pytest.mark.parametrize("length,kernel", [(256, True), (192, False)])
def test_on_a_tpu_rows_that_share_nothing_are_read_by_the_kernel(length, kernel):
    """As the compiler is given it for chips that are not here; a length that splash does not take goes without."""
    pytest.importorskip("libtpu")
    from kanana_jax.plan.topology import describe, named

    a = dataclasses.replace(A, head_dim=128, max_seq_len=256)
    shapes = [jax.ShapeDtypeStruct(shape, jnp.int32) for shape in ((4, length), (4,), (), (64, 3))]
    with jax.set_mesh(make_mesh(MeshConfig(), describe(named("v5e-4")))):
        program = scoring._ask.lower(abstract_params(a, R), None, *shapes, model=Model(a, R)).as_text()
    assert ("tpu_custom_call" in program) == kernel
