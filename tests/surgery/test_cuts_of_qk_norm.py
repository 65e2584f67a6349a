"""A part of a model that surgery does not know by name is cut by the names of its axes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from kanana_jax.interop import model_folder
from kanana_jax.models import counts
from kanana_jax.models.architecture import Architecture, Runtime
from kanana_jax.models.transformer import bind, init_params
from kanana_jax.parallel.mesh import MeshConfig, make_mesh
from kanana_jax.surgery import streaming
from kanana_jax.surgery.cuts import CutList, apply

BEFORE = Architecture(
    vocab_size=64, embed_dim=24, mlp_dim=40, num_layers=5, num_heads=6, num_kv_heads=2, head_dim=8, init_std=0.2,
    qk_norm="head",
)  # fmt: skip
LAYERS = (0, 2, 4)
HEADS = ((3, 5), (0, 2), (4, 5))
NEURONS = (tuple(range(24)), tuple(range(16, 40)), (*range(8), *range(8, 40, 2)))
KV_HEADS = ((1,), (0,), (1,))
RUNTIME = Runtime()


def _params():
    params = init_params(BEFORE, RUNTIME, jax.random.key(0))
    for i, name in enumerate(("q_norm", "k_norm")):
        shape = (BEFORE.num_layers, BEFORE.head_dim)
        params["blocks"]["attention"][name]["scale"] = 1 + 0.3 * jax.random.normal(jax.random.key(i), shape)
    return params


def _cuts(**more) -> CutList:
    sizes = dict(num_layers=3, num_heads=2, num_kv_heads=1, mlp_dim=24)
    if "channels" in more:
        sizes["embed_dim"] = len(more["channels"])
    after = dataclasses.replace(BEFORE, **sizes)
    return CutList(BEFORE, after, LAYERS, (False,) * 3, neurons=NEURONS, heads=HEADS, kv_heads=KV_HEADS, **more)


def test_narrower_and_shallower_it_is_the_masked_model():
    params, cuts = _params(), _cuts()
    masked = jax.tree.map(lambda x: np.array(x), params)
    for old, heads, neurons in zip(LAYERS, HEADS, NEURONS, strict=True):
        masked["blocks"]["attention"]["o"][old, [h for h in range(6) if h not in heads]] = 0
        masked["blocks"]["mlp"]["down"][old, [n for n in range(40) if n not in neurons]] = 0
    masked["blocks"] = jax.tree.map(lambda x: x[np.array(LAYERS)], masked["blocks"])
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 64, (2, 12)), jnp.int32)
    want = bind(dataclasses.replace(BEFORE, num_layers=3), RUNTIME, jax.tree.map(jnp.asarray, masked))(tokens)
    np.testing.assert_allclose(bind(cuts.after, RUNTIME, apply(cuts, params))(tokens), want, atol=1e-5)


def test_gains_of_heads_stay_whole_and_the_rest_is_cut_as_without_them(tmp_path):
    params, cuts = _params(), _cuts(channels=tuple(range(1, 17)))
    found = apply(cuts, params)
    sizes = [x.size for x in jax.tree.leaves(found)]
    assert sum(sizes) == counts.parameters(cuts.after)
    gains = {name: found["blocks"]["attention"].pop(name) for name in ("q_norm", "k_norm")}
    for name, gain in gains.items():
        np.testing.assert_array_equal(gain["scale"], params["blocks"]["attention"][name]["scale"][np.array(LAYERS)])
    attention = {k: v for k, v in params["blocks"]["attention"].items() if k not in gains}
    plain = {**params, "blocks": {**params["blocks"], "attention": attention}}
    without = [dataclasses.replace(a, qk_norm="none") for a in (cuts.before, cuts.after)]
    llama = dataclasses.replace(cuts, before=without[0], after=without[1])
    jax.tree.map(np.testing.assert_array_equal, found, apply(llama, plain))

    special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}
    model_folder.write(tmp_path / "a", BEFORE, params, model_folder.card(BEFORE), None, special)
    streaming.apply_to_folder(cuts, model_folder.find(tmp_path / "a"), tmp_path / "b", {})
    written = model_folder.find(tmp_path / "b")
    assert written.architecture == cuts.after
    loaded = model_folder.load_params(written, RUNTIME, make_mesh(MeshConfig(), jax.devices()[:1]))
    found["blocks"]["attention"] |= gains
    jax.tree.map(np.testing.assert_array_equal, loaded, found)
