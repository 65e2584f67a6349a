"""A search for a shape as a stage: it ends with its best, stops, goes on, and no rung is an end."""

import json
import shutil

import jax
import pytest

from kanana_jax.errors import ConfigError
from kanana_jax.interop import model_folder
from kanana_jax.recipe import run as recipe
from kanana_jax.surgery import search
from kanana_jax.training import loop


@pytest.fixture(scope="module")
def base(tiny_config, tmp_path_factory):
    """A model of six steps."""
    workdir = tmp_path_factory.mktemp("base") / "run"
    recipe.run(_base(tiny_config), workdir, devices=jax.devices()[:1])
    (workdir / "config.json").unlink()  # resumed as another recipe
    return workdir


def _base(tiny_config):
    return tiny_config("stages=('stage1',)", "stage1.train.tokens=3072", "sources.en_news.holdout=0.1")


@pytest.fixture
def searching(tiny_config):
    """A search over it."""
    config = _base(tiny_config)
    config.stages = ("stage1", "found")
    config.found = dict(
        kind="search",
        start="stage1",
        mixture=config.student.mixture.to_dict(),
        search=dict(
            budget=dict(parameters=26_000, tolerance=0.15),
            space=dict(embed_dim=4, mlp_dim=16, layers=1, max_depth_cut=0.5),
            candidates=4,
            rungs=(2, 4),
            importance=dict(samples=8, batch_size=8),
            seq_len=64,
        ),
        distill=dict(teacher="stage1", dtype="float32"),
        train=config.student.train.to_dict() | dict(tokens=2048, eval_every=0),
    )
    return config


def test_a_search_ends_with_its_best_and_goes_on_where_it_was_stopped(base, searching, tmp_path, monkeypatch):
    devices = jax.devices()[:1]
    shutil.copytree(base, tmp_path / "a")
    calls, train = [], loop.train

    def counting(task, *arguments, **more):
        calls.append((task.name, more.get("stop_at")))
        if len(calls) == 6:  # what a kill in the middle of the second rung would leave
            shutil.copytree(tmp_path / "a", tmp_path / "b")
        return train(task, *arguments, **more)

    monkeypatch.setattr(loop, "train", counting)
    recipe.run(searching, tmp_path / "a", devices=devices)
    assert len(calls) == 6
    found = json.loads((tmp_path / "a/found/search.json").read_text())
    rows = found["candidates"]
    assert len(rows) == 4 and [len(row["rungs"]) for row in rows] == [2, 2, 1, 1]
    assert rows[0]["rungs"]["4"] <= rows[1]["rungs"]["4"] and rows[2]["rungs"]["2"] <= rows[3]["rungs"]["2"]
    assert rows[1]["rungs"]["2"] <= rows[2]["rungs"]["2"] or rows[0]["rungs"]["2"] <= rows[2]["rungs"]["2"]
    winner = model_folder.find(tmp_path / "a/found")
    assert search.label(winner.architecture) == rows[0]["shape"]
    assert winner.card["flops"]["train"] == sum(row["flops"]["train"] for row in rows) > 0
    assert winner.card["flops"]["teacher"] > 0 and winner.card["flops"]["calibration"] > 0
    assert rows[0]["shape"] in (tmp_path / "a/report.html").read_text()

    # Stopped there: what is finished is not trained again, the result is the same.
    recipe.run(searching, tmp_path / "b", devices=devices)
    assert len(calls) == 7 and calls[5] == calls[6] and calls[5][1] == 4
    assert json.loads((tmp_path / "b/found/search.json").read_text()) == found


def test_a_rung_is_no_end(base, searching, tmp_path):
    """A student that is stopped at a rung and resumed learns the same as without the stop."""
    for name in "abc":
        shutil.copytree(base, tmp_path / name)
    searching.found.search.rungs = (2, 3)
    with pytest.raises(ConfigError, match="'found': search.rungs ends at step 3, but train at 4"):
        recipe.run(searching, tmp_path / "a", devices=jax.devices()[:1])
    searching.found.search.update(rungs=(4,), candidates=1)
    recipe.run(searching, tmp_path / "b", devices=jax.devices()[:1])
    alone = json.loads((tmp_path / "b/found/search.json").read_text())["candidates"][0]
    searching.found.search.rungs = (1, 3, 4)
    recipe.run(searching, tmp_path / "c", devices=jax.devices()[:1])
    stopped = json.loads((tmp_path / "c/found/search.json").read_text())["candidates"][0]
    assert stopped["shape"] == alone["shape"] and stopped["rungs"]["4"] == alone["rungs"]["4"]
