"""Every task that docs and groups name: the harness loads its config on one made-up row, and asks what the row says."""

import gzip
import json
import re

import datasets
import pytest

pytest.importorskip("lm_eval")

from lm_eval.tasks import TaskManager  # noqa: E402

from kanana_jax.errors import ConfigError, UserError  # noqa: E402
from kanana_jax.evaluation import harness_tasks, metrics, run, tasks  # noqa: E402

CHOICE = {"question": "Frage?", "choices": ["w", "x", "y", "z"], "answer": 2, "subject": "botany"}
NLI = {"sentence1": "eins", "sentence2": "zwei", "label": "neutral", "gold_label": "neutral"}
CODE = {"task_id": 11, "prompt": "def f(x):\n", "canonical_solution": "    return x\n", "test": "def check(c): pass", "entry_point": "f",
        "text": "eine Aufgabe", "code": "def f(x): return x", "test_list": ["assert f(1)", "assert f(2)", "assert f(3)"], "test_setup_code": ""}  # fmt: skip
TRANSLATION = {"en": "Tree", "ko": "나무", "ja": "木"}
# Fields as published, one row a task, and what the target must be.
ROWS = {
    "mmlu": (CHOICE, 2), "jmmlu": (CHOICE, 2), "mmlu_cot": (CHOICE, "C"),
    "kmmlu_cot": ({"question": "Frage?", "A": "w", "B": "x", "C": "y", "D": "z", "answer": 3}, "C"),
    "haerae_cot": ({"query": "Frage? (A) w (B) x", "answer": "(B)"}, "B"),
    "gsm8k": ({"question": "Frage?", "answer": "So\n#### 42"}, "So\n#### 42"), "gsm8k_boxed": ({"question": "Frage?", "answer": "So\n#### 42"}, "42"),
    "math_boxed": ({"problem": "Frage?", "solution": "Since \\boxed{\\frac{1}{2}}.", "type": "Algebra", "level": "1"}, "\\frac{1}{2}"),
    "mgsm_en": ({"question": "Frage?", "answer": 42}, "42"), "mgsm_ja": ({"question": "Frage?", "answer": 42}, "42"),
    "bbh": ({"task": "dyck", "input": "Frage?", "target": "]", "prompt": "canary\n-----\nErst."}, "]"),
    "jemhopqa": ({"question": "Frage?", "answer": "ja", "derivations": [["a", "b", ["c"]]]}, "ja"),
    "niilc": ({"question": "Frage?", "answers": ["ja", "yes"]}, "ja"),
    "jsquad": ({"context": "Titel [SEP] Text", "question": "Frage?", "answers": [{"text": "ja", "start": 3}]}, "ja"),
    "jcommonsenseqa": ({"question": "Frage?", **{f"choice{i}": f"w{i}" for i in range(5)}, "label": 3}, 3),
    "jnli": (NLI, "2"), "kornli": (NLI, "2"), "klue_nli": ({"premise": "eins", "hypothesis": "zwei", "label": 1}, 1),
    "klue_ynat": ({"title": "eins", "label": 3}, 3), "klue_mrc": ({"context": "Text", "question": "Frage?", "answers": {"answer_start": [0], "text": ["ja"]}}, "ja"),
    "kosimpleqa": ({"problem": "Frage?", "answer": "ja"}, "ja"),
    "klue_sts": ({"sentence1": "eins", "sentence2": "zwei", "labels": {"label": 4.0, "real-label": 4.0, "binary-label": 1}}, "1"),
    "korsts": ({"sentence1": "eins", "sentence2": "zwei", "score": 2.8}, "0"),
    "xlsum_ja": ({"text": "lang", "summary": "kurz"}, "kurz"),
    **{f"{name}_{a}-{b}": (TRANSLATION, TRANSLATION[b]) for name in ("ntrex", "wmt20") for a, b in (("en", "ja"), ("ja", "en"))},
    **{f"ntrex_{a}-{b}": (TRANSLATION, TRANSLATION[b]) for a, b in (("en", "ko"), ("ko", "en"))},
    "ifeval": ({"key": 1, "prompt": "Sag es.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}, 0),
    **dict.fromkeys(("humaneval", "humaneval_half", "humaneval_10", "humaneval_plus", "humaneval_plus_instruct", "jhumaneval"), (CODE, "    return x\n")),
    **dict.fromkeys(("mbpp", "mbpp_plus", "mbpp_plus_instruct"), (CODE, "def f(x): return x\n[DONE]")),
}  # fmt: skip
ELSEWHERE = ("hrm8k_boxed", "ifbench", "ruler")  # in test_published
MICROWORLD = ("microworld", "microworld_translation", "microworld_arithmetic", "microworld_code")


def test_every_task_of_ours_is_tried_below():
    assert {*ROWS, *MICROWORLD, *ELSEWHERE} == set(tasks.known())


def _folder(folder, name, row):
    config = tasks.load_yaml(tasks.known()[name], resolve_func=False)
    for path in [*(config.get("files") or {}).values(), *([config["join"]["file"]] if "join" in config else [])]:
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        rows = [row, {**row, "task_id": 3}] if "task_id" in row else [row, {**row, "unlike": 1}]
        text = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows).encode()
        file.write_bytes(gzip.compress(text) if file.suffix == ".gz" else text)
    return folder


def test_data_of_nltk_that_is_missing_is_named_before_a_model_is_asked(tmp_path, monkeypatch):
    nltk = pytest.importorskip("nltk")
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    real = tasks._missing
    monkeypatch.setattr(tasks, "_missing", lambda package: package.startswith("nltk:") and real(package))
    folder = _folder(tmp_path, "ifeval", ROWS["ifeval"][0])
    with pytest.raises(UserError, match="needs NLTK's data tokenizers/punkt_tab: python -m nltk.downloader punkt_tab"):
        tasks.load(["ifeval"], folder)
    (tmp_path / "tokenizers/punkt_tab").mkdir(parents=True)
    assert not tasks._missing("nltk:tokenizers/punkt_tab")


@pytest.mark.parametrize("name", sorted(ROWS))
def test_a_task_asks_what_its_rows_say(name, tmp_path, monkeypatch):
    row, target = ROWS[name]
    if name == "ifeval" and tasks._missing("langdetect"):
        with pytest.raises(UserError, match=r"needs the package langdetect: pip install 'lm-eval\[ifeval\]'"):
            tasks.load([name], _folder(tmp_path, name, row))
        return
    monkeypatch.setattr(tasks, "_missing", lambda package: False)
    if name in (
        "kmmlu_cot",
        "haerae_cot",
        "math_boxed",
    ):  # the harness's data sets; its ten thousand files are another test's
        like = tasks.load_yaml(tasks.known()[name], resolve_func=False)["like"]
        found = [
            harness_tasks.Entry(like, harness_tasks.Kind.TASK, None, {"dataset_path": "a/b", "dataset_name": "part"})
        ]
        monkeypatch.setattr(tasks, "leaves", lambda *_: found)
        monkeypatch.setattr(tasks, "_manager", lambda _: TaskManager(include_defaults=False))
    loaded = tasks.load([name], _folder(tmp_path, name, row))
    (spec,) = loaded.specs
    if "like" in tasks.load_yaml(tasks.known()[name], resolve_func=False):
        assert (spec["dataset_path"], spec["dataset_name"], spec["task"]) == ("a/b", "part", f"{name}_part")
        spec["custom_dataset"] = lambda **_: datasets.DatasetDict({"test": datasets.Dataset.from_list([row, row])})
    (task,) = loaded.manager.load([spec])["tasks"].values()
    doc = list(task.eval_docs)[0]
    prompt = task.fewshot_context(doc, 0)
    known_text = [v for k, v in row.items() if isinstance(v, str) and k in _asked(name)]
    assert known_text and all(re.split(r"\[SEP\]|-----", text)[-1].strip() in prompt for text in known_text), prompt
    assert str(task.doc_to_target(doc)) == str(target)
    assert task.config.metadata["version"] and task.aggregation()
    assert task.config.unsafe_code is False


def _asked(name):
    """Fields that a question shows."""
    if name.startswith(("ntrex", "wmt20")):
        return [name.split("_")[1].split("-")[0]]
    if name == "mbpp":
        return ["text"]
    return ["question", "query", "problem", "input", "sentence1", "sentence2", "premise", "hypothesis", "prompt", "context", "title",
            *(["text"] if name == "xlsum_ja" else []), "A", "B", "choice4"]  # fmt: skip


def test_questions_about_the_world(tmp_path):
    for name in MICROWORLD:
        loaded = tasks.load([name], None)
        assert len(loaded.parts[name]) in (2, 4)
        for task in loaded.manager.load(loaded.specs)["tasks"].values():
            doc = list(task.eval_docs)[0]
            assert doc.get("question", doc.get("prompt")) in task.fewshot_context(doc, 0)
            assert task.config.num_fewshot in (0, 4)


def test_groups_name_tasks_that_are_there():
    """The one test that looks through all of the harness's tasks."""
    manager = tasks._manager(True)
    for group, content in tasks.groups().items():
        for name, shots in content["tasks"].items():
            assert name in tasks.known() or name in manager.all_tasks, (group, name)
            assert shots is None or 0 <= shots <= 5
    assert len(tasks.groups()["observatory"]["tasks"]) == 19
    for like, parts in (("kmmlu", 45), ("haerae", 5), ("hendrycks_math", 7)):
        leaves = tasks.leaves(like, manager)
        assert len({leaf.cfg["dataset_name"] for leaf in leaves}) == len(leaves) == parts
    with pytest.raises(ConfigError, match="'mmlo' is unknown: did you mean 'mmlu'"):
        tasks.load(["mmlo"], None)
    with pytest.raises(ConfigError, match="'humaneval_instruct' of the harness runs .* in a sandbox are .*humaneval"):
        tasks.load(["humaneval_instruct"], None)
    with pytest.raises(ConfigError, match="'jemhopqa' is read from local files: give --data-dir"):
        tasks.load(["jemhopqa"], None)
    with pytest.raises(ConfigError, match="'kanana_bas' is unknown: did you mean 'kanana_base'"):
        tasks.load(["kanana_bas"], None)


def test_a_chat_group_is_asked_for_alone():
    with pytest.raises(ConfigError, match="'kanana_instruct' is asked in the chat format"):
        tasks.load(["microworld", "kanana_instruct"], None)


def test_a_hub_set_stands_in_where_no_file_is_there(tmp_path, caplog):
    (spec,) = tasks.load(["humaneval"], tmp_path).specs
    assert spec["dataset_path"] == "openai/openai_humaneval" and "has none of its files" in caplog.text
    with pytest.raises(ConfigError, match="jglue/jcommonsenseqa_valid.jsonl, which is not there"):
        tasks.load(["jcommonsenseqa"], tmp_path)


def test_answers_of_squads_form_are_texts():
    doc = {"answers": [{"text": "小笠原諸島", "start": 25}, {"text": "小笠原諸島を除く日本", "start": 25}]}
    assert metrics.answer_texts_f1(doc, ["小笠原諸島"]) == {"char_f1": 1.0}


def test_overlap_of_bags_is_rouge():
    from rouge_score import rouge_scorer

    a, b = "the cat sat on the mat on the floor", "the cat lay on the mat"
    wanted = rouge_scorer.RougeScorer(["rouge2"]).score(a, b)["rouge2"].fmeasure
    assert metrics.overlap_f1(metrics._pairs(a.split()), metrics._pairs(b.split())) == pytest.approx(wanted)
    assert metrics.overlap_f1(metrics._pairs(["a"]), metrics._pairs(["a", "b"])) == 0.0


def test_bleu_of_japanese_is_of_words(monkeypatch):
    if tasks._missing("MeCab"):
        with pytest.raises(UserError, match=r"needs the package MeCab: pip install 'sacrebleu\[ja\]'"):
            tasks.load(["wmt20_en-ja"], tasks._FOLDER)
        return
    assert metrics.bleu_ja([("私は東京に行きました。", "私は東京に行きました。")] * 2) == pytest.approx(100.0)
    assert 0 < metrics.bleu_ja([("私は東京に行きました。", "私は大阪に行きました。")] * 2) < 100
    assert metrics.rouge2_ja({"summary": "私は東京に行く"}, ["私は東京に住む"])["rouge2"] == pytest.approx(0.75)


# What a row may say in Jinja's notation, each to be told to the model as it stands.
BRACES = (
    "{{ 6 * 7 }}",
    "{% for i in range(3) %}{{ i }}{% endfor %}",
    "{# a note #} x {{",
    "%} }} {% {{ undefined_name }}",
    "{{ lipsum.__globals__['os'].mkdir('RAN') }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
)
MARK = "Marke"


def _asked_with(name, text, folder):
    """The prompt of a task whose row has a text at the end of every field that is shown, and of its subject."""
    shown = {*_asked(name), "subject"} - {"prompt"} | ({"prompt"} if "code" not in name else set())
    row = {k: v + text if isinstance(v, str) and k in shown else v for k, v in ROWS[name][0].items()}
    if "choices" in row:
        row["choices"] = [c + text for c in row["choices"]]
    loaded = tasks.load([name], _folder(folder, name, row))
    (task,) = loaded.manager.load(loaded.specs)["tasks"].values()
    doc = list(task.eval_docs)[0]
    shots = 1 if len(task.sampler.df) > 1 else 0
    return task.fewshot_context(doc, shots), str(task.doc_to_target(doc))


@pytest.mark.parametrize("name", sorted(set(ROWS) - {"kmmlu_cot", "haerae_cot", "math_boxed", "ifeval"}))
def test_braces_in_a_row_are_text_to_every_template(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tasks, "_missing", lambda package: False)
    prompt, target = _asked_with(name, MARK, tmp_path / "mark")
    assert MARK in prompt
    for i, braces in enumerate(BRACES):
        asked = _asked_with(name, braces, tmp_path / str(i))
        head, _, rest = prompt.partition("\n")  # the task file itself shows the subject with spaces
        said = braces.replace("_", " ") if name == "mmlu" else braces
        wanted = f"{head.replace(MARK, said)}\n{rest.replace(MARK, braces)}" if rest else head.replace(MARK, said)
        assert asked == (wanted, target.replace(MARK, braces)), braces
    assert not (tmp_path / "RAN").exists()


def test_a_target_that_looks_like_python_stays_text(tmp_path):
    for answer in ("[1, 2]", "['a']", "[]", "42", "[" * 300 + "]" * 300):
        row = {"question": "Frage?", "answer": answer, "derivations": []}
        loaded = tasks.load(["jemhopqa"], _folder(tmp_path, "jemhopqa", row))
        (task,) = loaded.manager.load(loaded.specs)["tasks"].values()
        doc = list(task.eval_docs)[0]
        assert task.doc_to_target(doc) == answer and f"回答：{answer}" in task.fewshot_context(doc, 1)


def test_templates_are_confined_also_those_of_the_harness():
    import lm_eval.utils

    for template in (
        "{{ lipsum.__globals__ }}",
        "{{ x.__class__.__mro__ }}",
        "{{ cycler.__init__.__globals__.os.getcwd() }}",
        "{{ x.append(1) }}",
        "{{ missing }}",
    ):
        with pytest.raises(ConfigError, match="does not fit its task's template"):
            lm_eval.utils.apply_template(template, {"x": [1]})
    row = {"self": 1, "environment": 2, "x": "ab"}  # names that Jinja's own functions have for their arguments
    assert lm_eval.utils.apply_template("{{ x | regex_replace('b', 'c') }}\n", row) == "ac\n"


def test_no_metric_script_of_the_current_folder_runs(tmp_path, monkeypatch):
    evaluate = pytest.importorskip("evaluate")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "chrf").mkdir()
    (tmp_path / "chrf/chrf.py").write_text("open('RAN', 'w')\n")
    with run._no_metric_from_this_folder(["some_task"]), pytest.raises(ConfigError, match="would be run as the metric"):
        evaluate.load("chrf")
    assert not (tmp_path / "RAN").exists()


def test_rows_of_another_form_are_refused_by_line(tmp_path):
    file = _folder(tmp_path, "jmmlu", CHOICE) / "jmmlu/test.jsonl.gz"
    good = json.dumps(CHOICE)
    for line, told in (
        (json.dumps({**CHOICE, "subject": 7}), "line 2: field 'subject' must be text"),
        (json.dumps({**CHOICE, "question": "\ud83d"}), "line 2: half of a surrogate pair"),
        ("[" * 100_000, "line 2: not JSON"),
    ):
        file.write_bytes(gzip.compress(f"{good}\n{line}\n".encode()))
        with pytest.raises(ConfigError, match=told):
            tasks.load(["jmmlu"], tmp_path)


def test_subjects_of_one_name_are_one_part(tmp_path):
    file = _folder(tmp_path, "jmmlu", CHOICE) / "jmmlu/test.jsonl.gz"
    subjects = ("high school", "high_school", "high/school", "law")
    file.write_bytes(gzip.compress("".join(json.dumps({**CHOICE, "subject": s}) + "\n" for s in subjects).encode()))
    loaded = tasks.load(["jmmlu"], tmp_path)
    assert loaded.parts == {"jmmlu": ["jmmlu_high_school", "jmmlu_law"]}
    made = loaded.manager.load(loaded.specs)["tasks"]
    assert [len(list(task.eval_docs)) for task in made.values()] == [3, 1]
