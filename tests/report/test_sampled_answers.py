"""Answers before and after a stage that samples, side by side in every language."""

import json

from kanana_jax.report.page import Table
from kanana_jax.stages.sampling_chapter import CHAPTER


def test_answers_of_each_language_are_shown(tmp_path):
    """The file has twelve of the one, then twelve of the other."""
    lines = [
        [
            {"lang": lang, "prompt": f"{lang} {i}", "text": f"{when} {i}", "reward": 0.5}
            for lang in ("ko", "en")
            for i in range(12)
        ]
        for when in ("before", "after")
    ]
    (tmp_path / "online").mkdir()
    (tmp_path / "online/answers.json").write_text(json.dumps(dict(zip(("before", "after"), lines))))
    step = {"step": 1, "tokens": 1, "loss": 0.7, "answer_tokens": 3.0}
    (tmp_path / "online/metrics.jsonl").write_text(json.dumps(step) + "\n")
    (shown,) = [b for b in CHAPTER.blocks({"online": tmp_path / "online"}) if isinstance(b, Table)]
    assert [row[:2] for row in shown.rows] == [(lang, f"{lang} {i}") for lang in ("ko", "en") for i in range(4)]
    assert all(row[2].startswith("before") and row[4].startswith("after") for row in shown.rows)
