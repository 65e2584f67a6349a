"""Surgery on decoders with windows, norms behind each part, and biases: parts that add nothing go without a trace."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kanana_jax.data.stream.packing import Rows
from kanana_jax.errors import ConfigError
from kanana_jax.models.architecture import Architecture, LayerKind, Runtime
from kanana_jax.models.model import Model
from kanana_jax.models.transformer import bind, init_params
from kanana_jax.surgery import importance, prune, upscale
from kanana_jax.surgery.cuts import apply

PATTERN = (LayerKind(window=5, rope_theta=500.0), LayerKind(rope=False))
BASE = Architecture(64, 24, 40, 6, 6, 2, 8, init_std=0.2, layer_pattern=PATTERN)
CASES = {
    "windows and biases": dataclasses.replace(BASE, attention_bias="qkvo", mlp_bias=True, qk_norm="head"),
    "post norms": dataclasses.replace(BASE, norm_placement="post"),
    "norms on both sides": dataclasses.replace(
        BASE, norm_placement="both", norm_unit_offset=True, activation="gelu_tanh", logits_softcap=5.0
    ),
}
RUNTIME = Runtime()
TOKENS = np.random.default_rng(0).integers(0, 64, (2, 16)).astype(np.int32)
HEADS, NEURONS, LAYERS = (1, 4), tuple(range(7, 15)), (2, 3)  # that add nothing


def _params(a):
    draw = np.random.default_rng(1)
    params = jax.tree.map(
        lambda x: np.array(x + draw.normal(0, 0.1, x.shape), np.float32), init_params(a, RUNTIME, jax.random.key(0))
    )
    attention, mlp = params["blocks"]["attention"], params["blocks"]["mlp"]
    attention["o"][:, list(HEADS)] = 0
    mlp["down"][:, list(NEURONS)] = 0
    for part, names in ((attention, ("o", "o_bias")), (mlp, ("down", "down_bias"))):
        for name in names:
            if name in part:
                part[name][list(LAYERS)] = 0
    return jax.tree.map(jnp.asarray, params)


def _logits(a, params):
    return jax.jit(lambda p: (lambda m: m.unembed(m(TOKENS)))(bind(a, RUNTIME, p)))(params)


def _rows():
    ones = jnp.ones((2, 16), jnp.int32)
    positions = jnp.broadcast_to(jnp.arange(16), (2, 16))
    return Rows(jnp.asarray(TOKENS), jnp.asarray(TOKENS), positions, ones, jnp.ones((2, 16), jnp.float32), ones)


@pytest.mark.parametrize("name", CASES)
def test_what_adds_nothing_is_cut_without_a_trace(name):
    a = CASES[name]
    params = _params(a)
    config = prune.PruneConfig(mlp_dim=32, num_heads=4, num_layers=4)
    scores = _scores(a, params, "cosine", config)
    # Heads and neurons are ranked by what goes into `o` and `down`, which here alone are zero.
    scores.heads[:, list(HEADS)] = scores.neurons[:, list(NEURONS)] = -1
    cuts = prune.cut_list(a, config, scores)
    assert cuts.layers == (0, 1, 4, 5) and cuts.after.layer_pattern == PATTERN
    assert all(set(kept) == set(range(40)) - set(NEURONS) for kept in cuts.neurons)
    assert all(set(kept) == set(range(6)) - set(HEADS) for kept in cuts.heads)
    np.testing.assert_allclose(_logits(cuts.after, apply(cuts, params)), _logits(a, params), atol=1e-4)


def test_without_layers_that_add_nothing_the_loss_is_the_same():
    a = CASES["windows and biases"]
    scores = _scores(a, _params(a), "perplexity", prune.PruneConfig(num_layers=4))
    np.testing.assert_allclose(scores.blocks[1, 2], 0, atol=1e-5)
    assert (np.abs(np.delete(scores.blocks[1, :4], 2)) > 1e-3).all()


def _scores(a, params, layers, config):
    lengths = prune.block_lengths(a, [config])
    return importance.score(importance.ImportanceConfig(layers=layers), Model(a), params, [_rows()], lengths)


@pytest.mark.parametrize("name", ["windows and biases", "norms on both sides"])
def test_identity_layers_add_nothing(name):
    a = dataclasses.replace(CASES[name], layer_pattern=PATTERN[:1])
    params = _params(a)
    cuts = upscale.cut_list(a, upscale.UpscaleConfig(8, "identity"))
    np.testing.assert_allclose(_logits(cuts.after, apply(cuts, params)), _logits(a, params), atol=1e-5)


def test_layers_keep_their_kind():
    a = CASES["post norms"]
    for method, layers in (("overlap", 8), ("overlap", 10), ("stack", 12)):
        cuts = upscale.cut_list(a, upscale.UpscaleConfig(layers, method))
        assert all(cuts.after.kinds[i] == a.kinds[layer] for i, layer in enumerate(cuts.layers))
    for method, layers in (("overlap", 7), ("identity", 8), ("neighbour", 8)):
        with pytest.raises(ConfigError, match="repeat every 2: use method 'overlap'"):
            upscale.cut_list(a, upscale.UpscaleConfig(layers, method))
    for config in (prune.PruneConfig(num_layers=5), prune.PruneConfig(num_layers=4, layers="scattered")):
        with pytest.raises(ConfigError, match="remove a multiple of 2 of its 6"):
            prune.shape(a, config)
    with pytest.raises(ConfigError, match="rescale_norms"):
        prune.shape(a, prune.PruneConfig(embed_dim=16, rescale_norms=True))
