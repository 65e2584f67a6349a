"""Intervals for few families, corrections for many tasks, and what chance and copies do to a verdict."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats
from statsmodels.stats.multitest import multipletests

from kanana_jax.errors import ConfigError
from kanana_jax.observatory import informative, jackknife, multiplicity, pairs, sampling, study, tables, verdicts
from kanana_jax.observatory.unseen import SHARES, unseen
from kanana_jax.report.observatory import answer

pytest_plugins = ["observatory_fixtures"]


def _grouped(seed=0, sizes=(8, 3, 3, 1, 5, 4), share=0.5):
    rng = np.random.default_rng(seed)
    family = np.repeat(np.arange(len(sizes)), sizes)
    x = rng.normal(0, 1, len(sizes))[family] + rng.normal(0, 0.5, len(family))
    y = 2 * x + np.sqrt(share) * rng.normal(size=len(sizes))[family] + np.sqrt(1 - share) * rng.normal(size=len(family))
    return np.column_stack([np.ones(len(x)), x]), y, family


def test_the_jackknife_of_single_draws_is_the_t_test():
    y = np.random.default_rng(0).normal(0.3, 1, 12)
    found = jackknife.estimate(np.ones((12, 1)), y, [np.array([i]) for i in range(12)], 0)
    reference = stats.ttest_1samp(y, 0)
    np.testing.assert_allclose(found.ci95, reference.confidence_interval(0.95))
    assert found.p == pytest.approx(reference.pvalue)
    above = stats.ttest_1samp(y, 0, alternative="greater").pvalue
    assert found.p_above == pytest.approx(above)


def test_the_jackknife_of_a_slope_by_hand():
    design, y, family = _grouped()
    found = jackknife.estimate(design, y, jackknife.rows_of(family), 1)
    slope = lambda keep: np.polyfit(design[keep, 1], y[keep], 1)[0]  # noqa: E731
    every = slope(np.ones(len(y), bool))
    variance = 5 / 6 * sum((slope(family != f) - every) ** 2 for f in range(6))
    half = stats.t.ppf(0.975, 5) * np.sqrt(variance)
    np.testing.assert_allclose(found.ci95, (every - half, every + half))


def test_no_interval_where_one_family_tells_all():
    """Only one family varies in x: without it there is no slope."""
    family = np.array([0, 0, 0, 0, 1, 1, 2, 2])
    y = np.arange(8.0)
    varied = np.column_stack([np.ones(8), [0, 1, 2, 3, 5, 5, 6, 5]])
    assert jackknife.estimate(varied, y, jackknife.rows_of(family), 1) is not None
    assert jackknife.estimate(varied, y, jackknife.rows_of(family > 0), 1) is None  # two families
    constant = np.column_stack([np.ones(8), [0, 1, 2, 3, 5, 5, 5, 5]])
    assert jackknife.estimate(constant, y, jackknife.rows_of(family), 1) is None


def test_the_share_between_families_is_that_of_a_mixed_model():
    design, y, family = _grouped(1, sizes=(6, 6, 6, 6, 6, 6, 6, 6, 6, 6), share=0.5)
    found = unseen(design, y, jackknife.rows_of(family))
    reference = sm.MixedLM(y, design, family).fit(reml=True)
    own, between = float(reference.scale), float(np.asarray(reference.cov_re).ravel()[0])
    assert SHARES[np.argmax(found.weight)] == pytest.approx(between / (between + own), abs=0.02)
    at = np.argmax(found.weight)
    assert found.variance[at] == pytest.approx(between + own, rel=0.05)


def test_predictions_for_a_new_family_hold():
    """Of four unequal families that have half of the variance between them."""
    rng, inside = np.random.default_rng(0), []
    sizes = (8, 3, 3, 1)
    family = np.repeat(np.arange(4), sizes)
    groups, design = jackknife.rows_of(family), np.ones((15, 1))
    for _ in range(300):
        y = rng.normal(0, 0.7, 4)[family] + rng.normal(0, 0.7, 15)
        half = unseen(design, y, groups).half(np.ones((1, 1)))[0]
        inside.append(abs(rng.normal(0, 0.7 * np.sqrt(2)) - y.mean()) <= half)
    assert 0.92 < np.mean(inside) < 0.99


def test_the_correction_is_that_of_benjamini_and_hochberg():
    p = dict(enumerate([0.001, 0.2, 0.03, 0.04, 0.9, 0.011])) | {"none": None}
    found = multiplicity.adjusted(p)
    np.testing.assert_allclose(list(found.values()), multipletests(list(p.values())[:6], method="fdr_bh")[1])
    assert "none" not in found and multiplicity.adjusted({"a": None}) == {}


def _gains(values, families, bases):
    names = tuple(f"m{i}" for i in range(len(values)))
    frame = pd.DataFrame({"t": values}, names)
    return pairs.Pairs(names, tuple(bases), np.array(families), np.full(len(names), 50.0), np.full(len(names), 8e9),
                       frame, frame * 0 + 0.3)  # fmt: skip


def test_two_families_tell_a_direction_and_no_size():
    """Twelve of twelve pairs up: nothing can be said of other families, but not nothing at all."""
    rose = _gains(np.linspace(0.1, 0.2, 12), ["a"] * 6 + ["b"] * 6, [f"b{i}" for i in range(12)])
    found = pairs.summary(rose, 100, np.random.default_rng(0))["t"]
    assert found["ci95_family"] is None and found["p_family"] is None
    assert found["p_direction"] == pytest.approx(2 * 0.5**12)
    assert pairs.counted(found) == "up in 12 of 12 pairs of two families: direction clear, size not"
    verdict = verdicts.judge_all({"t": verdicts.Evidence({}, found, 0.12)}, "ko")["t"]
    assert verdict.verdict == verdicts.LOCAL and "direction is clear in these families" in verdict.reasons[2]
    small = verdicts.judge_all({"t": verdicts.Evidence({}, found, 0.3)}, "ko")["t"]
    assert small.verdict == verdicts.UNKNOWN and "direction clear, size not" in small.reasons[2]


def test_a_base_counts_once():
    """Ten models of one base share its luck: they are one piece of evidence for a direction."""
    one = _gains(np.full(10, 0.1), ["a"] * 5 + ["b"] * 5, ["x"] * 10)
    assert pairs.summary(one, 100, np.random.default_rng(0))["t"]["p_direction"] == 1.0


# Tables with one fault or feature each -----------------------------------------------------------------------------


def _continued(world, local=30.0, chance=False, lower=False, anchor="en0", copies=False, children=8):
    """The world's table with continual models that gain on Korean; returns the path of the scores."""
    path = world(families=8, each=3)
    scores, models = pd.read_csv(path), pd.read_csv(path.with_name("models.csv"))
    tasks = pd.read_csv(path.with_name("tasks.csv"))
    rng, rows, made = np.random.default_rng(5), [], []
    for i in range(children):
        base = scores.iloc[3 * i]
        row = {c: base[c] + (0.1 if c.startswith("ko") else -0.01) + rng.normal(0, 0.01) for c in scores.columns[1:]}
        rows.append({"model": f"c{i}", **{k: min(max(v, 0.0), 1.0) for k, v in row.items()}})
        about = dict(models.iloc[3 * i]) | {"model": f"c{i}", "base": base["model"]}
        about["ko_tokens_b_est"] += local
        made.append(about)
    scores = pd.concat([scores, pd.DataFrame(rows)], ignore_index=True)
    models = pd.concat([models.assign(base=""), pd.DataFrame(made)], ignore_index=True)
    tasks = tasks.assign(anchor="", items="", chance="", better="", metric="")
    tasks.loc[tasks["task"] == anchor, "anchor"] = "PC2"
    if chance:
        scores["guess"] = rng.binomial(200, 0.25, len(scores)) / 200
        tasks.loc[len(tasks)] = ["guess", "ko", "", "200", "0.25", "", ""]
    if lower:
        scores["wrong"] = 1 - scores["ko0"].clip(0, 1) * 0.8 - rng.uniform(0, 0.2, len(scores))
        tasks.loc[len(tasks)] = ["wrong", "ko", "", "", "", lower, "character error rate"]
    if copies:
        scores["again"] = scores["ko0"] * 0.5
        scores["average"] = scores[["en0", "en1", "en2", "en3"]].mean(axis=1)
        tasks.loc[len(tasks)] = ["again", "ko", "", "", "", "", ""]
        tasks.loc[len(tasks)] = ["average", "en", "", "", "", "", ""]
    for frame, name in ((scores, "scores"), (models, "models"), (tasks, "tasks")):
        frame.to_csv(path.with_name(f"{name}.csv"), index=False)
    return path


def _run(path):
    return study.run(tables.read(path), study.Options(draws=100))


def test_the_local_component_rises_with_local_text_whatever_its_anchor(world):
    found = _run(_continued(world, anchor="en3"))
    local = found["local_component"]
    assert found["pairs"]["summary"][local]["mean"] > 0 and found["loadings"][local]["ko0"] > 0
    assert f"{local} rose in 8" in " ".join(answer(found))
    turned = [w for w in found["warnings"] if "turned against its anchor 'en3'" in w]
    assert bool(turned) == (found["loadings"][local]["en3"] < 0)


def test_pairs_without_local_text_are_told_apart(world):
    found = _run(_continued(world, local=0.0))
    assert found["pairs"]["summary"] == {} and len(found["pairs"]["without_local_text"]) == 8
    assert any("8 pairs added no ko text" in w and "and 5 more" in w for w in found["warnings"])
    mixed = tables.read(_continued(world))
    mixed.models.loc["c0", "ko_tokens_b_est"] = mixed.models.loc["m0-0", "ko_tokens_b_est"]
    assert pairs.find(mixed, mixed.scores, "ko").without == ("c0",)


def test_guessing_tells_nothing(world):
    path = _continued(world, chance=True)
    found = _run(path)
    assert found["verdicts"]["guess"]["verdict"] == "tells nothing"
    assert "At chance: no model is clearly better than guessing (0.25" in found["verdicts"]["guess"]["reasons"][0]
    assert "guess tells nothing" in " ".join(answer(found)) and found["verdicts"]["ko0"]["verdict"] != "tells nothing"
    read = tables.read(path)
    read.tasks.loc["guess", "items"] = float("nan")
    read.scores["guess"] = 0.25 + 0.1 * (read.scores["guess"] - 0.25)
    assert "guess" in sampling.tells_nothing(read)
    read.scores.loc["c0", "guess"] = 0.6
    assert "guess" not in sampling.tells_nothing(read)
    read.tasks.loc["guess", ["items", "chance"]] = [20.0, 0.0]
    read.scores["guess"] = np.tile([0.4, 0.5], 99)[: len(read.scores)]
    read.tasks.loc["guess", "metric"] = "char F1"  # answers count in part: they err less than right or wrong ones
    assert "guess" not in sampling.tells_nothing(read)
    read.tasks.loc["guess", "metric"] = "accuracy"
    assert sampling.tells_nothing(read)["guess"] == "Its 20 items cannot tell the models apart."


def test_an_error_rate_is_turned_or_refused(world):
    found = tables.read(_continued(world, lower="lower"))
    raw = pd.read_csv(_continued(world, lower="lower")).set_index("model")["wrong"]
    np.testing.assert_allclose(found.scores["wrong"], 1 - raw)
    assert any("'wrong' is better when lower: it is inverted (1 minus the score)" in w for w in found.warnings)
    with pytest.raises(ConfigError, match=r"looks like an error \(see 'wrong.*rate'\): say better=lower"):
        path = _continued(world, lower="lower")
        tasks = pd.read_csv(path.with_name("tasks.csv"), dtype=str).fillna("").assign(better="")
        tasks.to_csv(path.with_name("tasks.csv"), index=False)
        tables.read(path)
    with pytest.raises(ConfigError, match="better 'up' is neither higher nor lower"):
        tables.read(_continued(world, lower="up"))


def test_copies_and_means_of_others_do_not_count_twice(world):
    found = tables.read(_continued(world, copies=True))
    assert "again" not in found.scores and "average" not in found.scores and "ko0" in found.scores
    assert any("'again' is a copy of 'ko0'" in w for w in found.warnings)
    assert any("'average' is the mean of the other tasks in 'en'" in w for w in found.warnings)


def test_zeros_are_a_fault_only_where_more_was_to_be_expected():
    ability = np.linspace(0.1, 0.9, 20)
    scores = pd.DataFrame({"a": ability, "b": ability**2, "hard": np.maximum(0, ability - 0.5)},
                          [f"m{i}" for i in range(20)])  # fmt: skip
    assert list(informative.suspicious_zeros(scores, "hard")) == []
    scores.loc["m15", "hard"] = 0.0
    assert list(informative.suspicious_zeros(scores, "hard")) == ["m15"]
    assert informative.cut(list("abcde")) == "a, b, c and 2 more"


def test_a_target_that_tokens_do_not_tell_is_refused(shipped):
    wish = study.Options(draws=100, plan="base=Llama-3-8B", target="JEMHopQA=0.6")
    with pytest.raises(
        ConfigError, match=r"larger \(0.059\) than without \(0.054\)"
    ):
        study.run(shipped, wish)
