"""The standing test in time: its score by hand, and each baseline on models made by its own assumptions."""

import dataclasses
import importlib

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from scipy.special import expit

from kanana_jax.observatory import pairs, tables

pytest_plugins = ["observatory_fixtures"]
TASKS = ["NIILC", "TriviaQA", "GSM8K"]


@pytest.fixture(scope="module")
def libraries():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        names = ("observatory_baselines", "observatory_in_time", "observatory_gains")
        yield tuple(importlib.import_module(name) for name in names)


def _few(shipped):
    return dataclasses.replace(shipped, scores=shipped.scores[TASKS], tasks=shipped.tasks.loc[TASKS])


def _models(libraries, scores, params, tokens, families, bases=None, start=None, letter="m"):
    names = [f"{letter}{i}" for i in range(len(scores))]
    table = pd.DataFrame(scores, names, [f"t{j}" for j in range(scores.shape[1])])
    start = table * np.nan if start is None else pd.DataFrame(start, names, table.columns)
    bases = np.array([""] * len(names)) if bases is None else np.array(bases)
    return libraries[0].Models(table, start, np.array(params), np.array(tokens), np.array(families), bases)


@pytest.fixture(scope="module")
def made(libraries):
    """24 models of six families: two skills, linear in log size and log tokens; the one of most compute is asked about."""
    rng = np.random.default_rng(0)
    families = np.repeat([f"f{i}" for i in range(6)], 4)
    params, tokens = 10 ** rng.uniform(9, 11, 24), 10 ** rng.uniform(11.5, 13, 24)
    skill = rng.normal(0, 0.4, (6, 2))[np.repeat(range(6), 4)]
    skill = skill + np.log(params / 1e10)[:, None] * [0.5, 0.2] + np.log(tokens / 1e12)[:, None] * [0.3, 0.6]
    loading = rng.uniform(0.2, 1, (2, 8))
    scores = expit(skill @ loading + rng.normal(0, 0.3, 8))
    every = _models(libraries, scores, params, tokens, families)
    most = np.arange(24) == np.argmax(every.compute)
    return every.take(~most), every.take(most)


def test_the_interval_score_by_hand(libraries):
    """0.4 wide; the second value lies 0.1 under it, which costs 0.1 · 2/0.05."""
    foretold = libraries[1].Foretold(np.array([[0.5, 0.5]]), np.array([[0.3, 0.3]]), np.array([[0.7, 0.7]]))
    found = libraries[1].judged(foretold, np.array([[0.6, 0.2]]))
    assert found["interval_score"] == pytest.approx((0.4 + 0.4 + 4.0) / 2)
    assert found["covered"] == 0.5 and found["rmse"] == pytest.approx(np.sqrt((0.01 + 0.09) / 2))


def test_skills_of_a_known_family_are_recovered(libraries, made):
    known, asked = made
    true = asked.scores.to_numpy(float)
    assert np.abs(libraries[0].sloth(known, asked) - true).max() < 0.05
    assert np.abs(libraries[0].column_means(known, asked) - true).max() > 0.1


def test_components_follow_compute(libraries, made):
    """More compute, higher scores; the model's own error is below the mean's."""
    known, asked = made
    more = libraries[0].Models(asked.scores, asked.start, asked.params * 10, asked.tokens, asked.families, asked.bases)
    assert (libraries[0].obsscaling(known, more) > libraries[0].obsscaling(known, asked)).all()
    true = asked.scores.to_numpy(float)
    own, means = (
        np.abs(method(known, asked) - true).mean() for method in (libraries[0].obsscaling, libraries[0].column_means)
    )
    assert own < means


def test_lineage_follows_the_base_even_where_the_base_is_asked_about(libraries, made):
    known, _ = made
    base, far = known.scores.iloc[3].to_numpy(float), known.scores.mean().to_numpy(float)
    start = np.stack([np.full(8, np.nan), base])
    asked = _models(libraries, np.zeros((2, 8)), [1e10, 1e10], [1e12, 1e12], ["new", "new"], ["", "n0"], start, "n")
    first, second = libraries[0].lineage(known, asked)
    np.testing.assert_allclose(first, far, atol=0.02)
    assert np.abs(second - base).mean() < 0.3 * np.abs(far - base).mean()
    np.testing.assert_allclose(libraries[0].copy_the_base(known, asked)[1], base)


def test_a_relative_of_unknown_size_is_not_the_nearest(libraries):
    """Of sizes unknown, 70e9 and 8e9 the last is the nearest to 9e9; to an unknown size none is, so the means stand."""
    known = _models(libraries, np.array([[0.9], [0.8], [0.3]]), [np.nan, 70e9, 8e9], [1e12] * 3, ["f"] * 3)
    asked = _models(libraries, np.zeros((2, 1)), [9e9, np.nan], [1e12] * 2, ["f"] * 2, letter="n")
    np.testing.assert_allclose(libraries[0].copy_the_base(known, asked), [[0.3], [2 / 3]])


def test_every_method_is_kept_within_the_range_of_a_task(libraries, shipped, tmp_path):
    """A continual model of a base near the top, and one from scratch of 10¹⁶ times the compute of any."""
    few = _few(shipped)
    later = few.scores.copy()
    later.loc["new/top"] = 1.0
    later.loc["new/next"] = later.loc["new/huge"] = 0.99
    later.rename_axis("model").to_csv(tmp_path / "later.csv")
    about = pd.DataFrame({"params": [8e9, 8e9, 1e20], "family": "new", "base": ["", "new/top", ""], "en_tokens_b": [1e3, 1e2, 1e9],
                          "ja_tokens_b": [1e3, 1e2, 1e9]}, ["new/top", "new/next", "new/huge"])  # fmt: skip
    together, _ = libraries[1].extended(few, tmp_path / "later.csv", about)
    names, found = libraries[1].foretell(few, together)
    assert set(names) == set(about.index) and len(found) == 7
    for foretold in found.values():
        assert foretold.high.max() == 1 and foretold.low.min() >= 0
        assert (foretold.low <= foretold.middle).all() and (foretold.middle <= foretold.high).all()


def test_errors_are_those_of_the_kind_of_model(libraries):
    """A method that says 0: models with a base miss by 0.1, others by 0.4; t of families − 1 by hand."""
    scores, start = np.tile([[0.4], [0.1]], (4, 1)), np.tile([[np.nan], [0.1]], (4, 1))
    families, bases = np.repeat(list("abcd"), 2), ["", "b"] * 4
    known = _models(libraries, scores, [1e9] * 8, [1e12] * 8, families, bases, start)
    asked = _models(libraries, scores[:2], [1e9] * 2, [1e12] * 2, ["e"] * 2, ["", "b"], start[:2], "n")
    found = libraries[1]._with_errors(lambda known, asked: np.zeros(asked.scores.shape), known, asked)
    np.testing.assert_allclose(found.high, 3.182446 * np.array([[0.4], [0.1]]), rtol=1e-6)


def test_a_task_that_was_scored_otherwise_is_left_out(libraries, shipped, tmp_path):
    later = shipped.scores.copy()
    later["SQuAD2"] += 0.22
    later.loc["new/model"] = 0.5
    later.rename_axis("model").to_csv(tmp_path / "later.csv")
    about = pd.DataFrame({"params": [8e9], "family": ["new"], "base": ["meta-llama/Meta-Llama-3-8B"],
                          "en_tokens_b": [100.0], "ja_tokens_b": [50.0]}, ["new/model"])  # fmt: skip
    found, moved = libraries[1].extended(shipped, tmp_path / "later.csv", about)
    assert moved == ["SQuAD2"] and "SQuAD2" not in found.scores.columns and len(found.scores) == 36
    assert found.models.loc["new/model", "ja_tokens_b_est"] == 50 and isinstance(found, tables.Tables)


def test_the_mixed_model_sees_no_score_of_an_asked_model(libraries, shipped, tmp_path):
    """Its own scores changed, its predictions stay; its base's changed, they follow, in part."""
    base, known = "meta-llama/Meta-Llama-3-8B", _few(shipped)
    about = pd.DataFrame({"params": [8e9, 8e9], "family": "new", "base": ["", "new/base"], "en_tokens_b": [8e3, 8.1e3],
                          "ja_tokens_b": [10.0, 110.0]}, ["new/base", "new/child"])  # fmt: skip

    def foretold(of_base, of_child):
        later = known.scores.copy()
        later.loc["new/base"], later.loc["new/child"] = later.loc[base] + of_base, later.loc[base] + of_child
        later.rename_axis("model").to_csv(tmp_path / "later.csv")
        together, _ = libraries[1].extended(known, tmp_path / "later.csv", about)
        return pd.DataFrame(libraries[1]._mixed(known, together, list(about.index)).middle, about.index)

    first, own, bases = foretold(0.0, 0.0), foretold(0.0, 0.05), foretold(-0.05, 0.0)
    pd.testing.assert_frame_equal(first, own)
    pd.testing.assert_series_equal(first.loc["new/base"], bases.loc["new/base"])
    moved = (first - bases).loc["new/child"]
    assert (moved > 0).all() and moved.mean() < 0.05


def test_families_left_out_are_foretold_without_them(libraries, shipped):
    """All of the 35 models, nine tenths of their scores inside, with an error well below that of the mean."""
    known = _few(shipped)
    found = {(r["method"], r["models"]): r for r in libraries[1].families_left_out(known)}
    assert [found["mixed", kind]["n"] for kind in ("from scratch", "continual", "all")] == [20, 15, 35]
    assert 0.9 < found["mixed", "all"]["covered"] < 0.99
    of_means = float(np.sqrt(np.mean(known.scores.std().to_numpy() ** 2)))
    assert found["mixed", "all"]["rmse"] < 0.7 * of_means


def _pairs(n=24, seed=0, noise=0.01):
    rng = np.random.default_rng(seed)
    tokens, level = 10 ** rng.uniform(1, 2.3, n), rng.uniform(0.2, 0.5, n)
    gain = 0.1 + 0.12 * np.log10(tokens) - 0.5 * level + rng.normal(0, noise, n)
    frame = lambda v: pd.DataFrame({"t": v})  # noqa: E731
    names = tuple(map(str, range(n)))
    return pairs.Pairs(
        names, names, np.array([f"F{i % 6}" for i in range(n)]), tokens, np.full(n, 8e9), frame(gain), frame(level)
    )


def test_gains_of_known_form_are_recovered(libraries):
    gains = libraries[2]
    found = gains.best(gains.gain_models(_pairs(), "t"))
    assert found.form == "tokens and level"
    np.testing.assert_allclose(found.weights, [0.1, 0.12, -0.5], atol=0.03)
    gain, low, high = found.predict(100, 0.3)
    assert gain == pytest.approx(0.19, abs=0.01) and low < gain < high < low + 0.08


def test_gain_intervals_cover_new_pairs(libraries):
    gains = libraries[2]
    inside = []
    for seed in range(80):
        every = _pairs(25, seed)
        known = dataclasses.replace(
            every,
            **{
                k: getattr(every, k)[:-1]
                for k in ("models", "bases", "families", "tokens_b", "params", "gains", "before")
            },
        )
        found = gains.best(gains.gain_models(known, "t"))
        _, low, high = found.predict(every.tokens_b[-1], every.before["t"].iloc[-1])
        inside.append(low <= every.gains["t"].iloc[-1] <= high)
    assert np.mean(inside) > 0.88
