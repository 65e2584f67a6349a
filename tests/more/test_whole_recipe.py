"""Every stage of the demo, small: it ends, leaves what the report shows, and is the same after kills in five stages."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT

pytestmark = pytest.mark.more
KILLED = ("stage2", "student", "online", "rag_sft", "calls_ko")


def test_the_whole_recipe_is_the_same_after_kills(tmp_path):
    command = [sys.executable, str(ROOT / "benchmarks/demo.py"), "--config", f"{ROOT}/configs/tiny.py:whole-test"]
    env = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    done = subprocess.run(
        [*command, "--output", str(tmp_path), "--kills", ",".join(KILLED)], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    found = json.loads((tmp_path / "demo.json").read_text(encoding="utf-8"))
    assert len(found["killed_in"]) == len(KILLED) and found["differ"] == []
    page = (tmp_path / "whole/report.html").read_text(encoding="utf-8")
    made = "Questions and answers made of documents"
    for title in (
        "Score against compute",
        "Surgery",
        "Reward models",
        "Merging",
        "Embeddings",
        made,
        "Beside the paper",
    ):
        assert f"{title}</h2>" in page, title
