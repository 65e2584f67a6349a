"""Divergences and gradients against float64 formulas and finite differences, on one and on eight devices."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import log_softmax

from kanana_jax.losses.distillation import DistillationConfig, cached_distillation, distillation
from kanana_jax.parallel.mesh import MeshConfig, make_mesh

B, T, D, E, V = 8, 6, 16, 24, 40
CONFIGS = [
    DistillationConfig(),
    DistillationConfig(temperature=2.0),
    DistillationConfig(ce_weight=0.3),
    DistillationConfig("reverse"),
    DistillationConfig("reverse", temperature=0.7, ce_weight=0.5),
    DistillationConfig("jsd", jsd_beta=0.1),
    DistillationConfig("jsd", jsd_beta=0.5, temperature=3.0),
    DistillationConfig(ce_weight=1.0),
    DistillationConfig("mixed", forward_share=0.3, temperature=1.5),
]


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    return dict(
        hidden=rng.normal(size=(B, T, D)) * 0.5,
        unembedding=rng.normal(size=(V, D)) * 0.5,
        teacher_hidden=rng.normal(size=(B, T, E)) * 0.5,
        teacher_unembedding=rng.normal(size=(V, E)) * 0.5,
        targets=rng.integers(0, V, (B, T)),
        weights=rng.integers(0, 3, (B, T)) / 2.0,
    )


def _value(case, c, hidden=None, unembedding=None):
    """(loss, divergence, nll) in float64, by the definitions."""
    hidden = case["hidden"] if hidden is None else hidden
    unembedding = case["unembedding"] if unembedding is None else unembedding
    student, teacher = hidden @ unembedding.T, case["teacher_hidden"] @ case["teacher_unembedding"].T
    log_q, log_p = log_softmax(student / c.temperature), log_softmax(teacher / c.temperature)
    p, q = np.exp(log_p), np.exp(log_q)
    if c.divergence == "forward":
        each = (p * (log_p - log_q)).sum(-1)
    elif c.divergence == "reverse":
        each = (q * (log_q - log_p)).sum(-1)
    elif c.divergence == "mixed":
        each = ((c.forward_share * p - (1 - c.forward_share) * q) * (log_p - log_q)).sum(-1)
    else:
        m = c.jsd_beta * p + (1 - c.jsd_beta) * q
        each = c.jsd_beta * (p * (log_p - np.log(m))).sum(-1) + (1 - c.jsd_beta) * (q * (log_q - np.log(m))).sum(-1)
    nll = -np.take_along_axis(log_softmax(student), case["targets"][..., None], -1)[..., 0]
    w = case["weights"]
    divergence, nll = (each * w).sum(), (nll * w).sum()
    return (1 - c.ce_weight) * c.temperature**2 * divergence + c.ce_weight * nll, divergence, nll


def _gradients(case, value):
    """Central differences in float64 of `value(hidden, unembedding)`, of 40 entries of each."""
    draw, found = np.random.default_rng(1), []
    for name in ("hidden", "unembedding"):
        for flat in draw.choice(case[name].size, 40, replace=False):
            at, ends = np.unravel_index(flat, case[name].shape), []
            for sign in (1, -1):
                moved = {k: case[k] for k in ("hidden", "unembedding")}
                moved[name] = moved[name].copy()
                moved[name][at] += sign * 1e-5
                ends.append(value(moved["hidden"], moved["unembedding"]))
            found.append((name, at, (ends[0] - ends[1]) / 2e-5))
    return found


def _ours(case, function, chunk=1024):
    arrays = [jnp.asarray(case[k], jnp.float32) for k in ("hidden", "unembedding")]

    def loss(hidden, unembedding):
        output = function(hidden, unembedding, chunk=chunk)
        return output.loss, output

    (_, output), grads = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(*arrays)
    return output, dict(zip(("hidden", "unembedding"), grads))


def _online(case, c):
    rest = [jnp.asarray(case[k], jnp.float32) for k in ("teacher_hidden", "teacher_unembedding")]
    rest += [jnp.asarray(case["targets"], jnp.int32), jnp.asarray(case["weights"], jnp.float32)]
    return lambda hidden, unembedding, chunk: distillation(hidden, unembedding, *rest, config=c, chunk=chunk)


MESHES = None, dict(data=2, fsdp=1, sequence=2, tensor=2), dict(fsdp=4, tensor=2)


@pytest.mark.parametrize(
    "mesh, config",
    [
        # Every loss alone and where all but `fsdp` is cut; two where that is, too.
        pytest.param(mesh, config, marks=pytest.mark.more if mesh is MESHES[2] and i not in (0, 4) else ())
        for mesh in MESHES
        for i, config in enumerate(CONFIGS)
    ],
    ids=str,
)
def test_values_and_gradients(case, config, mesh):
    want = _value(case, config)
    if mesh is None:
        output, grads = _ours(case, _online(case, config), chunk=7)
    else:
        with jax.set_mesh(make_mesh(MeshConfig(**mesh))):
            output, grads = _ours(case, _online(case, config))
    np.testing.assert_allclose((output.loss, output.divergence, output.nll), want, rtol=2e-6, atol=1e-5)
    for name, at, slope in _gradients(case, lambda h, u: _value(case, config, h, u)[0]):
        assert float(grads[name][at]) == pytest.approx(slope, rel=1e-4, abs=3e-6)


@pytest.mark.parametrize(
    "teacher_tokens, mesh, config",
    [
        pytest.param(*teacher, config, marks=pytest.mark.more if teacher[1] and config is not CONFIGS[4] else ())
        for teacher in ((48, None), (33, None), (34, dict(fsdp=2, tensor=4)), (46, dict(fsdp=4, tensor=2)))
        for config in (CONFIGS[0], CONFIGS[4], CONFIGS[6])
    ],
    ids=str,
)
def test_a_teacher_of_another_padding(case, config, teacher_tokens, mesh):
    """Cut to the student's ids, or without a probability for those that it lacks, which still are in the student's softmax."""
    rng = np.random.default_rng(5)
    case = case | dict(teacher_unembedding=rng.normal(size=(teacher_tokens, E)) * 0.5)
    log_p = log_softmax((case["teacher_hidden"] @ case["teacher_unembedding"].T)[..., :V] / config.temperature)
    lacking = V - log_p.shape[-1]
    log_p = np.pad(log_p, [(0, 0), (0, 0), (0, lacking)], constant_values=-20.0)
    p = np.exp(log_p) * (np.arange(V) < V - lacking)

    def value(hidden, unembedding):
        c, student = config, hidden @ unembedding.T
        log_q = log_softmax(student / c.temperature)
        q = np.exp(log_q)
        log_m = np.log(c.jsd_beta * np.exp(log_p) + (1 - c.jsd_beta) * q)
        each = {
            "forward": (p * (log_p - log_q)).sum(-1),
            "reverse": (q * (log_q - log_p)).sum(-1),
            "jsd": c.jsd_beta * (p * (log_p - log_m)).sum(-1) + (1 - c.jsd_beta) * (q * (log_q - log_m)).sum(-1),
        }[c.divergence]
        nll = -np.take_along_axis(log_softmax(student), case["targets"][..., None], -1)[..., 0]
        total = (1 - c.ce_weight) * c.temperature**2 * each + c.ce_weight * nll
        return (total * case["weights"]).sum()

    with jax.set_mesh(make_mesh(MeshConfig(**mesh))) if mesh else contextlib.nullcontext():
        output, grads = _ours(case, _online(case, config))
    assert float(output.loss) == pytest.approx(value(case["hidden"], case["unembedding"]), rel=1e-5)
    for name, at, slope in _gradients(case, value):
        assert float(grads[name][at]) == pytest.approx(slope, rel=1e-4, abs=3e-6)
    if lacking and config.divergence == "forward":  # what only the student has goes down
        assert (np.asarray(grads["unembedding"])[-lacking:] != 0).any(axis=1).all()


def _top(case, k):
    log_p = log_softmax(case["teacher_hidden"] @ case["teacher_unembedding"].T)
    ids = np.argsort(-log_p, axis=-1)[..., :k]
    return ids, np.take_along_axis(log_p, ids, -1)


def _cached(case, c, k):
    ids, log_p = _top(case, k)
    rest = [jnp.asarray(ids, jnp.int32), jnp.asarray(log_p, jnp.float32)]
    rest += [jnp.asarray(case["targets"], jnp.int32), jnp.asarray(case["weights"], jnp.float32)]
    return lambda hidden, unembedding, chunk: cached_distillation(hidden, unembedding, *rest, config=c, chunk=chunk)


def _bucket_value(case, c, k, hidden, unembedding):
    ids, log_p = _top(case, k)
    log_q = np.take_along_axis(log_softmax(hidden @ unembedding.T), ids, -1)
    p, q = np.exp(log_p), np.exp(log_q)
    t, u = 1 - p.sum(-1), 1 - q.sum(-1)
    each = (p * (log_p - log_q)).sum(-1) + t * (np.log(t) - np.log(u))
    nll = -np.take_along_axis(log_softmax(hidden @ unembedding.T), case["targets"][..., None], -1)[..., 0]
    return ((1 - c.ce_weight) * each * case["weights"] + c.ce_weight * nll * case["weights"]).sum()


@pytest.mark.parametrize(
    "mesh, ce, k",
    [
        pytest.param(mesh, ce, k, marks=pytest.mark.more if mesh and (k, ce) not in ((4, 0.3), (39, 0.0)) else ())
        for mesh in (None, dict(fsdp=4, tensor=2))
        for ce in (0.0, 0.3)
        for k in (1, 4, 16, 39)
    ],
)
def test_the_cached_teacher_is_the_kl_of_k_tokens_and_the_rest(case, k, ce, mesh):
    c = DistillationConfig(ce_weight=ce)
    if mesh is None:
        output, grads = _ours(case, _cached(case, c, k), chunk=7)
    else:
        with jax.set_mesh(make_mesh(MeshConfig(**mesh))):
            output, grads = _ours(case, _cached(case, c, k))
    value = lambda h, u: _bucket_value(case, c, k, h, u)  # noqa: E731
    np.testing.assert_allclose(output.loss, value(case["hidden"], case["unembedding"]), rtol=1e-5, atol=1e-5)
    for name, at, slope in _gradients(case, value):
        assert float(grads[name][at]) == pytest.approx(slope, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("dtype, tolerance", [(jnp.float32, 1e-4), (jnp.bfloat16, 1e-2)])
@pytest.mark.parametrize("mesh", [None, dict(tensor=2)])
def test_the_gradient_holds_where_the_students_tail_is_tiny(dtype, tolerance, mesh):
    """Logits are the hidden states themselves; finite differences in float64, with log u summed over the other tokens."""
    rng, size, k = np.random.default_rng(0), 12, 3
    tails = [(u, t) for u in (0.5, 1e-3, 1e-6, 1e-8, 1e-10, 1e-12, 1e-30) for t in (0.3, 1e-3, 0.0)]
    logits = rng.normal(size=(1, len(tails), size))
    ids = np.stack([rng.permutation(size)[:k] for _ in tails])
    log_p = np.empty((len(tails), k))
    for i, (u, t) in enumerate(tails):
        inside = np.isin(np.arange(size), ids[i])
        logits[0, i, ~inside] += np.log(u / np.exp(logits[0, i, ~inside]).sum())
        logits[0, i, inside] += np.log((1 - u) / np.exp(logits[0, i, inside]).sum())
        log_p[i] = np.log((1 - t) * rng.dirichlet(np.ones(k)))
    log_p = log_p.astype(np.float32).astype(np.float64)
    hidden = np.asarray(jnp.asarray(logits, dtype), np.float64)  # as rounded

    def value(i, z):
        log_q, inside, p = log_softmax(z), np.isin(np.arange(size), ids[i]), np.exp(log_p[i])
        t, log_u = tails[i][1], np.logaddexp.reduce(log_q[~inside])
        return (p * (log_p[i] - log_q[ids[i]])).sum() + (t * (np.log(t) - log_u) if t else 0.0)

    wanted = np.zeros((len(tails), size))
    for i in range(len(tails)):
        for j in range(size):
            step = 1e-5 * np.eye(size)[j]
            wanted[i, j] = (value(i, hidden[0, i] + step) - value(i, hidden[0, i] - step)) / 2e-5
    rest = [jnp.asarray(ids[None], jnp.int32), jnp.asarray(log_p[None], jnp.float32)]
    rest += [jnp.zeros((1, len(tails)), jnp.int32), jnp.ones((1, len(tails)))]

    def loss(hidden):
        return cached_distillation(hidden, jnp.eye(size, dtype=dtype), *rest, config=DistillationConfig()).loss

    with jax.set_mesh(make_mesh(MeshConfig(**mesh), jax.devices()[:2])) if mesh else contextlib.nullcontext():
        found, slope = jax.jit(jax.value_and_grad(loss))(jnp.asarray(hidden, dtype))
    assert float(found) == pytest.approx(sum(value(i, hidden[0, i]) for i in range(len(tails))), rel=1e-4)
    slope = np.asarray(slope, np.float64)[0]
    np.testing.assert_allclose(slope, wanted, rtol=tolerance, atol=3e-7)
    outside = np.array([slope[i][~np.isin(np.arange(size), ids[i])].sum() for i in range(len(tails))])
    np.testing.assert_allclose(outside, [u - t for u, t in tails], rtol=2e-2, atol=5e-5)  # so much flows into the tail


def test_with_all_tokens_cached_it_is_the_online_loss(case):
    c = DistillationConfig(ce_weight=0.2)
    online, cached = _ours(case, _online(case, c)), _ours(case, _cached(case, c, V))
    np.testing.assert_allclose(cached[0].loss, online[0].loss, rtol=1e-5)
    for name in ("hidden", "unembedding"):
        np.testing.assert_allclose(cached[1][name], online[1][name], rtol=1e-3, atol=1e-5)


def test_more_tokens_bring_the_bound_closer(case):
    values = [float(_ours(case, _cached(case, DistillationConfig(), k))[0].divergence) for k in (1, 4, 16, 39)]
    assert values == sorted(values)
    assert values[-1] <= float(_ours(case, _online(case, DistillationConfig()))[0].divergence) + 1e-5


def test_a_student_that_is_the_teacher_has_nothing_to_learn(case):
    own = dict(case, teacher_hidden=case["hidden"], teacher_unembedding=case["unembedding"])
    for divergence in ("forward", "reverse", "mixed", "jsd"):
        output, grads = _ours(own, _online(own, DistillationConfig(divergence)))
        assert abs(float(output.divergence)) < 1e-4
        assert max(float(jnp.abs(g).max()) for g in grads.values()) < 1e-5


def test_a_cache_cannot_give_what_it_does_not_hold(case):
    for config in (DistillationConfig("reverse"), DistillationConfig(temperature=2.0)):
        with pytest.raises(ValueError, match="forward"):
            _ours(case, _cached(case, config, 4))
    for wrong in (dict(temperature=0.0), dict(jsd_beta=1.0), dict(ce_weight=1.5), dict(forward_share=-0.1)):
        with pytest.raises(ValueError):
            DistillationConfig(**wrong)


def test_no_logits_of_all_tokens_in_memory():
    """Temporaries stay below one float32 [tokens, V] array although two models have logits."""
    tokens, V = 4096, 8192

    def loss(hidden, unembedding):
        targets, weights = jnp.zeros((8, tokens // 8), jnp.int32), jnp.ones((8, tokens // 8))
        return distillation(
            hidden, unembedding, 2 * hidden, unembedding, targets, weights, config=DistillationConfig(), chunk=128
        ).loss

    shapes = jax.ShapeDtypeStruct((8, tokens // 8, 32), jnp.float32), jax.ShapeDtypeStruct((V, 32), jnp.float32)
    compiled = jax.jit(jax.grad(loss, (0, 1))).lower(*shapes).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < tokens * V * 4 / 4
