"""Verdicts and effects of the mixed model: units by a finite difference, the jackknife by hand, rules by cases."""

import dataclasses

import numpy as np
import pytest

from kanana_jax.errors import ConfigError
from kanana_jax.observatory import effects, joint, mixed, question, verdicts
from kanana_jax.observatory.options import Options
from kanana_jax.observatory.pairs import Gain

pytest_plugins = ["observatory_fixtures"]


@pytest.fixture(scope="module")
def models(shipped):
    return joint.every(shipped, shipped.scores[["NIILC", "MMLU"]], "ja", "en")


def test_an_effect_is_the_change_of_the_score_at_its_mean(models):
    found = effects.every(models)
    for task in ("NIILC", "MMLU"):
        model, slopes = models.models[task], joint.slopes(models)[task]
        for lang in ("en", "ja"):
            at, step = model.y.mean(), 1e-6 * slopes[lang].value
            change = (mixed.back(at + step, (0, 1)) - mixed.back(at - step, (0, 1))) / 2e-6
            assert found[task][lang]["per_decade"] == pytest.approx(change, rel=1e-5)
            low, high = found[task][lang]["ci95"]
            assert low < found[task][lang]["per_decade"] < high
            assert found[task][lang]["p_rises"] >= slopes[lang].p_above


def test_a_typical_addition_is_that_of_the_pairs(shipped, models):
    """Each continual model against its own base, on average 1.2 decades of Japanese compute."""
    index, base = list(shipped.models.index), shipped.models["base"]
    more = [models.design[i, 2] - models.design[index.index(b), 2] for i, b in enumerate(base) if b in index]
    found, model = effects.every(models)["NIILC"]["ja"], models.models["NIILC"]
    wanted = joint.slopes(models)["NIILC"]["ja"].value * np.mean(more) / np.std(model.y, ddof=1)
    assert found["typical_sd"] == pytest.approx(wanted)


def test_slopes_leave_one_family_out_by_hand(shipped, models):
    """The jackknife's variance from fits to tables from which a family is dropped."""
    families, parts = shipped.models["family"], []
    model = models.models["MMLU"]
    value = model.weight @ model.coefficients[:, 2]
    for family in families.unique():
        rest = (families != family).to_numpy()
        part = mixed.fit(models.design[rest], shipped.scores["MMLU"].to_numpy()[rest], models.kin.take(rest), (0, 1))
        parts.append(part.weight @ part.coefficients[:, 2])
    count = len(parts)
    found = joint.slopes(models)["MMLU"]["ja"]
    assert found.se == pytest.approx(np.sqrt((count - 1) / count * np.sum((np.array(parts) - value) ** 2)))
    assert found.df == count - 1 == 11


def _effect(size, p=0.001):
    return effects.Effect(
        per_decade=0.1 * size, ci95=(0.05 * size, 0.15 * size), p_rises=p, p_falls=1 - p, typical_sd=size
    )


def _pair(mean):
    return Gain(n=10, families=4, bases=6, mean=mean, up=8, down=2, bases_up=5, ci95_family=(mean - 0.01, mean + 0.01),
                ci95_bootstrap=None, p_family=0.01, p_direction=0.01)  # fmt: skip


@pytest.mark.parametrize(
    ("english", "local", "mean", "verdict", "words"),
    [
        (_effect(0.1), _effect(0.5), 0.1, verdicts.LOCAL, ""),
        (_effect(0.9), _effect(0.8), 0.1, verdicts.LOCAL, "so large an effect of ko decides"),
        (_effect(0.9), _effect(0.4), 0.1, verdicts.MIXED, "and yet rises with ko text"),
        (_effect(0.9), _effect(0.4), 0.01, verdicts.ENGLISH, "small beside how models differ"),
        (_effect(0.9), _effect(0.1), 0.1, verdicts.ENGLISH, "small beside how models differ"),
        (_effect(0.9), _effect(0.5, p=0.2), 0.1, verdicts.ENGLISH, ""),
        (_effect(0.4), _effect(0.5, p=0.2), 0.1, verdicts.UNKNOWN, ""),
        (_effect(0.9, p=0.2), _effect(0.5, p=0.2), 0.1, verdicts.UNKNOWN, ""),
        (_effect(0.1), _effect(0.5), None, verdicts.LOCAL, ""),
    ],
)
def test_rules(english, local, mean, verdict, words):
    known = verdicts.Evidence({}, None if mean is None else _pair(mean), 0.2, effects={"en": english, "ko": local})
    found = verdicts.judge_all({"t": known}, "ko")["t"]
    assert found.verdict == verdict and words in " ".join(found.reasons)
    assert found.reasons[0].startswith("All models and pairs together: ") and "corrected p" in found.reasons[0]


def test_the_effects_of_all_tasks_are_corrected_together():
    """p = 0.02 beside one other test is clear; beside 19 tasks of pure noise it is not."""
    one = {"t": verdicts.Evidence({}, None, 0.2, effects={"en": _effect(0.1, 0.9), "ko": _effect(0.5, 0.02)})}
    assert verdicts.judge_all(one, "ko")["t"].verdict == verdicts.LOCAL
    noise = {f"n{i}": verdicts.Evidence({}, None, 0.2, effects={"en": _effect(0.5, 0.6), "ko": _effect(0.5, 0.5)})
             for i in range(19)}  # fmt: skip
    assert verdicts.judge_all(one | noise, "ko")["t"].verdict == verdicts.UNKNOWN


def test_what_follows_english_leaves_no_room_for_false_findings_on_local_text():
    """p = 0.02 of local text is one of 20 such tests; with the 20 clear ones on English it would be 0.04, and count."""
    english, none = _effect(0.9, 1e-6), _effect(0.5, 0.5)
    tasks = {f"n{i}": verdicts.Evidence({}, None, 0.2, effects={"en": english, "ko": none}) for i in range(19)}
    tasks["t"] = verdicts.Evidence({}, None, 0.2, effects={"en": english, "ko": _effect(0.5, 0.02)})
    found = verdicts.judge_all(tasks, "ko")
    assert {v.verdict for v in found.values()} == {verdicts.ENGLISH}
    assert "corrected p 0.400)" in found["t"].reasons[0] and "corrected p 0.000)" in found["t"].reasons[0]


def test_without_a_local_budget_the_two_kinds_of_evidence_are_weighed_apart():
    """Of English compute alone there is an effect: the verdict is that of pairs and laws."""
    known = verdicts.Evidence({}, _pair(0.1), 0.2, effects={"en": _effect(0.9)})
    found = verdicts.judge_all({"t": known}, "ko")["t"]
    assert found.verdict == verdicts.LOCAL and found.reasons[0].startswith("Pooled, en")
    assert len(found.reasons) == 3


def test_percentages_are_a_hundred_times_shares(shipped, models):
    """Predictions and effects carry the units of the scores."""
    tasks = shipped.tasks.assign(high=100.0)
    percent = dataclasses.replace(shipped, scores=100 * shipped.scores, tasks=tasks)
    other = joint.every(percent, percent.scores[["NIILC", "MMLU"]], "ja", "en")
    asked = ("NIILC", "meta-llama/Meta-Llama-3-8B", 8e9, np.array([50.0, 100.0]))
    one, hundred = models.after(*asked), other.after(*asked)
    for end in ("middle", "low", "high"):
        np.testing.assert_allclose(getattr(hundred, end), 100 * getattr(one, end), rtol=1e-9)
    assert one.reaches(0.55) == pytest.approx(hundred.reaches(55.0))
    plain, scaled = effects.every(models)["MMLU"]["ja"], effects.every(other)["MMLU"]["ja"]
    assert scaled["per_decade"] == pytest.approx(100 * plain["per_decade"])
    assert scaled["typical_sd"] == pytest.approx(plain["typical_sd"])
    assert other.left_out_error("NIILC") == pytest.approx(100 * models.left_out_error("NIILC"))


def test_the_error_on_families_left_out_by_hand(shipped, models):
    """Each family's continual models from the other families and its own models from scratch."""
    y, base, errors = shipped.scores["NIILC"].to_numpy(), (shipped.models["base"] != "").to_numpy(), []
    for family in shipped.models.loc[base, "family"].unique():
        asked = base & (shipped.models["family"] == family).to_numpy()
        model = mixed.fit(models.design[~asked], y[~asked], models.kin.take(~asked), (0, 1))
        found = model.foretell(models.design[asked], models.kin.take(asked))
        errors += list(mixed.back(found.mean, (0, 1)) - y[asked])
    assert len(errors) == 15
    assert models.left_out_error("NIILC") == pytest.approx(np.sqrt(np.mean(np.square(errors))))


def test_tables_without_budgets_or_of_too_many_models_have_no_mixed_model(shipped, monkeypatch):
    """A leaderboard of thousands would need more memory than there is; a plan on one is refused with the way out."""
    measures = shipped.scores[["NIILC"]]
    none = dataclasses.replace(shipped, languages=())
    assert not joint.every(none, measures, "ja", "en").models
    monkeypatch.setattr(joint, "MOST_MODELS", 34)
    assert not joint.every(shipped, measures, "ja", "en").models
    with pytest.raises(ConfigError, match=r"35 models are more than predictions support \(34\)"):
        question.read(shipped, Options(plan="base=Llama-3-8B,ja_tokens=100e9"), "ja", 3)
    assert question.read(shipped, Options(), "ja", 3) is None
