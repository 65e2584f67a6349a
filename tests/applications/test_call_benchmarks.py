"""`kanana eval` on sets of function calls: every item is asked or counted as refused, with and without a grammar."""

import json
import shutil
import sys

import own_models
import pytest

from kanana_jax.applications import call_benchmarks
from kanana_jax.cli import main
from kanana_jax.data import microworld
from kanana_jax.errors import ConfigError, UserError

CITY = {"type": "object", "properties": {"city": {"enum": ["서울", "부산"]}}, "required": ["city"]}
TRUTH = {"role": "assistant", "tool_calls": [{"function": {"name": "get", "arguments": '{"city": "서울"}'}}]}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return own_models.write(tmp_path_factory.mktemp("asked"), "bpe", microworld.World.create(0, 100), 1024)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three turns: a call, an answer, and a call of a function whose schema cannot be guaranteed."""
    folder = tmp_path_factory.mktemp("sets")

    def row(number, kind, truth, parameters=CITY):
        tool = {"type": "function", "function": {"name": "get", "parameters": parameters}}
        asked = [{"role": "user", "content": "서울 날씨?"}]
        return dict(
            serial_num=number, category=kind, input_messages=asked, input_tools=[tool],
            type_of_output=kind, ground_truth=truth, acceptable_arguments=None,
        )  # fmt: skip

    rows = [
        row(1, "call", TRUTH),
        row(2, "completion", {"role": "assistant", "content": "맑아요."}),
        row(3, "call", TRUTH, {"properties": {"city": {"not": {}}}}),
    ]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "calldecision.jsonl").write_text(lines, encoding="utf-8")
    return folder


def test_a_model_is_asked_with_and_without_a_grammar(model, data, tmp_path, capsys, monkeypatch):
    pytest.importorskip("llguidance")
    monkeypatch.setattr(call_benchmarks, "LONGEST", 24)
    how = ["--tasks", "functionchat_calldecision", "--data-dir", str(data)]
    for name, more in (("a", []), ("b", ["--free-calls"])):
        assert main(["eval", str(model), *how, *more, "--output", str(tmp_path / f"{name}.json")]) == 0
        results = json.loads((tmp_path / f"{name}.json").read_text())["results"]
        assert results["functionchat_calldecision"]["n"] == 3
        assert results["functionchat_calldecision"]["refused"] == 1
        assert results["functionchat_calldecision/call"]["n"] == 2
        lines = [json.loads(line) for line in (tmp_path / f"{name}.samples.jsonl").read_text().splitlines()]
        assert [bool(line["refused"]) for line in lines] == [False, False, True] and "'not'" in lines[2]["refused"]
        assert all(line["cut"] for line in lines if line["broken"]) or name == "b"  # the grammar breaks no call
        # An answer in text is right where one is expected, and nowhere else.
        said = bool(lines[1]["content"].strip()) and not lines[1]["calls"] and not lines[1]["broken"]
        assert lines[1]["accuracy"] == said and lines[2]["accuracy"] == 0
        right = sum(line["accuracy"] for line in lines) / 3
        assert results["functionchat_calldecision"]["accuracy"] == pytest.approx(right)
    assert main(["eval", "--compare", str(tmp_path / "a.json"), str(tmp_path / "b.json")]) == 0
    assert "functionchat_calldecision" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options, told",
    [
        (["--tasks", "bfcl_multiple"], "--data-dir"),
        (["--tasks", "bfcl_multiple,microworld"], "run of their own"),
        (["--tasks", "bfcl_multiple", "--chat"], "--chat has no effect"),
        (["--tasks", "bfcl_multiple", "--shots", "2"], "--shots has no effect"),
        (["--tasks", "microworld", "--free-calls"], "--free-calls"),
        (["--tasks", "bfcl_multipel", "--data-dir", "."], "bfcl_multiple"),
    ],
)
def test_options_that_do_not_fit_are_told(model, tmp_path, options, told, capsys):
    assert main(["eval", str(model), *options, "--output", str(tmp_path / "o.json")]) == ConfigError.exit_code
    assert told in capsys.readouterr().err


def test_without_the_extra_a_sentence_says_how_to_install_it(model, data, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    how = ["--tasks", "functionchat_calldecision", "--data-dir", str(data), "--output", str(tmp_path / "o.json")]
    assert main(["eval", str(model), *how]) == ConfigError.exit_code
    told = capsys.readouterr().err
    assert "llguidance" in told and "[calls]" in told and "Traceback" not in told


def test_a_model_whose_template_writes_no_known_calls_is_refused(model, data, tmp_path, capsys):
    plain = shutil.copytree(model, tmp_path / "plain")
    (plain / "chat_template.jinja").write_text("{{ tools }}{{ messages[0].content }}", encoding="utf-8")
    how = ["--tasks", "functionchat_calldecision", "--data-dir", str(data), "--output", str(tmp_path / "o.json")]
    assert main(["eval", str(plain), *how]) == UserError.exit_code
    assert "give the model a template in one of them" in capsys.readouterr().err and not (tmp_path / "o.json").exists()
