"""Published Korean scores: as their reports have them, and no more is said of them than three families allow."""

import contextlib
import io
import json

import pytest

from kanana_jax.cli import main
from kanana_jax.errors import ConfigError
from kanana_jax.observatory import planner, tables
from kanana_jax.report.observatory import sentences

pytest_plugins = ["observatory_fixtures"]
# Means over the six benchmarks as arXiv:2502.18934 prints them: they find a digit that was copied wrongly.
MEANS = {
    "kakao/kanana-26.8b-stage1": 58.32,
    "kakao/kanana-26.8b": 67.01,
    "kakao/kanana-8b-stage1": 46.81,
    "kakao/kanana-8b": 57.44,
    "kakao/kanana-flag-32.5b": 69.15,
    "kakao/kanana-essence-9.8b": 60.10,
    "kakao/kanana-nano-2.1b": 50.06,
    "kakao/kanana-2.1b-from-scratch": 43.13,
    "Qwen/Qwen2.5-3B": 55.77,
    "meta-llama/Llama-3.2-3B": 38.60,
}


@pytest.fixture(scope="module")
def korean():
    return tables.read(tables.shipped("korean_template") / "scores.csv")


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("korean")
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert main(["observe", "--template", "--output", str(folder)]) == 0
        command = ["observe", str(folder / "scores.csv"), "--output", str(folder / "out"), "--draws", "200"]
        assert main([*command, "--plan", "base=Kanana 8B,ko_tokens=100e9"]) == 0
    return json.loads((folder / "out/components.json").read_text()), said.getvalue()


def test_the_scores_have_the_published_means(korean):
    for model, mean in MEANS.items():
        assert 100 * korean.scores.loc[model].mean() == pytest.approx(mean, abs=0.006), model
    assert korean.scores.shape == (23, 6) and int(korean.scores.isna().to_numpy().sum()) == 25


def test_every_row_has_its_source_and_nothing_is_invented(korean):
    known = korean.sources.to_numpy()[korean.scores.notna().to_numpy()]
    assert all(cell.startswith(("arXiv:2502.18934, ", "Kakao's own evaluation")) for cell in known)
    assert (korean.models["note"] != "").all()


def test_budgets_are_shares_of_the_stages(korean):
    """Korean web: 9.6% of 2.7T tokens, 20.5% of 300B; up-scaled models get 100B of each."""
    about = korean.models
    assert about.loc["kakao/kanana-8b-stage1", "ko_tokens_b_est"] == pytest.approx(0.096 * 2700)
    first = 0.096 * 2700 + 0.205 * 300
    assert about.loc["kakao/kanana-26.8b", "ko_tokens_b_est"] == pytest.approx(first)
    assert about.loc["kakao/kanana-flag-32.5b", "ko_tokens_b_est"] == pytest.approx(first + 9.6 + 20.5)
    assert about.loc["kakao/kanana-1.5-8b", "ko_tokens_b_est"] == pytest.approx(first + 35)
    assert set(about["family"]) == {"Kanana", "Llama 3", "Qwen2.5"}
    assert (about.loc[about["base"] != "", "params"].to_numpy()
            == about.loc[about["base"][about["base"] != ""], "params"].to_numpy()).all()  # fmt: skip


def test_two_families_of_pairs_give_a_direction_and_no_size(planned):
    found, said = planned
    pairs = found["pairs"]["summary"]
    assert found["language"] == "ko" and len(found["pairs"]["models"]) == 11
    assert pairs["KMMLU"]["families"] == 2 and pairs["KMMLU"]["ci95_family"] is None
    assert (pairs["KMMLU"]["up"], pairs["KMMLU"]["n"]) == (11, 11) and pairs["HAE-RAE"]["up"] == 9
    assert all(fit["ci95_family"] is None for fit in found["fits"] if fit["language"] == "ko")
    assert not any(v["verdict"] == "needs local data" for v in found["verdicts"].values())
    assert "plan" in found and found["plan"]["tokens"] == 1e11 and "HAE-RAE" in said


def test_a_plan_on_two_families_says_so(planned):
    words = " ".join(planned[0]["plan"]["warnings"])
    assert "The pairs are of two families: intervals and probabilities hold for recipes like theirs" in words
    assert "start from models that were not" not in words  # Kanana 8B is itself the base of a pair
    assert "the number of its questions (items in tasks.csv) is unknown" in planned[1]


def test_what_no_verdict_shows_is_told_as_a_direction(planned):
    """KMMLU rose in all 11 pairs; where one of five falls, or there are four, nothing is said."""
    first = sentences.useful(planned[0])
    start = "These 23 models do not show what added Korean text does: none of the 6 tasks can be decided"
    assert (
        first
        == f"{start}; KMMLU was up in 11 of 11 pairs of two families, which shows a direction in these but no size."
    )
    for changed in ({"up": 4, "n": 5}, {"up": 4, "n": 4}):
        other = json.loads(json.dumps(planned[0]))
        for verdict in other["verdicts"].values():
            verdict["paired"] |= changed
        assert sentences.useful(other) == f"{start}."


def test_a_fall_of_nothing_is_no_price(planned):
    """MMLU's mean gain is −0.0002; no other task's is below zero."""
    other = json.loads(json.dumps(planned[0]))
    other["verdicts"]["KMMLU"]["verdict"] = "comes with English"
    for verdict in other["verdicts"].values():
        verdict["effects"] = {}
    least = min(other["pairs"]["summary"][task]["mean"] for task in other["tasks"])
    assert -0.0005 < least < 0 and sentences.useful(other) == (
        "Added Korean text is shown to help none of the 6 tasks; 1 of 6 tasks come with English."
    )


def test_a_base_with_an_unknown_part_of_korean_is_refused(korean):
    with pytest.raises(ConfigError, match="'kakao/kanana-2-30b' was trained further on an unknown number of ko tokens"):
        planner.parse("base=Kanana 2 30B,ko_tokens=50e9", korean, "ko")
    plan = planner.parse("base=Kanana Nano 1.5 3B,ko_tokens=50e9", korean, "ko")  # from scratch: assumed
    assert plan.base == "kakao/kanana-1.5-3b"


def test_numbers_of_the_old_template_are_refused(write):
    scores = "model,a,b,c,source\n" + "".join(f"example/m{i},0.{i + 1},0.{9 - i},0.{i % 4 + 1},invented for the template\n"
                                              for i in range(6))  # fmt: skip
    with pytest.raises(ConfigError, match="the scores of 'example/m0' are invented for the template: replace them"):
        tables.read(write(scores, tasks="task,language\na,ko\nb,en\nc,ko\n"))
