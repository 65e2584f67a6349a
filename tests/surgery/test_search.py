"""Search: shapes within budgets by brute force, spread, halving, and a search that stops and goes on."""

import dataclasses
import itertools
import json
import math
import shutil

import jax
import numpy as np
import pytest
from conftest import ROOT

from kanana_jax import config as config_lib
from kanana_jax.errors import ConfigError
from kanana_jax.interop import model_folder
from kanana_jax.models import counts
from kanana_jax.models.architecture import Architecture
from kanana_jax.recipe import run as recipe
from kanana_jax.surgery import prune, search
from kanana_jax.training import loop

BEFORE = Architecture(vocab_size=1000, embed_dim=64, mlp_dim=192, num_layers=6, num_heads=8, num_kv_heads=2, head_dim=8)
SPACE = search.SearchSpace(embed_dim=8, mlp_dim=32, layers=1, max_width_cut=0.5, max_depth_cut=0.5)


def _config(**budget):
    return search.SearchConfig(search.Budget(**budget), SPACE, candidates=10_000)


def test_shapes_are_all_of_the_grid_but_the_models_own():
    found = {(s.num_layers, s.embed_dim, s.mlp_dim, s.num_heads) for s in search.shapes(BEFORE, SPACE)}
    every = set(itertools.product(range(3, 7), range(32, 65, 8), range(96, 193, 32), (4, 6, 8)))
    assert found == every - {(6, 64, 192, 8)}


def test_costs_by_hand():
    a = dataclasses.replace(BEFORE, num_layers=1, tied_embeddings=True)
    budget = search.Budget(parameters=1, context=100, batch=3, chip="TPU v5e")
    found = search.costs(a, budget)
    block = 64 * 64 + 2 * 64 * 16 + 64 * 64 + 3 * 64 * 192
    assert found["parameters"] == 1000 * 64 + block + 3 * 64
    assert found["flops_per_token"] == 2 * (block + 64_000) + 2 * 8 * 8 * 100
    cache = 2 * 3 * 100 * 2 * 8
    assert found["memory_bytes"] == 2 * (found["parameters"] + cache)
    assert found["latency_s"] == found["memory_bytes"] / 819e9  # a small batch waits for memory
    large = search.costs(a, dataclasses.replace(budget, batch=100_000, context=1))
    assert large["latency_s"] == pytest.approx(100_000 * (2 * (block + 64_000) + 4 * 64) / 197e12)


@pytest.mark.parametrize("name", search.BUDGETS)
def test_candidates_are_those_within_the_budget(name):
    limit = 0.6 * search.costs(BEFORE, search.Budget(parameters=1))[name]
    config = _config(**{name: type(getattr(search.Budget(parameters=1), name))(limit)})
    limit = getattr(config.budget, name)
    cost = {s: search.costs(prune.shape(BEFORE, s), config.budget)[name] for s in search.shapes(BEFORE, SPACE)}
    want = [s for s, c in cost.items() if 0.95 * limit <= c <= 1.05 * limit]
    assert search.candidates(BEFORE, config) == want and 0 < len(want) < len(cost)


def test_of_two_budgets_both_hold_and_one_is_used_up():
    parameters = int(0.7 * counts.parameters(BEFORE))
    both = search.candidates(BEFORE, _config(parameters=parameters, memory_bytes=10**12))
    assert both == search.candidates(BEFORE, _config(parameters=parameters))


def test_a_budget_that_no_shape_meets():
    with pytest.raises(ConfigError, match=r"within parameters 1,000 .*nearest, l3-d32-f96-h4, has parameters"):
        search.candidates(BEFORE, _config(parameters=1000))
    with pytest.raises(ConfigError, match="holds no shape"):
        space = search.SearchSpace(max_width_cut=0.0, max_depth_cut=0.0)
        search.candidates(BEFORE, search.SearchConfig(search.Budget(parameters=1000), space))


def test_few_candidates_are_spread_and_always_the_same():
    found = search.shapes(BEFORE, SPACE)
    few = search.spread(BEFORE, found, 8)
    assert few == search.spread(BEFORE, found, 8) and len(set(few)) == 8

    def nearest(shapes):
        points = [[math.log(x) for x in (s.num_layers, s.embed_dim, s.mlp_dim, s.num_heads)] for s in shapes]
        return min(math.dist(a, b) for a, b in itertools.combinations(points, 2))

    others = [nearest(np.random.default_rng(i).choice(found, 8, replace=False)) for i in range(20)]
    assert nearest(few) > max(others)


def test_the_better_half_goes_on():
    assert search.survivors({"a": 3.0, "b": 1.0, "c": 2.0}, 0.5) == ["b", "c"]
    assert search.survivors({"a": 1.0, "b": 1.0}, 0.5) == ["a"]
    assert search.survivors({"a": math.nan, "b": 9.0}, 0.5) == ["b"]


def test_bad_sections():
    for make, told in (
        (lambda: search.Budget(), "name a budget"),
        (lambda: search.Budget(parameters=1, chip="abacus"), "chip must be one of"),
        (lambda: dataclasses.replace(_config(parameters=1), rungs=(4, 2)), "ascending"),
        (lambda: dataclasses.replace(_config(parameters=1), keep=0.0), "keep"),
    ):
        with pytest.raises(ValueError, match=told):
            make()


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A model of six steps."""
    workdir = tmp_path_factory.mktemp("base") / "run"
    recipe.run(_base(), workdir, devices=jax.devices()[:1])
    (workdir / "config.json").unlink()  # goes on as another recipe
    return workdir


def _base():
    config = config_lib.read_config_file(f"{ROOT / 'configs/tiny.py'}:test")
    overrides = ("stages=('stage1',)", "stage1.train.tokens=3072", "sources.en_news.holdout=0.1")
    config_lib.override(config, overrides)
    return config


@pytest.fixture
def searching():
    """A search over it."""
    config = _base()
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
    for name in "ab":
        shutil.copytree(base, tmp_path / name)
    recipe.run(searching, tmp_path / "a", devices=devices)
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

    # Stopped in the middle of the second rung: what is finished is not trained again, the result is the same.
    calls, train = [], loop.train

    def stopping(task, *arguments, **more):
        calls.append((task.name, more.get("stop_at")))
        if len(calls) == 6:
            raise KeyboardInterrupt
        return train(task, *arguments, **more)

    monkeypatch.setattr(loop, "train", stopping)
    with pytest.raises(KeyboardInterrupt):
        recipe.run(searching, tmp_path / "b", devices=devices)
    recipe.run(searching, tmp_path / "b", devices=devices)
    assert len(calls) == 7 and calls[5] == calls[6] and calls[5][1] == 4
    assert json.loads((tmp_path / "b/found/search.json").read_text()) == found


def test_a_rung_is_no_end(base, searching, tmp_path):
    """A student that is stopped at a rung and goes on learns what it would have learnt without the stop."""
    for name in "abc":
        shutil.copytree(base, tmp_path / name)
    searching.found.search.rungs = (2, 3)
    with pytest.raises(ConfigError, match="'found.search.rungs' ends at step 3, found.train at 4"):
        recipe.run(searching, tmp_path / "a", devices=jax.devices()[:1])
    searching.found.search.update(rungs=(4,), candidates=1)
    recipe.run(searching, tmp_path / "b", devices=jax.devices()[:1])
    alone = json.loads((tmp_path / "b/found/search.json").read_text())["candidates"][0]
    searching.found.search.rungs = (1, 3, 4)
    recipe.run(searching, tmp_path / "c", devices=jax.devices()[:1])
    stopped = json.loads((tmp_path / "c/found/search.json").read_text())["candidates"][0]
    assert stopped["shape"] == alone["shape"] and stopped["rungs"]["4"] == alone["rungs"]["4"]
