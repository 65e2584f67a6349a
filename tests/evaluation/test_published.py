"""Published files of data sets, a made-up row or two of each: what is asked, and that a model's run scores it."""

import csv
import gzip
import importlib.resources
import json
import pathlib
import sys
import types

import jax
import pyarrow as pa
import pyarrow.parquet
import pytest
from random_model import folder

pytest.importorskip("lm_eval")

from lm_eval.tasks import TaskManager  # noqa: E402

from kanana_jax.errors import ConfigError, UserError  # noqa: E402
from kanana_jax.evaluation import instructions, published, rows, run, short_answers, tasks  # noqa: E402
from kanana_jax.evaluation.harness import HarnessModel  # noqa: E402
from kanana_jax.inference.session import Session  # noqa: E402

QUESTION = {"question": "다음 중 물의 끓는점은?", "A": "0도", "B": "50도", "C": "100도", "D": "150도", "answer": 3}
TOPIC = {"guid": "ynat-v1_dev_00000", "title": "새 반도체 공장 준공", "label": 0, "url": "u", "date": "d"}
MRC = {
    "title": "t", "context": "바람은 북쪽에서 분다.", "question": "바람은 어디에서 부나?", "guid": "g", "is_impossible": False,
    "question_type": 1, "answers": {"answer_start": [4], "text": ["북쪽"]},
}  # fmt: skip
NO_ANSWER = MRC | {"question": "비는 언제 오나?", "is_impossible": True, "answers": {"answer_start": [], "text": []}}
KOBEST = {
    "boolq": {"paragraph": "해는 동쪽에서 뜬다.", "question": "해는 서쪽에서 뜨나?", "label": 0},
    "copa": {"premise": "비가 왔다.", "question": "결과", "alternative_1": "땅이 젖었다.", "alternative_2": "땅이 말랐다.", "label": 0},
    "hellaswag": {"context": "물을 끓인다.", **{f"ending_{i}": f"{i}번째 일을 한다." for i in (1, 2, 3, 4)}, "label": 2},
    "sentineg": {"sentence": "아주 좋은 곳입니다.", "label": 1},
    "wic": {"word": "배", "context_1": "배를 먹었다.", "context_2": "배를 탔다.", "label": 0},
}  # fmt: skip
RULER = {"index": 0, "input": "Some numbers: 17, 42. Which?", "outputs": ["17", "42"], "length": 60}


@pytest.fixture(scope="module")
def manager():
    """The harness's tasks of these sets alone: all of them are ten thousand files."""
    root = pathlib.Path(str(importlib.resources.files("lm_eval"))) / "tasks"
    paths = [str(root / name) for name in ("kmmlu/default", "haerae", "kobest", "hrm8k/default", "hendrycks_math")]
    return TaskManager(include_defaults=False, include_path=paths)


@pytest.fixture
def some(manager, monkeypatch):
    monkeypatch.setattr(tasks, "_manager", lambda _: manager)


def _write(file, lines):
    file.parent.mkdir(parents=True, exist_ok=True)
    kind = pathlib.Path(file.name.removesuffix(".gz")).suffix
    if kind == ".parquet":
        pa.parquet.write_table(pa.Table.from_pylist(lines), file)
        return
    if kind in (".csv", ".tsv"):
        with file.open("w", encoding="utf-8", newline="") as stream:
            table = csv.DictWriter(stream, lines[0], delimiter="\t" if kind == ".tsv" else ",")
            table.writeheader()
            table.writerows(lines)
        return
    text = (
        json.dumps(lines) if kind == ".json" else "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in lines)
    )
    file.write_bytes(gzip.compress(text.encode()) if file.suffix == ".gz" else text.encode())


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A file of each, as their publishers lay them out."""
    place = tmp_path_factory.mktemp("published")
    for part in ("Accounting", "Law"):
        _write(place / f"HAERAE-HUB/KMMLU/data/{part}-test.csv", [QUESTION, QUESTION | {"answer": 1}])
    _write(place / "HAERAE-HUB/KMMLU/data/Accounting-dev.csv", [QUESTION | {"question": "보기 문제"}] * 5)
    query = {"query": "낱말의 뜻은?\n(A) 가 (B) 나 (C) 다 (D) 라 (E) 마\n정답:", "answer": "(B)", "options": "['가']"}
    _write(place / "haerae/data/loan_words.tsv", [query, query])
    _write(place / "haerae/Rare Words/test/0000.parquet", [query, query])
    for part, row in KOBEST.items():
        for split in ("train", "test"):
            _write(place / f"kobest/{part}/{split}-00000-of-00001.parquet", [row, row])
    _write(
        place / "klue/ynat/validation-00000-of-00001.parquet", [TOPIC, TOPIC | {"title": "축구 대회 개막", "label": 5}]
    )
    _write(place / "klue/mrc/validation.jsonl", [MRC, NO_ANSWER])
    _write(place / "klue/nli/validation.jsonl.gz", [{"premise": "비가 온다.", "hypothesis": "맑다.", "label": 2}] * 6)
    _write(place / "HRM8K/HRM8K/gsm8k_test.csv", [{"question": "둘에 셋을 더하면?", "answer": 5.0}] * 2)
    _write(place / "HRM8K/HRM8K/mmmlu_test.csv", [{"question": "고르라. 1. 둘 2. 셋", "answer": 2}] * 2)
    row = {"topic": "t", "problem": "가장 높은 산은?", "answer": "가온산", "urls": "[]"}
    _write(place / "bzantium/KoSimpleQA/kosimpleqa.jsonl", [row, row])
    for length, task in ((4096, "niah_single_1"), (4096, "qa_1"), (8192, "vt")):
        _write(
            place / f"ruler/{length}/{task}/validation.jsonl", [RULER, RULER | {"answer_prefix": " The numbers are"}]
        )
    row = {"key": "1", "prompt": "Write.", "instruction_id_list": ["count:words"], "kwargs": [{"n": 2, "m": None}]}
    _write(place / "ifbench/IFBench_test.jsonl", [row])
    return place


def _first(loaded):
    return {name: (task, list(task.eval_docs)[0]) for name, task in loaded.manager.load(loaded.specs)["tasks"].items()}


def test_what_is_asked_is_the_harness_own_wording(some, data, caplog):
    loaded = tasks.load(["kmmlu", "haerae", "kobest", "hrm8k"], data)
    assert not any("hf_evaluate" in m for spec in loaded.specs for m in spec["metric_list"]), "scripts of a hub"
    found = _first(loaded)
    kmmlu, doc = found["kmmlu_accounting"]
    assert kmmlu.fewshot_context(doc, 0) == "다음 중 물의 끓는점은?\nA. 0도\nB. 50도\nC. 100도\nD. 150도\n정답："
    assert kmmlu.doc_to_target(doc) == 2 and "보기 문제" in kmmlu.fewshot_context(doc, 1)
    haerae, doc = found["haerae_rare_word"]
    assert haerae.fewshot_context(doc, 0).startswith("낱말의 뜻은?") and haerae.doc_to_choice(doc)[1] == "(B)"
    assert {n for n in found if n.startswith("haerae")} == {"haerae_loan_word", "haerae_rare_word"}
    assert "has no files of haerae_general_knowledge, haerae_history, haerae_standard_nomenclature" in caplog.text
    for name, prompt, target in (
        ("boolq", "해는 동쪽에서 뜬다. 질문: 해는 서쪽에서 뜨나? 답변: ", 0),
        ("copa", "비가 왔다.  그래서", "땅이 젖었다."),
        ("hellaswag", "문장: 물을 끓인다.", 2),
        ("sentineg", "문장: 아주 좋은 곳입니다. 긍부정:", 1),
        ("wic", "문장1: 배를 먹었다. 문장2: 배를 탔다. 두 문장에서 배가 같은 뜻으로 쓰였나?", 0),
    ):
        task, doc = found[f"kobest_{name}"]
        assert (task.fewshot_context(doc, 0), str(task.doc_to_target(doc))) == (prompt, str(target))
    task, doc = found["hrm8k_gsm8k"]
    assert "$\\boxed{N}$" in task.fewshot_context(doc, 0) and task.doc_to_target(doc) == "5"
    assert "선택지 (1, 2, 3, 4)" in found["hrm8k_mmmlu"][0].fewshot_context(found["hrm8k_mmmlu"][1], 0)


def test_tasks_of_ours_read_published_files(some, data):
    found = _first(
        tasks.load(["klue_ynat", "klue_mrc", "klue_nli", "kosimpleqa", "ruler", "hrm8k_boxed", "kmmlu_cot"], data)
    )
    assert {n for n in found if n.startswith("ruler")} == {
        "ruler_4096_niah_single_1",
        "ruler_4096_qa_1",
        "ruler_8192_vt",
    }
    assert found["klue_ynat"][0].fewshot_context(found["klue_ynat"][1], 0) == "제목: 새 반도체 공장 준공\n주제:"
    task, doc = found["klue_mrc"]
    assert task.doc_to_target(doc) == "북쪽" and task.doc_to_target(list(task.eval_docs)[1]) == "답 없음"
    task, doc = found["ruler_8192_vt"]
    prompts = [task.fewshot_context(d, 0) for d in task.eval_docs]
    assert prompts == [RULER["input"], RULER["input"] + " The numbers are"] and doc["folder"] == "8192_vt"
    assert found["hrm8k_boxed_GSM8K"][0].process_results(found["hrm8k_boxed_GSM8K"][1], ["답은 \\boxed{5개}"]) == {
        "exact_match": 1
    }
    assert found["kmmlu_cot_Law"][0].doc_to_target(found["kmmlu_cot_Law"][1]) == "C"


def test_a_model_is_asked_them(some, data, folder):
    model = HarnessModel(Session.load(str(folder), devices=jax.devices()[:1]), batch_size=8)
    results = run.evaluate(model, ["kmmlu", "kobest_wic"], data_dir=data, limit=1, shots=0)["results"]
    assert {"kmmlu", "kmmlu_humss"} <= results.keys() and "kmmlu_humss_tasks" not in results, "tags have no mean"
    assert results["kmmlu"]["parts"] == 2 and 0 <= results["kmmlu"]["acc"] <= 1 and results["kmmlu"]["n"] == 2
    assert {"acc", "f1"} <= results["kobest_wic"].keys()


def test_short_answers():
    assert short_answers.klue_mrc(MRC, [" 북쪽. "])["exact_match"] == 1.0
    assert short_answers.klue_mrc(NO_ANSWER, ["답 없음"])["exact_match"] == 1.0
    assert short_answers.klue_mrc(NO_ANSWER, ["내일"])["exact_match"] == 0.0
    doc = {"answer": "세종 대왕"}
    for text, same, held in (("세종대왕", 1, 1), ("답은 ‘세종대왕’입니다.", 0, 1), ("태조", 0, 0)):
        found = short_answers.kosimpleqa(doc, [text])
        assert (found["exact_match"], found["contains"]) == (same, held)
    for folder_name, text, score in (("4096_vt", "it is 42", 0.5), ("4096_qa_1", "it is 42", 1), ("qa_2", "none", 0)):
        assert short_answers.ruler(RULER | {"folder": folder_name}, [text]) == {"string_match": score}


def test_instructions_are_checked_by_the_publishers_package(data, monkeypatch):
    monkeypatch.setattr(tasks, "_missing", lambda package: package == "ifbench")
    with pytest.raises(UserError, match="needs the package ifbench: pip install ifbench"):
        tasks.load(["ifbench"], data)

    class Words:
        def __init__(self, name):
            assert name == "count:words"

        def build_description(self, n=0, **other):
            self.n = n
            assert not other, "None is no argument"

        def get_instruction_args(self):
            return {"n": self.n}

        def check_following(self, text):
            return len(text.split()) == self.n

    package = types.SimpleNamespace(INSTRUCTION_DICT={"count:words": Words})
    monkeypatch.setitem(sys.modules, "ifbench", types.ModuleType("ifbench"))
    monkeypatch.setitem(sys.modules, "ifbench.instructions_registry", package)
    monkeypatch.setattr(tasks, "_missing", lambda package: False)
    (spec,) = tasks.load(["ifbench"], data).specs
    (doc,) = spec["custom_dataset"]()["train"]
    for text, strict, loose in (("two words", 1, 1), ("Here:\ntwo words", 0, 1), ("", 0, 0)):
        found = instructions.ifbench(doc, [text])
        assert (found["prompt_level_strict_acc"], found["prompt_level_loose_acc"]) == (strict, loose)
    assert instructions.over_instructions([[True, False], [True]]) == pytest.approx(2 / 3)


def test_files_that_are_not_as_published_are_told(some, tmp_path):
    file = tmp_path / "KMMLU/data/Law-test.csv"
    _write(file, [{key: value for key, value in QUESTION.items() if key != "B"}])
    with pytest.raises(ConfigError, match="Law-test.csv, row 1: no field 'B', which task 'kmmlu_law' needs"):
        tasks.load(["kmmlu_law"], tmp_path)
    file.write_text("question,A\nq\n")
    with pytest.raises(ConfigError, match="Law-test.csv, row 1: 1 values for 2 columns"):
        tasks.load(["kmmlu_law"], tmp_path)
    file.write_bytes(b"question\n\xff\n")
    with pytest.raises(ConfigError, match="not a table of UTF-8 text"):
        tasks.load(["kmmlu_law"], tmp_path)
    _write(file, [QUESTION])
    _write(file.with_suffix(".jsonl"), [QUESTION])
    with pytest.raises(ConfigError, match="are both the test split of HAERAE-HUB/KMMLU: keep one of them"):
        tasks.load(["kmmlu_law"], tmp_path)


def test_a_column_of_whole_numbers_is_one(tmp_path):
    text = '\ufeffa,b,c\n1,01,"x, ""y""\nz"\n-20,2,w\n'
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    assert rows.read_rows(tmp_path / "t.csv", "t", {}) == [
        {"a": 1, "b": "01", "c": 'x, "y"\nz'},
        {"a": -20, "b": "2", "c": "w"},
    ]
    (tmp_path / "t.json").write_text('{"data": [{"a": 1}]}')
    assert rows.read_rows(tmp_path / "t.json", "t", {"a": int}) == [{"a": 1}]


def test_the_table_names_sets_of_tasks(manager):
    asked = {e.cfg.get("dataset_path") for e in manager.task_index.values() if e.cfg} | {
        "klue/klue",
        "bzantium/KoSimpleQA",
    }
    for data_set, entry in published.table().items():
        assert data_set in asked or "tasks" in entry, data_set
        assert set(entry.get("tasks", ())) <= set(manager.task_index), data_set
