"""Search: shapes within budgets by brute force, spread and halving."""

import dataclasses
import itertools
import math

import numpy as np
import pytest

from kanana_jax.errors import ConfigError
from kanana_jax.models import counts
from kanana_jax.models.architecture import Architecture
from kanana_jax.surgery import prune, search

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
    with pytest.raises(ConfigError, match="has no smaller shape"):
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
