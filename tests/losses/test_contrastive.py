"""Contrastive losses against loops over float64 numbers; GradCache against plain gradients; eight devices against one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kanana_jax.losses import contrastive
from kanana_jax.losses.contrastive import ContrastiveConfig, Texts, by_chunks, contrast, text_keys
from kanana_jax.parallel.mesh import MeshConfig, make_mesh

N, K, D = 8, 2, 6


def _texts(known):
    """Groups; `known`: some of their texts are the same, and known to be."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, 2 + K, D))
    x[3, 1] = x[3, 0] + 0.1 * x[3, 1]  # an easy positive
    there, negatives_there = np.ones(N, bool), rng.random((N, K)) < 0.7
    there[5] = False
    negatives_there[1, 0] = negatives_there[0, 1] = negatives_there[3, 0] = True
    keys = np.arange(N * (2 + K), dtype=np.uint32).reshape(N, -1)
    same = [
        ((6, 1), (0, 1)),  # a positive twice
        ((7, 0), (2, 0)),  # an anchor twice
        ((1, 2), (4, 1)),  # a negative that is another's positive
        ((0, 3), (2, 0)),  # a negative that is another's anchor
        ((4, 0), (2, 1)),  # an anchor that is another's positive
        ((3, 2), (3, 0)),  # a negative that is its own anchor
    ]
    for to, of in same if known else ():
        x[to], keys[to] = x[of], keys[of]
    parts = (x[:, 0], x[:, 1], x[:, 2:], there, negatives_there)
    return Texts(*parts, keys if known else None)


def _by_hand(config, texts):
    """Loss, whether found, and negatives of each anchor, with loops over Python floats."""
    x = np.concatenate([texts.anchors[:, None], texts.positives[:, None], texts.negatives], axis=1).astype(np.float64)
    keys = texts.keys if texts.keys is not None else np.arange(N * (2 + K)).reshape(N, -1)
    losses, found, counts = np.zeros(N), np.zeros(N), np.zeros(N)
    for size in (D, *config.matryoshka):
        v = x[..., :size] / np.linalg.norm(x[..., :size], axis=-1, keepdims=True)
        squared = {0: [], 1: []}
        for i in range(N):
            for j in range(N):
                if i != j and texts.there[i] and texts.there[j]:
                    for side in (0, 1):
                        squared[side].append((v[i, side] @ v[j, side]) ** 2)
        for i in range(N):
            if not texts.there[i]:
                continue

            def one_way(own, sought, candidates):
                positive = own @ sought
                kept = [
                    (own_side @ c, w)
                    for own_side, c, w in candidates
                    if config.false_negative is None or own_side @ c <= positive + config.false_negative
                ]
                terms = [np.exp(s / config.temperature + w * s) for s, w in kept]
                top = np.exp(positive / config.temperature)
                return -np.log(top / (top + sum(terms))), positive > max((s for s, _ in kept), default=-9), len(kept)

            forward, back = [], []
            for k in range(K):
                if texts.negatives_there[i, k] and keys[i, 2 + k] not in keys[i, :2]:
                    forward.append((v[i, 0], v[i, 2 + k], config.hardness))
            for j in range(N):
                if j == i or not texts.there[j]:
                    continue
                for k in range(K if config.in_batch else 0):
                    if texts.negatives_there[j, k] and keys[j, 2 + k] not in keys[i, :2]:
                        forward.append((v[i, 0], v[j, 2 + k], 0))
                if set(keys[j, :2]) & set(keys[i, :2]):
                    continue
                if config.in_batch:
                    forward.append((v[i, 0], v[j, 1], 0))
                if config.same_side:
                    forward += [(v[i, 0], v[j, 0], 0), (v[i, 1], v[j, 1], 0)]
                back.append((v[i, 1], v[j, 0], 0))
            loss, right, count = one_way(v[i, 0], v[i, 1], forward)
            if config.both_ways:
                loss = (loss + one_way(v[i, 1], v[i, 0], back)[0]) / 2
            losses[i] += loss + config.spread * (np.mean(squared[0]) + np.mean(squared[1]))
            if size == D:
                found[i], counts[i] = right, count
    return losses, found, counts


@pytest.mark.parametrize(
    "settings",
    [
        {},
        dict(temperature=0.5, in_batch=False),
        dict(temperature=0.3, both_ways=True, false_negative=0.1),
        dict(temperature=0.2, same_side=True, false_negative=0.0, hardness=5.0),
        dict(temperature=0.5, hardness=2.0, matryoshka=(4, 2), spread=0.7),
    ],
)
@pytest.mark.parametrize("known", [True, False])
def test_the_loss_equals_loops_over_float64_numbers(settings, known):
    config, texts = ContrastiveConfig(**settings), _texts(known)
    got = jax.jit(contrast, static_argnums=0)(config, texts)
    loss, found, counts = _by_hand(config, texts)
    np.testing.assert_allclose(got.loss, loss, rtol=2e-5, atol=2e-5)
    np.testing.assert_array_equal(got.found, found)
    np.testing.assert_array_equal(got.candidates, counts)
    assert got.loss[5] == 0 and counts[texts.there].max() > 1


def test_without_negatives_at_all_the_loss_is_zero_and_its_gradient_finite():
    texts = _texts(known=False)._replace(negatives=np.zeros((N, 0, D)), negatives_there=np.zeros((N, 0), bool))
    texts = jax.tree.map(jnp.asarray, texts._replace(anchors=np.zeros((N, D))))

    def of(anchors, config):
        return contrast(config, texts._replace(anchors=anchors)).loss.sum()

    assert jax.jit(of, static_argnums=1)(texts.anchors, ContrastiveConfig(in_batch=False)) == 0
    gradient = jax.jit(jax.grad(of), static_argnums=1)(texts.anchors, ContrastiveConfig(spread=1.0, both_ways=True))
    assert np.isfinite(gradient).all()


def test_hardness_weighs_without_a_gradient_of_its_own():
    """e^(α·s) is a constant: the slope of the loss along a negative's cosine is its share over τ."""
    config = ContrastiveConfig(temperature=1.0, in_batch=False, hardness=3.0)

    def loss(s):
        anchor, positive = jnp.asarray([[1.0, 0.0]]), jnp.asarray([[0.6, 0.8]])
        negative = jnp.stack([s, jnp.sqrt(1 - s**2)])[None, None]
        yes = jnp.ones((1,), bool)
        return contrast(config, Texts(anchor, positive, negative, yes, yes[:, None])).loss[0]

    s = 0.3
    weighed = np.exp(s + 3 * s)
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(s), weighed / (weighed + np.exp(0.6)), rtol=1e-5)


def test_matching_is_the_squared_distance_of_unit_vectors_and_the_teacher_learns_nothing():
    rng = np.random.default_rng(1)
    students, teachers = rng.normal(size=(3, 4)), rng.normal(size=(3, 6))
    there = np.array([True, True, False])
    unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)  # noqa: E731
    want = ((unit(students) - unit(teachers[:, :4])) ** 2).sum(-1) * there
    np.testing.assert_allclose(contrastive.matching(students, teachers, there), want, rtol=1e-5)
    back = jax.grad(lambda t: contrastive.matching(jnp.asarray(students), t, there).sum())(jnp.asarray(teachers))
    assert not np.any(back)


def test_keys_are_equal_where_texts_are_and_order_and_place_count():
    tokens = np.array([[9, 5, 6, 7, 0], [5, 6, 7, 8, 8], [6, 5, 7, 0, 0], [5, 5, 6, 7, 0], [5, 6, 0, 0, 0]])
    counted = np.array([[0, 1, 1, 1, 0], [1, 1, 1, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 0, 0, 0]], bool)
    keys = np.asarray(text_keys(jnp.asarray(tokens), jnp.asarray(counted)))
    assert keys[0] == keys[1] and len(set(keys[1:].tolist())) == 4
    many = np.random.default_rng(0).integers(0, 300, (20_000, 4))
    assert len(np.unique(np.asarray(text_keys(jnp.asarray(many), jnp.ones(many.shape, bool))))) >= (
        len(np.unique(many, axis=0)) - 3
    )


def _encoder(params, rows):
    """A network with dropout by each row's own key, and a mean that leaves a prefix out."""

    def one(key, tokens, counted):
        x = jnp.tanh(params["table"][tokens] @ params["matrix"])
        x = jnp.where(jax.random.bernoulli(key, 0.7, x.shape), x / 0.7, 0)
        return (x * counted[:, None]).sum(0) / counted.sum()

    return jax.vmap(one)(*rows)


def _rows(rows):
    rng = np.random.default_rng(2)
    counted = np.ones((rows, 5), np.float32)
    counted[::2, :2] = 0  # a prompt
    return jax.random.split(jax.random.key(0), rows), jnp.asarray(rng.integers(0, 20, (rows, 5))), jnp.asarray(counted)


def _params():
    keys = jax.random.split(jax.random.key(1), 2)
    return {"table": jax.random.normal(keys[0], (20, D)), "matrix": jax.random.normal(keys[1], (D, D))}


CONFIG = ContrastiveConfig(temperature=0.2, matryoshka=(3,), hardness=2.0, false_negative=0.3, spread=0.5)


def _whole(vectors):
    n = len(vectors)
    there = jnp.ones(n, bool), jnp.ones((n, K), bool)
    return Texts(vectors[:, 0], vectors[:, 1], vectors[:, 2:], *there)


def _loss(params, rows, chunks):
    vectors = by_chunks(lambda part: _encoder(params, part), rows, chunks)
    return contrast(CONFIG, _whole(vectors.reshape(-1, 2 + K, D))).loss.sum()


@pytest.fixture(scope="module")
def plain():
    return jax.jit(jax.value_and_grad(_loss), static_argnums=2)(_params(), _rows(N * (2 + K)), 1)


@pytest.mark.parametrize("chunks", [4, *(pytest.param(n, marks=pytest.mark.more) for n in (2, 16))])
def test_gradients_by_chunks_are_those_of_the_whole_batch(plain, chunks):
    got = jax.jit(jax.value_and_grad(_loss), static_argnums=2)(_params(), _rows(N * (2 + K)), chunks)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5), got, plain)


def test_gradients_by_chunks_are_the_papers_three_steps(plain):
    """Vectors without gradients, the loss's gradient by the vectors, then each chunk again: written out."""
    rows, params, parts = _rows(N * (2 + K)), _params(), 4

    def of_vectors(vectors):
        v = vectors.reshape(-1, 2 + K, D)
        return contrast(CONFIG, _whole(v)).loss.sum()

    cached = jax.jit(jax.grad(of_vectors))(jax.jit(_encoder)(params, rows))
    again = jax.jit(jax.grad(lambda p, part, back: (_encoder(p, part) * back).sum()))
    own = [again(params, jax.tree.map(lambda x, i=i: x[i::parts], rows), cached[i::parts]) for i in range(parts)]
    total = jax.tree.map(lambda *each: sum(each), *own)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), plain[1], total)


def test_only_vectors_are_kept_by_chunks():
    """The residuals of the backward pass: none has the size of the network's inner states."""
    rows, params = _rows(32), _params()

    def most(chunks):
        residuals = jax.eval_shape(lambda p: jax.vjp(lambda q: _loss(q, rows, chunks), p)[1], params)
        inner = [leaf for leaf in jax.tree.leaves(residuals) if leaf.ndim >= 3 and leaf.shape[-2:] == (5, D)]
        return len(inner)

    assert most(1) > 0 and most(4) == 0


@pytest.mark.more
@pytest.mark.parametrize("chunks", [1, 2])
def test_negatives_are_those_of_all_devices(plain, chunks):
    with jax.set_mesh(make_mesh(MeshConfig(data=4, fsdp=2))):
        got = jax.jit(jax.value_and_grad(_loss), static_argnums=2)(_params(), _rows(N * (2 + K)), chunks)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), got, plain)


@pytest.mark.parametrize(
    "settings, word",
    [
        (dict(temperature=0.0), "temperature"),
        (dict(false_negative=-0.1), "false_negative"),
        (dict(matryoshka=(0,)), "matryoshka"),
        (dict(in_batch=False, both_ways=True), "in_batch"),
        (dict(spread=-1.0), "spread"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, word):
    with pytest.raises(ValueError, match=word):
        ContrastiveConfig(**settings)
    with pytest.raises(ValueError, match="below the vectors' 4"):
        ContrastiveConfig(matryoshka=(4,)).check(4)
