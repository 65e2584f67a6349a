"""Token budgets as intervals: at their ends the model is that of a table whose models report just these numbers."""

import dataclasses
import json

import numpy as np
import pytest

from kanana_jax.observatory import budget_ends, effects, joint, mixed, tables, verdicts
from kanana_jax.report.observatory import answer

pytest_plugins = ["observatory_fixtures"]

BASE = "meta-llama/Meta-Llama-3-8B"
ENDS = {"low": 0.0005, "high": 0.005}  # share of local text where none is disclosed, as the guide says


def _reported(shipped, end, part=0.0):
    """The shipped table as if each model reported all its Japanese tokens at that end of their interval, or a part of
    the way from it to the other one, in their logarithm; by a way of its own: base and added text in turn."""
    models, ends = shipped.models.copy(), (end, next(e for e in ENDS if e != end))

    def seen(name, where):
        row, base = models.loc[name], models.loc[name, "base"]
        own, total = row[f"ja_tokens_b_{where}"], row["tokens_b"]
        if base not in models.index:
            return own if own > 0 else ENDS[where] * (2000.0 if np.isnan(total) else total)
        start = models.loc[base, f"ja_tokens_b_{where}"]
        return seen(base, where) + own - (start if start > 0 else 0.0)

    found = [np.exp((1 - part) * np.log(seen(m, ends[0])) + part * np.log(seen(m, ends[1]))) for m in models.index]
    columns = dict.fromkeys((f"ja_tokens_b_{e}" for e in ("low", "est", "high")), found)
    return dataclasses.replace(shipped, models=models.assign(**columns))


def _gain(known, scores):
    models = joint.every(known, scores, "ja", "en")
    after = models.after("NIILC", BASE, 8e9, np.array([100.0]))
    return [float(v[0]) - float(scores.loc[BASE, "NIILC"]) for v in (after.middle, after.low, after.high)]


def test_tokens_at_the_ends_by_hand(shipped):
    models = shipped.models
    for end, of_llama, of_youko, of_sarashina in (("low", 7.5, 7.5 + 11, 1000), ("high", 75, 75 + 22, 1300)):
        found = dict(zip(models.index, mixed.tokens_b(shipped, "ja", False, end)))
        assert found[BASE] == pytest.approx(of_llama)
        assert found["rinna/llama-3-youko-8b"] == pytest.approx(of_youko)
        assert found["sbintuitions/sarashina2-7b"] == of_sarashina
    from_zero = models.assign(ja_tokens_b_low=models["ja_tokens_b_low"] * 0)
    low = mixed.tokens_b(dataclasses.replace(shipped, models=from_zero), "ja", False, "low")
    assert dict(zip(models.index, low))["sbintuitions/sarashina2-7b"] == 105  # a decade below 1050


def test_the_ends_are_those_of_tables_that_report_them(shipped):
    """Gains and the hull of a plan, and nothing between the ends lies outside it."""
    scores = shipped.scores[["NIILC"]]
    best = joint.every(shipped, scores, "ja", "en")
    at_ends = budget_ends.every(best, "en")
    found, without = budget_ends.gains(at_ends, best, scores, "NIILC", BASE, 8e9, 100.0)
    assert not without
    told = [_gain(_reported(shipped, end), scores) for end in ENDS]
    assert np.allclose(found, told, atol=1e-9) and len(found) == 2
    assert abs(found[0][0] - found[1][0]) > 0.02
    for part in (0.2, 0.5, 0.8):
        between = _gain(_reported(shipped, "low", part), scores)
        assert found[1][0] < between[0] < found[0][0] and found[1][1] < between[1] and between[2] < found[0][2]


def test_the_plan_has_the_hull(study, shipped):
    row = next(m for m in study["plan"]["measures"] if m["measure"] == "NIILC")
    every = [_gain(_reported(shipped, end), shipped.scores[["NIILC"]]) for end in ENDS] + [
        [row["gain"], *row["gain_ci95"]]
    ]
    middle, low, high = zip(*every)
    assert row["gain_over_budgets"] == pytest.approx([min(middle), max(middle)])
    assert row["gain_ci95_over_budgets"] == pytest.approx([min(low), max(high)])
    told = [round(x, 3) for x in (*row["gain_over_budgets"], *row["gain_ci95_over_budgets"])]
    assert told == [0.139, 0.186, 0.017, 0.275]  # docs/results
    ends = [f"{row['before'] + x:.2f}" for x in (*row["gain_over_budgets"], *row["gain_ci95_over_budgets"])]
    words = (
        "With token budgets anywhere from the low to the high ends of their intervals: NIILC {} to {} (95% {} to {})."
    )
    assert words.format(*ends) in answer(study)
    exact = json.loads(json.dumps(study))
    for measure in exact["plan"]["measures"]:
        measure["gain_over_budgets"], measure["gain_ci95_over_budgets"] = [measure["gain"]] * 2, measure["gain_ci95"]
    assert not any("anywhere from the low" in sentence for sentence in answer(exact))


def test_a_verdict_that_rests_on_the_budgets_says_so(study):
    """At the high ends none of five local tasks stands the correction; JCom then follows English alone."""
    moved = {task: v["at_budget_ends"] for task, v in study["verdicts"].items() if v["at_budget_ends"]}
    needing = ("JEMHopQA", "NIILC", "WMT20 (en-ja)")
    assert moved == {"JCom": ["comes with English"]} | dict.fromkeys(needing, ["not enough data"])
    assert study["verdicts"]["JCom"]["reasons"][-1].endswith("it would be 'comes with English'.")
    told = "intervals JCom, JEMHopQA, NIILC, WMT20 (en-ja) would be judged otherwise."
    assert any(told in sentence for sentence in answer(study))


def test_an_end_that_does_not_tell_languages_apart_is_named_and_judges_nothing(world):
    """At the high ends all Korean budgets are a tenth of the English ones, so that one compute is the other's tenth."""
    read = tables.read(world())
    models = read.models.assign(ko_tokens_b_high=read.models["en_tokens_b_est"] / 10)
    wide = dataclasses.replace(read, models=models)
    best = joint.every(wide, read.scores, "ko", "en")
    ends = budget_ends.every(best, "en")
    assert [budget_ends.named(m) for m in ends] == [f"the {end} ends of the ko budgets" for end in ("low", "high")]
    assert np.linalg.matrix_rank(mixed.design(wide, "ko", "en", {"ko": "high"})) == 2
    by_joint = effects.every(best)
    evidence = {t: verdicts.Evidence({}, None, 1.0, effects=by_joint[t]) for t in read.scores.columns}
    found = verdicts.judge_all(evidence, "ko")
    told = budget_ends.judged(found, evidence, ends, "en")
    for task, verdict in told.items():
        assert (
            verdict.verdict == found[task].verdict == ("needs local data" if task[:2] == "ko" else "comes with English")
        )
        assert verdict.unjudged_budget_ends == ("the high ends of the ko budgets",)
        assert "Not judged at the high ends of the ko budgets" in verdict.reasons[-1]
    base, params = models.index[0], float(models["params"].iloc[0])
    gains, without = budget_ends.gains(ends, best, read.scores, "ko0", base, params, 500.0)
    assert len(gains) == 1 and without == ["the high ends of the ko budgets"]
    low = joint.every(dataclasses.replace(wide, models=models.assign(ko_tokens_b_est=mixed.tokens_b(wide, "ko", False, "low"))),
                      read.scores, "ko", "en")  # fmt: skip
    assert gains[0][0] == pytest.approx(
        low.after("ko0", base, params, np.array([500.0])).middle[0] - read.scores.loc[base, "ko0"]
    )


def test_the_page_names_the_ends_that_tell_nothing(study):
    other = json.loads(json.dumps(study))
    row = next(m for m in other["plan"]["measures"] if m["measure"] == "NIILC")
    row["unpredicted_budget_ends"] = ["the low ends of the ja budgets"]
    other["verdicts"]["MMLU"]["unjudged_budget_ends"] = ["the low ends of the ja budgets"]
    said = " ".join(answer(other))
    assert "At the low ends of the ja budgets there is no such prediction" in said
    assert "WMT20 (en-ja) would be judged otherwise and MMLU cannot be judged." in said
    for task in other["verdicts"].values():
        task["at_budget_ends"], task["unjudged_budget_ends"] = [], ["the low ends of the ja budgets"]
    assert "with token budgets at an end of their intervals all 19 cannot be judged." in " ".join(answer(other))


def test_exact_budgets_have_no_ends(world):
    read = tables.read(world())
    assert budget_ends.every(joint.every(read, read.scores, "ko", "en"), "en") == []
    models = read.models.assign(en_tokens_b_high=2 * read.models["en_tokens_b_est"])
    wide = dataclasses.replace(read, models=models)
    found = budget_ends.every(joint.every(wide, read.scores, "ko", "en"), "en")
    assert [list(models.seen["en"]) for models in found] == [
        list(wide.models[f"en_tokens_b_{end}"]) for end in ("low", "high")
    ]
