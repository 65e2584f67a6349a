"""The question comes first: its sentence, its rivals, its price; and how far a further measurement would narrow it."""

import dataclasses
import json

import numpy as np
import pytest

from kanana_jax.errors import ConfigError
from kanana_jax.observatory import costs, joint, mixed, narrowing, pairs, tables
from kanana_jax.report.observatory import answer, page, rivals
from kanana_jax.report.observatory.sentences import two_digits
from kanana_jax.report.page import render

pytest_plugins = ["observatory_fixtures"]


@pytest.fixture(scope="module")
def target(shipped):
    """100e9 tokens on Llama 3 8B, by NIILC."""
    models = joint.every(shipped, shipped.scores[["NIILC"]], "ja", "en")
    return narrowing.Target(models, "NIILC", "meta-llama/Meta-Llama-3-8B", 8e9, 100.0)


def test_the_first_sentence_is_the_decision(study):
    first = answer(study)[0]
    assert first.startswith(
        "100 billion Japanese tokens on Llama 3 8B: NIILC 0.40 → 0.56 (95% 0.46 to 0.66), P(≥ 0.55) "
    )
    assert "; the largest predicted loss, not clear, is JHumanEval 0.33 → 0.27 (0.13 to 0.43)" in first
    text = render(page(study, {}))
    assert 0 < text.index("NIILC 0.40 → 0.56") < text.index("35 models") < text.index("The answer</h2>")
    kinds = [c["kind"] for c in study["plan"]["decision"]["choices"]]
    assert kinds == ["asked", "half", "bigger", "bigger as it is", "other", "there already"]
    other = study["plan"]["decision"]["choices"][4]["model"]  # Mistral, Qwen and Yi of that size disclose no tokens
    assert other == "meta-llama/Llama-2-7b-hf"
    table = rivals(study)
    assert table is not None and table.rows[0][0] == "100 billion on Llama 3 8B"
    assert table.rows[3][:3] == ["Llama 3 70B as it is", "0.60", "–"]


def test_without_a_question_the_most_useful_finding_is_first(study):
    """Its tasks and their effect are those of the verdicts, the mean of the pairs beside them."""
    first = answer({k: v for k, v in study.items() if k != "plan"})[0]
    effect = study["verdicts"]["NIILC"]["effects"]["ja"]
    low, high = effect["ci95"]
    assert first.startswith(
        f"Added Japanese text helps JEMHopQA, NIILC, WMT20 (en-ja), most NIILC ({effect['per_decade']:+.3f} with ten "
        f"times the Japanese compute, {low:+.3f} to {high:+.3f}; mean of the pairs +0.161, +0.034 to +0.289, up in 15 "
        "of 15 pairs of four families)"
    )
    assert (
        low > 0
        and f"; its price is a fall of {_fall(study, 'HellaSwag')} with the recipes of 2023–24; larger, but not clear after the "
        f"correction for all tasks, is that of {_fall(study, 'JHumanEval')}; 15 of 19"
        in first
    )


def _fall(study, task):
    """A fall by the model that plans and verdicts are of."""
    effect = study["verdicts"][task]["effects"]["ja"]
    low, high = effect["ci95"]
    return f"{task} ({effect['per_decade']:+.3f} with ten times the Japanese compute, {low:+.3f} to {high:+.3f})"


def test_slopes_are_told_by_the_model_that_plans_and_verdicts_are_of(study):
    """No second slope of another clearness beside them; without that model the law tells them."""
    sentence = answer({k: v for k, v in study.items() if k != "plan"})[1]
    for name, code, where, other in (("PC1", "en", "English", "Japanese"), ("PC2", "ja", "Japanese", "English")):
        effect = study["mixed"][name]["effects"][code]
        low, high = effect["ci95"]
        told = f"goes up {effect['per_decade']:.1f} (95% by family {low:.1f} to {high:.1f}) with ten times the {where} compute, at equal {other} compute"
        assert told in sentence and sentence.count("with ten times") == 2
        law = next(f for f in study["fits"] if f["component"] == name and f["language"] == code)
        assert round(law["slope_per_decade"], 1) != round(effect["per_decade"], 1)
    assert "R² 0.57" in answer({k: v for k, v in study.items() if k != "plan"} | {"mixed": {}})[1]
    plan = render(page(study, {})).partition("The plan</h2>")[2].partition("</h2>")[0]
    gain = next(m["gain"] for m in study["plan"]["measures"] if m["measure"] == "PC2")
    assert f"PC2 changes by {gain:+.2f} (" in plan and f"{study['plan']['pooled_law']['gain']:+.2f}" not in plan


def test_a_side_cost_is_dated(shipped, study):
    """The 15 continual models came out from October 2023 to July 2024; where no date is known none is told."""
    dates = shipped.models.loc[[m for m, *_ in study["pairs"]["models"]], "date"]
    assert (dates.min(), dates.max()) == ("2023-10", "2024-07") and study["pairs"]["years"] == [2023, 2024]
    told = " with the recipes of 2023–24"
    assert f"JHumanEval 0.33 → 0.27 (0.13 to 0.43){told}." in answer(study)[0]
    general = {k: v for k, v in study.items() if k != "plan"}
    assert f"{_fall(study, 'HellaSwag')}{told};" in answer(general)[0]
    assert f"Side cost{told}: English tasks" in render(page(study, {}))
    known = pairs.find(shipped, shipped.scores, "ja")
    for given, years in (("2024", (2024, 2024)), ("released on 2 May 2025", (2025, 2025)), ("", None)):
        about = dataclasses.replace(shipped, models=shipped.models.assign(date=given))
        assert pairs.years(known, about) == years
    other = json.loads(json.dumps(study))
    for span, words in (([2024, 2024], "(0.13 to 0.43) with the recipes of 2024."), (None, "(0.13 to 0.43).")):
        other["pairs"]["years"] = span
        assert answer(other)[0].endswith(words)


def test_an_extrapolation_is_said_before_its_figures(shipped):
    """5e12 tokens on a base of 1,050e9: no pair added more than 120e9, or began with more than 2e9."""
    from kanana_jax.observatory.study import Options, run

    result = run(shipped, Options(draws=100, plan="base=Sarashina2-7B,ja_tokens=5e12"))
    first, table = answer(result)[0], rivals(result)
    assert first.startswith("Beyond what any pair has shown (5000e9 tokens, seen 10–120e9; ")
    assert "a base trained on 1,050e9 ja tokens" in first[: first.index("NIILC")]
    assert table is not None and table.rows[0][0].endswith("Sarashina2 7B (extrapolated)")
    rows = result["plan"]["decision"]["choices"]
    assert all(bool(c["extrapolates"]) == (c["tokens"] > 0) for c in rows)


def test_a_task_that_the_plan_clearly_raises_is_not_called_unhelped(study):
    """Verdict and plan together: what a verdict gives to English leaves the list once this plan's interval is above 0."""
    told = next(s for s in answer(study) if s.startswith("Not shown to be helped: "))
    assert "MGSM" in told and "NIILC" not in told
    assert any("small beside how models differ" in r for r in study["verdicts"]["MGSM"]["reasons"])
    row = next(m for m in study["plan"]["measures"] if m["measure"] == "MGSM")
    assert row["gain_ci95"][0] < 0 < row["gain"] and 0.5 < row["rises"] < 0.975
    other = json.loads(json.dumps(study))
    next(m for m in other["plan"]["measures"] if m["measure"] == "MGSM")["gain_ci95"] = [0.01, 0.2]
    assert "MGSM" not in next(s for s in answer(other) if s.startswith("Not shown to be helped: "))


def test_no_probability_is_certain(study):
    other = json.loads(json.dumps(study))
    choices = other["plan"]["decision"]["choices"]
    for choice, chance in zip(choices[:3], (0.9996, 0.0004, 0.994)):
        choice["probability"] = chance
    table = rivals(other)
    assert table is not None and [row[2] for row in table.rows[:3]] == [">99%", "<1%", "99%"]
    assert "P(≥ 0.55) >99%;" in answer(other)[0]


def test_tokens_have_two_digits(study):
    assert [two_digits(v) for v in (42.7, 1216, 0.6, 3.14, 350_111)] == ["43", "1,200", "0.60", "3.1", "350,000"]
    assert "takes 79 billion added Japanese tokens (95% hardly any to 600 billion)" in " ".join(answer(study))


def test_the_probability_is_that_of_the_interval(target):
    """2.5% lie below the lower end, and 97.5% below the upper one, on the score's own scale."""
    found = target.joint.after("NIILC", target.base, target.params, np.array([100.0]))
    assert found.reaches(float(found.low[0])) == pytest.approx(0.975, abs=1e-6)
    assert found.reaches(float(found.high[0])) == pytest.approx(0.025, abs=1e-6)


@pytest.mark.parametrize("base", [None, "Qwen/Qwen2-7B"])
def test_errors_of_prediction_are_those_of_a_joint_normal_distribution(target, base):
    """With flat priors on the line the target, given all scores, has the conditional variance of one big Gaussian.

    The extra score is a pilot's, or a continual model's of another family.
    """
    family, lineage, recipe = mixed.SHARES.T
    shared = 0.6 * (1 - family) * (1 - lineage) * (1 - recipe) * (base is None)
    (row, own), (near, kin) = target.row(100.0), target.row(20.0)
    if base:
        near, kin = target.joint.planned(base, 7e9, np.array([20.0]))
    extra = narrowing._Extra(near, kin, shared=shared)
    found, model = narrowing._variances(target, [extra]), target.model
    design = np.vstack([model.design, near, row])
    for at in (7, 62, 120):
        law = model.kin.plus(kin).plus(own).covariance()[at] + 1e6 * design @ design.T
        law[-1, -2] += shared[at]
        law[-2, -1] += shared[at]
        seen = law[:-1, :-1]
        by_hand = law[-1, -1] - law[-1, :-1] @ np.linalg.solve(seen, law[:-1, -1])
        assert found[at] == pytest.approx(by_hand, rel=1e-3, abs=1e-5)
    plain = narrowing._variances(target, [])
    predicted = model.foretell(row, own).scale[0] ** 2 / model.variance
    np.testing.assert_allclose(plain, predicted, rtol=1e-9)


def test_a_pilot_of_all_tokens_leaves_the_errors_of_the_scores_only(target):
    plain = narrowing._variances(target, [])
    shown = narrowing._half(target, plain, plain)
    found = target.joint.after("NIILC", target.base, target.params, np.array([100.0]))
    assert shown == pytest.approx((found.high[0] - found.low[0]) / 2)
    piloted = lambda tokens, error, times=1.0: narrowing._piloted(target, plain, tokens, error, times)  # noqa: E731
    assert piloted(99.999, 0.0) < 0.02 * shown
    few, many = (piloted(99.999, 0.0355, times) / shown for times in (1.0, 100.0))
    assert 0.5 < few < 1 and many < 0.2
    assert narrowing.pilot(target, (10.0, 120.0), 1e9)["tokens"] == 10e9  # the fewest of a pair
    some = narrowing.pilot(target, (10.0, 120.0), 198)
    error = 0.5 / np.sqrt(198)
    assert some["tokens"] is None and some["half_after"] == pytest.approx(piloted(some["nearly"] / 1e9, error))
    assert piloted(some["nearly"] / 1e9, error, some["questions"]) <= 0.5 * shown


def test_why_no_pilot_is_tried(study, target):
    """A plan of no more tokens than any pair added; scores whose errors are unknown, which is all that a pilot leaves."""
    few = narrowing.pilot(dataclasses.replace(target, tokens_b=5.0), (10.0, 120.0), np.nan)
    assert few["untried"] == "fewest"
    other = json.loads(json.dumps(study))
    other["plan"]["decision"]["pilot"] = few
    words = "No pilot of fewer tokens can be judged for NIILC: no pair has added fewer than the plan."
    assert words in " ".join(answer(other))
    other["plan"]["decision"]["pilot"] = narrowing.pilot(target, (10.0, 120.0), np.nan)
    assert "for NIILC: the number of its questions (items in tasks.csv) is unknown, so" in " ".join(answer(other))


def test_the_missing_cell_is_the_next_measurement(shipped):
    """Of a pair without a score its cell is named, and more is learnt from the family asked about than from another."""
    known = pairs.find(shipped, shipped.scores, "ja")
    scores = shipped.scores["NIILC"].copy()
    scores["tokyotech-llm/Llama-3-Swallow-8B-v0.1"] = np.nan
    tokens = dict(zip(known.models, known.tokens_b))
    models = joint.every(shipped, scores.to_frame(), "ja", "en")
    target = narrowing.Target(models, "NIILC", "meta-llama/Meta-Llama-3-8B", 8e9, 100.0)
    found = narrowing.candidates(target, shipped, scores, tokens)
    assert [n["model"] for n in found if n["kind"] == "score"] == ["tokyotech-llm/Llama-3-Swallow-8B-v0.1"]
    best = {n["family"]: n["narrows"] for n in reversed(found)}
    assert best["Llama 3"] > best["Qwen2"] and all(n["narrows"] < 0.5 for n in found)


def test_plan_verdict_and_law_are_of_one_model(shipped, study):
    """MGSM: the plan's gain is the verdict's slope times the decades that are added, and what the base inherits."""
    models = joint.every(shipped, shipped.scores, "ja", "en")
    slopes = joint.slopes(models)
    for task in ("MGSM", "NIILC", "MMLU"):
        model, told = models.models[task], study["verdicts"][task]["effects"]["ja"]
        unit = np.sin(2 * model.y.mean())
        assert told["per_decade"] == pytest.approx(unit * slopes[task]["ja"].value, rel=0.02)
        ends = [mixed.stabilised(models.after(task, "meta-llama/Meta-Llama-3-8B", 8e9, np.array([t])).middle, (0, 1))[0]
                for t in (50.0, 100.0)]  # fmt: skip
        seen = 15000 * np.sqrt(0.0005 * 0.005)
        decades = np.log10((seen + 100) / (seen + 50))
        assert ends[1] - ends[0] == pytest.approx(slopes[task]["ja"].value * decades, rel=0.02)


def test_days_and_money_follow_the_plan_of_the_stage(tmp_path, shipped):
    """128 chips at 2 an hour, 4e10 and 2e10 tokens a day of 8e9 parameters: 100e9 tokens take 2.5 to 5 days."""
    file = tmp_path / "plan.json"
    plan = dict(fits=True, devices=128, topology="v5p-128", parameters=8e9, tokens_per_day=4e10,
                tokens_per_day_no_overlap=2e10, price_per_chip_hour=2.0)  # fmt: skip
    file.write_text(json.dumps(plan))
    rate = costs.read(file)
    assert rate.days(100e9, 8e9) == [2.5, 5.0] and rate.days(50e9, 16e9) == [2.5, 5.0]
    assert rate.money(100e9, 8e9) == [2.5 * 24 * 128 * 2, 5 * 24 * 128 * 2]
    from kanana_jax.observatory.study import Options, run

    result = run(shipped, Options(draws=100, plan="base=Llama-3-8B,ja_tokens=100e9", cost=file))
    first = answer(result)[0]
    assert first.endswith("2.5 to 5.0 days and a cost of 15,000 to 31,000 on v5p-128.") and "P(rises)" in first
    for change, words in ((dict(fits=False), "does not fit"), (dict(tokens_per_day=None), "no number 'tokens_per_day'"),
                          (dict(price_per_chip_hour=-1), "not a positive number")):  # fmt: skip
        file.write_text(json.dumps({**plan, **change}))
        with pytest.raises(ConfigError, match=words):
            costs.read(file)
    file.write_text(json.dumps({**plan, "price_per_chip_hour": None}))
    assert costs.read(file).money(1e9, 8e9) is None


def test_a_price_needs_a_plan(tmp_path):
    from kanana_jax.observatory.study import Options

    with pytest.raises(ConfigError, match="--cost needs --plan"):
        Options(cost=tmp_path / "plan.json")
    assert tables.shipped().is_dir()
