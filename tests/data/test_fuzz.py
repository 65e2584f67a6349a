"""Some hundred hostile inputs of each kind through every reader; `benchmarks/fuzz_inputs.py` tries thousands."""

import os
import subprocess
import sys

from conftest import ROOT


def test_hostile_inputs_end_in_results_broken_lines_or_errors_of_ours():
    count = os.environ.get("KANANA_FUZZ", "100")
    run = subprocess.run(
        [sys.executable, ROOT / "benchmarks/fuzz_inputs.py", "--count", count, "--seed", "1"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert run.returncode == 0, run.stdout + run.stderr[-3000:]
    assert len(run.stdout.splitlines()) == 5
