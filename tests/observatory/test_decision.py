"""The question comes first: its sentence, its rivals, its price; and how far a further measurement would narrow it."""

import dataclasses
import json

import numpy as np
import pytest
from scipy import stats

from kanana_jax.errors import ConfigError
from kanana_jax.observatory import costs, decision, gains, narrowing, pairs, tables, unseen
from kanana_jax.report.observatory import answer, page, rivals
from kanana_jax.report.observatory.sentences import two_digits
from kanana_jax.report.page import render

pytest_plugins = ["observatory_fixtures"]


@pytest.fixture(scope="module")
def model(shipped):
    return gains.gain_models(pairs.find(shipped, shipped.scores, "ja"), "NIILC")["tokens"]


def test_the_first_sentence_is_the_decision(study):
    first = answer(study)[0]
    assert first.startswith(
        "100 billion Japanese tokens on Llama 3 8B: NIILC 0.40 → 0.59 (95% 0.46 to 0.73), P(≥ 0.55) "
    )
    assert "; the largest predicted loss, not clear, is TriviaQA 0.71 → 0.64 (0.52 to 0.76)" in first
    text = render(page(study, {}))
    assert 0 < text.index("NIILC 0.40 → 0.59") < text.index("35 models") < text.index("The answer</h2>")
    kinds = [c["kind"] for c in study["plan"]["decision"]["choices"]]
    assert kinds == ["asked", "half", "bigger", "bigger as it is", "other", "there already"]
    other = study["plan"]["decision"]["choices"][4]["model"]  # Mistral, Qwen and Yi of that size disclose no tokens
    assert other == "meta-llama/Llama-2-7b-hf"
    table = rivals(study)
    assert table is not None and table.rows[0][0] == "100 billion on Llama 3 8B"
    assert table.rows[3][:3] == ["Llama 3 70B as it is", "0.60", "–"]


def test_without_a_question_the_most_useful_finding_is_first(study):
    first = answer({k: v for k, v in study.items() if k != "plan"})[0]
    assert first.startswith(
        "Added Japanese text helps NIILC (+0.161, +0.034 to +0.289, up in 15 of 15 pairs of four families); it raises, "
        "in direction only, WMT20 (en-ja) (+0.053, -0.006 to +0.112, "
    )
    assert "; it is not clearly shown to help JEMHopQA (+0.021, -0.041 to +0.082, " in first
    assert "; its price is a fall of TriviaQA (-0.068, -0.095 to -0.040); 11 of 19" in first


def test_a_loss_is_a_price_only_where_its_interval_is_below_zero(study):
    other = json.loads(json.dumps(study))
    next(m for m in other["plan"]["measures"] if m["measure"] == "TriviaQA")["gain_ci95"][1] = -0.01
    assert "77%, at the price of TriviaQA 0.71 → 0.64 (0.52 to 0.76)" in answer(other)[0]
    del other["plan"]
    other["verdicts"]["TriviaQA"]["paired"]["ci95_family"][1] = 0.01
    other["verdicts"]["NIILC"]["paired"]["ci95_family"][0] = -0.01
    first = answer(other)[0]
    assert first.startswith("Added Japanese text raises, in direction only, NIILC (+0.161, -0.010 to +0.289, ")
    assert "; the largest fall, not clear, is that of TriviaQA (-0.068, -0.095 to +0.010)" in first


def test_losses_of_shares_and_of_percentages_are_held_against_their_range(study, shipped):
    """0.1 of 0 to 1 is more than 2 of 0 to 100, in a plan and in the pairs."""
    rows = [{"measure": m, "language": "en", "gain": g} for m, g in (("TriviaQA", -0.1), ("GSM8K", -2.0), ("MMLU", 0.2))]
    tasks = shipped.tasks.copy()
    tasks.loc["GSM8K", "high"] = 100.0
    found = decision.side_cost(rows, "en", tasks)
    assert found is not None and found["measure"] == "TriviaQA"
    other = {k: v for k, v in json.loads(json.dumps(study)).items() if k != "plan"}
    other["tasks"]["GSM8K"]["high"] = 100.0
    other["verdicts"]["GSM8K"]["paired"] = {**other["verdicts"]["TriviaQA"]["paired"], "mean": -2.0}
    assert "a fall of TriviaQA" in answer(other)[0]


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


def test_tokens_have_two_digits(study):
    assert [two_digits(v) for v in (42.7, 1216, 0.6, 3.14, 350_111)] == ["43", "1,200", "0.60", "3.1", "350,000"]
    assert "takes 43 billion added Japanese tokens (95% 0.60 billion to 1,200 billion)" in " ".join(answer(study))


def test_the_probability_is_that_of_the_mixture_by_hand(model):
    """Student's t at each share of the families, weighed; half of it lies above the prediction."""
    row = model.rows(np.array([100.0]), 0.4)[0]
    middle = float(row @ model.weights)
    scale = np.sqrt(model.unseen.variance * (1 + np.einsum("i,rij,j->r", row, model.unseen.spread, row)))
    by_hand = model.unseen.weight @ stats.t.sf((0.15 - middle) / scale, model.unseen.df)
    assert model.probability(100.0, 0.4, 0.55) == pytest.approx(by_hand, abs=1e-9)
    assert model.probability(100.0, 0.4, 0.4 + middle) == pytest.approx(0.5)
    low = model.predict(100.0, 0.4)[1]
    assert model.probability(100.0, 0.4, 0.4 + low) == pytest.approx(0.975, abs=1e-6)


def test_errors_of_prediction_are_those_of_a_joint_normal_distribution(model):
    """With flat priors on the weights the target, given the gains, has the conditional variance of one big Gaussian."""
    target = narrowing.Target(100.0, 0.4, "Llama 3")
    extra = narrowing._Extra(model.rows(np.array([20.0]), 0.4)[0], "Llama 3", shared=0.2)
    found = narrowing._variances(model, target, [extra])
    design = np.vstack([model.design, extra.row, model.rows(np.array([100.0]), 0.4)])
    families = np.array([*model.families, "Llama 3", "Llama 3"])
    for share in (5, 25):
        rho = unseen.SHARES[share]
        joint = rho * (families[:, None] == families) + (1 - rho) * np.eye(len(families))
        joint[-1, -2] = joint[-2, -1] = rho + 0.2
        joint += 1e6 * design @ design.T
        seen = joint[:-1, :-1]
        by_hand = joint[-1, -1] - joint[-1, :-1] @ np.linalg.solve(seen, joint[:-1, -1])
        assert found[share] == pytest.approx(by_hand, rel=1e-3)


def test_a_pilot_of_all_tokens_leaves_the_errors_of_the_scores_only(shipped, model):
    target = narrowing.Target(100.0, 0.4, "Llama 3")
    shown = model.unseen.half(model.rows(np.array([100.0]), 0.4))[0]
    assert narrowing._piloted(model, 99.999, target, 0.0, 1.0) < 0.01 * shown
    few, many = (narrowing._piloted(model, 99.999, target, 0.045, times) / shown for times in (1.0, 100.0))
    assert 0.5 < few < 1 and many < 0.2
    halved = narrowing.pilot({"tokens": model}, model, "NIILC", target, None)
    assert halved["half_after"] <= 0.5 * halved["half"] and halved["tokens"] == 10e9  # the fewest of a pair
    part = narrowing.pilot({"tokens": model}, model, "NIILC", target, 0.02)
    assert part["half_after"] <= 0.5 * shown and 10e9 < part["tokens"] < 100e9
    assert narrowing._piloted(model, 0.95 * part["tokens"] / 1e9, target, 0.02, 1.0) > 0.5 * shown
    some = narrowing.pilot({"tokens": model}, model, "NIILC", target, 0.045)
    assert some["tokens"] is None and some["half_after"] == pytest.approx(
        narrowing._piloted(model, some["nearly"] / 1e9, target, 0.045, 1.0)
    )


def test_why_no_pilot_is_tried(study, shipped):
    """A plan of no more tokens than any pair added; and pairs that all added the same number, so that only a mean is known."""
    known = pairs.find(shipped, shipped.scores, "ja")
    models = gains.gain_models(known, "NIILC")
    few = narrowing.pilot(models, models["tokens"], "NIILC", narrowing.Target(5.0, 0.4, "Llama 3"), None)
    same = dataclasses.replace(known, tokens_b=np.full(len(known.tokens_b), 20.0))
    alike = gains.gain_models(same, "NIILC")
    mean = narrowing.pilot(alike, gains.best(alike), "NIILC", narrowing.Target(100.0, 0.4, "Llama 3"), None)
    assert (few["untried"], mean["untried"]) == ("fewest", "slope")
    other = json.loads(json.dumps(study))
    for found, words in ((few, "no pair has added fewer than the plan."), (mean, "all pairs have added the same number, ")):
        other["plan"]["decision"]["pilot"] = found
        assert f"No pilot of fewer tokens can be judged for NIILC: {words}" in " ".join(answer(other))


def test_the_missing_cell_is_the_next_measurement(shipped, model):
    """Of a pair without a score its cell is named, and more is learnt from the family asked about than from another."""
    known = pairs.find(shipped, shipped.scores, "ja")
    scores = shipped.scores["NIILC"].copy()
    scores["tokyotech-llm/Llama-3-Swallow-8B-v0.1"] = np.nan
    tokens = dict(zip(known.models, known.tokens_b))
    found = narrowing.candidates(model, shipped, scores, tokens, narrowing.Target(100.0, 0.4, "Llama 3"))
    assert [n["model"] for n in found if n["kind"] == "score"] == ["tokyotech-llm/Llama-3-Swallow-8B-v0.1"]
    best = {n["family"]: n["narrows"] for n in reversed(found)}
    assert best["Llama 3"] > best["Qwen2"] and all(n["narrows"] < 0.5 for n in found)


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
