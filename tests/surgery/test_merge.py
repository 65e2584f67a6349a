"""Merging: each method is its paper's formula, by NumPy in float64; folders are merged exactly, and refused apart."""

import json

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kanana_jax.errors import ConfigError
from kanana_jax.interop import model_folder
from kanana_jax.models.architecture import Architecture, Runtime
from kanana_jax.models.transformer import abstract_params
from kanana_jax.parallel.mesh import MeshConfig, make_mesh
from kanana_jax.surgery.merge import MergeConfig, merged
from kanana_jax.surgery.merge_folders import merge_folders

A = Architecture(vocab_size=64, embed_dim=32, mlp_dim=48, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8)
NAMES = ("a", "b", "c")


def _tensors(seed, count=3, shape=(7, 12)):
    draw = np.random.default_rng(seed)
    base = draw.normal(size=shape).astype(np.float32)
    return base, [(base + 0.1 * draw.normal(size=shape)).astype(np.float32) for _ in range(count)]


def _config(method, weights=(), models=NAMES, **more):
    return MergeConfig(models[: len(weights) or 3], method, weights, **more)


@given(st.integers(0, 99), st.lists(st.floats(0.01, 2), min_size=3, max_size=3), st.floats(-2, 2))
@settings(max_examples=25, deadline=None)
def test_linear_and_task_arithmetic_are_sums(seed, weights, scale):
    base, models = _tensors(seed)
    w, x, b = np.array(weights), np.stack(models).astype(np.float64), base.astype(np.float64)
    mean = np.tensordot(w, x, 1) / w.sum()
    np.testing.assert_allclose(merged(_config("linear", weights), base, models), mean, rtol=2e-6, atol=2e-6)
    summed = b + scale * np.tensordot(w, x - b, 1)
    got = merged(_config("task_arithmetic", weights, scale=scale), base, models)
    np.testing.assert_allclose(got, summed, rtol=5e-6, atol=5e-6)


@pytest.mark.parametrize("place", (0.0, 0.3, 0.5, 1.0))
def test_slerp_keeps_the_angle_in_proportion(place):
    base, (a, b) = _tensors(3, 2)
    b = np.roll(b, 1, axis=1)  # far from parallel
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    config = MergeConfig(("a", "b"), "slerp", (1 - place, place))
    got = merged(config, base, [(a, b)[i] for i in config.used])
    whole = np.arccos(np.vdot(a, b))
    assert np.linalg.norm(got) == pytest.approx(1, abs=1e-6)  # on the sphere, at its share of the arc
    assert np.arccos(np.clip(np.vdot(a, got), -1, 1)) == pytest.approx(place * whole, abs=1e-3)
    if place in (0, 1):
        np.testing.assert_array_equal(got, b if place else a)


def _ties(base, models, weights, density, scale):
    """Algorithm 1 of arXiv:2306.01708, entry by entry."""
    base = base.astype(np.float64).ravel()
    tasks = [m.astype(np.float64).ravel() - base for m in models]
    for task in tasks:
        keep = int(np.ceil(density * len(task)))
        task[np.argsort(-np.abs(task), kind="stable")[keep:]] = 0
    result = base.copy()
    for p in range(len(base)):
        up = sum(w * t[p] for w, t in zip(weights, tasks) if t[p] > 0)
        down = -sum(w * t[p] for w, t in zip(weights, tasks) if t[p] < 0)
        agreed = [(w, t[p]) for w, t in zip(weights, tasks) if (t[p] > 0 if up > down else t[p] < 0)]
        if agreed:
            result[p] += scale * sum(w * v for w, v in agreed) / sum(w for w, _ in agreed)
    return result


@given(st.integers(0, 99), st.lists(st.floats(0.1, 2), min_size=3, max_size=3), st.floats(0.05, 1.0))
@settings(max_examples=25, deadline=None)
def test_ties_is_the_papers_algorithm(seed, weights, density):
    base, models = _tensors(seed)
    got = merged(_config("ties", weights, density=density, scale=0.7), base, models)
    np.testing.assert_allclose(got.ravel(), _ties(base, models, weights, density, 0.7), rtol=1e-5, atol=1e-6)


def test_dare_is_unbiased_and_drawn_from_its_seed():
    """Models that agree in every sign: the mean over seeds is the merge without drops."""
    draw = np.random.default_rng(0)
    base = draw.normal(size=(5, 8)).astype(np.float32)
    task = draw.normal(size=base.shape).astype(np.float32)
    models = [base + task, base + 3 * task]
    weights, runs = (1.0, 0.5), 3000

    def once(seed):
        return merged(MergeConfig(("a", "b"), "dare_ties", weights, density=0.3, seed=seed), base, models)

    seen = np.stack([once(seed) for seed in range(runs)]) - base
    expected = task * (1.0 + 0.5 * 3) / 1.5
    error = seen.std(axis=0) / np.sqrt(runs)
    assert np.abs((seen.mean(axis=0) - expected) / error).max() < 4.5
    kept = np.array([0, 1, 1.5, 2.5]) / 1.5 / 0.3  # each is dropped or divided by its share
    assert np.isclose((seen[0] / task)[..., None], kept, atol=1e-3).any(axis=-1).all()
    np.testing.assert_array_equal(once(5), once(5))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Random models of one shape; `half` in bfloat16."""
    there, found = tmp_path_factory.mktemp("models"), {}
    for seed, name in enumerate(("base", "a", "b", "half")):
        draw, dtype = np.random.default_rng(seed), jax.numpy.bfloat16 if name == "half" else np.float32
        params = jax.tree.map(lambda x: draw.normal(size=x.shape).astype(dtype), abstract_params(A, Runtime()))
        card = model_folder.card(A, tokenizer="none" if name == "half" else None)
        model_folder.write(there / name, A, params, card, None, {"bos_token_id": 1, "eos_token_id": 2})
        found[name] = model_folder.find(there / name)
    return found


def _load(folder):
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    return jax.device_get(model_folder.load_params(model_folder.find(folder), Runtime(), mesh))


def test_one_hot_weights_are_that_model_to_the_bit(folders, tmp_path):
    base, a, b, half = folders.values()
    for method, models in (("linear", [a, b, half]), ("slerp", [a, b]), ("slerp", [b, a])):
        for place, model in enumerate(models):
            weights = tuple(float(i == place) for i in range(len(models)))
            config = MergeConfig(tuple("abc"[: len(models)]), method, weights)
            merge_folders(config, base, models, tmp_path / "out", model_folder.card(A))
            for file in model.path.glob("*.safetensors"):
                assert (tmp_path / "out" / file.name).read_bytes() == file.read_bytes()


def test_a_folder_is_merged_tensor_by_tensor(folders, tmp_path):
    base, a, b, _ = folders.values()
    config = MergeConfig(("a", "b"), "task_arithmetic", (0.5, -1.0), scale=0.3)
    told = merge_folders(config, base, [a, b], tmp_path / "out", model_folder.card(A))
    trees = [_load(m.path) for m in (base, a, b)] + [_load(tmp_path / "out")]
    for x, y, z, got in zip(*map(jax.tree.leaves, trees)):
        np.testing.assert_allclose(got, x + 0.3 * (0.5 * (y - x) - (z - x)), atol=1e-6)
    one, two = (np.concatenate([(t - x)[1].ravel() for x, t in zip(*map(jax.tree.leaves, pair))])
                for pair in ((trees[0]["blocks"], trees[1]["blocks"]), (trees[0]["blocks"], trees[2]["blocks"])))  # fmt: skip
    length = np.sqrt(sum((x[1] ** 2).sum() for x in jax.tree.leaves(trees[0]["blocks"])))
    assert told["1"]["moved"][:2] == pytest.approx([np.linalg.norm(t) / length for t in (one, two)], rel=1e-4)
    assert told["1"]["cosines"] == pytest.approx([one @ two / np.linalg.norm(one) / np.linalg.norm(two)], rel=1e-3)


def test_what_cannot_be_merged_is_told_in_one_sentence(folders, tmp_path):
    base, a, b, _ = folders.values()
    other = tmp_path / "other"
    model_folder.transfer(a.path, other, keep_card=True)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.25}))
    with pytest.raises(ConfigError, match="its norm_eps is 0.25, not"):
        merge_folders(MergeConfig(("a", "b")), base, [a, model_folder.find(other)], tmp_path / "o", base.card)
    cards = [model_folder.ModelFolder(m.path, A, {"tokenizer": m.path.name}, m.family) for m in (base, a)]
    with pytest.raises(ConfigError, match="has another tokenizer"):
        merge_folders(MergeConfig(("a",)), cards[0], cards[1:], tmp_path / "o", base.card)
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("method", "weights", "more", "told"),
    [
        ("slerp", (1, 1, 1), {}, "merges two models, not 3"),
        ("linear", (1, -1), {}, "must not be negative"),
        ("ties", (0, 0), {}, "at least one must be above 0"),
        ("ties", (1, 1), {"density": 0}, "density must be above 0"),
        ("dare_ties", (1, 1), {"seed": -1}, "seed must not be negative"),
        ("linear", (1, 1, 1, 1), {}, "4 numbers for 3 models"),
    ],
)
def test_a_bad_merge_is_refused(method, weights, more, told):
    with pytest.raises(ValueError, match=told):
        _config(method, weights, **more)
