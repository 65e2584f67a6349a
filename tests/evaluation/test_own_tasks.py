"""Own questions asked through the harness: right answers score 1, and results are compared, in training too."""

import json
import shutil

import jax
import own_models
import pytest

pytest.importorskip("lm_eval")

from lm_eval.api.model import LM  # noqa: E402

from kanana_jax import cli  # noqa: E402
from kanana_jax.data import microworld  # noqa: E402
from kanana_jax.errors import ConfigError  # noqa: E402
from kanana_jax.evaluation import compare, own_sets, run, tasks  # noqa: E402
from kanana_jax.evaluation.in_training import TasksConfig, make_ask  # noqa: E402
from kanana_jax.inference.session import Session  # noqa: E402

CHOICES = [
    {"question": "한국의 수도는 어디인가?", "choices": ["서울", "부산"], "answer": "서울"},
    {"question": "가장 큰 섬은 {{무엇}}인가?", "choices": ["강화도", "거제도", "제주도"], "answer": "C"},
]
SHORT = [
    {"question": "연차는 며칠인가요?", "answers": ["15일", "보름"]},
    {"question": "점심시간은 언제인가요?", "answer": "12:30"},
]
FREE = [{"question": "비밀번호는 어떻게 바꾸나요?", "reference": "설정에서 바꿉니다.\n그다음 다시 로그인하세요."}]


def _file(folder, name, rows):
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), "utf-8")
    return str(folder / f"{name}.jsonl")


class Told(LM):
    """A model of the harness that answers as it is told, and keeps what it was asked."""

    def __init__(self, answers):
        super().__init__()
        self.answers, self.asked = list(answers), []

    def loglikelihood(self, requests, disable_tqdm=False):
        self.asked += [request.args for request in requests]
        return [(0.0 if request.args[1].strip() in self.answers else -5.0, True) for request in requests]

    def generate_until(self, requests, disable_tqdm=False):
        self.asked += [request.args for request in requests]
        return self.answers[: len(requests)]

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        raise NotImplementedError

    def apply_chat_template(self, chat_history, add_generation_prompt=True):
        return "".join(f"<{m['role']}>{m['content']}" for m in chat_history) + "<assistant>"

    def chat_template(self, chat_template=False):
        return "a template"

    @property
    def tokenizer_name(self):
        return "told"


def test_choices_are_listed_and_the_likeliest_letter_counts(tmp_path):
    model = Told(["A"])
    found = run.evaluate(model, [_file(tmp_path, "kpi", CHOICES)])
    assert found["results"]["kpi"]["acc"] == 0.5 and found["documents"]["kpi"]["acc"] == [1.0, 0.0]
    assert model.asked[0] == ("질문: 한국의 수도는 어디인가?\nA. 서울\nB. 부산\n답:", " A")
    assert [text for _, text in model.asked] == [" A", " B", " A", " B", " C"]
    assert "{{무엇}}" in model.asked[-1][0]  # a question is text, no template


def test_short_answers_are_scored_against_the_best(tmp_path):
    file = _file(tmp_path, "leave", SHORT)
    model = Told([" 15 일.", " 12:40"])
    found = run.evaluate(model, [file])["results"]["leave"]
    assert (found["exact_match"], found["n"], found["shots"]) == (0.5, 2, 0)
    assert found["char_f1"] == pytest.approx((2 * 3 / 8 + 2 * 4 / 10) / 2)  # shared: 3 of 5 + 3, 4 of 5 + 5 characters
    assert model.asked[0][0] == "질문: 연차는 며칠인가요?\n답:" and model.asked[0][1]["until"] == ["\n"]
    model = Told(["<think>13:30?\n아니</think>\n12:30", "x"])
    run.evaluate(model, [file], shots=1)
    assert "답: 12:30\n\n질문: 연차" in model.asked[0][0]  # the other question is the example


def test_a_chat_model_is_asked_the_bare_question_and_its_whole_answer_counts(tmp_path):
    model = Told(["<think>보름?\n음</think>\n\n15일", "12:30"])
    found = run.evaluate(model, [_file(tmp_path, "leave", SHORT)], chat=True)["results"]["leave"]
    assert (found["exact_match"], found["chat"]) == (1.0, True)
    assert model.asked[0][0] == "<user>연차는 며칠인가요?\n\n답만 짧게 쓰세요.<assistant>"
    assert model.asked[0][1]["until"] == []


def test_free_answers_have_a_score_by_question(tmp_path):
    file = _file(tmp_path, "how", FREE)
    model = Told([FREE[0]["reference"]])
    found = run.evaluate(model, [file])
    assert found["documents"]["how"]["chrf"] == [pytest.approx(100.0)]
    assert model.asked[0][1]["until"] == ["\n\n"]  # its reference has two lines
    assert run.evaluate(Told(["모릅니다"]), [file])["results"]["how"]["chrf"] < 30


def test_a_file_is_no_second_task_of_one_name(tmp_path):
    one = _file(tmp_path, "kpi", CHOICES)
    (tmp_path / "b").mkdir()
    two = _file(tmp_path / "b", "kpi", SHORT)
    with pytest.raises(ConfigError, match="would be a second task 'kpi': rename the file"):
        tasks.load([one, two], None)
    with pytest.raises(ConfigError, match="would be a second task 'gsm8k'"):
        tasks.load([_file(tmp_path, "gsm8k", SHORT)], None)
    with pytest.raises(ConfigError, match="--data-dir has no effect on"):
        tasks.load([one], tmp_path)
    with pytest.raises(ConfigError, match="which is not there"):
        tasks.load([str(tmp_path / "none.jsonl")], None)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return own_models.write(tmp_path_factory.mktemp("own"), "bpe", microworld.World.create(0, 200))


def test_the_verb_evaluates_and_a_stage_asks_the_same(model, tmp_path, capsys):
    kpi, leave = _file(tmp_path, "kpi", CHOICES), _file(tmp_path, "leave", SHORT)
    outputs = [str(tmp_path / f"{n}.json") for n in "ab"]
    assert cli.main(["eval", str(model), "--tasks", f"{kpi},{leave}", "--output", outputs[0]]) == 0
    shutil.copy(*outputs)
    found = json.loads((tmp_path / "a.json").read_text("utf-8"))["results"]
    assert {"acc", "acc_stderr"} <= found["kpi"].keys() and found["leave"]["n"] == 2
    assert cli.main(["eval", "--compare", *outputs]) == 0
    shown = capsys.readouterr().out
    assert "kpi" in shown and "leave" in shown
    session = Session.load(str(model), devices=jax.devices()[:1])
    ask = make_ask(TasksConfig((kpi,)), session.model, session.tokenizer, session.mesh, 0)
    assert ask(session.params)["kpi"]["acc"] == found["kpi"]["acc"]


def test_two_states_of_a_file_are_not_compared(tmp_path):
    def asked():
        settings = {"chat": False, "limit": None}
        return run.evaluate(Told(["15일", "12:30"]), [file]) | {"settings": settings}

    file = _file(tmp_path, "leave", SHORT)
    before = asked()
    compare.compare(before, asked())
    _file(tmp_path, "leave", [{**SHORT[0], "answers": ["15일", "15"]}, SHORT[1]])  # the same prompts, other answers
    with pytest.raises(ConfigError, match=r"'leave' was not asked in the same way in both \(version 1.0-"):
        compare.compare(before, asked())


def test_the_verb_tasks_shows_how_a_file_is_understood(tmp_path, capsys):
    file = _file(tmp_path, "kpi", [{**CHOICES[0], "team": "HR"}, CHOICES[1]])
    assert cli.main(["tasks", file]) == 0
    shown = capsys.readouterr().out
    for text in (
        "own questions, each with choices",
        "acc",
        "team",
        "질문: 한국의 수도는 어디인가?",
        "A. 서울",
        "with --chat",
        "right answer",
    ):
        assert text in shown
    assert cli.main(["tasks", file, "--json"]) == 0
    about = json.loads(capsys.readouterr().out)["kpi"]
    assert about["prompt"].startswith("질문: 한국") and about["prompt"].endswith("답:")
    assert about["chat_prompt"].startswith("한국") and not about["chat_prompt"].endswith("답:")
    assert (about["form"], about["questions"], about["right"], about["unread"]) == ("choices", 2, "A", ["team"])
    assert cli.main(["tasks", _file(tmp_path, "bad", [*SHORT, *FREE])]) == 2
    assert "line 3: field 'reference'" in capsys.readouterr().err
    assert own_sets.name_of("a/b.c.jsonl.gz") == "b.c"
