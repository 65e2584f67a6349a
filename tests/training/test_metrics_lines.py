"""Which lines of `metrics.jsonl` a new start keeps."""

import json

import pytest

from kanana_jax.training.metrics import JsonLines


@pytest.mark.parametrize("judged, evaluations", [(0, [0]), (3, [0]), (4, [0, 4]), (None, [0, 4])])
def test_lines_that_will_be_written_again_are_dropped(tmp_path, judged, evaluations):
    file = tmp_path / "metrics.jsonl"
    lines = [{"step": step, "loss": 1.0} for step in range(1, 7)]
    lines += [{"step": step, "eval": {}} for step in (0, 4, 6)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 7, "lo')
    JsonLines(file, 4, judged).close()
    kept = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["step"] for line in kept if "loss" in line] == [1, 2, 3, 4]
    assert [line["step"] for line in kept if "eval" in line] == evaluations
