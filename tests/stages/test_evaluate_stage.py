"""Finished models asked by a stage: results of `kanana eval`, none asked twice, rows that the observatory reads."""

import collections
import json

import jax
import own_models
import pandas as pd
import pytest
from lm_eval.api.task import ConfigurableTask
from ml_collections import ConfigDict

from kanana_jax.applications import call_benchmarks
from kanana_jax.data import microworld
from kanana_jax.data.tokens.calls import Call, Reply
from kanana_jax.errors import ConfigError, UserError
from kanana_jax.evaluation import function_calls, run
from kanana_jax.evaluation.harness import HarnessModel
from kanana_jax.inference.session import Session
from kanana_jax.observatory import tables
from kanana_jax.recipe import run as recipe
from kanana_jax.report.run import write_run_report
from kanana_jax.stages import chapters, evaluate, evaluation_chapter, paper_chapter, score_tables

ONE = jax.devices()[:1]
LIMIT = 2


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return own_models.write(tmp_path_factory.mktemp("base"), "bpe", microworld.World.create(0, 100), 2048)


def _config(base, **more):
    return ConfigDict(
        dict(
            name="x",
            stages=("evaluated",),
            tokenizer=dict(path=str(base)),
            sources=dict(ko=dict(path="microworld://news/ko?size=100&count=5", lang="ko")),
            evaluated=dict(
                kind="evaluate",
                start=str(base),
                tasks=dict(names=("microworld",), limit=LIMIT, batch_size=8),
                calls=dict(
                    models=(str(base),), sets=dict(own="microworld://calls-single/ko?size=100&count=9"), limit=1
                ),
                documents=dict(models=(str(base),), sets=dict(faq="microworld://faq/ko?size=100&count=4"), limit=1),
                **more,
            ),
        )
    )


@pytest.fixture(scope="module")
def workdir(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    recipe.run(_config(base), folder, devices=ONE)
    return folder


def test_results_are_those_of_the_command(workdir, base):
    (found,) = json.loads((workdir / "evaluated/evaluation.json").read_text())["models"].values()
    asked = HarnessModel(Session.load(str(base), devices=ONE), batch_size=8)
    own = run.evaluate(asked, ["microworld"], limit=LIMIT)["results"]
    assert {name: found["results"][name] for name in own} == json.loads(json.dumps(own))
    assert found["results"]["own"]["n"] == found["results"]["faq"]["n"] == 1 and found["parameters"] > 0 and found["training_flops"] is None


def test_the_answers_are_kept(workdir):
    lines = [json.loads(line) for line in (workdir / "evaluated/answers/00.samples.jsonl").read_text().splitlines()]
    by_task = collections.Counter(line["task"] for line in lines)
    (found,) = json.loads((workdir / "evaluated/evaluation.json").read_text())["models"].values()
    asked = {name: result["n"] for name, result in found["results"].items() if name.startswith("microworld_")}
    assert len(asked) > 1 and by_task == asked | {"own": 1, "faq": 2}


def test_answers_whose_scoring_fails_are_kept(base, tmp_path, monkeypatch):
    def fails(task, doc, results):
        raise LookupError("no words")

    with monkeypatch.context() as patched:
        patched.setattr(ConfigurableTask, "process_results", fails)
        with pytest.raises(UserError, match=r"LookupError: no words.*00\.unscored\.jsonl has what .* answered"):
            recipe.run(_config(base), tmp_path, devices=ONE)
    lines = (tmp_path / "evaluated/answers/00.unscored.jsonl").read_text().splitlines()
    assert lines and all("metrics" not in json.loads(line) for line in lines)


def test_what_was_asked_is_not_asked_again(workdir, base):
    """After a stop between two models; the tables are written anew."""
    answers = workdir / "evaluated/answers/00.json"
    before = json.loads(answers.read_text())
    before["results"]["microworld"]["acc"] = 0.75
    answers.write_text(json.dumps(before))
    (workdir / "evaluated/evaluation.json").unlink()
    recipe.run(_config(base), workdir, devices=ONE)
    (found,) = json.loads((workdir / "evaluated/evaluation.json").read_text())["models"].values()
    assert found["results"]["microworld"]["acc"] == 0.75


def _model(parameters, ko, en, score):
    result = {"acc": score, "acc_stderr": 0.1, "n": 10, "shots": 0, "version": "1"}
    results = {"facts": dict(result, parts=2), "facts_ko": result, "facts_en": dict(result, acc=score / 2)}
    results["line_en"] = {"chrf": 50 * score, "n": 10, "shots": 4, "version": "1"}
    calls = {"own": {"accuracy": score, "accuracy_stderr": 0.1, "broken": 1, "cut": 0, "refused": 0, "n": 10}}
    about = dict(parameters=parameters, training_flops=6e9 * score, training_flops_own=3e9, tokens=1)
    return about | dict(tokens_by_language=dict(ko=ko, en=en), from_elsewhere=False, results=results | calls)


def test_the_observatory_reads_the_rows(tmp_path):
    models = {f"m{i}": _model(100_000 * (1 + i), 10_000 * i, 50_000, 0.1 * (1 + i)) for i in range(6)}
    for i, model in enumerate(models.values()):  # columns that are copies of one another are left out
        model["results"]["facts_en"]["acc"] += 0.02 * (i % 2)
        model["results"]["line_en"]["chrf"] += i % 3
    score_tables.write(tmp_path, "small", models)
    read = tables.read(tmp_path / "scores.csv")
    assert list(read.scores.columns) == ["facts_ko", "facts_en", "line_en"] and read.languages == ("en", "ko")
    assert read.scores.loc["m4", "line_en"] == pytest.approx(0.26)
    assert read.scores.loc["m4", "facts_en"] == pytest.approx(0.25)
    assert read.models.loc["m3", "ko_tokens_b_est"] == pytest.approx(30_000 / 1e9)
    assert set(read.models["family"]) == {"small"} and list(read.tasks["language"]) == ["ko", "en", "en"]


def test_tokens_of_a_model_from_elsewhere_are_undisclosed(tmp_path):
    models = {f"m{i}": _model(1000, 1, 2, 0.2 * (1 + i)) | dict(from_elsewhere=i == 2) for i in range(3)}
    score_tables.write(tmp_path, "small", models)
    about = pd.read_csv(tmp_path / "models.csv", index_col="model")
    assert list(about["ko_status"]) == ["reported", "reported", "undisclosed"]
    assert list(about["tokens_b"].isna()) == list(about["en_tokens_b_est"].isna()) == [False, False, True]


def test_languages_are_those_at_the_end_of_a_name():
    known = ("ko", "en")
    names = {"facts/told/ko": "ko", "translation_ko-en": "en", "mgsm_ja": None, "kmmlu": None, "arithmetic_en": "en"}
    assert {name: score_tables.language_of(name, known) for name in names} == names


def test_the_report_sets_scores_against_compute(tmp_path):
    folder = tmp_path / "evaluated"
    folder.mkdir()
    models = {f"m{i}": _model(1000, 1, 2, 0.2 * (1 + i)) for i in range(2)}
    (folder / "evaluation.json").write_text(json.dumps({"models": models}))
    run = {"config": {"name": "x", "stages": ["evaluated"], "evaluated": {"kind": "evaluate", "start": "m0"}}}
    run |= {"command": "x", "versions": {}, "git_revision": None, "seed": 0, "devices": "1 × cpu", "started": "today"}
    (tmp_path / "config.json").write_text(json.dumps(run))
    page = write_run_report(tmp_path, chapters(), {"evaluate": "evaluation.json"}).read_text()
    assert page.index("In short</h2>") < page.index("Score against compute</h2>") < page.index("Loss</h2>")
    assert "Function calls: the last turn" in page and ">40.0<" in page  # m1's accuracy in per cent
    means = page[page.index(">mean<") :]
    assert ">0.300<" in means and "evaluated/observatory/" in page  # of 0.4 and of 0.2, for m1: (0.4 + 0.2) / 2


@pytest.mark.parametrize("kind, right", [("calls-single", True), ("calls-none", False)])
def test_a_conversation_expects_its_own_last_turn(kind, right):
    record = microworld.document(microworld.World.create(0, 100), kind, "ko", 0)
    item = function_calls.of_conversation(record, "own")
    *before, last = record["messages"]
    assert item.messages == tuple(before) and (item.kind == "call") == right
    calls = [call["function"] for call in last.get("tool_calls") or ()]
    reply = Reply(last["content"] or "", tuple(Call(c["name"], json.loads(c["arguments"])) for c in calls))
    assert function_calls.score(item, reply) == 1
    assert function_calls.score(item, Reply("") if right else Reply("", (Call("x", {}),))) == 0
    with pytest.raises(UserError, match="not a conversation with 'tools'"):
        function_calls.of_conversation(record | {"messages": before}, "own")


@pytest.mark.parametrize(
    "key, name", [("calls", "faq"), ("calls", "microworld"), ("documents", "own"), ("documents", "own/free")]
)
def test_two_results_of_one_name_are_refused(base, key, name):
    config = _config(base)
    config.evaluated[key].sets = {name: "microworld://faq/ko?size=100&count=4"}
    with pytest.raises(ConfigError, match=f"'{name}' names two of tasks, calls.sets and documents.sets"):
        recipe.parse(config)


def test_bare_calls_and_functions_are_read():
    """As in `{"name", "arguments"}`, without the object around them that OpenAI's form has."""
    made = microworld.document(microworld.World.create(0, 100), "calls-single", "ko", 0)
    bare = [call["function"] for call in made["messages"][-1]["tool_calls"]]
    own = made | {"messages": [*made["messages"][:-1], made["messages"][-1] | {"tool_calls": bare}]}
    assert function_calls.of_conversation(own, "own") == function_calls.of_conversation(made, "own")
    item = function_calls.of_conversation(made | {"tools": [tool["function"] for tool in made["tools"]]}, "own")
    line = call_benchmarks._line("own", item, (None, "refused"), 0.0)
    assert line["tools"] == [tool["function"]["name"] for tool in made["tools"]]


def test_what_cannot_run_is_told_before(base, tmp_path, monkeypatch):
    config = _config(base)
    config.evaluated.calls.models = ("other",)
    with pytest.raises(ConfigError, match="'other', which is not among the models"):
        recipe.parse(config)
    config = _config(base)
    config.evaluated.tasks.names = ("microworlds",)
    with pytest.raises(ConfigError, match="microworlds"):
        recipe.run(config, tmp_path / "unknown", devices=ONE)
    assert not (tmp_path / "unknown" / "data").exists()
    monkeypatch.setattr(evaluate.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs the package lm_eval: pip install"):
        recipe.run(_config(base), tmp_path, devices=ONE)
    assert not (tmp_path / "data").exists()


def test_answers_from_documents_are_a_table_and_a_row_beside_the_paper():
    shares = {"merged": (0.25, 0.0), "rag_sft": (0.5, 1.0), "rag_dpo": (0.75, 0.5)}
    models = {
        name: {"results": {"faq": {"answered": said, "cited": 0.5, "refused": right, "refused_wrongly": 0.25, "n": 8}}}
        for name, (said, right) in shares.items()
    }
    (table,) = evaluation_chapter._documents(models | {"base": {"results": {}}})
    assert table.rows[1] == ("rag_sft", "faq", 50.0, 50.0, 100.0, 25.0, None, 8) and len(table.rows) == 3
    told = "answered from the passage: 25% merged → 50% rag_sft → 75% rag_dpo"
    assert paper_chapter._documents({"evaluated": models}) == told
    assert paper_chapter._documents({"evaluated": {"merged": models["merged"]}}) == ""
