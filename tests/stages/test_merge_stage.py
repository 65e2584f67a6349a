"""Merging as a stage: the best weights by a held-out score are kept, resumed without being tried again, and reported."""

import copy
import json

import jax
import numpy as np
import own_models
import pytest
from conftest import log_softmax
from ml_collections import ConfigDict

from kanana_jax.cli import main
from kanana_jax.data import microworld
from kanana_jax.data.tokens.tokenizer import encode_document, load_tokenizer
from kanana_jax.errors import ConfigError
from kanana_jax.interop import model_folder
from kanana_jax.models.architecture import Runtime
from kanana_jax.models.model import Model
from kanana_jax.parallel.mesh import MeshConfig, make_mesh
from kanana_jax.recipe import config as recipe_config
from kanana_jax.recipe import run as recipe

ONE = jax.devices()[:1]
HELD = "한빛시는 바다에 가까운 도시이다."


def _loaded(folder):
    found = model_folder.find(folder)
    return Model(found.architecture), model_folder.load_params(found, Runtime(), make_mesh(MeshConfig(), ONE))


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A base, and two models with noise of their own; a source of one kind of document."""
    there = tmp_path_factory.mktemp("models")
    base = own_models.write(there, "bpe", microworld.World.create(0, 100))
    model, params = _loaded(base)
    for seed, name in enumerate(("a", "b")):
        draw = np.random.default_rng(seed)
        noisy = jax.tree.map(lambda x: x + 0.05 * draw.normal(size=x.shape).astype(np.float32), jax.device_get(params))
        card = model_folder.card(model.architecture, tokenizer=load_tokenizer(base).fingerprint)
        model_folder.write(there / name, model.architecture, noisy, card, base, {"eos_token_id": 2})
    (there / "docs.jsonl").write_text("\n".join(json.dumps({"text": HELD}) for _ in range(40)))
    c = ConfigDict()
    c.name, c.stages, c.tokenizer = "merge", ("merged",), dict(path=str(base))
    c.sources = dict(docs=dict(path=str(there / "docs.jsonl"), lang="ko", holdout=0.2))
    c.merged = dict(
        kind="merge",
        start=str(base),
        merge=dict(models=(str(there / "a"), str(there / "b")), method="task_arithmetic"),
        search=dict(resolution=2, scales=(0.0, 1.0), seq_len=512),
    )
    return c


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("merge")
    recipe.run(config, workdir, devices=ONE)
    return workdir, json.loads((workdir / "merged/merge.json").read_text())


def _bits_per_byte(folder):
    model, params = _loaded(folder)
    tokens = encode_document(load_tokenizer(folder), HELD)
    module = model.bind(params)
    logits = np.asarray(module.unembed(module(tokens[None, :-1])))[0]
    nll = -log_softmax(logits)[np.arange(len(tokens) - 1), tokens[1:]]
    return nll.sum() / np.log(2) / len(HELD.encode())


def test_the_best_point_is_kept(run, config):
    workdir, found = run
    points = found["search"]["points"]
    assert len(points) == 3 * 2
    values = [point["value"] for point in points]
    assert (
        values == sorted(values) and found["weights"] == points[0]["weights"] and found["scale"] == points[0]["scale"]
    )
    assert len({round(p["value"], 6) for p in points if p["scale"] == 0}) == 1  # the base, whatever the weights
    assert _bits_per_byte(workdir / "merged/model") == pytest.approx(values[0], rel=1e-4)
    of_b = next(p["value"] for p in points if p["scale"] == 1 and p["weights"] == [0.0, 1.0])
    assert _bits_per_byte(config.merged.merge.models[1]) == pytest.approx(of_b, rel=1e-4)


def test_a_stopped_search_tries_no_point_again(run, config):
    workdir, found = run
    (workdir / "merged/model/model.json").unlink()
    result = workdir / "merged/candidates/0.5-0.5-scale1/result.json"
    # A figure that no model has: it is read, not computed.
    result.write_text(json.dumps(json.loads(result.read_text()) | {"value": -1.0}))
    recipe.run(config, workdir, devices=ONE)
    again = json.loads((workdir / "merged/merge.json").read_text())
    assert again["search"]["points"][0]["value"] == -1.0
    page = (workdir / "report.html").read_text()
    assert "Merging" in page and "cosine of the models" in page and "weight of b" in page


def test_the_verb_merges_as_the_stage_does(run, config, tmp_path, capsys):
    workdir, found = run
    models, out = config.merged.merge.models, tmp_path / "out"
    weights = [str(w) for w in found["search"]["points"][1]["weights"]]
    how = ["--base", config.merged.start, "--method", "task_arithmetic", "--weights", *weights, "--scale"]
    assert main(["merge", *models, "--output", str(out), *how, str(found["search"]["points"][1]["scale"])]) == 0
    assert _bits_per_byte(out) == pytest.approx(found["search"]["points"][1]["value"], rel=1e-4)
    assert main(["merge", *models, "--output", str(out)]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert main(["merge", *models, "--output", str(tmp_path / "other"), "--method", "ties"]) == 2
    assert "name it with --base" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"merge.models": ("nowhere",)}, r"config 'merged.merge.models\[0\]' is 'nowhere'"),
        ({"search.by": "arc"}, "TASK.METRIC"),
        ({"search.resolution": 400}, "more than 200 merges"),
        ({"merge.method": "average"}, "merged.merge.method"),
    ],
)
def test_a_bad_merge_stage_is_refused(config, change, told, tmp_path):
    config = copy.deepcopy(config)
    config.merged.update_from_flattened_dict(change)
    with pytest.raises(ConfigError, match=told):
        recipe.run(config, tmp_path, devices=ONE)


def test_a_later_stage_has_the_merges_shape(config):
    from kanana_jax.recipe.context import architectures

    own, stages = recipe_config.parse(config)
    found = model_folder.find(config.merged.start).architecture
    assert architectures(own, stages)("merged") == found
