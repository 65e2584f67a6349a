"""Importance against activations that are taken from the model and aggregated by plain NumPy."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kanana_jax.data.stream.packing import Rows
from kanana_jax.errors import UserError
from kanana_jax.models.architecture import Architecture, Runtime
from kanana_jax.models.model import Model
from kanana_jax.models.transformer import bind, init_params, logical_axes
from kanana_jax.parallel.mesh import MeshConfig, make_mesh
from kanana_jax.parallel.sharding import tree_shardings
from kanana_jax.surgery.cuts import CutList, apply
from kanana_jax.surgery.importance import Importance, ImportanceConfig, score

MODEL = Architecture(
    vocab_size=64, embed_dim=16, mlp_dim=24, num_layers=3, num_heads=4, num_kv_heads=2, head_dim=8, init_std=0.3
)
ROWS, T = 8, 10


def _batches(rows=ROWS, at_once=4):
    draw = np.random.default_rng(3)
    weights = np.ones((rows, T), np.float32)
    weights[-1, 6:] = 0  # padding
    segments = np.where(weights > 0, 1, 0).astype(np.int32)
    whole = Rows(
        inputs=draw.integers(0, 64, (rows, T)).astype(np.int32),
        targets=np.zeros((rows, T), np.int32),
        segment_ids=segments,
        positions=np.tile(np.arange(T, dtype=np.int32), (rows, 1)),
        weights=weights,
        source=np.zeros(rows, np.int32),
    )
    return [Rows(*(jnp.asarray(x[i : i + at_once]) for x in whole)) for i in range(0, rows, at_once)], weights


@pytest.fixture(scope="module")
def params():
    found = init_params(MODEL, Runtime(), jax.random.key(0))
    found["blocks"]["mlp_norm"]["scale"] = 1 + 0.2 * jax.random.normal(jax.random.key(1), (3, 16))
    return found


@pytest.fixture(scope="module")
def taps(params):
    """Everything that flows through every layer, `[rows, …]`, and the final norm's output."""
    parts = []
    for batch in _batches()[0]:
        hidden, seen = bind(MODEL, Runtime(), params)(
            batch.inputs, segment_ids=batch.segment_ids, observe=lambda taps: dict(taps)
        )
        parts.append({**seen, "final": hidden[None]})
    return {k: np.concatenate([np.asarray(p[k], np.float64) for p in parts], axis=1) for k in parts[0]}


def _aggregate(x, config):
    """`[rows, T, N]` → `[N]`."""
    _, weights = _batches()
    rows = []
    for values, w in zip(np.abs(x), weights):
        values = values[w > 0]
        rows.append(np.sqrt((values**2).sum(0)) if config.sequence == "l2" else values.mean(0))
    rows = np.array(rows)
    return np.sqrt((rows**2).sum(0)) if config.batch == "l2" else rows.mean(0)


@pytest.mark.parametrize(
    "sequence, batch, neurons, layer_sum",
    [
        # Half of all, which has every three of the four in every combination.
        pytest.param(
            *case, marks=() if sum(value in ("l2", "gate_up", True) for value in case) % 2 else pytest.mark.more
        )
        for case in itertools.product(("mean", "l2"), ("l2", "mean"), ("intermediate", "gate_up"), (True, False))
    ],
)
def test_scores_are_table_15s(params, taps, sequence, batch, neurons, layer_sum):
    config = ImportanceConfig(sequence=sequence, batch=batch, neurons=neurons, layer_sum=layer_sum)
    found = score(config, Model(MODEL), params, _batches()[0])
    norms = [taps[name][i] for i in range(3) for name in ("attention_norm", "mlp_norm")] + [taps["final"][0]]
    scored = np.array([_aggregate(x, config) for x in norms])
    np.testing.assert_allclose(found.channels, scored.sum(0) if layer_sum else scored[-1], rtol=1e-4)
    for i in range(3):
        if neurons == "intermediate":
            gate, up = taps["gate"][i], taps["up"][i]
            np.testing.assert_allclose(taps["hidden"][i], gate / (1 + np.exp(-gate)) * up, rtol=1e-4, atol=1e-6)
            expected = _aggregate(taps["hidden"][i], config)
        else:
            expected = _aggregate((np.abs(taps["gate"][i]) + np.abs(taps["up"][i])) / 2, config)
        np.testing.assert_allclose(found.neurons[i], expected, rtol=1e-4)
        norms_of_heads = np.linalg.norm(taps["heads"][i], axis=-1)
        np.testing.assert_allclose(found.heads[i], _aggregate(norms_of_heads, config), rtol=1e-4)


def test_the_axes_are_not_swapped(params):
    """(L2 over the batch, mean over the sequence) is not (mean, L2): a fault that a peer had."""
    ours = score(ImportanceConfig(), Model(MODEL), params, _batches()[0])
    swapped = score(ImportanceConfig(sequence="l2", batch="mean"), Model(MODEL), params, _batches()[0])
    assert np.abs(ours.neurons / ours.neurons.mean() - swapped.neurons / swapped.neurons.mean()).max() > 1e-3


def test_layers_are_scored_by_how_far_they_turn_the_stream(params, taps):
    _, weights = _batches()
    found = score(ImportanceConfig(), Model(MODEL), params, _batches()[0])
    for i in range(3):
        a, b = taps["input"][i], taps["output"][i]
        cosine = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
        assert found.layers[i] == pytest.approx(1 - (cosine * weights).sum() / weights.sum(), rel=1e-4)


@pytest.mark.parametrize("scan", [True, pytest.param(False, marks=pytest.mark.more)])
def test_layers_are_scored_by_what_their_loss_costs(params, scan):
    """The loss of the model that the surgery leaves without the layer, minus that of the whole one."""
    batches, weights = _batches()
    targets = jnp.asarray(np.random.default_rng(4).integers(0, 64, (ROWS, T)), jnp.int32)
    batches = [batch._replace(targets=targets[4 * i : 4 * i + 4]) for i, batch in enumerate(batches)]
    runtime = Runtime(scan_layers=scan)

    def loss(a, params):
        total = 0.0
        for batch in batches:
            model = bind(a, runtime, params)
            logits = model.unembed(model(batch.inputs, segment_ids=batch.segment_ids))
            log_p = np.asarray(jax.nn.log_softmax(logits), np.float64)
            picked = np.take_along_axis(log_p, np.asarray(batch.targets)[..., None], -1)[..., 0]
            total -= (picked * np.asarray(batch.weights)).sum()
        return total / weights.sum()

    found = score(ImportanceConfig(layers="perplexity"), Model(MODEL, runtime), params, batches)
    for i in range(3):
        left = tuple(j for j in range(3) if j != i)
        cuts = CutList(MODEL, dataclasses.replace(MODEL, num_layers=2), left, (False, False))
        without = loss(cuts.after, apply(cuts, params))
        assert found.layers[i] == pytest.approx(without - loss(MODEL, params), abs=2e-5)
    assert np.ptp(found.layers) > 1e-3


def test_the_residual_is_relative_to_its_norm(params, taps):
    found = score(ImportanceConfig(), Model(MODEL), params, _batches()[0])
    np.testing.assert_allclose(found.residual.mean(axis=1), 1.0, rtol=1e-3)
    _, weights = _batches()
    x = taps["input"][1]
    relative = x**2 / (x**2).mean(-1, keepdims=True)
    expected = (relative * weights[..., None]).sum((0, 1)) / weights.sum()
    np.testing.assert_allclose(found.residual[2], expected, rtol=1e-3)


def test_padding_and_how_rows_are_batched_do_not_matter(params):
    first = score(ImportanceConfig(), Model(MODEL), params, _batches()[0])
    other = score(ImportanceConfig(), Model(MODEL, Runtime(scan_layers=False)), params, _batches(at_once=2)[0])
    for name in ("channels", "neurons", "heads", "layers", "residual"):
        np.testing.assert_allclose(getattr(first, name), getattr(other, name), rtol=1e-4)


def test_eight_devices_score_as_one(params):
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, sequence=1, tensor=2))
    alone = score(ImportanceConfig(), Model(MODEL), params, _batches()[0])
    with jax.set_mesh(mesh):
        sharded = jax.device_put(params, tree_shardings(mesh, logical_axes(MODEL)))
        found = score(ImportanceConfig(), Model(MODEL), sharded, _batches()[0])
    for name in ("channels", "neurons", "heads", "layers", "residual"):
        np.testing.assert_allclose(getattr(found, name), getattr(alone, name), rtol=1e-4)


def test_baselines(params):
    a = {k: np.asarray(v, np.float64) for k, v in params["blocks"]["attention"].items()}
    m = {k: np.asarray(v, np.float64) for k, v in params["blocks"]["mlp"].items()}
    magnitude = score(ImportanceConfig(method="magnitude"), Model(MODEL), params, _batches()[0])
    for i in range(3):
        parts = np.concatenate([m["gate"][i], m["up"][i], m["down"][i].T])
        np.testing.assert_allclose(magnitude.neurons[i], np.linalg.norm(parts, axis=0), rtol=1e-4)
        heads = [np.sqrt((a["q"][i][:, h] ** 2).sum() + (a["o"][i][h] ** 2).sum()) for h in range(4)]
        np.testing.assert_allclose(magnitude.heads[i], heads, rtol=1e-4)
    plain = score(ImportanceConfig(), Model(MODEL), params, _batches()[0])
    wanda = score(ImportanceConfig(method="wanda"), Model(MODEL), params, _batches()[0])
    np.testing.assert_allclose(wanda.neurons, plain.neurons * np.abs(m["down"]).sum(2), rtol=1e-4)
    one, two, three = (
        score(ImportanceConfig(method="random", seed=s), Model(MODEL), params, _batches()[0]) for s in (0, 0, 1)
    )
    np.testing.assert_array_equal(one.neurons, two.neurons)
    assert not np.array_equal(one.neurons, three.neurons)
    np.testing.assert_allclose(one.layers, plain.layers)


def test_scores_are_kept_and_broken_ones_told(params, tmp_path):
    found = score(ImportanceConfig(), Model(MODEL), params, _batches()[0])
    found.save(tmp_path, {"samples": 8})
    again = Importance.load(tmp_path)
    for field in dataclasses.fields(found):
        np.testing.assert_array_equal(getattr(found, field.name), getattr(again, field.name))
    with pytest.raises(UserError, match="holds no importance scores"):
        Importance.load(tmp_path / "none")
    (tmp_path / "importance.npz").write_bytes(b"junk")
    with pytest.raises(UserError, match="holds no importance scores"):
        Importance.load(tmp_path)
    with pytest.raises(UserError, match="no calibration text"):
        score(ImportanceConfig(), Model(MODEL), params, [])
    broken = jax.tree.map(lambda x: x * np.nan, params)
    with pytest.raises(UserError, match="not finite"):
        score(ImportanceConfig(), Model(MODEL), broken, _batches()[0])
