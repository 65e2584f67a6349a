"""`kanana tasks`: what it says of files and columns is what the evaluation itself reads."""

import json
import subprocess
import sys

import pytest

pytest.importorskip("lm_eval")

from kanana_jax.cli import main  # noqa: E402
from kanana_jax.errors import ConfigError, UserError  # noqa: E402
from kanana_jax.evaluation import listing, published, tasks  # noqa: E402

LISTED = listing.listed()


def test_the_list_is_made_without_the_harness():
    code = "from kanana_jax.cli import main; import sys; main(['tasks']); print('lm_eval' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False" and "kmmlu_cot" in done.stdout and "kanana_base" in done.stdout


def test_every_task_of_ours_is_listed():
    assert set(tasks.known()) <= set(LISTED)
    assert all(task.summary for task in LISTED.values())


@pytest.mark.parametrize("name", [n for n, task in LISTED.items() if task.reads == "files" and not task.hub])
def test_a_missing_file_is_the_listed_one(name, tmp_path):
    with pytest.raises(UserError) as raised:
        tasks.load([name], tmp_path)
    told = str(raised.value)
    assert any(file in told for file in LISTED[name].files) or "needs the package" in told


@pytest.mark.parametrize("name", [n for n, task in LISTED.items() if task.reads == "files"])
def test_columns_are_those_that_the_task_asks_for(name):
    config = tasks.load_yaml(tasks.known()[name], resolve_func=False)
    asked = {field for field in tasks._fields(config) if field.isidentifier() and not callable(config.get(field))}
    assert set(LISTED[name].columns) >= asked - {"folder"}


def test_which_files_are_here(tmp_path, capsys):
    (tmp_path / "gsm8k").mkdir()
    (tmp_path / "gsm8k/test.jsonl").write_text("")
    (tmp_path / "kobest").mkdir()
    assert not LISTED["gsm8k"].missing(tmp_path) and not LISTED["kobest"].missing(tmp_path)
    assert LISTED["mmlu"].missing(tmp_path) == ["mmlu/test.jsonl.gz", "mmlu/dev.jsonl.gz"]
    assert main(["tasks", "--data-dir", str(tmp_path)]) == 0
    rows = {line.split()[0]: line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("  ")}
    assert rows["gsm8k"] == "here" and rows["kobest_wic"] == "here" and rows["mmlu"] == "missing"


def test_a_published_layout_is_one_that_is_found(tmp_path):
    for name in ("kmmlu", "haerae", "hrm8k", "kosimpleqa"):
        task = LISTED[name]
        for file in task.files[1:]:
            place = tmp_path / name / file.replace("PART", "law").replace("SPLIT", "test").replace(".*", ".csv")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text("a\n1\n")
            part = next(iter(published.table()[task.hub].get("files", {"law": ""})))
            assert published.find(tmp_path / name, task.hub, part, {"test": True}) == {"test": place}
            place.unlink()
            if "files" in published.table()[task.hub]:
                break


def test_one_task_one_group_and_a_name_that_is_wrong(capsys, monkeypatch):
    assert main(["tasks", "kanana_base"]) == 0 and "kmmlu" in capsys.readouterr().out
    assert main(["tasks", "mmlu_cot", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["mmlu_cot"]["files"] == ["mmlu/test.jsonl.gz"]
    monkeypatch.setattr(tasks, "harness_manager", lambda: tasks.TaskManager(include_defaults=False))
    assert main(["tasks", "kmmlu_cto"]) == ConfigError.exit_code
    assert "did you mean 'kmmlu_cot'?" in capsys.readouterr().err
