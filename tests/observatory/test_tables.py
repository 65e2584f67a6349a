"""Bad tables: one sentence each, or a warning where one can go on."""

import numpy as np
import pytest

from kanana_jax.errors import ConfigError
from kanana_jax.observatory import budgets, study, tables
from kanana_jax.report.observatory import page
from kanana_jax.report.page import render

pytest_plugins = ["observatory_fixtures"]

SCORES = "model,a,b,c,d\n" + "".join(
    f"m{i},0.{i + 1},0.{(i * 3) % 9 + 1},0.{(i * 5) % 7 + 1},0.{9 - i}\n" for i in range(6)
)
MODELS = "model,family,params,en_tokens_b_est,ko_tokens_b_est\n" + "".join(
    f"m{i},F{i % 3},{(i + 1)}e9,{100 * (i + 1)},{10 * (6 - i)}\n" for i in range(6)
)


def _refused(write, match, scores=SCORES, models=MODELS, tasks=None):
    with pytest.raises(ConfigError, match=match) as error:
        tables.read(write(scores, models, tasks))
    assert "\n" not in str(error.value)


def test_a_good_table(write):
    found = tables.read(write(SCORES, MODELS))
    assert found.scores.shape == (6, 4) and found.languages == ("en", "ko")
    assert found.warnings == ("6 models are few: with fewer than about 20 little stands out from noise.",)
    assert found.sources.loc["m0", "a"] == "scores.csv"


def test_wrong_column(write):
    tasks = "task,language\na,en\nb,ko\nc,en\ndd,ko\n"
    _refused(write, r"column 'd' is not a task of .*tasks.csv: add it there.*did you mean 'dd'\?", tasks=tasks)
    assert tables.read(write(SCORES, MODELS, tasks), ignore=["d"]).scores.shape == (6, 3)
    _refused(write, "unknown column 'famly', did you mean 'family'", models=MODELS.replace("family", "famly"))
    _refused(write, "unknown column 'lang', did you mean 'language'", tasks="task,lang\na,en\n")
    _refused(write, "has the column 'a' twice", scores=SCORES.replace("a,b,c,d", "a,a,c,d"),
             tasks="task,language\na,en\nc,en\nd,ko\n")  # fmt: skip


def test_percent_in_a_column_of_shares(write):
    _refused(
        write, "'m2' has 57 for 'b', outside 0–1: divide percentages", scores=SCORES.replace("m2,0.3,0.7", "m2,0.3,57")
    )
    tasks = "task,language,high\na,en,\nb,ko,100\nc,en,\nd,ko,\n"
    assert tables.read(write(SCORES.replace("m2,0.3,0.7", "m2,0.3,57"), MODELS, tasks)).scores.loc["m2", "b"] == 57


def test_duplicate_model(write):
    _refused(write, "line 8: 'm1' occurs twice", scores=SCORES + "m1,0.1,0.2,0.3,0.4\n")
    _refused(write, "models.csv, line 8: 'm1' occurs twice", models=MODELS + "m1,F1,1e9,1,1\n")
    long = "model,task,score\n" + "".join(f"m{i},{t},0.{i + 1}\n" for i in range(6) for t in "abc") + "m1,a,0.5\n"
    _refused(write, "'m1' has 'a' twice", scores=long, tasks="task,language\na,en\nb,ko\nc,en\n")


def test_not_a_number(write):
    _refused(
        write,
        "model 'm1': 'n/a' in column 'a' is not a number; leave it empty",
        scores=SCORES.replace("m1,0.2", "m1,n/a"),
    )


def test_mixed_metric_versions(write):
    rows = SCORES.splitlines()
    versioned = (
        "\n".join([rows[0] + ",metric_version", *(r + (",v1" if i < 3 else ",v2") for i, r in enumerate(rows[1:]))])
        + "\n"
    )
    _refused(write, r"column 'a' mixes the metric versions 'v1' \(m0\) and 'v2' \(m3\)", scores=versioned,
             tasks="task,language\na,en\nb,ko\nc,en\nd,ko\n")  # fmt: skip
    long = "model,task,score,metric_version,source\n" + "".join(
        f"m{i},{t},0.{(i * k) % 9},{'new' if (i, t) == (4, 'b') else 'old'},file{i}\n"
        for i in range(6)
        for k, t in enumerate("abc", 2)
    )
    _refused(write, r"column 'b' mixes the metric versions 'new' \(m4\) and 'old' \(m0\)", scores=long,
             tasks="task,language\na,en\nb,ko\nc,en\n")  # fmt: skip
    found = tables.read(write(long.replace(",new,", ",old,"), MODELS, "task,language\na,en\nb,ko\nc,en\n"))
    assert found.sources.loc["m4", "b"] == "file4"


def test_missing_metadata_goes_on_with_a_warning(write):
    without = "\n".join(MODELS.splitlines()[:-1]) + "\n"
    found = tables.read(write(SCORES, without))
    assert any("no row for m5" in w for w in found.warnings) and len(found.scores) == 6
    assert not budgets.budget(found, "en").known[5]
    found = tables.read(write(SCORES, MODELS.replace("m0,F0,1e9", "m0,,")))
    assert any("family of 1 models is not given" in w for w in found.warnings)
    assert any("parameters of m0 are unknown" in w for w in found.warnings)


def test_no_model_table_at_all(write):
    found = tables.read(write(SCORES, None))
    assert any("no model table" in w for w in found.warnings)
    result = study.run(found, study.Options(draws=100))
    assert result["fits"] == [] and result["explained_variance_ratio"]
    assert all(v["verdict"] == "not enough data" for v in result["verdicts"].values())
    text = render(page(result))
    assert "cannot be decided from these data" in text and "There is no model table" in text


def test_all_zero_column(write):
    zero = "model,z,a,b,c\n" + "".join(
        f"{r.split(',')[0]},0,{','.join(r.split(',')[1:4])}\n" for r in SCORES.splitlines()[1:]
    )
    found = tables.read(write(zero, MODELS))
    assert "z" not in found.scores and any("'z' has the same score (0) for every model" in w for w in found.warnings)


def test_some_zeros_are_told(shipped):
    assert any("'HumanEval' is exactly 0 for cyberagent/calm2-7b" in w for w in shipped.warnings)


def test_one_family(world):
    read = tables.read(world(one_family=True))
    result = study.run(read, study.Options(draws=200))
    assert any("All models are of one family (F)" in w for w in result["warnings"])
    fit = result["fits"][0]
    assert fit["ci95_family"] is None and fit["lofo_rmse"] is None and fit["ci95_naive"]
    assert "they are too narrow" in render(page(result))


def test_three_models(write):
    _refused(
        write, "has 3 models with scores: components need at least 5", scores="\n".join(SCORES.splitlines()[:4]) + "\n"
    )


def test_budgets_that_cannot_be(write):
    _refused(write, "params is 8; it is a number of parameters: 8e9", models=MODELS.replace("m0,F0,1e9", "m0,F0,8"))
    based = MODELS.replace("family,", "family,base,").replace("m0,F0,", "m0,F0,,").replace("m1,F1,", "m1,F1,m5,")
    based = (
        "\n".join(r if r.count(",") == 5 else r.replace(",", ",,", 2).replace(",,", ",", 1) for r in based.splitlines())
        + "\n"
    )
    _refused(write, "'m1': it has seen fewer en tokens .* than its base 'm5'", models=based)
    _refused(
        write, "en_status 'guess'", models=MODELS.replace("en_tokens_b_est", "en_status").replace(",100,", ",guess,")
    )
    interval = MODELS.replace("ko_tokens_b_est", "ko_tokens_b_low").replace("params,", "params,ko_tokens_b_est,")
    interval = "\n".join(r if i == 0 else r.replace("e9,", "e9,5,") for i, r in enumerate(interval.splitlines())) + "\n"
    _refused(write, "ko tokens must be low ≤ est ≤ high", models=interval)


def test_no_such_file(tmp_path):
    with pytest.raises(ConfigError, match="none.csv does not exist"):
        tables.read(tmp_path / "none.csv")
    with pytest.raises(ConfigError, match="is a folder"):
        tables.read(tmp_path)


@pytest.mark.parametrize(
    "scores,words",
    [
        (SCORES.replace("m2,0.3", "m2,,0.3"), "scores.csv, line 4 has 6 cells, the header 5"),
        (SCORES.replace("m5,0.6,", "m5,"), "line 7 has 4 cells"),
        ("\n".join(row + ",1" * (i > 0) + "," * (i == 0) for i, row in enumerate(SCORES.splitlines())), "6 has no name"),
        (SCORES.replace(",", "|"), "is separated by '\\|': save it with"),
        (SCORES.splitlines()[0] + "\n", "no rows below its header"),
        ("model,task,score\nm0,a,0.1\n,a,0.2\n", "line 3: the column 'model' is empty"),
        ("model,task\nm0,a\nm1,a\n", "no 'score'"),
    ],
)
def test_cells_in_wrong_columns(write, scores, words):
    """Cells beyond the header would shift all others by one, and make models of scores."""
    tasks = "task,language\na,en\nb,ko\nc,en\nd,ko\n"
    _refused(write, words, scores=scores, tasks=tasks)


def test_bases_lead_somewhere(write):
    based = MODELS.replace("family,", "family,base,")
    for bases, words in (({0: "m0"}, "m0 → m0"), ({0: "m1", 1: "m2", 2: "m0"}, "m0 → m1 → m2 → m0")):
        rows = "".join(
            row.replace(f"F{i % 3},", f"F{i % 3},{bases.get(i, '')},") + "\n"
            for i, row in enumerate(based.splitlines()[1:])
        )
        _refused(write, f"its base leads back to it \\({words}", models=based.splitlines()[0] + "\n" + rows)


def test_budgets_count_billions(write):
    _refused(
        write, "'m3': column 'en_tokens_b_est' has 8e\\+10; the unit is 1e9", models=MODELS.replace(",400,", ",8e10,")
    )


def test_models_that_are_not_those_of_the_scores(write):
    _refused(write, "has no row for any model of the scores", models=MODELS.replace("\nm", "\nM"))


def test_languages_are_two_that_are_known(write):
    found = tables.read(write(SCORES, MODELS))
    for options, words in (
        (dict(language="en"), "is the reference language"),
        (dict(reference="xx"), "neither a task nor token budgets"),
    ):
        with pytest.raises(ConfigError, match=words):
            study.local_language(found, study.Options(**options))


def test_six_models_and_nine_tasks_have_a_report(write):
    """Parallel analysis has one eigenvalue fewer where there are no more models than tasks."""
    rng, names = np.random.default_rng(0), "abcdefghi"
    scores = "model," + ",".join(names) + "\n"
    scores += "".join(f"m{i}," + ",".join(f"{x:.3f}" for x in rng.random(9)) + "\n" for i in range(6))
    tasks = "task,language\n" + "".join(f"{t},{'ko' if i % 2 else 'en'}\n" for i, t in enumerate(names))
    result = study.run(tables.read(write(scores, MODELS, tasks)), study.Options(draws=100))
    assert "noise, 95%" in render(page(result))


def test_missing_cells_are_filled_and_told(write):
    rows = SCORES.replace("m1,0.2", "m1,")
    found = tables.read(write(rows, MODELS))
    assert any("1 of 24 cells are missing" in w for w in found.warnings)
    result = study.run(found, study.Options(draws=100))
    assert np.isfinite(result["scores"]["PC1"]["m1"])


def test_total_or_active_parameters(shipped):
    total, active = (budgets.budget(t, "ja").est for t in (shipped, budgets.of_active(shipped)))
    change = dict(zip(shipped.scores.index, total - active))
    assert change["tokyotech-llm/Swallow-MX-8x7b-NVE-v0.1"] == pytest.approx(np.log10(47 / 13))
    assert change["tokyotech-llm/Swallow-7b-hf"] == 0


def test_compute_and_ledger_by_hand(shipped):
    model = "tokyotech-llm/Swallow-70b-hf"
    at = list(shipped.scores.index).index(model)
    assert budgets.budget(shipped, "ja").est[at] == pytest.approx(np.log10(6 * 70e9 * 92e9))
    ledger = budgets.ledger(shipped).set_index(["model", "language"])
    row = ledger.loc[(model, "ja")]
    assert (row["base_tokens_b"], row["added_tokens_b"], row["total_est_b"], row["status"]) == (2, 90, 92, "reported")
    assert (
        ledger.loc[("tokyotech-llm/Llama-3-Swallow-8B-v0.1", "ja")]["added_tokens_b"] == 70
    )  # the base's are undisclosed


def test_budgets_are_drawn_within_their_intervals(shipped):
    budget = budgets.budget(shipped, "ja")
    drawn = budget.draw(np.random.default_rng(0), 4000)
    known = budget.known
    assert (drawn[:, known] >= budget.low[known] - 1e-9).all() and (drawn[:, known] <= budget.high[known] + 1e-9).all()
    mean = (budget.low + budget.est + budget.high) / 3  # of a triangular distribution
    np.testing.assert_allclose(drawn[:, known].mean(axis=0), mean[known], atol=0.01)
    assert np.ptp(drawn[:, list(shipped.scores.index).index("cyberagent/calm2-7b")]) > 0.2
