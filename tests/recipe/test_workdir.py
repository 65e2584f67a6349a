"""What may change in a workdir, and how a change that may not is told."""

import json

import jax
import pytest

from kanana_jax.errors import ConfigError
from kanana_jax.parallel.mesh import MeshConfig, make_mesh
from kanana_jax.recipe import workdir as workdir_files


def _record(config, folder, devices=1):
    workdir_files.record(config, 0, folder, ["kanana", "run"], make_mesh(MeshConfig(), jax.devices()[:devices]))
    return json.loads((folder / "config.json").read_text())


def _config(**changes):
    config = {
        "seed": 0,
        "stages": ["stage1"],
        "mesh": {"data": 1, "fsdp": -1},
        "runtime": {"remat": "none", "compute_dtype": "bfloat16"},
        "evaluation": {"max_bytes": 1000},
        "data": {"lanes": 4, "workers": "threads"},
        "stage1": {
            "kind": "pretrain",
            "model": {"embed_dim": 32},
            "train": {"tokens": 100, "accumulate": 1, "log_every": 1, "checkpoint": {"every": 4}},
        },
    }
    for key, value in changes.items():
        *parents, leaf = key.split("__")
        section = config
        for name in parents:
            section = section[name]
        section[leaf] = value
    return config


def test_where_and_how_fast_may_change_and_is_noted(tmp_path):
    first = _record(_config(), tmp_path)
    changes = dict(
        mesh__data=2,
        mesh__slices=2,
        runtime__remat="full",
        runtime__attention="xla",
        runtime__param_dtype="float32",
        evaluation__batch_size=3,
        stage1__train__eval_every=7,
        data__workers="processes",
        stage1__train__accumulate=2,
        stage1__train__log_every=5,
        stage1__train__checkpoint={"every": 8, "keep_last": 3},
    )
    second = _record(_config(**changes), tmp_path, devices=4)
    assert second["config_hash"] == first["config_hash"] and second["started"] == first["started"]
    assert second["config"] == _config(**changes) and second["devices"].startswith("4 ×")
    assert [s["devices"][0] for s in second["starts"]] == ["1", "4"]
    assert second["starts"][1]["changed"]["mesh.data"] == [1, 2]
    assert second["starts"][1]["changed"]["stage1.train.checkpoint.keep_last"] == ["nothing", 3]


@pytest.mark.parametrize(
    "change, told",
    [
        (dict(seed=1), "seed was 0, is 1"),
        (dict(data__lanes=8), "data.lanes was 4, is 8"),
        (dict(stage1__train__tokens=200), "stage1.train.tokens was 100, is 200"),
        (dict(stage1__model__depth=3), "stage1.model.depth was nothing, is 3"),
        (dict(runtime__compute_dtype="float32"), 'runtime.compute_dtype was "bfloat16", is "float32"'),
        (
            dict(runtime__param_dtype="bfloat16", runtime__remat="full"),
            'runtime.param_dtype was nothing, is "bfloat16"',
        ),
        (dict(evaluation__max_bytes=2000), "evaluation.max_bytes was 1000, is 2000"),
        (dict(stage1__train__checkpoint={}, mesh__data=2, seed=3), "seed was 0, is 3"),
    ],
)
def test_everything_else_is_refused_by_its_full_key(tmp_path, change, told):
    before = _record(_config(), tmp_path)
    (tmp_path / "stage1").mkdir()
    with pytest.raises(ConfigError) as caught:
        _record(_config(**change), tmp_path)
    assert f"({told})" in str(caught.value)  # that, and nothing that is free
    assert json.loads((tmp_path / "config.json").read_text()) == before
    assert workdir_files.config_hash(_config(**change)) != before["config_hash"]


def test_what_may_change_is_named_once_for_all_stages(tmp_path):
    config = _config(stages=["stage1", "stage2"])
    config["stage2"] = config["stage1"]
    _record(config, tmp_path)
    (tmp_path / "tokenizer").mkdir()
    with pytest.raises(ConfigError) as told:
        workdir_files.check_unchanged(config | {"seed": 1}, tmp_path)
    assert str(told.value).count("STAGE.train.checkpoint") == str(told.value).count("train.checkpoint") == 1


@pytest.mark.parametrize("made", [[], ["data"], ["tokenizer"], ["stage1"]])
def test_a_run_that_made_nothing_leaves_the_workdir_to_a_mended_config(tmp_path, made):
    _record(_config(), tmp_path)
    for name in made:
        (tmp_path / name).mkdir()
    if made in (["tokenizer"], ["stage1"]):
        with pytest.raises(ConfigError, match="seed was 0, is 1"):
            _record(_config(seed=1), tmp_path)
        return
    after = _record(_config(seed=1), tmp_path)
    assert after["config"] == _config(seed=1) and len(after["starts"]) == 1


@pytest.mark.parametrize("kind", ["pretrain", "sft", "distill", "search"])
def test_how_often_is_evaluated_is_free_unless_patience_counts_it(kind):
    section = {"kind": kind, "train": {"eval_every": 5}}
    assert "s.train.eval_every" in workdir_files.free_keys({"s": section})
    section["train"]["patience"] = 2
    assert {"s.train.eval_every", "s.train.patience"}.isdisjoint(workdir_files.free_keys({"s": section}))
