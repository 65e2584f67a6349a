"""Surgery is exact: the cut model computes what the whole one does with the rest masked out."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kanana_jax.errors import ConfigError, UserError
from kanana_jax.interop import model_folder
from kanana_jax.models import counts
from kanana_jax.models.architecture import Architecture, Runtime
from kanana_jax.models.transformer import abstract_params, bind, init_params
from kanana_jax.parallel.mesh import MeshConfig, make_mesh
from kanana_jax.surgery import cuts as cuts_lib
from kanana_jax.surgery import prune, streaming, upscale
from kanana_jax.surgery.cuts import CutList
from kanana_jax.surgery.importance import Importance

TEACHER = Architecture(
    vocab_size=64, embed_dim=24, mlp_dim=40, num_layers=5, num_heads=6, num_kv_heads=2, head_dim=8, init_std=0.2
)
RUNTIME = Runtime(scan_layers=True)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _params(a=TEACHER, seed=0):
    """Random weights whose norms are not all ones."""
    params = init_params(a, RUNTIME, jax.random.key(seed))
    keys = iter(jax.random.split(jax.random.key(seed + 1), 3))
    for norm in (params["final_norm"], params["blocks"]["attention_norm"], params["blocks"]["mlp_norm"]):
        norm["scale"] = 1 + 0.3 * jax.random.normal(next(keys), norm["scale"].shape)
    return params


def _scores(a=TEACHER, seed=0):
    draw = np.random.default_rng(seed)
    shapes = [(a.embed_dim,), (a.num_layers, a.mlp_dim), (a.num_layers, a.num_heads), (a.num_layers,)]
    shapes += [(2 * a.num_layers + 1, a.embed_dim), (a.num_layers, a.num_layers)]
    return Importance(*(draw.random(s).astype(np.float32) for s in shapes))


@functools.partial(jax.jit, static_argnums=(0, 3))
def _logits(a, params, tokens, runtime=RUNTIME):
    model = bind(a, runtime, params)
    return model.unembed(model(tokens))


TOKENS = jnp.asarray(np.random.default_rng(5).integers(0, 64, (2, 12)), jnp.int32)


def _masked(cuts, params):
    """The teacher with everything that the cuts drops set to zero; its shape but for the depth.

    A norm averages over the kept channels: with zeros among all D of them the mean is D'/D of it, so that the gain
    takes √(D'/D) and ε the factor D'/D.
    """
    a, b = cuts.before, cuts.after
    params = jax.tree.map(lambda x: np.array(x), params)
    keep_channel = np.zeros(a.embed_dim)
    keep_channel[list(cuts.channels or range(a.embed_dim))] = 1
    ratio = b.embed_dim / a.embed_dim
    blocks = params["blocks"]
    for i in range(b.num_layers):
        old = cuts.layers[i]
        keep_neuron, keep_head = np.zeros(a.mlp_dim), np.zeros(a.num_heads)
        keep_neuron[list(cuts.neurons[i]) if cuts.neurons else slice(None)] = 1
        keep_head[list(cuts.heads[i]) if cuts.heads else slice(None)] = 1
        blocks["mlp"]["down"][old] *= keep_neuron[:, None]
        blocks["attention"]["o"][old] *= keep_head[:, None, None]
    blocks["mlp"]["down"] *= keep_channel
    blocks["attention"]["o"] *= keep_channel
    params["embedding"] = params["embedding"] * keep_channel
    for norm in (params["final_norm"], blocks["attention_norm"], blocks["mlp_norm"]):
        norm["scale"] = norm["scale"] * keep_channel * np.sqrt(ratio)
    params["blocks"] = jax.tree.map(lambda x: x[np.array(cuts.layers)], blocks)
    masked = dataclasses.replace(a, num_layers=b.num_layers, norm_eps=a.norm_eps * ratio)
    return masked, jax.tree.map(jnp.asarray, params)


@pytest.mark.parametrize(
    "config",
    [
        dict(embed_dim=16),
        dict(mlp_dim=24),
        dict(num_heads=4),
        dict(num_heads=2),
        dict(num_heads=3, num_kv_heads=1),
        dict(num_layers=3),
        dict(num_layers=3, layers="scattered"),
        dict(num_layers=2, layers="last"),
        dict(embed_dim=16, mlp_dim=24, num_heads=4, num_layers=4),
        dict(embed_dim=8, mlp_dim=8, num_heads=2, num_kv_heads=1, num_layers=1),
    ],
)
def test_the_pruned_model_is_the_masked_teacher(config):
    params = _params()
    cuts = prune.cut_list(TEACHER, prune.PruneConfig(**config), _scores())
    pruned = cuts_lib.apply(cuts, params)
    expected = jax.tree.map(lambda x: x.shape, abstract_params(cuts.after, RUNTIME))
    assert jax.tree.map(lambda x: x.shape, pruned) == expected
    masked, masked_params = _masked(cuts, params)
    np.testing.assert_allclose(_logits(cuts.after, pruned, TOKENS), _logits(masked, masked_params, TOKENS), atol=1e-5)


def _written_out(cuts, params):
    """The cut with every parameter named, array by array."""
    layers, c = [], np.array(cuts.channels)
    for i, old in enumerate(cuts.layers):
        h, k, n = (np.array(kept[i]) for kept in (cuts.heads, cuts.kv_heads, cuts.neurons))
        attention, mlp = (
            {key: np.asarray(x[old]) for key, x in params["blocks"][p].items()} for p in ("attention", "mlp")
        )
        norms = [np.asarray(params["blocks"][name]["scale"][old])[c] for name in ("attention_norm", "mlp_norm")]
        reset = np.float32(0.0 if cuts.identity[i] else 1.0)
        layers.append(
            {
                "attention_norm": {"scale": norms[0] * np.float32(cuts.norm_scales[2 * i])},
                "attention": {
                    "q": attention["q"][c][:, h],
                    "k": attention["k"][c][:, k],
                    "v": attention["v"][c][:, k],
                    "o": attention["o"][h][:, :, c] * reset,
                },
                "mlp_norm": {"scale": norms[1] * np.float32(cuts.norm_scales[2 * i + 1])},
                "mlp": {
                    "gate": mlp["gate"][c][:, n],
                    "up": mlp["up"][c][:, n],
                    "down": mlp["down"][n][:, c] * reset,
                },
            }
        )
    final = np.asarray(params["final_norm"]["scale"])[c] * np.float32(cuts.norm_scales[-1])
    tables = {name: np.asarray(params[name])[:, c] for name in ("embedding", "unembedding") if name in params}
    if cuts.after.tied_embeddings and not cuts.before.tied_embeddings:
        tables = {"embedding": np.float32(0.5) * (tables["embedding"] + tables["unembedding"])}
    return {"blocks": jax.tree.map(lambda *x: np.stack(x), *layers), "final_norm": {"scale": final}, **tables}


@pytest.mark.parametrize("tied", [(False, False), (False, True), (True, True)])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_cut_is_the_one_written_out_to_the_bit(tied, seed):
    """Other parts in every layer, layers twice and out of order, identity layers and gains that are rescaled."""
    before = dataclasses.replace(TEACHER, tied_embeddings=tied[0])
    after = dataclasses.replace(
        before, embed_dim=14, mlp_dim=22, num_heads=3, num_kv_heads=1, num_layers=4, tied_embeddings=tied[1]
    )
    draw = np.random.default_rng(seed)

    def some(old, new):
        return tuple(sorted(int(i) for i in draw.choice(old, new, replace=False)))

    cuts = CutList(
        before,
        after,
        layers=(0, 3, 3, 1),
        identity=(False, False, True, False),
        channels=some(24, 14),
        neurons=tuple(some(40, 22) for _ in range(4)),
        heads=tuple(some(6, 3) for _ in range(4)),
        kv_heads=tuple(some(2, 1) for _ in range(4)),
        norm_scales=tuple(float(x) for x in draw.uniform(0.5, 2, 9)),
    )
    params = _params(before, seed)
    want, found = _written_out(cuts, params), cuts_lib.apply(cuts, params)
    assert jax.tree.structure(found) == jax.tree.structure(want)
    jax.tree.map(
        lambda x, y: np.testing.assert_array_equal(np.asarray(x).view(np.int32), y.view(np.int32)), found, want
    )


def test_the_highest_scores_stay_and_every_group_keeps_as_many_heads():
    scores = _scores()
    config = prune.PruneConfig(embed_dim=10, mlp_dim=7, num_heads=4)
    cuts = prune.cut_list(TEACHER, config, scores)
    assert set(cuts.channels) == set(np.argsort(scores.channels)[-10:])
    for i in range(5):
        assert set(cuts.neurons[i]) == set(np.argsort(scores.neurons[i])[-7:])
        groups = [[h for h in cuts.heads[i] if h // 3 == k] for k in range(2)]
        assert [len(g) for g in groups] == [2, 2]
        for k, group in enumerate(groups):
            assert set(group) == {3 * k + int(x) for x in np.argsort(scores.heads[i][3 * k : 3 * k + 3])[-2:]}
    loose = prune.cut_list(TEACHER, dataclasses.replace(config, align_groups=False), scores)
    assert [set(h) for h in loose.heads] == [set(np.argsort(row)[-4:]) for row in scores.heads]


@pytest.mark.parametrize(
    "layers, gone",
    [("scattered", 2), ("contiguous", 1), ("contiguous", 2), ("contiguous", 3), ("contiguous", 4), ("last", 2)],
)
def test_which_layers_go(layers, gone):
    scores = np.array([0.1, 0.5, 0.05, 0.3, 0.6], np.float32)
    blocks = np.full((5, 5), np.inf, np.float32)
    blocks[0, :4] = scores[:4]
    blocks[1, :3] = 0.02, 0.1, 0.2  # the first layer stays; layers 1 and 2 undo each other
    blocks[2, :2], blocks[3, 0] = (0.1, 0.9), 0.7
    importance = dataclasses.replace(_scores(), layers=scores, blocks=blocks)
    cuts = prune.cut_list(TEACHER, prune.PruneConfig(num_layers=5 - gone, layers=layers), importance)
    left = {
        ("scattered", 2): (1, 3, 4),
        ("contiguous", 1): (0, 1, 3, 4),
        ("contiguous", 2): (0, 3, 4),
        ("contiguous", 3): (0, 4),
        ("contiguous", 4): (4,),
        ("last", 2): (0, 1, 4),
    }
    assert cuts.layers == left[layers, gone]


def test_tied_embeddings_are_the_average():
    params = _params()
    cuts = prune.cut_list(TEACHER, prune.PruneConfig(tie_embeddings=True), _scores())
    pruned = cuts_lib.apply(cuts, params)
    np.testing.assert_allclose(pruned["embedding"], (params["embedding"] + params["unembedding"]) / 2, rtol=1e-6)
    assert "unembedding" not in pruned and cuts.report()["tied_by_averaging"]
    same = jax.tree.map(lambda x: x, params) | {"unembedding": params["embedding"]}
    tied = cuts_lib.apply(cuts, same)
    np.testing.assert_allclose(_logits(cuts.after, tied, TOKENS), _logits(TEACHER, same, TOKENS), atol=1e-5)


def test_rescaled_norms_give_what_the_whole_stream_would():
    """Where all dropped channels have the kept ones' mean square, rescaling undoes nothing and factors are 1."""
    importance = dataclasses.replace(_scores(), residual=np.ones((11, 24), np.float32))
    config = prune.PruneConfig(embed_dim=16, rescale_norms=True)
    assert prune.cut_list(TEACHER, config, importance).norm_scales == (1.0,) * 11
    residual = np.ones((11, 24), np.float32)
    kept = list(prune.cut_list(TEACHER, config, importance).channels)
    residual[:, kept] = 1.2
    importance = dataclasses.replace(importance, residual=residual)
    cuts = prune.cut_list(TEACHER, config, importance)
    np.testing.assert_allclose(cuts.norm_scales, np.sqrt(1.2), rtol=1e-6)
    pruned, plain = (cuts_lib.apply(p, _params()) for p in (cuts, dataclasses.replace(cuts, norm_scales=None)))
    np.testing.assert_allclose(
        pruned["blocks"]["mlp_norm"]["scale"], plain["blocks"]["mlp_norm"]["scale"] * np.sqrt(1.2), rtol=1e-6
    )


@pytest.mark.parametrize(
    "new, layers", [(6, (0, 1, 2, 2, 3, 4)), (8, (0, 1, 2, 3, 1, 2, 3, 4)), (10, (0, 1, 2, 3, 4) * 2)]
)
def test_overlap_is_solars(new, layers):
    cuts = upscale.cut_list(TEACHER, upscale.UpscaleConfig(new))
    assert cuts.layers == layers and cuts.after.num_layers == new
    params = cuts_lib.apply(cuts, _params())
    for old, found in zip(cuts.layers, np.asarray(params["blocks"]["mlp"]["up"])):
        np.testing.assert_array_equal(found, _params()["blocks"]["mlp"]["up"][old])


def test_the_papers_up_scaling():
    """SOLAR: 32 → 48 by layers 0–23 and 8–31; Kanana: 32 → 40 by 0–19 and 12–31."""
    base = dataclasses.replace(TEACHER, num_layers=32)
    assert upscale.cut_list(base, upscale.UpscaleConfig(48)).layers == (*range(24), *range(8, 32))
    assert upscale.cut_list(base, upscale.UpscaleConfig(40)).layers == (*range(20), *range(12, 32))


@pytest.mark.parametrize("new", [6, 7, 8, 10])
def test_identity_layers_change_no_logit(new):
    cuts = upscale.cut_list(TEACHER, upscale.UpscaleConfig(new, "identity"))
    params = _params()
    deeper = cuts_lib.apply(cuts, params)
    np.testing.assert_allclose(_logits(cuts.after, deeper, TOKENS), _logits(TEACHER, params, TOKENS), atol=1e-6)
    assert sum(cuts.identity) == new - 5 and cuts.identity[-1] and list(cuts.layers) == sorted(cuts.layers)
    gradient = jax.grad(lambda p: jnp.sum(jnp.square(bind(cuts.after, RUNTIME, p)(TOKENS))))(deeper)
    assert np.abs(np.asarray(gradient["blocks"]["mlp"]["down"]))[list(cuts.identity)].max() > 0  # they can learn


@given(st.integers(2, 40), st.data())
@settings(max_examples=60, deadline=None)
def test_every_method_keeps_order_and_reaches_the_depth(old, data):
    base = dataclasses.replace(TEACHER, num_layers=old)
    for method in ("overlap", "identity", "neighbour", "stack"):
        new = data.draw(st.integers(old + 1, 2 * old if method != "stack" else 4 * old))
        cuts = upscale.cut_list(base, upscale.UpscaleConfig(new, method))
        assert len(cuts.layers) == new and set(cuts.layers) == set(range(old))
        assert any(cuts.identity) == (method == "identity")
        if method in ("identity", "neighbour"):
            assert list(cuts.layers) == sorted(cuts.layers) and max(np.bincount(cuts.layers)) <= 2


def test_from_folder_to_folder_is_the_same_as_in_memory(tmp_path):
    params = _params()
    special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}
    model_folder.write(tmp_path / "a", TEACHER, params, model_folder.card(TEACHER), None, special)
    for name, cuts in {
        "pruned": prune.cut_list(
            TEACHER,
            prune.PruneConfig(embed_dim=16, mlp_dim=24, num_heads=4, num_layers=3, tie_embeddings=True),
            _scores(),
        ),
        "deeper": upscale.cut_list(TEACHER, upscale.UpscaleConfig(8, "identity")),
    }.items():
        streaming.apply_to_folder(cuts, model_folder.find(tmp_path / "a"), tmp_path / name, {"parent": "a"})
        found = model_folder.find(tmp_path / name)
        assert found.architecture == cuts.after and found.card == {"parent": "a"}
        loaded = model_folder.load_params(found, RUNTIME, make_mesh(MeshConfig(), jax.devices()[:1]))
        jax.tree.map(np.testing.assert_array_equal, loaded, cuts_lib.apply(cuts, params))


def test_on_eight_devices_nothing_changes():
    params = _params()
    cuts = prune.cut_list(TEACHER, prune.PruneConfig(embed_dim=16, mlp_dim=24, num_heads=4), _scores())
    mesh = make_mesh(MeshConfig(data=1, fsdp=4, sequence=1, tensor=2))
    with jax.set_mesh(mesh):
        from kanana_jax.models.transformer import logical_axes
        from kanana_jax.parallel.sharding import tree_shardings

        sharded = jax.device_put(params, tree_shardings(mesh, logical_axes(TEACHER)))
        found = cuts_lib.apply(cuts, sharded, mesh)
    assert found["blocks"]["mlp"]["up"].sharding.spec == tree_shardings(mesh, logical_axes(cuts.after))[
        "blocks"]["mlp"]["up"].spec  # fmt: skip
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(found), cuts_lib.apply(cuts, params))


def test_reports_count():
    cuts = prune.cut_list(TEACHER, prune.PruneConfig(embed_dim=16, num_layers=3), _scores())
    report = cuts.report()
    assert report["parameters"] == [counts.parameters(TEACHER), counts.parameters(cuts.after)]
    assert len(report["dropped_layers"]) == 2 and report["kept"]["channels"] == [16, 24]
    report = upscale.cut_list(TEACHER, upscale.UpscaleConfig(8)).report()
    assert report["copied_layers"] == [4, 5, 6] and report["dropped_layers"] == []


@pytest.mark.parametrize(
    "config, told",
    [
        (dict(embed_dim=25), "config 'prune.embed_dim' is 25"),
        (dict(num_heads=5), "5, which the 2 KV groups do not divide"),
        (dict(num_heads=4, num_kv_heads=1), "4 per group, but the model has 3"),
        (dict(num_layers=6), "config 'prune.num_layers' is 6"),
        (dict(embed_dim=24), "nothing would change"),
        (dict(), "nothing would change"),
    ],
)
def test_shapes_that_cannot_be_are_refused(config, told):
    with pytest.raises(ConfigError, match=told):
        prune.cut_list(TEACHER, prune.PruneConfig(**config), _scores())


def test_other_refusals():
    tied = dataclasses.replace(TEACHER, tied_embeddings=True)
    with pytest.raises(ConfigError, match="already tied"):
        prune.shape(tied, prune.PruneConfig(tie_embeddings=True))
    with pytest.raises(UserError, match="'channels' has shape"):
        prune.cut_list(dataclasses.replace(TEACHER, embed_dim=32), prune.PruneConfig(mlp_dim=8), _scores())
    broken = dataclasses.replace(_scores(), layers=np.full(5, np.nan, np.float32))
    with pytest.raises(UserError, match="not finite"):
        prune.cut_list(TEACHER, prune.PruneConfig(mlp_dim=8), broken)
    alone = dataclasses.replace(_scores(), blocks=np.full((5, 5), np.inf, np.float32))
    with pytest.raises(UserError, match="no scores of blocks of 2 layers"):
        prune.cut_list(TEACHER, prune.PruneConfig(num_layers=3), alone)
    with pytest.raises(ConfigError, match="already has 5"):
        upscale.cut_list(TEACHER, upscale.UpscaleConfig(5))
    with pytest.raises(ConfigError, match="reaches 10 at most"):
        upscale.cut_list(TEACHER, upscale.UpscaleConfig(11))
