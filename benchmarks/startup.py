"""Seconds from `kanana run` to the first step of `configs/tiny.py`: from nothing, and again on the same workdir.

    python benchmarks/startup.py [--config configs/tiny.py] [--workdir DIR]

Each start is stopped by SIGTERM after its first steps; the second finds data, vocabulary and programs there.
"""

import argparse
import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]


def start(config: str, workdir: pathlib.Path) -> dict[str, float]:
    """Starts a run, waits for a step that is new, and stops it; wall and CPU seconds, and the load of the machine."""
    metrics = workdir / "stage1/metrics.jsonl"
    before = len(_steps(metrics))
    used = _cpu()
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "kanana_jax", "run", "--config", config, "--workdir", str(workdir)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    while len(_steps(metrics)) <= before:
        if process.poll() is not None:
            sys.exit(f"startup: the run ended before its first step: {process.stderr.read().strip().splitlines()[-1]}")
        time.sleep(0.01)
    seconds = time.perf_counter() - began
    process.send_signal(signal.SIGTERM)
    process.communicate()
    return {"wall_s": round(seconds, 1), "cpu_s_with_stop": round(_cpu() - used, 1), "load": os.getloadavg()[0]}


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _steps(file: pathlib.Path) -> list[int]:
    """Steps logged; an evaluation at step 0 is none."""
    if not file.exists():
        return []
    lines = (line for line in file.read_text(encoding="utf-8").split("\n") if line.endswith("}"))
    return [row["step"] for row in map(json.loads, lines) if "loss" in row]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/tiny.py")
    parser.add_argument("--workdir", type=pathlib.Path, help="default: a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workdir = options.workdir or pathlib.Path(folder) / "run"
        for name in ("from nothing", "again"):
            print(json.dumps({"start": name, **start(options.config, workdir)}), flush=True)


if __name__ == "__main__":
    main()
