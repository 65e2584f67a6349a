"""The check of a GPU on small shapes and whatever device is here: figures come, and stay when a part is stopped."""

import importlib
import json
import math
import sys

import pytest
from conftest import ROOT


@pytest.fixture(scope="module")
def check():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield importlib.import_module("device_check")
    sys.path.remove(str(ROOT / "benchmarks"))


def test_a_part_writes_its_figures_and_the_table_repeats_them(check, tmp_path, monkeypatch, capsys):
    file = tmp_path / "found.jsonl"
    monkeypatch.setattr(sys, "argv", ["device_check.py", "--tiny", "--parts", "c", "--output", str(file)])
    with pytest.raises(SystemExit) as ended:
        check.main()
    assert ended.value.code == 0
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert [row["loss"] for row in rows] == ["cross-entropy", "cross-entropy", "KL"]
    assert all(row["part"] == "c" and row["ms"] > 0 and row["roofline_ms"] > 0 for row in rows)
    assert f"ms {rows[-1]['ms']}" in capsys.readouterr().out.rpartition("\n\n")[2]


@pytest.mark.parametrize(
    "rest, told",
    [("import time; time.sleep(600)", "stopped after"), ("raise ValueError('no such card')", "no such card")],
)
def test_what_was_measured_before_a_part_ended_badly_is_kept(check, rest, told):
    command = [sys.executable, "-c", f"print('{{\"ms\": 1.5}}', flush=True); print('chatter', flush=True); {rest}"]
    first, last = check.measured(command, seconds=3)
    assert first == {"ms": 1.5} and told in last["failed"]


def test_nothing_begins_when_the_minutes_are_over(check, tmp_path, monkeypatch):
    file = tmp_path / "found.jsonl"
    monkeypatch.setattr(sys, "argv", ["device_check.py", "--tiny", "--minutes", "0", "--output", str(file)])
    with pytest.raises(SystemExit) as ended:
        check.main()
    assert ended.value.code == 1
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert [row["part"] for row in rows] == ["a", "b", "c", "d", "e"]
    assert {row["failed"] for row in rows} == {"no time left"}


def test_kernels_are_compared_with_float32(check):
    (line,) = check.attention(tiny=True)
    assert line["window"] > 0 and line["equal"]
    assert 0 < line["xla_error"] < 0.02 and 0 < line["xla_gradient_error"] < 0.02


def test_a_pruned_model_is_smaller_and_is_taught(check):
    parent, pruned, distilled = check.compression("", "", tiny=True)
    assert pruned["parameters"] < parent["parameters"]
    assert distilled["tokens_per_s"] > 0 and all(map(math.isfinite, distilled["divergence"]))
