"""Tasks whose answers are programs: right ones pass, wrong ones do not, and nothing of them runs in this process."""

import json
import os

import pytest
from random_model import folder

pytest.importorskip("lm_eval")

from kanana_jax.data import microworld  # noqa: E402
from kanana_jax.errors import UserError  # noqa: E402
from kanana_jax.evaluation import code, run, sandbox, tasks  # noqa: E402
from kanana_jax.evaluation.harness import HarnessModel  # noqa: E402

HUMANEVAL = [
    {
        "task_id": f"HumanEval/{i}",
        "prompt": f'def add_{i}(x):\n    """Return x plus {i}."""\n',
        "entry_point": f"add_{i}",
        "canonical_solution": f"    return x + {i}\n",
        "test": f"def check(candidate):\n    assert candidate(2) == {2 + i}\n    assert candidate(-1) == {i - 1}\n",
    }
    for i in range(4)
]
MBPP = [
    {
        "task_id": i,
        "text": f"Write a function to add {i}.",
        "code": f"def add(x):\r\n    return x + {i}",
        "test_setup_code": "zero = 0",
        "test_list": [f"assert add(zero) == {i}", f"assert add(1) == {i + 1}", f"assert add(5) == {i + 5}"],
        "challenge_test_list": [],
    }
    for i in (1, 2, 3, 4, 11, 12, 510, 511)
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("code")
    for name, rows in (("humaneval/humaneval", HUMANEVAL), ("mbpp/mbpp", MBPP)):
        file = folder / f"{name}.jsonl"
        file.parent.mkdir()
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(autouse=True)
def confined():
    """Where nothing can be confined the tasks refuse before the model is asked, which is then what is tested."""
    try:
        sandbox.check()
    except UserError as refusal:
        with pytest.raises(UserError, match="is not run here"):
            code.humaneval([["    pass"]], HUMANEVAL[:1])
        pytest.xfail(str(refusal))


class Scripted(HarnessModel):
    """Answers what it is told; all else is a model's."""

    def __init__(self, answer):
        self.answer, self.asked = answer, []

    rank, world_size, device = 0, 1, "cpu"

    def generate_until(self, requests, disable_tqdm=False):
        self.asked += [request.args[0] for request in requests]
        return [self.answer(request.doc, i) for i, request in enumerate(requests)]


def test_right_programs_pass_and_wrong_ones_do_not(data, monkeypatch):
    monkeypatch.delenv("HF_ALLOW_CODE_EVAL", raising=False)
    right = run.evaluate(Scripted(lambda doc, i: doc["canonical_solution"]), ["humaneval"], data_dir=data)
    assert right["results"]["humaneval"]["pass@1"] == 1.0 and right["results"]["humaneval"]["n"] == 4
    half = run.evaluate(Scripted(lambda doc, i: "    return x + 1\n"), ["humaneval"], data_dir=data)
    assert half["results"]["humaneval"]["pass@1"] == 0.25
    assert half["documents"]["humaneval"]["pass@1"] == [0.0, 1.0, 0.0, 0.0]
    assert half["results"]["humaneval"]["pass@1_stderr"] == pytest.approx(0.25)
    assert "HF_ALLOW_CODE_EVAL" not in os.environ


def test_ten_tries_are_counted(data):
    model = Scripted(lambda doc, i: doc["canonical_solution"] if i % 10 < 3 else "    return None\n")
    found = run.evaluate(model, ["humaneval_10"], data_dir=data)["results"]["humaneval_10"]
    assert found["pass@1"] == pytest.approx(0.3) and found["n"] == 4 and len(model.asked) == 40


def test_mbpp_asks_its_test_tasks_with_the_published_examples(data):
    model = Scripted(lambda doc, i: doc["code"])
    found = run.evaluate(model, ["mbpp"], data_dir=data)["results"]["mbpp"]
    assert found["pass@1"] == 1.0 and found["n"] == 3 and found["shots"] == 3, "tasks 11, 12 and 510"
    (prompt, *_) = model.asked
    examples = [prompt.index(f"Write a function to add {i}. Your") for i in (2, 3, 4, 11)]
    assert examples == sorted(examples) and "to add 1. " not in prompt and prompt.count("[DONE]") == 3
    assert prompt.endswith("assert add(5) == 16\n[BEGIN]\n")
    assert (
        run.evaluate(Scripted(lambda doc, i: "def add(x): return x"), ["mbpp"], data_dir=data)["results"]["mbpp"][
            "pass@1"
        ]
        == 0.0
    )


def test_groups_say_shots(data, monkeypatch):
    monkeypatch.setattr(tasks, "groups", lambda: {"ours": {"tasks": {"mbpp": 1, "humaneval": None}}})
    model = Scripted(lambda doc, i: "")
    found = run.evaluate(model, ["ours"], data_dir=data, limit=1)["results"]
    assert found["mbpp"]["shots"] == 1 and found["humaneval"]["shots"] == 0
    assert sorted(prompt.count("[DONE]") for prompt in model.asked) == [0, 1]


def test_a_hub_out_of_reach_is_told(monkeypatch):
    def load(self, specs):
        raise ConnectionError("Couldn't reach 'openai/openai_humaneval' on the Hub\nmore")

    monkeypatch.setattr("lm_eval.tasks.TaskManager.load", load)
    with pytest.raises(
        UserError, match=r"humaneval cannot be loaded \(Couldn't reach 'openai/.*the Hub\): give --data-dir"
    ):
        run.evaluate(Scripted(str), ["humaneval"])


def test_an_answer_that_ends_early_or_never_has_failed():
    docs, answers = HUMANEVAL[:3], [["    import os; os._exit(0)\n"], ["    exit()\n"], ["    raise SystemExit(0)\n"]]
    assert code.humaneval(answers, docs) == [[False], [False], [False]]


def test_code_is_taken_out_of_chat_answers():
    assert code.before_fence("    return x\n```\nThis adds.") == "    return x\n"
    assert code.first_block("def f(): pass\n```\nand\n```python\nother\n```") == "def f(): pass"
    plus = {"prompt": "", "test_imports": ["import math"], "test": "assert f(2) == math.floor(2.5)", "test_list": []}
    assert code.mbpp_plus_instruct([["def f(x): return x\n```\n"], ["def f(x): return 0"]], [plus, plus]) == [
        [True],
        [False],
    ]


def test_small_functions_of_the_embedded_corpus():
    problems = microworld.problems(20)
    assert problems == microworld.problems(30)[:20] and len({p["entry_point"] for p in problems}) > 10
    assert code.humaneval([[p["solution"]] for p in problems], problems) == [[True]] * 20
    others = [problems[i - 2]["solution"] for i in range(20)]
    found = sum(passed for (passed,) in code.humaneval([[o] for o in others], problems))
    assert found < 8, "another function's body is no answer, unless it happens to do the same"
