"""Whole recipes, small: resume, other meshes, finished runs, bad workdirs."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from conftest import copied_after, losses, stopped_after

from kanana_jax.errors import ConfigError, UserError
from kanana_jax.recipe import run as recipe

ONE_STAGE = ("stages=('stage1',)", "stage1.train.tokens=10_240")  # 20 steps


def _config(tiny_config, *overrides, mesh=None):
    config = tiny_config(*ONE_STAGE, *overrides).unlock()
    config.samples = dict(prompts={})
    if mesh:
        config.mesh = dict(mesh)
    return config


@pytest.fixture(autouse=True)
def _reports_where_they_are_read(request):
    if "report" not in request.node.name:
        request.getfixturevalue("no_reports")


@pytest.fixture(scope="module")
def undisturbed(tiny_config, tmp_path_factory):
    """What a crash after step 10 would leave is at `stopped` beside it."""
    workdir = tmp_path_factory.mktemp("run") / "w"
    with copied_after(10, workdir, workdir.parent / "stopped"):
        recipe.run(_config(tiny_config), workdir, devices=jax.devices()[:1])
    return workdir


def test_two_stages_report_model_and_nothing_to_do_again(tiny_config, tmp_path):
    config = tiny_config("stages=('stage1', 'stage2')")
    recipe.run(config, tmp_path, devices=jax.devices()[:1])
    assert len(losses(tmp_path)) == 12 and len(losses(tmp_path, "stage2")) == 6
    card = json.loads((tmp_path / "stage2/model/model.json").read_text())
    assert card["parent"].endswith("stage1/model") and card["tokens"] > 0.9 * 6 * 512 and card["flops"]["train"] > 0
    report = json.loads((tmp_path / "stage2/data_report.json").read_text())
    first = json.loads((tmp_path / "stage1/data_report.json").read_text())
    assert report["sources"]["ko_noise"] == first["sources"]["ko_noise"] and report["kept"] > first["kept"]
    assert {s["lang"] for s in json.loads((tmp_path / "stage2/samples.json").read_text())} == {"ko", "en"}
    page = (tmp_path / "report.html").read_text()
    assert "stage2: pretrain, finished" in page and "bits per byte" in page
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "stage1").rglob("*") if p.is_file()}
    recipe.run(config, tmp_path, devices=jax.devices()[:1])
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "stage1").rglob("*") if p.is_file()}


def test_the_same_seed_gives_the_same_bits_compiled_ahead_or_not(undisturbed, tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "compile_ahead", lambda *_: {})
    recipe.run(_config(tiny_config), tmp_path, devices=jax.devices()[:1])
    assert losses(tmp_path) == losses(undisturbed)


def test_only_a_stage_of_known_shapes_is_compiled_ahead(tiny_config, tmp_path):
    parsed, stages = recipe.parse(tiny_config())
    mesh = recipe.make_mesh(parsed.mesh, jax.devices()[:1])
    shapes = recipe.shapes(parsed, stages, mesh)
    assert recipe.compile_ahead([], shapes) == {}
    assert recipe.compile_ahead(["stage2", "upscaled"], shapes) == {}  # begins from what stage 1 writes
    ahead = recipe.compile_ahead(["stage1", "stage2"], shapes)
    assert [*ahead] == ["stage1"] and callable(ahead["stage1"].result())


def test_a_source_that_cannot_be_read_is_told_while_the_step_compiles(tiny_config, tmp_path):
    config = _config(tiny_config)
    config.sources.ko_news.path = str(tmp_path / "nothing.jsonl")
    with pytest.raises(UserError, match="nothing.jsonl"):
        recipe.run(config, tmp_path / "run", devices=jax.devices()[:1])


@pytest.mark.parametrize(
    "mesh",
    [
        pytest.param(dict(fsdp=4, tensor=2), marks=pytest.mark.more),  # as the run below that resumes on it
        dict(data=2, fsdp=2, sequence=2),
        pytest.param(dict(data=4, fsdp=2), marks=pytest.mark.more),
    ],
)
def test_eight_devices_give_the_losses_of_one(undisturbed, tiny_config, tmp_path, mesh):
    recipe.run(_config(tiny_config, mesh=mesh), tmp_path)
    np.testing.assert_allclose(losses(tmp_path), losses(undisturbed), atol=1e-5)


def test_scan_and_accumulation_give_the_same_losses(undisturbed, tiny_config, tmp_path):
    config = _config(tiny_config, "runtime.scan_layers=true")
    config.stage1.train.accumulate = 2
    recipe.run(config, tmp_path, devices=jax.devices()[:1])
    np.testing.assert_allclose(losses(tmp_path), losses(undisturbed), atol=1e-5)


def _same_run(workdir, undisturbed):
    np.testing.assert_allclose(losses(workdir), losses(undisturbed), atol=1e-5)
    data = [json.loads((w / "stage1/data_state.json").read_text()) for w in (workdir, undisturbed)]
    assert data[0] == data[1]


def test_a_run_resumes_on_eight_devices(undisturbed, tiny_config):
    stopped = undisturbed.parent / "stopped"
    assert not (stopped / "stage1/model").exists()
    recipe.run(_config(tiny_config, mesh=dict(fsdp=4, tensor=2)), stopped)
    _same_run(stopped, undisturbed)


@pytest.mark.more
def test_a_run_of_eight_devices_resumes_on_one(undisturbed, tiny_config, tmp_path):
    with stopped_after(10):
        recipe.run(_config(tiny_config, mesh=dict(fsdp=4, tensor=2)), tmp_path)
    recipe.run(_config(tiny_config, mesh=dict(fsdp=1)), tmp_path, devices=jax.devices()[:1])
    _same_run(tmp_path, undisturbed)


def test_another_config_in_the_same_workdir_is_refused(undisturbed, tiny_config):
    with pytest.raises(ConfigError, match="started with another config .*stage1"):
        recipe.run(
            _config(tiny_config, "stage1.train.optimizer.learning_rate=1.0"), undisturbed, devices=jax.devices()[:1]
        )


def test_a_checkpoint_of_another_architecture_is_refused(tiny_config, tmp_path):
    with stopped_after(6):
        recipe.run(_config(tiny_config), tmp_path, devices=jax.devices()[:1])
    (tmp_path / "config.json").unlink()
    config = _config(tiny_config)
    config.stage1.model.mlp_dim = 128
    with pytest.raises(UserError, match="another architecture|cannot be restored") as caught:
        recipe.run(config, tmp_path, devices=jax.devices()[:1])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda c: c.update(mesh=dict(fsdp=3)), ["does not divide the 8 devices"]),
        (lambda c: c.update(mesh=dict(fsdp=1, tensor=8)), ["model.num_heads = 4", "tensor"]),
        (
            lambda c: c.update(mesh=dict(fsdp=8, tensor=1)) or c.stage1.train.update(batch_tokens=256),
            ["rows", "8 devices"],
        ),
        (lambda c: c.stage1.model.update(vocab_size=792), ["vocab_size is 792", "800"]),
        (lambda c: c.stage1.train.update(seq_len=4096, batch_tokens=8 * 4096), ["max_seq_len 2048"]),
        (lambda c: c.runtime.update(attention="splash"), ["splash", "TPU"]),
        (lambda c: c.data.update(lanes=3), ["data.lanes = 3"]),
    ],
)
def test_what_does_not_fit_is_told_before_training(tiny_config, tmp_path, change, words):
    config = _config(tiny_config)
    change(config)
    with pytest.raises(ConfigError) as caught:
        recipe.run(config, tmp_path)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_run_that_only_meets_bad_updates_stops_and_keeps_its_checkpoint(tiny_config, tmp_path):
    config = _config(tiny_config)
    config.stage1.train.optimizer.update(learning_rate=1e30, clip_norm=0.0)
    config.stage1.train.guard = dict(stop_after=3)
    with pytest.raises(UserError, match="3 updates in a row were refused"):
        recipe.run(config, tmp_path, devices=jax.devices()[:1])
    rows = [json.loads(line) for line in (tmp_path / "stage1/metrics.jsonl").read_text().splitlines()]
    assert rows


@pytest.mark.more  # their rows are compared in tests/data/stream/test_pipeline.py
def test_worker_processes_train_alike(undisturbed, tiny_config, tmp_path):
    recipe.run(_config(tiny_config, "data.workers=processes"), tmp_path, devices=jax.devices()[:1])
    assert losses(tmp_path) == losses(undisturbed)


def test_stage_config_is_frozen(tiny_config):
    parsed, stages = recipe.parse(tiny_config())
    with pytest.raises(dataclasses.FrozenInstanceError):
        stages["stage1"].train.tokens = 1
    assert parsed.stages[:2] == ("stage1", "stage2")
