"""Blocks of layers are scored as blocks: by hand-made layers that undo each other, and by removing every block."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from kanana_jax.data.stream.packing import Rows
from kanana_jax.models.architecture import Architecture, Runtime
from kanana_jax.models.model import Model
from kanana_jax.models.transformer import bind, init_params
from kanana_jax.surgery import prune
from kanana_jax.surgery.cuts import CutList, apply
from kanana_jax.surgery.importance import ImportanceConfig, forward_passes, score
from kanana_jax.surgery.prune import PruneConfig

MODEL = Architecture(
    vocab_size=32, embed_dim=16, mlp_dim=4, num_layers=7, num_heads=2, num_kv_heads=1, head_dim=8, init_std=0.3
)
ROWS, T = 6, 8


def _batches():
    draw = np.random.default_rng(1)
    weights = np.ones((ROWS, T), np.float32)
    weights[-1, 5:] = 0
    inputs, targets = (draw.integers(0, MODEL.vocab_size, (ROWS, T)).astype(np.int32) for _ in range(2))
    segments, positions = weights.astype(np.int32), np.tile(np.arange(T, dtype=np.int32), (ROWS, 1))
    whole = Rows(inputs, targets, segments, positions, weights, np.zeros(ROWS, np.int32))
    return [Rows(*(jnp.asarray(x[i : i + 3]) for x in whole)) for i in (0, 3)]


def _hand_made():
    """Layer 1 moves every state by one vector and layer 2 moves it back; 3 … 5 turn it a little, all the same way.

    Attention adds nothing. Channel 0 is the same for every token and the others are ±1, so that what a layer reads in
    channel 0, and in channel 1 after layer 1, is the same number for all.
    """
    params = jax.tree.map(np.array, init_params(MODEL, Runtime(), jax.random.key(0)))
    draw = np.random.default_rng(0)
    embedding = draw.choice([-1.0, 1.0], (MODEL.vocab_size, MODEL.embed_dim))
    embedding[:, 0], embedding[:, 1:4] = 4.0, 0.0
    params["embedding"] = embedding.astype(np.float32)
    blocks = params["blocks"]
    blocks["attention"]["o"][:] = 0
    for name in ("gate", "up", "down"):
        blocks["mlp"][name][:] = 0
    state = embedding[0].copy()

    def move(layer, channel, by):
        """Layer `layer` adds `by` to a channel, whatever the token: its neuron reads channel 0."""
        normed = state[0] / np.sqrt(np.mean(state**2) + MODEL.norm_eps)
        blocks["mlp"]["gate"][layer, 0, 0] = blocks["mlp"]["up"][layer, 0, 0] = 1.0
        blocks["mlp"]["down"][layer, 0, channel] = by / (normed / (1 + np.exp(-normed)) * normed)
        state[channel] += by

    move(1, 1, 6.0)
    move(2, 1, -6.0)
    for layer in (3, 4, 5):
        move(layer, 2, 1.5)
    return jax.tree.map(jnp.asarray, params)


def _without(params, start, end):
    """The model that is left without layers `start` … `end` − 1."""
    left = tuple(i for i in range(MODEL.num_layers) if not start <= i < end)
    after = dataclasses.replace(MODEL, num_layers=len(left))
    return after, apply(CutList(MODEL, after, left, (False,) * len(left)), params)


@functools.partial(jax.jit, static_argnums=0)
def _log_probs(a, params):
    model = bind(a, Runtime(), params)
    return [jax.nn.log_softmax(model.unembed(model(b.inputs, segment_ids=b.segment_ids))) for b in _batches()]


def _loss(a, params):
    """Next-token loss, nats per token."""
    total = count = 0.0
    for batch, log_p in zip(_batches(), _log_probs(a, params)):
        picked = np.take_along_axis(np.asarray(log_p, np.float64), np.asarray(batch.targets)[..., None], -1)[..., 0]
        weights = np.asarray(batch.weights, np.float64)
        total, count = total - (picked * weights).sum(), count + weights.sum()
    return total / count


def _left(start):
    return tuple(i for i in range(MODEL.num_layers) if not start <= i < start + 2)


def test_layers_that_undo_each_other_go():
    params = _hand_made()
    found = score(ImportanceConfig(), Model(MODEL), params, _batches(), lengths=(2,))
    cuts = prune.cut_list(MODEL, PruneConfig(num_layers=5), found)
    whole, changes = _log_probs(MODEL, params), {}
    for start in range(1, 5):
        left = _log_probs(*_without(params, start, start + 2))
        changes[start] = max(float(jnp.abs(x - y).max()) for x, y in zip(whole, left))
    assert changes[1] < 1e-4 and min(changes[2], changes[3], changes[4]) > 0.05
    assert cuts.layers == _left(1)
    assert found.layers[1:3].min() > 5 * found.layers[3:6].max()  # one by one they matter most
    np.testing.assert_array_equal(found.blocks[0, :6], found.layers[:6])


def test_the_block_whose_loss_is_least_goes():
    params = _hand_made()
    found = score(ImportanceConfig(layers="perplexity"), Model(MODEL), params, _batches(), lengths=(2,))
    losses = {start: _loss(*_without(params, start, start + 2)) for start in range(1, 5)}
    start = min(losses, key=losses.__getitem__)
    assert prune.cut_list(MODEL, PruneConfig(num_layers=5), found).layers == _left(start)


def test_blocks_are_scored_by_how_far_they_turn_the_stream():
    params = init_params(MODEL, Runtime(), jax.random.key(2))
    found = score(ImportanceConfig(), Model(MODEL), params, _batches(), lengths=(2, 4))
    cosines = []
    for batch in _batches():
        _, seen = bind(MODEL, Runtime(), params)(
            batch.inputs, segment_ids=batch.segment_ids, observe=lambda taps: {"input": taps["input"]}
        )
        x = np.asarray(seen["input"], np.float64)
        x /= np.linalg.norm(x, axis=-1, keepdims=True)
        cosines.append(np.einsum("ibtd,jbtd->ijbt", x, x)[..., np.asarray(batch.weights) > 0])
    wanted = 1 - np.concatenate(cosines, axis=-1).mean(axis=-1)
    for n in (1, 2, 4):
        np.testing.assert_allclose(found.blocks[n - 1, : 7 - n], np.diagonal(wanted, n), atol=1e-5)
        assert np.isinf(found.blocks[n - 1, 7 - n :]).all()
    assert np.isinf(found.blocks[[2, 4, 5, 6]]).all()


def test_blocks_are_scored_by_what_their_loss_costs():
    params = init_params(MODEL, Runtime(), jax.random.key(3))
    config = ImportanceConfig(layers="perplexity")
    found = score(config, Model(MODEL), params, _batches(), lengths=(3,))
    whole = _loss(MODEL, params)
    wanted = [_loss(*_without(params, start, start + 3)) - whole for start in range(4)]
    np.testing.assert_allclose(found.blocks[2, :4], wanted, atol=2e-5)
    assert forward_passes(config, 7, (3,)) == 1 + 7 + 4 + 1 and forward_passes(ImportanceConfig(), 7, (3,)) == 1


def test_only_the_blocks_that_cuts_ask_for_are_scored():
    shapes = [PruneConfig(num_layers=4), PruneConfig(num_layers=6), PruneConfig(num_layers=5, layers="scattered")]
    assert prune.block_lengths(MODEL, [*shapes, PruneConfig(mlp_dim=2)]) == (3,)  # one layer is scored in any case
