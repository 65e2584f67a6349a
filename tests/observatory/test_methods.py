"""Each method against an independent computation or against data whose truth is known."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from kanana_jax.errors import ConfigError
from kanana_jax.observatory import (
    components,
    dimensions,
    downstream,
    filling,
    joint,
    pairs,
    planner,
    scaling,
    study,
    tables,
    unseen,
    verdicts,
)

pytest_plugins = ["observatory_fixtures"]


def _rng():
    return np.random.default_rng(0)


def test_filling_recovers_a_matrix_of_known_rank():
    rng = _rng()
    truth = rng.normal(size=(30, 2)) @ rng.normal(size=(2, 8))
    holes = truth.copy()
    holes[rng.random(truth.shape) < 0.15] = np.nan
    mean, scale = np.nanmean(holes, axis=0), np.nanstd(holes, axis=0)
    found = filling.by_rank((holes - mean) / scale, 2, tolerance=1e-12, steps=20_000) * scale + mean
    np.testing.assert_allclose(found, truth, atol=1e-4)


def test_filling_of_hidden_cells_beats_column_means():
    rng = _rng()
    table = pd.DataFrame(rng.normal(size=(40, 1)) @ np.ones((1, 6)) + rng.normal(0, 0.1, (40, 6)))
    rmse = filling.hidden_cells(table, 5, rng, ranks=(1,)).rmse
    assert rmse["1"] < 0.2 < 0.8 < rmse["column_means"]


def test_parallel_analysis_keeps_what_is_planted_and_no_noise():
    rng = _rng()
    threshold = dimensions.parallel_analysis(60, 10, 300, rng)
    noise = pd.DataFrame(rng.normal(size=(60, 10)))
    assert components.fit(noise, {}).eigenvalues[1] < threshold[1] * 1.1
    planted = noise + 1.5 * rng.normal(size=(60, 1))
    above = components.fit(planted, {}).eigenvalues > threshold
    assert above[0] and not above[1:].any()


def test_sign_rule():
    loadings = np.array([[-0.5, -0.5, 0.1], [0.2, -0.9, 0.1], [0.1, 0.2, -0.8]])
    tasks = ("a", "b", "c")
    assert components.fix_signs(loadings, tasks, {"PC2": "a"}).tolist() == [-1, 1, -1]
    assert components.fix_signs(loadings, tasks, {"PC2": "b", "PC3": "gone"}).tolist() == [-1, -1, -1]


def test_projection_of_the_fitted_models_is_their_scores(shipped):
    found = components.fit(shipped.scores, {})
    np.testing.assert_allclose(found.project(shipped.scores), found.scores, atol=1e-9)


def _families(rng, groups=8, each=4, spread=1.0, slope=2.0):
    """Families with offsets of their own and budgets of their own."""
    family = np.repeat(np.arange(groups), each)
    x = 22 + rng.normal(0, 0.8, groups)[family] + rng.normal(0, 0.2, len(family))
    y = slope * (x - 22) + spread * rng.normal(0, 1, groups)[family] + rng.normal(0, 0.3, len(family))
    return x, y, family.astype(str)


def test_fit_against_statsmodels():
    x, y, family = _families(_rng())
    fit = scaling.fit(x, y, family, 200, _rng())
    reference = sm.OLS(y, sm.add_constant(x)).fit()
    assert fit.slope == pytest.approx(reference.params[1]) and fit.r2 == pytest.approx(reference.rsquared)
    frame = reference.get_prediction(sm.add_constant(np.array([21.0, 23.5]))).summary_frame(alpha=0.05)
    alone = scaling.fit(x, y, np.arange(len(x)).astype(str), 200, _rng())  # every model a family of its own
    middle, low, high = alone.predict(np.array([21.0, 23.5]))
    np.testing.assert_allclose(middle, frame["mean"])
    np.testing.assert_allclose(low, frame["obs_ci_lower"])
    np.testing.assert_allclose(high, frame["obs_ci_upper"])
    _, wider, _ = fit.predict(21.0)
    assert wider < low[0]


def test_family_bootstrap_against_resampling_by_hand():
    x, y, family = _families(_rng())
    fit = scaling.fit(x, y, family, 20_000, _rng())
    rng, slopes, naive = np.random.default_rng(1), [], []
    groups = [np.flatnonzero(family == f) for f in np.unique(family)]
    for _ in range(4000):
        index = np.concatenate([groups[i] for i in rng.integers(0, len(groups), len(groups))])
        slopes.append(np.polyfit(x[index], y[index], 1)[0])
        index = rng.integers(0, len(x), len(x))
        naive.append(np.polyfit(x[index], y[index], 1)[0])
    np.testing.assert_allclose(fit.ci95_bootstrap, np.percentile(slopes, (2.5, 97.5)), atol=0.15)
    np.testing.assert_allclose(fit.ci95_naive, np.percentile(naive, (2.5, 97.5)), atol=0.06)


def test_families_left_out_by_hand():
    x, y, family = _families(_rng())
    errors = []
    for name in np.unique(family):
        inside = family == name
        errors += list(y[inside] - np.polyval(np.polyfit(x[~inside], y[~inside], 1), x[inside]))
    assert scaling.fit(x, y, family, 100, _rng()).lofo_rmse == pytest.approx(np.sqrt(np.mean(np.square(errors))))


def test_coverage_on_unseen_families():
    """Of new models of new families: intervals with families hold about what they say, naive slopes' do not."""
    rng = _rng()
    inside, family_holds, naive_holds = [], [], []
    for _ in range(150):
        x, y, family = _families(rng, groups=9, spread=1.0)
        known = family != "8"
        fit = scaling.fit(x[known], y[known], family[known], 300, rng)
        _, low, high = fit.predict(x[~known][0])
        inside.append(low <= y[~known][0] <= high)
        family_holds.append(fit.ci95_family[0] <= 2 <= fit.ci95_family[1])
        naive_holds.append(fit.ci95_naive[0] <= 2 <= fit.ci95_naive[1])
    assert np.mean(inside) > 0.9
    assert np.mean(family_holds) > np.mean(naive_holds) + 0.1 and np.mean(naive_holds) < 0.8


def test_token_intervals_widen():
    x, y, family = _families(_rng(), groups=12, spread=0.1)
    draws = x + _rng().normal(0, 0.5, (2000, len(x)))
    fit = scaling.fit(x, y, family, 2000, _rng(), draws)
    width = lambda ci: ci[1] - ci[0]  # noqa: E731
    assert width(fit.ci95_tokens) > 1.3 * width(fit.ci95_family)


def test_too_little_to_fit():
    assert scaling.fit(np.arange(3.0), np.arange(3.0), np.array(["a", "b", "c"]), 100, _rng()) is None
    assert scaling.fit(np.ones(9), np.arange(9.0), np.arange(9).astype(str), 100, _rng()) is None
    two = scaling.fit(np.arange(6.0), np.array([0, 1, 3, 2, 5, 4.0]), np.array(list("aaabbb")), 100, _rng())
    assert two.ci95_family is None and two.extrapolates(7) and not two.extrapolates(2)


def _table(falls=False):
    """32 models of eight families, each with a continual model: t rises with ko tokens by 0.3 a decade (arcsine's scale)."""
    rng, names, rows = np.random.default_rng(0), [], []
    for f in range(8):
        size, family = 10 ** rng.uniform(9, 10.8), rng.normal(0, 0.05)
        en, ko = 10 ** rng.uniform(2, 4), 10 ** rng.uniform(-0.5, 0.5)
        for i in range(4):
            child = i > 0
            tokens = ko + child * 10 ** rng.uniform(0.8, 2.5)
            z = 0.4 + 0.1 * np.log10(en * size / 1e9) + (-0.1 if falls else 0.15) * np.log10(tokens * size / 1e9) + family
            names.append(f"m{f}-{i}")
            rows.append(dict(family=f"F{f}", base=f"m{f}-0" if child else "", params=size, tokens_b=np.nan,
                             t=np.sin(np.clip(z / 2 + rng.normal(0, 0.01), 0, 1.5)) ** 2,
                             **{f"en_tokens_b_{e}": en for e in ("low", "est", "high")},
                             **{f"ko_tokens_b_{e}": tokens for e in ("low", "est", "high")}))  # fmt: skip
    models = pd.DataFrame(rows, names)
    scores, about = models[["t"]], {"language": "ko", "low": 0.0, "high": 1.0, "items": np.nan, "metric": ""}
    tasks, none = pd.DataFrame(about, ["t"]), scores * np.nan
    return tables.Tables(scores, tasks, models.drop(columns="t"), none.astype(str), none, ("en", "ko"), ())


def test_inverse_is_the_inverse():
    known = _table()
    together, models = pairs.find(known, known.scores, "ko"), joint.every(known, known.scores, "ko", "en")
    plan = planner.Plan("m0-0", "ko", float(known.models.loc["m0-0", "params"]), None)
    level = float(known.scores.loc["m0-0", "t"])
    reached = models.after("t", "m0-0", plan.params, np.array([80.0]))
    found = planner.tokens_for(plan, together, known.scores, "t", float(reached.middle[0]), models)
    assert found["tokens"] / 80e9 == pytest.approx(1, abs=0.01) and not found["extrapolates"]
    low, high = found["tokens_ci95"]
    assert low < found["tokens"] < high
    assert planner.tokens_for(plan, together, known.scores, "t", 0.999, models)["extrapolates"]
    with pytest.raises(ConfigError, match="on 't' already"):
        planner.tokens_for(plan, together, known.scores, "t", level - 0.01, models)
    falls = _table(falls=True)
    together, models = pairs.find(falls, falls.scores, "ko"), joint.every(falls, falls.scores, "ko", "en")
    with pytest.raises(ConfigError, match="does not rise with added ko tokens"):
        planner.tokens_for(plan, together, falls.scores, "t", 0.9, models)


def test_the_shipped_plan(study):
    rows = {r["measure"]: r for r in study["plan"]["measures"]}
    assert set(rows) == {"PC1", "PC2", "PC3", *study["tasks"]}
    niilc = rows["NIILC"]
    assert (
        niilc["before"] == 0.4002
        and niilc["gain_ci95"][0] > 0
        and niilc["after"] == pytest.approx(0.4002 + niilc["gain"])
    )
    assert rows["PC2"]["gain_ci95"][0] < study["plan"]["pooled_law"]["gain"] < rows["PC2"]["gain_ci95"][1]
    assert rows["TriviaQA"]["language"] == "en" and rows["TriviaQA"]["gain"] < 0
    inverse = study["plan"]["inverse"]
    assert inverse["tokens_ci95"][0] < inverse["tokens"] < inverse["tokens_ci95"][1]


@pytest.mark.parametrize(
    ("plan", "target", "match"),
    [
        ("base=Lama-3-8B,ja_tokens=1e9", "", "not a model of the table; did you mean"),
        ("params=8e9", "", "needs base=MODEL"),
        ("base=Llama-3-8B,tokens=1e9", "", "unknown key 'tokens', did you mean 'ja_tokens'"),
        ("base=Llama-3-8B,ja_tokens=many", "", "ja_tokens 'many' is not a positive number"),
        ("base=Llama-3-8B,ja_tokens=100B", "", "ja_tokens '100B' is not a positive number; write 1e11"),
        ("base=Llama-3-8B,ja_tokens=1_000_000_000", "", "not a positive number; write it without '_'"),
        ("base=Llama-3-8B,ja_tokens=100,000,000,000", "", "',' separates keys, and '000' is not one: write .* as 100e9"),
        ("base=Llama-3-8B,ja_tokens=1e9,ja_tokens=2e9", "", "'ja_tokens' is given twice: keep one"),
        ("base=Llama-3-8B,ja_tokens=1e9,jpn_tokens=2e9", "", "'ja_tokens' is given twice: keep one"),
        ("base=Llama-3-8B,ja_tokens=100", "", "it is a number of tokens, such as 100e9"),
        ("base=Llama-3-8B", "", "needs ja_tokens=N"),
        ("base=Llama-3-8B", "NIIL=0.5", "is not a task, did you mean 'NIILC'"),
        ("base=Llama-3-8B", "NIILC=50", "above the highest possible"),
        ("base=Llama-3-8B", "NIILC", "must be TASK=VALUE"),
        ("base=Llama-3-8B", "NIILC=nan", "must be TASK=VALUE with a finite number"),
        ("base=Llama-3-8B", "PC2=nan", "must be TASK=VALUE with a finite number"),
        ("base=Llama-3-8B", "PC2=-inf", "must be TASK=VALUE with a finite number"),
        ("base=Llama-3-8B", "NIILC=-0.1", "below the lowest possible 'NIILC', 0"),
    ],
)
def test_bad_plans(shipped, plan, target, match):
    with pytest.raises(ConfigError, match=match):
        study.run(shipped, study.Options(draws=100, plan=plan, target=target))


def test_plans_beyond_what_was_seen_are_warned_of(shipped):
    result = study.run(shipped, study.Options(draws=100, plan="base=Qwen2-7B,params=200e9,ja_tokens=2e12"))
    words = " ".join(result["plan"]["warnings"])
    assert "2e+12 tokens, while the pairs added" in words and "2e+11 parameters, while the pairs have" in words
    assert "No pair is of the family Qwen2" in words
    assert any(row["extrapolates"] for row in result["plan"]["measures"])


def _law(r, low, high, families=6):
    p = 0.001 if low > 0 else 0.5
    error = unseen.Unseen(np.ones(1), np.ones(1), np.eye(2)[None], 18)
    between = (low, high)
    return scaling.Fit(
        20, families, r, r * r, 1.0, 0.0, between, between, between, None, p, 0.1, 0.2, (20, 24), error
    )


def _pair(mean, low, high, n=12, families=4, p=None, direction=1.0):
    clear = 0.001 if low > 1e-12 or high < 0 else 0.5
    return {"n": n, "families": families, "bases": n, "mean": mean, "up": n if mean > 0 else 0,
            "down": 0 if mean > 0 else n, "bases_up": n if mean > 0 else 0, "p_direction": direction,
            "ci95_family": (low, high), "ci95_bootstrap": (low, high), "p_family": p or clear}  # fmt: skip


@pytest.mark.parametrize(
    ("en", "ko", "pair", "wanted"),
    [
        (_law(0.9, 0.1, 0.3), _law(0.1, -1, 1), _pair(-0.02, -0.03, -0.01), verdicts.ENGLISH),
        (_law(0.1, -1, 1), _law(0.8, 0.1, 0.3), _pair(0.1, 0.05, 0.2), verdicts.LOCAL),
        (_law(0.9, 0.1, 0.3), _law(0.1, -1, 1), _pair(0.05, 0.02, 0.1), verdicts.MIXED),
        (_law(0.9, 0.1, 0.3), _law(0.1, -1, 1), _pair(0.2, 0.1, 0.3), verdicts.LOCAL),
        (_law(0.1, -1, 1), _law(0.8, 0.1, 0.3), _pair(-0.1, -0.2, -0.05), verdicts.MIXED),
        (_law(0.1, -1, 1), _law(0.1, -1, 1), _pair(0.001, -0.1, 0.1), verdicts.UNKNOWN),
        (_law(0.1, -1, 1), _law(0.1, -1, 1), _pair(0.05, 2e-17, 0.1), verdicts.UNKNOWN),
        (_law(0.9, 0.1, 0.3), None, None, verdicts.ENGLISH),
        (_law(0.9, 0.1, 0.3), _law(0.9, 0.1, 0.3), None, verdicts.MIXED),
        (None, None, _pair(0.1, 0.05, 0.2, n=3), verdicts.UNKNOWN),
    ],
)
def test_verdicts(en, ko, pair, wanted):
    known = verdicts.Evidence({"en": en, "ko": ko}, pair, 0.2)
    found = verdicts.judge_all({"t": known}, "ko")["t"]
    assert found.verdict == wanted and len(found.reasons) >= 3


def test_a_planted_world_is_understood(world):
    result = study.run(tables.read(world()), study.Options(draws=300))
    assert (result["general_component"], result["local_component"]) == ("PC1", "PC2")
    assert all(v["pooled_r"][t[:2]] > 0.9 for t, v in result["verdicts"].items())
    local = next(f for f in result["fits"] if f["component"] == result["local_component"] and f["language"] == "ko")
    assert local["r2"] > 0.7 and local["ci95_family"][0] > 0


def test_sigmoid_is_recovered():
    rng = _rng()
    pcs = rng.normal(size=(200, 2)) * [3, 1]
    truth = downstream.Sigmoid(np.array([0.6, -0.8]), -0.5, 0.1)
    found = downstream.fit(pcs, truth(pcs) + rng.normal(0, 0.005, 200))
    np.testing.assert_allclose(found.weights, truth.weights, atol=0.03)
    assert found.bias == pytest.approx(-0.5, abs=0.05) and found.floor == pytest.approx(0.1, abs=0.01)
    scaled = downstream.fit(pcs, 20 + 80 * truth(pcs), low=20, high=100)
    np.testing.assert_allclose(scaled(pcs), 20 + 80 * truth(pcs), atol=0.1)


def test_tasks_above_a_cutoff_are_predicted_where_a_law_holds():
    rng = _rng()
    flops = np.sort(rng.uniform(20, 24, 60))
    ability = flops - 22 + rng.normal(0, 0.2, 60)
    table = pd.DataFrame(
        {f"t{k}": 1 / (1 + np.exp(-(1 + k / 4) * ability + k / 3)) + rng.normal(0, 0.01, 60) for k in range(6)}
    ).clip(0, 1)
    found = downstream.held_out(table, "t3", flops, 22.5)
    assert found["test_rmse"] < 0.1 and found["baseline_rmse"] > 0.5
    assert downstream.held_out(table, "t3", flops, 22.5, count=1)["test_rmse"] < 0.06
    assert found["train_models"] == (flops <= 22.5).sum() and found["train_models"] + found["test_models"] == 60
    assert downstream.held_out(table, "t3", flops, 20.1) is None


def test_observational_components_fill_in_z_scores_and_explain_in_units():
    """By hand: three columns of one factor, of other widths, and a cell that the factor gives exactly."""
    a = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.15, 0.35])
    holes = pd.DataFrame({"a": a, "b": 2 * a, "c": 0.9 - a})
    holes.loc[2, "b"] = np.nan
    ratio, loadings, mean, filled = downstream.principal(holes)
    assert filled[2, 1] == pytest.approx(0.6, abs=1e-6) and mean[1] == pytest.approx(2 * a.mean())
    assert ratio[0] == pytest.approx(1) and abs(loadings[0][1] / loadings[0][0]) == pytest.approx(2)
