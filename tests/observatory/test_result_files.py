"""Result files of `kanana eval`, lm-evaluation-harness and Every Eval Ever as one table of scores."""

import datetime
import json

import numpy as np
import pytest
from lm_eval.loggers.evaluation_tracker import EvaluationTracker

from kanana_jax.cli import main
from kanana_jax.errors import ConfigError
from kanana_jax.evaluation import results as summaries
from kanana_jax.observatory import result_files, task_names

TASKS = ("kmmlu", "haerae", "mmlu", "gsm8k", "mgsm_ko")
RNG = np.random.default_rng(0)
LEVELS = {(f"m{i}", t): (i + 1 + RNG.normal()) / 8 for i in range(5) for t in TASKS}


def _shares(model, task):
    """Right or wrong answers to 20 questions."""
    right = int(round(20 * min(0.95, max(0.05, LEVELS[model, task]))))
    return [1.0] * right + [0.0] * (20 - right)


def _raw(model):
    """What the harness's evaluator returns: the input of our own writer and of the harness's."""
    value = {"results": {}, "samples": {}, "n-samples": {}, "n-shot": {}, "versions": {}, "higher_is_better": {}}
    for task in TASKS:
        answers = _shares(model, task)
        metric, filtered = ("exact_match", "flexible-extract") if task == "gsm8k" else ("acc", "none")
        value["results"][task] = {"alias": task, f"{metric},{filtered}": float(np.mean(answers)),
                                  f"{metric}_stderr,{filtered}": 0.1}  # fmt: skip
        value["samples"][task] = [
            {"doc_id": i, "metrics": [metric], metric: v, "filter": filtered, "prompt_hash": f"{task}{i}", "target_hash": "t",
             "doc_hash": "d", "arguments": [("q", " a"), ("q", " b")], "resps": [[(-1.0, True)], [(-2.0, False)]],
             "filtered_resps": [-1.0], "target": 0}
            for i, v in enumerate(answers)
        ]  # fmt: skip
        value["n-samples"][task] = {"original": 100, "effective": 20}
        value["n-shot"][task], value["versions"][task] = 5, 1.0
        value["higher_is_better"][task] = {metric: True}
    return value


class _Task:
    def higher_is_better(self):
        return {"acc": True}

    def aggregation(self):
        return {"acc": np.mean}


def _own(folder, budgets=True, models=5):
    """Five results of `kanana eval`, by its own writer."""
    folder.mkdir(exist_ok=True)
    for i in range(models):
        found = summaries.summary(_raw(f"m{i}"), {t: _Task() for t in TASKS}, {}, {}, False)
        about = {"parameters": 10**8 * (i + 1), "tokens": 10**9}
        if budgets:
            about |= {"tokens_by_language": {"ko": 10**8 * (i + 1), "en": 10**9 * (6 - i)}, "from_elsewhere": False}
        settings = {"model": f"runs/sweep/m{i}", "limit": 20}
        (folder / f"r{i}.json").write_text(json.dumps({**found, "model": about, "settings": settings}))
    return sorted(folder.glob("*.json"))


def _observe(tmp_path, *arguments):
    code = main(["observe", *map(str, arguments), "--output", str(tmp_path / "out"), "--draws", "100"])
    return code, tmp_path / "out"


def _read(files, models=None):
    gathered = result_files.gather(files, result_files.listed(models))
    return result_files.read(gathered, models, None, files[0])


def test_five_own_models_are_observed_in_one_more_command(tmp_path, capsys):
    """The families come from a table of models, whose names may be files', folders' or paths'."""
    files = _own(tmp_path / "results")
    models = tmp_path / "models.csv"
    names = ["m0", "r1", "runs/sweep/m2", "sweep/m3", "m4"]
    models.write_text(
        "model,family,params,ko_tokens_b_est\n"
        + "".join(f"{n},F{i % 3},{i + 1}e8,{i + 1}\n" for i, n in enumerate(names))
    )
    code, out = _observe(tmp_path, *files, "--models", models)
    assert code == 0
    found = json.loads((out / "components.json").read_text())
    assert found["models"] == 5 and set(found["families"]) == set(names) and found["language"] == "ko"
    assert found["tasks"]["kmmlu"]["items"] == 20 and found["tasks"]["kmmlu"]["metric"] == "acc"
    assert "limit 20" in (out / "tables/scores.csv").read_text()
    capsys.readouterr()
    again, _ = _observe(tmp_path, out / "tables/scores.csv", "--models", models)
    assert again == 0 and "m0" in (out / "tables/models.csv").read_text()


def test_sizes_and_tokens_by_language_come_with_the_results(tmp_path):
    read = _read(_own(tmp_path / "results"))
    assert read.languages == ("en", "ko") and list(read.scores.index) == [f"m{i}" for i in range(5)]
    assert read.models.loc["m2", "ko_tokens_b_est"] == pytest.approx(0.3)
    assert read.models.loc["m3", "params"] == 4e8 and set(read.models["ko_status"]) == {"reported"}
    truth = {t: np.mean(_shares("m1", t)) for t in TASKS}
    assert dict(read.scores.loc["m1"]) == pytest.approx(truth)
    errors = np.std(_shares("m1", "mmlu"), ddof=1) / np.sqrt(20)
    assert read.errors.loc["m1", "mmlu"] == pytest.approx(errors, rel=1e-4)


def test_a_stage_that_evaluates_is_read_whole(tmp_path):
    """`evaluation.json` of a workdir holds several models."""
    models = {f"stage{i}": {"parameters": 10**6 + i, "tokens_by_language": {"ko": i, "en": 9}, "from_elsewhere": i == 2,
                            "results": json.loads(file.read_text())["results"]}
              for i, file in enumerate(_own(tmp_path / "results"))}  # fmt: skip
    (tmp_path / "evaluation.json").write_text(json.dumps({"models": models}))
    read = _read([tmp_path / "evaluation.json"])
    assert list(read.scores.index) == list(models) and read.models.loc["stage2", "ko_status"] == "undisclosed"
    assert read.models.loc["stage3", "en_tokens_b_est"] == 9e-9


def _harness(folder, chat=(), models=5, when=1.7e9):
    """Folders that the harness's own tracker writes."""
    for i in range(models):
        tracker = EvaluationTracker(output_path=str(folder))
        template = "chat" if i in chat else None
        tracker.general_config_tracker.log_experiment_args(
            "hf", f"pretrained=org/m{i},dtype=float32", None, template, False
        )
        tracker.save_results_aggregated(
            _raw(f"m{i}") | {"date": when + i, "config": {"model": "hf", "limit": None}}, None
        )


def test_the_harness_and_our_own_results_agree(tmp_path):
    _harness(tmp_path / "lm")
    files = result_files.found([tmp_path / "lm"])
    read, own = _read(files), _read(_own(tmp_path / "own"))
    assert len(files) == 5 and list(read.scores.index) == [f"org/m{i}" for i in range(5)]
    np.testing.assert_allclose(read.scores[list(own.scores)].to_numpy(), own.scores.to_numpy())
    assert read.tasks.loc["kmmlu", "items"] == 20 and (read.errors["kmmlu"] == 0.1).all()
    assert dict(read.tasks["language"]) == {t: task_names.language(t) for t in read.tasks.index}


def test_a_group_stands_for_its_parts_and_the_later_run_counts(tmp_path):
    value = _raw("m1") | {"date": 2e9, "model_name": "org/m1"}
    for part in ("kmmlu_law", "kmmlu_math"):
        value["results"][part] = {"acc,none": 0.125}
    value["results"] |= {"both": {"acc,none": 0.5}}
    value["group_subtasks"] = {"kmmlu": ["kmmlu_law", "kmmlu_math"], "both": ["kmmlu", "mmlu"], "mmlu": []}
    value["groups"] = {"kmmlu": {"acc,none": 0.875, "acc_stderr,none": "N/A"}}
    value["results"]["kmmlu"] = value["groups"]["kmmlu"]
    value["results"]["wiki"] = {"word_perplexity,none": 12.0}
    _harness(tmp_path / "lm")
    (tmp_path / "lm/later").mkdir()
    (tmp_path / "lm/later/results_x.json").write_text(json.dumps(value))
    gathered = result_files.gather(result_files.found([tmp_path / "lm"]))
    assert set(gathered.tasks) == set(TASKS) and gathered.scores["org/m1"]["kmmlu"].value == 0.875
    assert gathered.scores["org/m1"]["kmmlu"].date.startswith(
        str(datetime.datetime.fromtimestamp(2e9, datetime.UTC).date())
    )
    assert any("the later one counts: " in w for w in gathered.warnings)


def test_scores_that_cannot_be_compared_are_refused(tmp_path):
    _harness(tmp_path / "lm", chat=(2,))
    with pytest.raises(ConfigError, match="mixes the metric versions .*chat"):
        _read(result_files.found([tmp_path / "lm"]))
    files = _own(tmp_path / "own")
    (tmp_path / "own/twice.json").write_text(files[1].read_text())
    with pytest.raises(ConfigError, match="both have 'gsm8k' of 'm1', without dates to tell which is later: give one"):
        result_files.gather([*files, tmp_path / "own/twice.json"])


def test_what_is_no_score_is_told_or_passed_over(tmp_path):
    files = _own(tmp_path / "own")
    (tmp_path / "own/list.json").write_text("[1, 2]")  # a folder may hold other JSON
    assert result_files.found([tmp_path / "own"]) == files
    value = json.loads(files[0].read_text())
    gsm8k = value["results"]["gsm8k"]
    gsm8k |= {key: float("nan") for key, v in gsm8k.items() if isinstance(v, float)}  # as a task without answers has
    value["results"]["mmlu"]["acc_stderr"] = float("nan")
    files[0].write_text("\ufeff" + json.dumps(value), encoding="utf-8")
    read = _read(files)
    assert read.scores["gsm8k"].isna().tolist() == [True, False, False, False, False]
    assert np.isnan(read.errors.loc["m0", "mmlu"]) and read.errors.loc["m1", "mmlu"] > 0
    assert any("not numbers are left out: gsm8k of runs/sweep/m0" in w for w in read.warnings)
    for broken in ({"results": {"mmlu": 3}}, {"model": {"parameters": "8B"}}, {"model": {"tokens_by_language": {"ko": None}}}):
        files[0].write_text(json.dumps(value | broken))
        with pytest.raises(ConfigError, match="r0.json has results in another form .*: write it again, or leave it out"):
            result_files.gather(files)


def test_tables_that_were_completed_where_they_lie_stay(tmp_path):
    files = _own(tmp_path / "results")
    assert _observe(tmp_path, *files)[0] == 0
    tasks = tmp_path / "out/tables/tasks.csv"
    completed = "task,language\n" + "".join(f"{task},{'ko' if task[0] == 'k' else 'en'}\n" for task in TASKS[:4])
    tasks.write_text(completed)
    assert _observe(tmp_path, *files, "--tasks", tasks)[0] == 0
    assert tasks.read_text() == completed and "mgsm_ko" in (tmp_path / "out/tables/scores.csv").read_text()


def test_an_edited_table_is_not_overwritten(tmp_path, capsys):
    files, tables = _own(tmp_path / "results"), tmp_path / "out/tables"
    assert _observe(tmp_path, *files)[0] == 0
    value = json.loads(files[0].read_text())
    value["results"]["kmmlu"]["acc"] = 0.5125
    files[0].write_text(json.dumps(value))
    assert _observe(tmp_path, tables / "scores.csv")[0] == 0
    assert _observe(tmp_path, *files)[0] == 0  # what an earlier run wrote is replaced
    assert "m0,kmmlu,0.5125," in (tables / "scores.csv").read_text()
    for name, way in (
        ("tasks.csv", "give it by --tasks"),
        ("models.csv", "give it by --models"),
        ("scores.csv", "observe it"),
    ):
        before = (tables / name).read_text()
        edited = before.replace("m0", "m0x") if name != "tasks.csv" else before.replace(",en,", ",ja,")
        assert edited != before
        (tables / name).write_text(edited)
        capsys.readouterr()
        assert _observe(tmp_path, *files)[0] == 2
        said = capsys.readouterr().err
        assert f"{tables / name} was edited" in said and way in said
        assert (tables / name).read_text() == edited
        (tables / name).write_text(before)
    (tables / "tasks.csv").write_text("task,language\n" + "".join(f"{task},ko\n" for task in TASKS))
    assert _observe(tmp_path, *files, "--tasks", tables / "tasks.csv")[0] == 0
    assert _observe(tmp_path, *files)[0] == 2  # it is still not what a run has written
    (tables / "tasks.csv").unlink()
    assert _observe(tmp_path, *files)[0] == 0 and (tables / "tasks.csv").is_file()
    (tables / "written.json").unlink()  # a folder of an earlier version
    (tables / "tasks.csv").write_text("task,language\n")
    assert _observe(tmp_path, *files)[0] == 2
    assert "is not known to be kanana observe's own" in capsys.readouterr().err


def test_tables_are_there_although_the_study_is_refused(tmp_path):
    files = _own(tmp_path / "results")
    assert _observe(tmp_path, *files, "--plan", "base=nobody,params=1e9,ko_tokens=1e9")[0] == 2
    assert (tmp_path / "out/tables/tasks.csv").is_file()


def _record(i, **more):
    def row(name, data, score, **config):
        metric = {"lower_is_better": False, "score_type": "continuous", "min_score": 0.0, "max_score": 1.0, **config}
        return {"evaluation_name": name, "source_data": {"dataset_name": data, "source_type": "url", "url": ["x"]},
                "metric_config": metric, "score_details": {"score": score}}  # fmt: skip

    rows = [row(part, "global-mmlu-lite", LEVELS[f"m{i}", t]) for part, t in (("Korean", "kmmlu"), ("English", "mmlu"))]
    rows += [row("gsm8k", "gsm8k", 100 * LEVELS[f"m{i}", "gsm8k"], max_score=100.0)]
    rows += [row("error rate", "asr", 1 - LEVELS[f"m{i}", "haerae"], lower_is_better=True)]
    rows += [row("elo", "arena", 1200 + i, max_score=None), row("unknown", "l", -1, score_type="levels",
             level_names=["a", "b"], has_unknown_level=True)]  # fmt: skip
    rows[0]["score_details"]["uncertainty"] = {"standard_error": {"value": 0.02}, "num_samples": 400}
    return {"schema_version": "0.2.0", "evaluation_id": f"x/{i}", "retrieved_timestamp": "1770682039",
            "source_metadata": {"source_name": "Board"}, "model_info": {"name": f"M{i}", "id": f"org/m{i}"},
            "evaluation_results": rows, **more}  # fmt: skip


def test_records_of_every_eval_ever(tmp_path):
    for i in range(5):
        (tmp_path / f"{i}.json").write_text(json.dumps(_record(i)))
    read = _read(result_files.found([tmp_path]))
    parts = ["global-mmlu-lite/Korean", "global-mmlu-lite/English", "gsm8k", "asr/error rate"]
    assert list(read.scores.columns) == parts and list(read.tasks["language"]) == ["ko", "en", "en", ""]
    assert read.tasks.loc["gsm8k", "high"] == 100
    truth = [LEVELS[f"m{i}", "haerae"] for i in range(5)]
    np.testing.assert_allclose(read.scores["asr/error rate"], truth)  # turned: lower was better
    assert (read.errors[parts[0]] == 0.02).all() and read.tasks.loc[parts[0], "items"] == 400


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.json", "{}", "holds no results of 'kanana eval', of lm-evaluation-harness"),
        ("x.txt", "{}", "is not a .json file"),
        ("x.json", "{", "x.json"),
        ("x.json", '{"results": {"a": {"odd": 1.0, "n": 1}}, "documents": {}}', "no file holds a score"),
    ],
)
def test_other_files_are_refused_in_one_sentence(tmp_path, capsys, name, content, words):
    (tmp_path / name).write_text(content)
    code, _ = _observe(tmp_path, tmp_path / name, tmp_path / name)
    error = capsys.readouterr().err
    assert code in (1, 2) and words in error and error.count("\n") == 1


def test_a_folder_without_results_and_too_few_models(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert _observe(tmp_path, tmp_path / "empty")[0] == 2 and "holds no result file" in capsys.readouterr().err
    files = _own(tmp_path / "few", models=2)
    assert _observe(tmp_path, *files)[0] == 2
    assert "r0.json and 1 more has 2 models with scores: components need at least 5" in capsys.readouterr().err
