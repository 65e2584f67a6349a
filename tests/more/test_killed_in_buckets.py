"""Runs in buckets, killed five times: the losses of a run in a folder that nothing befell, to the bit.

The lock of a killed run is deleted by hand, as the documentation says, so that nobody waits ten minutes.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time

import fsspec
import pytest
from conftest import ROOT

pytestmark = pytest.mark.more
sys.path.insert(0, str(ROOT / "tests/storage"))
from buckets import BUCKET, gcs, s3  # noqa: E402

STORES = {"gcs": ("gs", "commit_success.txt"), "s3": ("s3", "manifest.json")}


def _command(workdir: str, processes: int, steps: int) -> list[str]:
    run = ["--config", "tests/multiprocess/small.py", "--workdir", workdir, f"--config.mesh.fsdp={processes}"]
    run.append(f"--config.stage1.train.tokens={steps * 480}")
    if processes == 1:
        return [sys.executable, "-m", "kanana_jax", "run", *run]
    return [sys.executable, "launch/local.py", "--processes", str(processes), "--timeout", "120", "--", *run]


def _losses(text: str) -> list[float]:
    return [row["loss"] for row in map(json.loads, text.splitlines()) if "eval" not in row]


def _whole(server, mark: str) -> list[int]:
    """Steps that have their last object."""
    parts = [name.split("/") for name in server.names("run/stage1/checkpoints/")]
    return sorted({int(part[3]) for part in parts if part[3].isdigit() and part[4:] == [mark]})


@pytest.mark.parametrize(("kind", "processes", "kills"), [("gcs", 1, 5), ("gcs", 2, 2), ("s3", 1, 2), ("s3", 2, 1)])
def test_killed_in_a_bucket(kind, processes, kills, request, tmp_path):
    server = request.getfixturevalue(kind)
    scheme, mark = STORES[kind]
    steps = 8 * kills + 10  # a kill comes at most 8 after the one before
    env = os.environ | server.environment
    env |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    env |= {"KANANA_JAX_CACHE": str(tmp_path / "cache"), "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo"}
    files = fsspec.filesystem(scheme)
    if server.names("run/"):  # of the case before
        files.rm(f"{BUCKET}/run", recursive=True)
    log = tmp_path / "log"

    def start(workdir: str) -> subprocess.Popen:
        with log.open("w") as out:
            command = _command(workdir, processes, steps)
            return subprocess.Popen(command, cwd=ROOT, env=env, stdout=out, stderr=out, start_new_session=True)

    assert start(str(tmp_path / "local")).wait() == 0, log.read_text()
    wanted = _losses((tmp_path / "local/stage1/metrics.jsonl").read_text())
    draw = random.Random(0)
    for _ in range(kills):
        reached = max(_whole(server, mark), default=0) + draw.choice((4, 8))
        run = start(f"{scheme}://{BUCKET}/run")
        while max(_whole(server, mark), default=0) < reached:
            assert run.poll() is None, log.read_text()
            time.sleep(0.05)
        time.sleep(0.3 * draw.random())
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        if "run/.lock" in server.names("run/"):
            files.rm_file(f"{BUCKET}/run/.lock")
    assert start(f"{scheme}://{BUCKET}/run").wait() == 0, log.read_text()
    found = _losses(server.content("run/stage1/metrics.jsonl").decode())
    assert len(found) == steps and found == wanted
    assert max(_whole(server, mark)) == steps
