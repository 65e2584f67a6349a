"""A score table without tables of tasks and models: what can be said is said, and what more would give."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from kanana_jax.cli import main
from kanana_jax.errors import ConfigError
from kanana_jax.observatory import sampling, study, tables, task_names

pytest_plugins = ["observatory_fixtures"]
_RNG = np.random.default_rng(1)


def _table(tmp_path, columns, models=8, **more):
    level = _RNG.normal(size=models)
    frame = {"model": [f"org/m{i}" for i in range(models)]}
    for column in columns:
        frame[column] = np.round(1 / (1 + np.exp(-level - _RNG.normal(size=models))), 3)
    pd.DataFrame(frame | more).to_csv(tmp_path / "scores.csv", index=False)
    return tmp_path / "scores.csv"


def test_components_correlations_and_missing_cells(tmp_path, capsys):
    file = _table(tmp_path, ["alpha", "beta", "gamma", "delta"])
    frame = pd.read_csv(file)
    frame.loc[2, "beta"] = np.nan
    frame.to_csv(file, index=False)
    assert main(["observe", str(file), "--output", str(tmp_path / "out"), "--draws", "100"]) == 0
    said = capsys.readouterr().out
    assert (
        "The language of alpha, beta, gamma, delta is unknown: a tasks.csv with the columns task and language" in said
    )
    assert "would identify the local tasks, and so allow verdicts and plans" in said
    found = json.loads((tmp_path / "out/components.json").read_text())
    assert found["explained_variance_ratio"] and found["correlations"]["alpha"]["beta"] and found["verdicts"] == {}
    assert "1 of 32 cells are missing" in said and found["scores"]["PC1"]["org/m2"] and found["language"] == ""
    for option in (["--plan", "base=m0,ko_tokens=1e9"], ["--language", "ko"]):
        assert main(["observe", str(file), "--output", str(tmp_path / "out"), *option]) == 2
        assert "unknown" in (error := capsys.readouterr().err) and "tasks.csv" in error


def test_languages_come_from_names(tmp_path):
    read = tables.read(_table(tmp_path, ["KMMLU", "HAE-RAE", "MMLU", "GSM8K", "mgsm_ko", "riddles"]))
    assert list(read.tasks["language"]) == ["ko", "ko", "en", "en", "ko", ""]
    assert read.tasks.loc["KMMLU", "chance"] == 0.25 and np.isnan(read.tasks.loc["riddles", "chance"])
    assert any("their languages are taken from their names (en: MMLU, GSM8K; ko: KMMLU" in w for w in read.warnings)
    assert study.local_language(read, study.Options()) == "ko"


@pytest.mark.parametrize(
    ("name", "language"),
    [
        ("kmmlu_law", "ko"), ("haerae_history", "ko"), ("mgsm_direct_ja", "ja"), ("belebele_kor_Hang", "ko"),
        ("global-mmlu-lite/Korean", "ko"), ("translation_ko-en", "en"), ("WMT20 (en-ja)", "ja"), ("ko_arc", "ko"),
        ("hellaswag_it", ""), ("mmlu_stem", "en"), ("riddles", ""), ("a", ""), ("", ""), ("JCommonsenseQA", "ja"),
    ],
)  # fmt: skip
def test_the_language_of_a_name(name, language):
    assert task_names.language(name) == language


def test_a_leaderboard_is_read_as_it_is(tmp_path):
    """Names, sizes, bases, dates, standard errors and numbers of questions beside the scores, as later tables have them."""
    shipped = pd.read_csv(tables.shipped() / "scores.csv")
    rows = len(shipped)
    wide = shipped.assign(
        name=[f"Model {i}" for i in range(rows)],
        type="base",
        size_b=np.arange(1, rows + 1),
        base_name=["", "Model 0", *[""] * (rows - 2)],
        date="2025-03-01",
        **{"Ja Avg": 0.5, "NIILC_stderr": 0.02, "NIILC_n": 198, "MMLU (SE)": 0.004, "n_GSM8K": 1319},
    )
    wide.to_csv(tmp_path / "scores.csv", index=False)
    read = tables.read(tmp_path / "scores.csv")
    assert list(read.scores.columns) == list(shipped.columns[1:])
    assert read.models["params"].iloc[3] == 4e9 and read.models["base"].iloc[1] == shipped["model"][0]
    assert read.models["date"].iloc[0] == "2025-03-01" and read.labels[shipped["model"][2]] == "Model 2"
    assert (read.errors["NIILC"] == 0.02).all() and (read.errors["MMLU"] == 0.004).all()
    assert read.errors["GSM8K"].isna().all() and read.tasks.loc["GSM8K", "items"] == 1319
    assert read.tasks.loc["JMMLU", "language"] == "ja" and read.tasks.loc["MGSM", "pair"] == "GSM8K"
    assert any("those of the shipped set 'japanese35'" in w for w in read.warnings)
    shutil.copy(tables.shipped() / "tasks.csv", tmp_path / "tasks.csv")
    assert list(tables.read(tmp_path / "scores.csv").scores.columns) == list(read.scores.columns)


def test_sizes_are_read_as_people_write_them(tmp_path):
    file = _table(
        tmp_path, ["a", "b", "c"], Params=["7B", "13b", "7,000,000,000", "350M", "1.5 T", "70e9", "8x7B", ""],
        tokens_b=["15T", "2000", "1,400B", "", "", "", "", "about 3"],
    )  # fmt: skip
    read = tables.read(file)
    sizes = [7e9, 13e9, 7e9, 3.5e8, 1.5e12, 70e9, np.nan, np.nan]
    np.testing.assert_allclose(read.models["params"], sizes)
    np.testing.assert_allclose(read.models["tokens_b"], [15e3, 2e3, 1400, *[np.nan] * 5])
    assert any("'Params' holds '8x7B' of org/m6: not a positive number" in w for w in read.warnings)
    assert any("'tokens_b' holds 'about 3' of org/m7" in w for w in read.warnings)
    pd.DataFrame({"model": read.models.index, "params": 1e9}).to_csv(tmp_path / "models.csv", index=False)
    read = tables.read(file)
    assert (read.models["params"] == 1e9).all()
    assert any("params, tokens_b of scores.csv are not used" in w for w in read.warnings)


def test_rows_of_one_id_are_told_apart_by_their_names(tmp_path):
    file = _table(tmp_path, ["a", "b", "c"], name=[f"M {i}" for i in range(8)])
    file.write_text(file.read_text().replace("org/m3", "org/m2"))
    read = tables.read(file)
    assert list(read.scores.index)[1:4] == ["org/m1", "M 2", "M 3"]
    assert any("Several rows have the model org/m2" in w for w in read.warnings)


def test_a_long_table_has_errors_and_dates(tmp_path):
    rows = [
        {"model": f"m{i}", "task": t, "score": 0.1 * i + 0.05 * (i % (k + 2)), "stderr": 0.03, "n": 50, "date": "2025-01-01"}
        for i in range(6)
        for k, t in enumerate(["kmmlu", "mmlu", "gsm8k"])
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(tmp_path / "scores.csv", index=False)
    read = tables.read(tmp_path / "scores.csv")
    assert (read.errors == 0.03).all(axis=None) and (read.tasks["items"] == 50).all()


def test_a_long_table_may_have_capitals(tmp_path):
    rows = [(f"m{i}", t, 0.1 * i + 0.05 * (i % (k + 2)), 50) for i in range(6) for k, t in enumerate(["kmmlu", "b", "c"])]
    pd.DataFrame(rows, columns=["Model", "Task", "Score", "N"]).to_csv(tmp_path / "scores.csv", index=False)
    read = tables.read(tmp_path / "scores.csv")
    assert list(read.scores.columns) == ["kmmlu", "b", "c"] and (read.tasks["items"] == 50).all()
    assert read.scores.loc["m5", "b"] == pytest.approx(0.1 * 5 + 0.05 * (5 % 3))
    pd.DataFrame(rows, columns=["Model", "Task", "Value", "N"]).to_csv(tmp_path / "scores.csv", index=False)
    with pytest.raises(ConfigError, match="'model' and 'task' of a long table, but no 'score'"):
        tables.read(tmp_path / "scores.csv")


def test_the_columns_of_the_open_llm_leaderboard(tmp_path):
    """The header of its table of contents (open-llm-leaderboard/contents), with emoji and their selectors."""
    scores = {t: 100 * _RNG.uniform(0.1, 0.9, 8).round(4) for t in ("IFEval", "BBH", "GPQA", "MMLU-PRO")}
    raw = {f"{t} Raw": (v / 200 + 0.3 * _RNG.uniform(size=8)).round(3) for t, v in scores.items()}
    about = {
        "eval_name": [f"m{i}_bf16" for i in range(8)], "Precision": "bfloat16", "Type": "🟢 pretrained",
        "T": ["🟢", "🔶", "💬", "🤝"] * 2, "Weight type": "Original", "Architecture": "LlamaForCausalLM",
        "Model": [f"org/m{i}" for i in range(8)], "fullname": [f"org/m{i}" for i in range(8)], "Model sha": "0a1",
        "Average ⬆\ufe0f": np.mean(list(scores.values()), axis=0), "Hub License": "apache-2.0",
        "Hub ❤\ufe0f": [3, 10, 0, 4, 900, 1, 2, 5], "#Params (B)": [7.2, 0.5, 70, 8, 13, 1, 3, 34],
        "Available on the hub": True, "MoE": False, "Flagged": False, "Chat Template": True,
        "CO₂ cost (kg)": _RNG.uniform(size=8),
    }  # fmt: skip
    end = {"Merged": False, "Official Providers": True, "Upload To Hub Date": "2024-06-26",
           "Submission Date": "2024-07-01", "Generation": [0, 1] * 4, "Base Model": "Removed"}  # fmt: skip
    pd.DataFrame(about | raw | scores | end).to_csv(tmp_path / "scores.csv", index=False)
    read = tables.read(tmp_path / "scores.csv")
    assert list(read.scores.columns) == list(scores) and list(read.scores.index) == about["Model"]
    np.testing.assert_allclose(read.models["params"], np.multiply(about["#Params (B)"], 1e9))
    assert (read.models["date"] == "2024-06-26").all() and (read.models["base"] == "").all()
    assert (read.tasks["high"] == 100).all()


def test_percentages_are_seen_and_a_mixture_is_refused(tmp_path):
    file = _table(tmp_path, ["kmmlu", "mmlu", "x"])
    frame = pd.read_csv(file)
    frame["mmlu"] *= 100
    frame.to_csv(file, index=False)
    read = tables.read(file)
    assert read.tasks.loc["mmlu", "high"] == 100 and read.tasks.loc["mmlu", "chance"] == 25
    assert any("mmlu are taken as percentages" in w for w in read.warnings)
    frame.loc[:5, "mmlu"] /= 100
    frame.to_csv(file, index=False)
    with pytest.raises(ConfigError, match="'mmlu' has .* among shares of 0–1: divide percentages by 100"):
        tables.read(file)


def test_points_of_ten_are_known_by_name_and_hard_tasks_by_the_other_columns(tmp_path):
    file = _table(tmp_path, ["kmmlu", "gsm8k", "KoMT-Bench", "LogicKor", "MT-Bench (scaled)"])
    frame = pd.read_csv(file)
    frame[["kmmlu", "gsm8k", "MT-Bench (scaled)"]] *= 100
    frame[["KoMT-Bench", "LogicKor"]] = np.round(1 + 8.9 * frame[["KoMT-Bench", "LogicKor"]], 2)
    hard = [0, 0, 0.8, 3.3, 0, 0.4, 0.1, 0.6]
    frame.assign(AIME24=hard).to_csv(file, index=False)
    read = tables.read(file)
    assert dict(read.tasks["high"]) == {
        "kmmlu": 100, "gsm8k": 100, "KoMT-Bench": 10, "LogicKor": 10, "MT-Bench (scaled)": 100, "AIME24": 100,
    }  # fmt: skip
    assert any("KoMT-Bench, LogicKor are taken as points of 0–10" in w for w in read.warnings)
    assert any("AIME24 hardly exceed 1 and are taken as percentages" in w for w in read.warnings)
    frame.assign(mmlu=hard).to_csv(file, index=False)  # 0.8% where guessing gives 25%
    with pytest.raises(ConfigError, match="'mmlu' has 3.3 among shares of 0–1"):
        tables.read(file)
    frame.assign(mmlu=[0.5, 0.6, 0.7, 0.4, 0.3, 0.5, 45, 60]).to_csv(file, index=False)
    with pytest.raises(ConfigError, match="'mmlu' has 45 among shares of 0–1"):
        tables.read(file)
    frame.assign(arc=np.divide(hard, 4)).to_csv(file, index=False)
    assert tables.read(file).tasks.loc["arc", "high"] == 1


def test_an_error_rate_without_a_direction_is_left_out(tmp_path):
    read = tables.read(_table(tmp_path, ["a", "b", "c", "CER"]))
    assert "CER" not in read.scores and any("CER may be better when lower and is left out" in w for w in read.warnings)


def test_an_english_table_with_sizes_and_tokens_has_downstream_laws(tmp_path):
    """Scores that follow training compute by a sigmoid: laws are fitted, no local language is needed."""
    models = 24
    params, tokens = np.geomspace(1e8, 7e10, models), np.geomspace(1e2, 3e3, models)
    level = np.log10(6 * params * tokens * 1e9) - 22
    scores = {t: np.round(1 / (1 + np.exp(-level - s)) * 0.9, 4) for t, s in (("mmlu", 0), ("gsm8k", -1), ("arc", 1))}
    frame = pd.DataFrame({"model": [f"m{i}" for i in range(models)], **scores})
    frame.assign(**{"Model Size (B)": params / 1e9, "Pretraining Data Size (T)": tokens / 1e3}).to_csv(
        tmp_path / "scores.csv", index=False
    )
    result = study.run(tables.read(tmp_path / "scores.csv"), study.Options(draws=100))
    assert {row["task"] for row in result["downstream"]["tasks"]} == set(scores) and result["language"] == ""


def test_given_standard_errors_say_that_models_do_not_differ(tmp_path):
    """χ² of scores that scatter by their own errors, of a metric that is not right or wrong."""
    file = _table(tmp_path, ["a", "b", "c"], models=20)
    frame = pd.read_csv(file)
    noise = np.random.default_rng(0).normal(size=20)
    frame["d"], frame["d_stderr"] = 0.5 + 0.03 * noise, 0.03
    frame["e"], frame["e_stderr"] = 0.5 + 0.10 * noise, 0.03
    frame.to_csv(file, index=False)
    found = sampling.tells_nothing(tables.read(file))
    assert found.get("d") == "Its items cannot tell the models apart." and "e" not in found
