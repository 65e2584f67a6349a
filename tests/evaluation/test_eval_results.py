"""Means of groups, lines of prompts and answers, costs of training: what a file of results says."""

import json
import shutil

import jax
import numpy as np
import pytest
import scipy.stats
from random_model import data, folder

pytest.importorskip("lm_eval")

from lm_eval.api.task import ConfigurableTask  # noqa: E402

from kanana_jax import cli  # noqa: E402
from kanana_jax.cli.evaluate import _about  # noqa: E402
from kanana_jax.errors import ConfigError  # noqa: E402
from kanana_jax.evaluation import results, run  # noqa: E402
from kanana_jax.evaluation.harness import HarnessModel  # noqa: E402
from kanana_jax.inference.session import Session  # noqa: E402
from kanana_jax.report import evaluation as plot  # noqa: E402


@pytest.fixture(scope="module")
def model(folder):
    return HarnessModel(Session.load(str(folder), devices=jax.devices()[:1]), batch_size=8)


def _part(n, **metrics):
    return {"n": n, "shots": 0, "version": "1", "chat": False, "prompts": "p", "cut": 1, **metrics}


def test_a_group_averages_what_all_its_tasks_have_of_one_kind(caplog):
    found = {
        "a": _part(10, acc=0.5, acc_stderr=0.1, f1=0.4, mcc=0.2),
        "b": _part(30, acc=0.9, acc_stderr=0.02, f1=0.8),
    }
    kinds = {"a": {"acc": "mean", "f1": "of classes", "mcc": "mcc"}, "b": {"acc": "mean", "f1": "of words"}}
    whole = results.of_group("g", ["a", "b"], found, kinds, {})
    assert whole["acc"] == pytest.approx(0.8) and "f1" not in whole and "mcc" not in whole
    assert whole["acc_stderr"] == pytest.approx(np.hypot(10 * 0.1, 30 * 0.02) / 40)
    assert whole["not_averaged"] == ["f1", "mcc"] and whole["n"] == 40 and whole["cut"] == 2
    assert "group 'g' has no mean of f1, mcc" in caplog.text
    # In either order, and where nothing is shared.
    assert results.of_group("g", ["b", "a"], found, kinds, {})["acc"] == pytest.approx(0.8)
    apart = {"a": _part(1, acc=1.0), "b": _part(1, chrf=50.0)}
    whole = results.of_group("g", ["a", "b"], apart, {"a": {"acc": "mean"}, "b": {"chrf": "chrf"}}, {})
    assert not [value for value in whole.values() if isinstance(value, float)]
    assert whole["not_averaged"] == ["acc", "chrf"]


def test_a_group_of_single_questions_has_the_error_of_all_of_them():
    values = [1.0, 0.0, 0.0, 1.0, 0.0]
    found = {name: _part(1, acc=value) for name, value in zip("abcde", values)}
    kinds = dict.fromkeys("abcde", {"acc": "mean"})
    whole = results.of_group("g", list("abcde"), found, kinds, {"acc": values})
    assert whole["acc_stderr"] == pytest.approx(scipy.stats.sem(values))
    assert "acc_stderr" not in results.of_group("g", ["a"], found, kinds, {"acc": values[:1]})


def test_squads_own_scores_are_in_per_cent():
    """They have the names of others that are not."""
    squad = {"exact": 50.0, "f1": 62.0, "HasAns_exact": 40.0, "HasAns_f1": 48.0}
    assert plot.score(squad) == (0.62, None) and plot.score({"f1": 0.62}) == (0.62, None)
    assert plot.score({"exact": 50.0, "HasAns_exact": 40.0}) == (0.5, None)


def _file(acc, own, whole, **more):
    return {
        "results": {"t": {"n": 4, **acc}},
        "documents": {},
        "model": {"parameters": 1, "training_flops": whole, "training_flops_own": own, **more},
    }


def test_the_plot_tells_what_it_averages_and_counts(tmp_path):
    files = {
        "teacher": _file({"acc": 0.5}, 3e13, 3e13),
        "student": _file({"acc": 0.4}, 3e12, 3.3e13, missing_parent="x"),
    }
    page = plot.write_plot(files, dict.fromkeys(files, "f"), tmp_path / "p.html").read_text()
    assert (
        "t by acc" in page and "since the model was last cut or grown" in page and "with the models that it was" in page
    )
    assert page.count("<svg") == 2 and "3e+12" in page and "3.3e+13" in page
    assert "A parent was not found, so its cost is missing: student" in page
    files["student"]["results"]["t"] = {"n": 4, "exact_match": 0.4}
    with pytest.raises(ValueError, match="'t' is scored by acc in teacher and by exact_match in student"):
        plot.write_plot(files, dict.fromkeys(files, "f"), tmp_path / "p.html")
    del files["student"]
    del files["teacher"]["model"]["training_flops_own"]
    page = plot.write_plot(files, {"teacher": "f"}, tmp_path / "p.html").read_text()
    assert "which older files do not separate: teacher" in page


def test_costs_are_those_of_the_paper_and_with_parents_from_any_folder(folder, tmp_path, monkeypatch, caplog):
    """first → continued → (grown) student; the student's own cost is its own, the continued one's that of both."""
    config = json.loads((folder / "config.json").read_text())
    for name, parent, cost, layers in (
        ("first", None, 100.0, None),
        ("continued", "../../first/model", 20.0, None),
        ("student", "../../continued/model", 3.0, 5),
    ):
        place = tmp_path / "run" / name / "model"
        place.mkdir(parents=True)
        changed = config if layers is None else config | {"num_hidden_layers": layers}
        (place / "config.json").write_text(json.dumps(changed))
        (place / "model.json").write_text(json.dumps({"parent": parent, "flops_six_n_d": cost, "tokens": 7}))
    shutil.copytree(tmp_path / "run", tmp_path / "elsewhere/copy")
    for place, cwd in (("run", tmp_path), (tmp_path / "run", "/"), (tmp_path / "elsewhere/copy", tmp_path)):
        monkeypatch.chdir(cwd)
        for name, own, whole in (("first", 100, 100), ("continued", 120, 120), ("student", 3, 123)):
            about = _about(f"{place}/{name}", None)
            assert (about["training_flops_own"], about["training_flops"]) == (own, whole)
            assert "missing_parent" not in about and not caplog.records
    monkeypatch.chdir(tmp_path)
    shutil.rmtree("run/first")
    about = _about("run/student", None)
    assert (about["training_flops_own"], about["training_flops"]) == (3, 23)
    assert about["missing_parent"] == "../../first/model" and "does not exist" in caplog.text
    assert _about("run/student", 5.0)["training_flops_own"] == 5.0


def test_prompts_and_answers_stand_beside_the_results(folder, data, tmp_path, capsys):
    out = tmp_path / "r.json"
    asked = ["--tasks", "niilc,mmlu,gsm8k", "--data-dir", str(data), "--limit", "2", "--shots", "1"]
    assert cli.main(["eval", str(folder), *asked, "--output", str(out)]) == 0
    value = json.loads(out.read_text())
    lines = [json.loads(line) for line in (tmp_path / "r.samples.jsonl").read_text().splitlines()]
    assert "samples" not in value and {f.name for f in tmp_path.iterdir()} == {"r.json", "r.samples.jsonl"}
    assert [(line["task"], line["doc_id"]) for line in lines] == [
        (task, doc) for task in ("gsm8k", "mmlu_en", "mmlu_ko", "niilc") for doc in (0, 1)
    ]
    generated, chosen, free = lines[0], lines[2], lines[-1]
    assert set(generated["filtered"]) == {"strict-match", "flexible-extract", "stated"}
    assert len(generated["answers"]) == 1 and set(generated["metrics"]) == {
        f"exact_match,{name}" for name in generated["filtered"]
    }
    assert generated["prompt"].count("Question:") == 2 and generated["target"].startswith("So\n#### ")
    assert [choice["text"] for choice in chosen["choices"]] == [" A", " B", " C", " D"]
    best = int(np.argmax([choice["log_likelihood"] for choice in chosen["choices"]]))
    assert chosen["metrics"]["acc"] == float(best == int(chosen["target"])) and chosen["cut"] is False
    assert free["filtered"] == {"none": free["answers"][0]} and "char_f1" in free["metrics"]
    for line in lines:
        for metric, score in line["metrics"].items():
            assert value["documents"][line["task"]][metric][line["doc_id"]] == score


def test_answers_whose_scoring_fails_are_kept(folder, data, tmp_path, monkeypatch, capsys):
    out, kept = tmp_path / "r.json", tmp_path / "r.unscored.jsonl"
    asked = ["eval", str(folder), "--tasks", "niilc,mmlu,gsm8k", "--data-dir", str(data), "--limit", "2"]
    scored = ConfigurableTask.process_results

    def fails(task, doc, results):
        if task.config.task == "niilc":
            raise LookupError("\n*****\n  Resource words not found.\n  More.")
        return scored(task, doc, results)

    with monkeypatch.context() as patched:
        patched.setattr(ConfigurableTask, "process_results", fails)
        assert cli.main([*asked, "--output", str(out)]) == 1
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert "failed (LookupError: Resource words not found.); " in told and f"{kept} has what the model answered" in told
    assert not out.exists() and not (tmp_path / "r.samples.jsonl").exists()
    lines = [json.loads(line) for line in kept.read_text().splitlines()]
    assert cli.main([*asked, "--output", str(out)]) == 0
    whole = [json.loads(line) for line in (tmp_path / "r.samples.jsonl").read_text().splitlines()]
    for line in whole:
        for key in ("target", "metrics", "filtered"):
            line.pop(key, None)
    assert lines == whole and len(lines) == 8 and not kept.exists()


def test_cut_prompts_are_counted_by_task(model, data, caplog):
    long = json.dumps({"question": "가나다 " * 400, "answers": ["x"]}, ensure_ascii=False)
    place = data / "long/niilc"
    place.mkdir(parents=True, exist_ok=True)
    (place / "test.jsonl").write_text(f'{{"question": "짧다", "answers": ["x"]}}\n{long}\n')
    (place / "dev.jsonl").write_text('{"question": "a", "answers": ["b"]}\n')
    found = run.evaluate(model, ["niilc"], data_dir=data / "long", shots=0)
    assert found["results"]["niilc"]["cut"] == 1 and [line["cut"] for line in found["samples"]] == [False, True]
    assert "1 of the 2 prompts of niilc were truncated at their beginning" in caplog.text


def test_shots_that_a_task_does_not_take_are_refused(model, data):
    with pytest.raises(ConfigError, match="--shots does nothing for gsm8k_boxed: such a task has no place"):
        run.find(["gsm8k_boxed", "niilc"], data, 2)
    with pytest.raises(ConfigError, match="--shots does nothing for gsm8k_boxed"):
        run.evaluate(model, ["gsm8k_boxed", "niilc"], data_dir=data, limit=1, shots=2)


def test_examples_that_are_the_question_itself_are_not_counted(model, tmp_path):
    """Rows of one text: the harness takes all of them out, and would draw more than there is."""
    place = tmp_path / "klue/klue_ynat_dev.jsonl"
    place.parent.mkdir()
    place.write_text('{"title": "새 경기장", "label": 5}\n' * 6 + '{"title": "새 법", "label": 6}\n' * 2)
    place.with_name("klue_ynat_train.jsonl").write_text(place.read_text())
    assert run.evaluate(model, ["klue_ynat"], data_dir=tmp_path, limit=1, shots=2)["results"]["klue_ynat"]["n"] == 1
    found = run.find(["klue_ynat"], tmp_path)
    found.specs[0]["fewshot_split"] = "validation"
    with pytest.raises(ConfigError, match="'klue_ynat' takes 5 examples and has 2: lower --shots"):
        run.evaluate(model, ["klue_ynat"], data_dir=tmp_path, limit=1, found=found)
