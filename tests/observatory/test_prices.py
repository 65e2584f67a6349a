"""What local text costs in other tasks: called a price only where it stands the correction for all that were asked."""

import json

import numpy as np
import pytest

from kanana_jax.observatory import decision, effects, joint, verdicts
from kanana_jax.observatory.pairs import Gain
from kanana_jax.report.observatory import answer

pytest_plugins = ["observatory_fixtures"]


def _general(study):
    return {k: v for k, v in json.loads(json.dumps(study)).items() if k != "plan"}


def _corrected(p):
    """Benjamini and Hochberg by hand: the smallest m/i · p of the ranks i from its own on."""
    order = sorted(p, key=lambda task: p[task])
    steps = [p[task] * len(p) / (i + 1) for i, task in enumerate(order)]
    return {task: min(1.0, *steps[i:]) for i, task in enumerate(order)}


def test_falls_are_corrected_for_all_tasks_and_languages(study, shipped):
    """Of six intervals below zero one stands; the raw p-values are of the jackknife and of the mixture."""
    found = {task: v["effects"]["ja"] for task, v in study["verdicts"].items()}
    by_hand = _corrected({task: effect["p_falls"] for task, effect in found.items()})
    for task, verdict in study["verdicts"].items():
        assert verdict["p_falls"] == pytest.approx(by_hand[task])
    below = {task for task, effect in found.items() if effect["ci95"][1] < 0}
    assert below == {"TriviaQA", "HellaSwag", "SQuAD2", "XWINO", "MMLU", "JHumanEval"}
    assert [task for task, v in study["verdicts"].items() if v["falls"]] == ["HellaSwag"]
    models = joint.every(shipped, shipped.scores[["MMLU"]], "ja", "en")
    slope, model = joint.slopes(models)["MMLU"]["ja"], models.models["MMLU"]
    both = 1 - slope.p_above, float(model.effect(np.array([0.0, 0, 1])).above(0)[0])
    assert effects.every(models)["MMLU"]["ja"]["p_falls"] == pytest.approx(max(both))


def _pair(mean, p):
    return Gain(n=10, families=4, bases=6, mean=mean, up=2, down=8, bases_up=1, ci95_family=(mean - 1, mean + 1),
                ci95_bootstrap=None, p_family=p, p_direction=0.01)  # fmt: skip


def test_without_a_mixed_model_pairs_tell_the_falls():
    """One-sided; a task that tells nothing is not asked, nor one of too few families."""
    evidence = {
        "falls": verdicts.Evidence({}, _pair(-0.1, 0.02), 1.0),
        "rises": verdicts.Evidence({}, _pair(0.1, 0.02), 1.0),
        "silent": verdicts.Evidence({}, _pair(-0.1, 0.001), 1.0, silent="All models guess."),
        "two families": verdicts.Evidence({}, _pair(-0.1, None), 1.0),
    }
    found = {task: v.p_falls for task, v in verdicts.judge_all(evidence, "ko").items()}
    assert found == {
        "falls": pytest.approx(2 * 0.01),
        "rises": pytest.approx(0.99),
        "silent": None,
        "two families": None,
    }


def test_a_price_of_all_tasks_is_one_only_where_it_is_clear(study):
    other = _general(study)
    for verdict in other["verdicts"].values():
        verdict["falls"] = False
    assert "; the largest fall, not clear, is that of JHumanEval (-0.040 with" in answer(other)[0]
    other["verdicts"]["JHumanEval"]["falls"] = True
    first = answer(other)[0]
    assert "; its price is a fall of JHumanEval (-0.040 with" in first and "larger, but not clear" not in first
    other["verdicts"]["JHumanEval"]["effects"]["ja"]["ci95"][1] = 0.01
    assert "; the largest fall, not clear, is that of JHumanEval" in answer(other)[0]
    other["verdicts"]["JHumanEval"]["verdict"] = "tells nothing"
    assert "is that of GSM8K" in answer(other)[0]


def test_a_help_is_one_only_where_its_interval_is_above_zero(study):
    other = _general(study)
    other["verdicts"]["NIILC"]["effects"]["ja"]["ci95"][0] = -0.01
    first = answer(other)[0]
    assert first.startswith("Added Japanese text helps JEMHopQA, WMT20 (en-ja), most ")
    assert "it is not clearly shown to help NIILC (" in first


def test_a_plan_says_price_only_where_the_loss_is_clear(study):
    other = json.loads(json.dumps(study))
    assert other["plan"]["decision"]["side_clear"] is False
    other["plan"]["decision"]["side_clear"] = True
    assert "59%, at the price of JHumanEval 0.33 → 0.27 (0.13 to 0.43)" in answer(other)[0]


def _row(measure, gain, rises, high, language="en"):
    return {"measure": measure, "language": language, "gain": gain, "rises": rises, "gain_ci95": [-1.0, high]}


def test_the_loss_of_a_plan_is_corrected_for_its_tasks(shipped):
    """0.004 of 19 tasks is 0.076; of two, 0.008. The leading task and components are no price."""
    others = [task for task in shipped.tasks.index if task not in ("MMLU", "NIILC", "GSM8K")]
    few = [
        _row("MMLU", -0.1, 0.004, -0.01),
        _row("NIILC", -0.3, 0.0001, -0.2, "ja"),
        _row("PC1", -5.0, 0.0, -1.0, None),
    ]
    few += [_row("GSM8K", -0.2, 0.3, 0.1)]
    found, clear = decision.side_cost(few, shipped.tasks, "NIILC")
    assert (found["measure"], clear) == ("MMLU", True)  # smaller than GSM8K's, but clear
    many = few + [_row(task, 0.1, 0.9, 0.3) for task in others]
    found, clear = decision.side_cost(many, shipped.tasks, "NIILC")
    assert (found["measure"], clear) == ("GSM8K", False)
    assert decision.side_cost([_row("MMLU", 0.1, 0.9, 0.2)], shipped.tasks, "NIILC") == (None, False)
    local = [*few, _row("JHumanEval", -0.2, 0.001, -0.1, "ja")]
    assert decision.side_cost(local, shipped.tasks, "NIILC")[0]["measure"] == "JHumanEval"


def test_losses_of_shares_and_of_percentages_are_held_against_their_range(study, shipped):
    """0.1 of 0 to 1 is more than 2 of 0 to 100, in a plan and over all models."""
    rows = [_row(m, g, 0.5, 1.0) for m, g in (("TriviaQA", -0.1), ("GSM8K", -2.0), ("MMLU", 0.2))]
    tasks = shipped.tasks.copy()
    tasks.loc["GSM8K", "high"] = 100.0
    found, _ = decision.side_cost(rows, tasks, "NIILC")
    assert found is not None and found["measure"] == "TriviaQA"
    other = _general(study)
    other["tasks"]["GSM8K"]["high"] = 100.0
    other["verdicts"]["GSM8K"]["effects"]["ja"] |= {"per_decade": -2.0, "ci95": [-3.0, -1.0]}
    other["verdicts"]["GSM8K"]["falls"] = True
    assert "a fall of GSM8K" in answer(other)[0] and "larger, but not clear" in answer(other)[0]
