"""Generation: batches of unequal prompts, sampling, stopping, seeds."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kanana_jax.inference import generate as generating
from kanana_jax.inference.generate import generate
from kanana_jax.inference.sampling import SamplingConfig, sample
from kanana_jax.models import layers
from kanana_jax.models.architecture import Architecture, LayerKind, Runtime
from kanana_jax.models.cache import apart as cache_apart
from kanana_jax.models.cache import empty_cache
from kanana_jax.models.model import Model
from kanana_jax.models.transformer import bind, init_params
from kanana_jax.parallel.mesh import MeshConfig, make_mesh

A = Architecture(
    vocab_size=31,
    embed_dim=24,
    mlp_dim=32,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    max_seq_len=64,
    init_std=0.3,
)
PROMPTS = [np.array(p, np.int32) for p in ([1, 5, 6, 7, 8, 9, 10, 11, 12], [1], [1, 20, 3])]


@pytest.fixture(scope="module")
def params():
    return init_params(A, Runtime(), jax.random.key(3))


@jax.jit
def _logits(params, ids_1T):
    model = bind(A, Runtime(), params)
    return model.unembed(model(ids_1T))


def _slow_greedy(params, prompt, n, stop=()):
    """The definition: run the whole model again for every token."""
    ids = list(prompt)
    for _ in range(n):
        padded = jnp.asarray(
            [ids + [0] * (A.max_seq_len - len(ids))], jnp.int32
        )  # causal: what follows does not matter
        token = int(jnp.argmax(_logits(params, padded)[0, len(ids) - 1]))
        if token in stop:
            break
        ids.append(token)
    return ids[len(prompt) :]


@pytest.mark.parametrize("least", [0, generating.UNSTACKED_READS])
def test_greedy_batch_equals_one_by_one_without_cache(params, monkeypatch, least):
    """Each layer with arrays of its own, and layers in a stack."""
    monkeypatch.setattr(generating, "UNSTACKED_READS", least)
    got = generate(params, Model(A), PROMPTS, max_new_tokens=12)
    for prompt, ids in zip(PROMPTS, got):
        assert ids.tolist() == _slow_greedy(params, prompt, 12)


def test_layers_of_their_own_compute_what_a_stack_computes():
    """Windows shorter than what was read, a layer without RoPE, and a period that is cut short."""
    a = dataclasses.replace(A, num_layers=3, layer_pattern=(LayerKind(window=3), LayerKind(rope=False)))
    whole, rng = Model(a), np.random.default_rng(1)
    single = Model(dataclasses.replace(a, layer_pattern=a.kinds))
    params = init_params(a, Runtime(), jax.random.key(4))
    read, token = (jnp.asarray(rng.integers(0, 31, (2, n)), jnp.int32) for n in (6, 1))

    @jax.jit
    def both(params):
        stacked = whole.bind(params)
        _, cache = stacked(read, cache=empty_cache(a, 2, 8, "float32"))
        weights = layers.apart(stacked.block_weights())
        return stacked(token, cache=cache), single.bind(params)(token, cache=cache_apart(a, cache), weights=weights)

    (hidden, cache), (found, caches) = both(params)
    np.testing.assert_allclose(found, hidden, atol=1e-6)
    for ours, theirs in ((caches.k, cache_apart(a, cache).k), (caches.v, cache_apart(a, cache).v)):
        assert len(ours) == 3
        for x, y in zip(ours, theirs):
            np.testing.assert_allclose(x, y, atol=1e-6)


def test_prompts_that_begin_alike_read_that_once_and_write_the_same(params, monkeypatch):
    """Beginnings of 17 tokens, which rounding pads; one prompt goes on by a single token."""
    shared, read = np.random.default_rng(0).integers(0, 31, 17), []
    prompts = [np.concatenate([shared, rest]).astype(np.int32) for rest in ([1], [5, 6, 7, 8], [20, 3], [5, 6, 9])]
    original = generating.read
    monkeypatch.setattr(generating, "read", lambda p, ids, model: read.append(len(ids)) or original(p, ids, model))
    got = generate(params, Model(A), prompts, max_new_tokens=8)
    assert read == [17] and [ids.tolist() for ids in got] == [_slow_greedy(params, p, 8) for p in prompts]
    # The same prompt twice: its last token is read by each.
    got = generate(params, Model(A), [prompts[1]] * 2, max_new_tokens=8)
    assert read == [17, 20] and got[0].tolist() == got[1].tolist() == _slow_greedy(params, prompts[1], 8)
    with jax.set_mesh(make_mesh(MeshConfig(data=2, fsdp=2, sequence=1, tensor=2))):
        got = generate(params, Model(A), prompts, max_new_tokens=8)
    assert read[2:] == [17] and [ids.tolist() for ids in got] == [_slow_greedy(params, p, 8) for p in prompts]


@pytest.mark.parametrize("sampling", [SamplingConfig(), SamplingConfig(temperature=5.0, top_p=0.99)])
def test_rows_beyond_the_tokenizer_are_never_drawn(params, sampling):
    """Greedily: the best of the others, at every token; else the model draws padding at such a temperature soon."""
    free = generate(params, Model(A), PROMPTS, max_new_tokens=24, sampling=sampling)
    assert max(map(max, free)) >= 20
    got = generate(params, Model(A), PROMPTS, max_new_tokens=24, sampling=sampling, tokens=20)
    assert all(len(ids) == 24 and max(ids) < 20 for ids in got)
    if not sampling.temperature:
        small = dataclasses.replace(A, vocab_size=20)
        cut = {**params, "embedding": params["embedding"][:20], "unembedding": params["unembedding"][:20]}
        prompts = [PROMPTS[0], PROMPTS[1]]
        want = generate(cut, Model(small), prompts, max_new_tokens=24)
        assert [x.tolist() for x in got[:2]] == [x.tolist() for x in want]


def test_stop_tokens_end_a_row_and_only_that_row(params):
    free = [_slow_greedy(params, p, 12) for p in PROMPTS]
    stop = free[0][4]
    got = generate(params, Model(A), PROMPTS, max_new_tokens=12, stop=[stop])
    for ids, whole in zip(got, free):
        assert ids.tolist() == (whole[: whole.index(stop)] if stop in whole else whole)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_row_that_is_finished_ends_and_the_others_go_on(params, temperature):
    """Looking in between changes no token: greedy or drawn."""
    sampling = SamplingConfig(temperature=temperature)
    free = generate(params, Model(A), PROMPTS, max_new_tokens=13, sampling=sampling)
    asked = []

    def finished(row, ids):
        asked.append(len(ids))
        assert ids.tolist() == free[row][: len(ids)].tolist()
        return ids.tolist() == free[1][: len(ids)].tolist() and len(ids) >= 8

    got = generate(params, Model(A), PROMPTS, max_new_tokens=13, sampling=sampling, finished=finished, check_every=4)
    assert [len(ids) for ids in got] == [13, 8, 13] and asked == [4, 4, 4, 8, 8, 8, 12, 12]
    for ids, whole in zip(got, free):
        assert ids.tolist() == whole[: len(ids)].tolist()


def _words(rows):
    """`Allowed`'s words of sets of tokens, by Python's integers."""
    return np.asarray([[sum(1 << token for token in row)] for row in rows], np.uint32).view(np.int32)


@pytest.mark.parametrize("temperature", [0.0, 5.0])
def test_only_allowed_tokens_are_drawn(params, temperature):
    """A text may only go up by at most two ids at a time; greedily, it is the best of these, computed anew each time."""
    model, asked = Model(A, Runtime()), []
    last = [int(prompt[-1]) for prompt in PROMPTS]

    def may(token):
        return {token + 1, token + 2} if token < 28 else {30}

    def allowed(tokens):
        asked.append(None if tokens is None else tokens.copy())
        for row, token in enumerate([] if tokens is None else tokens):
            last[row] = int(token) if token >= 0 else last[row]
        return _words([may(token) for token in last])

    how = dict(max_new_tokens=20, sampling=SamplingConfig(temperature), stop=[30])
    found = generate(params, model, PROMPTS, allowed=allowed, **how)
    for prompt, new in zip(PROMPTS, found):
        ids = prompt.tolist()
        for token in new.tolist():
            assert token in may(ids[-1])
            if temperature == 0:
                padded = jnp.asarray([ids + [0] * (A.max_seq_len - len(ids))], jnp.int32)
                logits = np.asarray(_logits(params, padded)[0, len(ids) - 1])
                assert token == max(may(ids[-1]), key=lambda t: logits[t])
            ids.append(token)
        assert len(new) == 20 or ids[-1] >= 28
    # Each row is told of its tokens in order, and of none once it has ended.
    for row, new in enumerate(found):
        told = [int(tokens[row]) for tokens in asked[1:]]
        assert asked[0] is None and told[: len(new)] == new.tolist() and set(told[len(new) :]) <= {-1}


def test_a_mask_of_all_tokens_changes_nothing(params):
    model = Model(A, Runtime())
    how = dict(max_new_tokens=9, sampling=SamplingConfig(1.0), seed=3)
    free = generate(params, model, PROMPTS, **how)
    masked = generate(params, model, PROMPTS, allowed=lambda last: np.full((3, 1), -1, np.int32), **how)
    assert [new.tolist() for new in masked] == [new.tolist() for new in free]


def test_seeds_and_rows(params):
    sampling = SamplingConfig(temperature=1.0)

    def run(seed, prompts=PROMPTS):
        return [
            x.tolist() for x in generate(params, Model(A), prompts, max_new_tokens=10, sampling=sampling, seed=seed)
        ]

    assert run(0) == run(0) != run(1)
    assert run(0, PROMPTS[:1]) == run(0)[:1]


def test_on_a_mesh(params):
    want = generate(params, Model(A), PROMPTS, max_new_tokens=6)
    with jax.set_mesh(make_mesh(MeshConfig(fsdp=4, tensor=2))):
        got = generate(params, Model(A), PROMPTS, max_new_tokens=6)
    assert [x.tolist() for x in got] == [x.tolist() for x in want]


def test_an_empty_prompt_is_refused(params):
    with pytest.raises(ValueError, match="at least one token"):
        generate(params, Model(A), [np.array([], np.int32)], max_new_tokens=2)


LOGITS = jnp.log(jnp.asarray([[0.5, 0.25, 0.15, 0.07, 0.03]]))


@pytest.mark.parametrize(
    "config, want",
    [
        (SamplingConfig(1.0), [0.5, 0.25, 0.15, 0.07, 0.03]),
        (SamplingConfig(0.5), np.array([0.5, 0.25, 0.15, 0.07, 0.03]) ** 2),
        (SamplingConfig(1.0, top_k=2), [0.5, 0.25, 0, 0, 0]),
        (SamplingConfig(1.0, top_p=0.75), [0.5, 0.25, 0, 0, 0]),
        (SamplingConfig(1.0, top_p=0.76), [0.5, 0.25, 0.15, 0, 0]),
        (SamplingConfig(1.0, top_k=4, top_p=0.5), [1, 0, 0, 0, 0]),
        (SamplingConfig(0.0), [1, 0, 0, 0, 0]),
    ],
)
def test_frequencies_follow_the_distribution(config, want):
    n = 20_000
    drawn = jax.vmap(lambda k: sample(LOGITS, k, config)[0])(jax.random.split(jax.random.key(0), n))
    frequency = np.bincount(np.asarray(drawn), minlength=5) / n
    want = np.asarray(want) / np.sum(want)
    assert (frequency[want == 0] == 0).all()
    np.testing.assert_allclose(frequency, want, atol=5 * np.sqrt(0.25 / n))
