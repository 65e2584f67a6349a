"""Fifty steps of one process, by processes that are killed and hang: the losses and data of a run that nothing befell.

Two, one killed and later one hung, begun again by `launch/local.py`; in `make check-more` also four, one killed; two
go on, one hangs; one finishes.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from conftest import FLAGS, ROOT, losses

from kanana_jax import config as config_lib
from kanana_jax.recipe import run as recipe

CONFIG = ROOT / "tests/multiprocess/small.py"
TIMEOUT = 30  # of a machine that has other things to do
HANGS = 15  # seconds that the watchers of the stopped process wait


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """One process, one device."""
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    recipe.run(config_lib.read_config_file(str(CONFIG)), workdir, devices=jax.devices()[:1])
    return workdir


def _start(workdir, processes, log, *more, options=()):
    # The compiler optimises less: starting is nearly all that these runs do.
    env = os.environ | {"XLA_FLAGS": FLAGS}
    return subprocess.Popen(
        [
            *(sys.executable, str(ROOT / "launch/local.py"), "--processes", str(processes), "--timeout", str(TIMEOUT)),
            *options,
            *("--", "--config", str(CONFIG), "--workdir", str(workdir), *more),
        ],
        cwd=ROOT,
        env=env,
        stdout=log.open("w"),
        stderr=subprocess.STDOUT,
    )


def _signal(run, workdir, log, step, process, sign):
    """Sends the signal to a training process once a step is logged; returns whom it hit."""
    metrics = workdir / "stage1/metrics.jsonl"
    while not (metrics.exists() and f'"step": {step},' in metrics.read_text()):
        assert run.poll() is None, log.read_text()
        time.sleep(0.005)
    pid = int(re.findall(rf"worker: pid (\d+) on \S+ is process {process}$", log.read_text(), re.M)[-1])
    os.kill(pid, sign)
    return pid


def _end(run, log):
    """The exit code and what the watchers said."""
    code = run.wait(timeout=TIMEOUT * 12)
    return code, re.findall(r"worker: (?!pid)(.+)", log.read_text())


def _checkpoints(workdir):
    return sorted(int(p.name) for p in (workdir / "stage1/checkpoints").iterdir() if p.name.isdigit())


def _same_as(undisturbed, workdir):
    assert len(losses(workdir)) == len(losses(undisturbed)) == 50
    np.testing.assert_allclose(losses(workdir), losses(undisturbed), atol=1e-5)
    for file in ("data_state.json", "data_report.json"):
        found, wanted = (json.loads((w / "stage1" / file).read_text()) for w in (workdir, undisturbed))
        assert found == wanted


def test_killed_and_hung_two_hosts_begin_again_by_themselves(undisturbed, tmp_path):
    workdir, log = tmp_path / "run", tmp_path / "log"
    run = _start(workdir, 2, log, "--config.mesh.fsdp=2", options=("--restarts", "3", "--timeout", str(HANGS)))
    _signal(run, workdir, log, 4, 1, signal.SIGKILL)
    pid = _signal(run, workdir, log, 30, 1, signal.SIGSTOP)
    code, said = _end(run, log)
    assert code == 0, log.read_text()
    assert "local: restart 2 of 3" in log.read_text() and "local: restart 3" not in log.read_text()
    assert len(said) == 6, said
    assert all("process 1 of 2" in line and "was killed by SIGKILL" in line for line in said[:2]), said
    assert all(_hung(line, pid) for line in said[2:4]) and set(said[4:]) == {"all 2 processes are done"}, said
    _same_as(undisturbed, workdir)


def _hung(line, pid):
    return f"process 1 ({os.uname().nodename}, pid {pid}) is without a sign of life" in line


@pytest.mark.more
def test_killed_on_four_hosts_hung_on_two_finished_on_one(undisturbed, tmp_path):
    workdir, log = tmp_path / "run", tmp_path / "log"

    run = _start(workdir, 4, log, "--config.mesh.data=2", "--config.mesh.fsdp=2", "--config.mesh.slices=2")
    _signal(run, workdir, log, 6, 2, signal.SIGKILL)
    code, lines = _end(run, log)
    assert code == 1 and len(lines) == 4, log.read_text()
    assert all("process 2 of 4" in line and "was killed by SIGKILL" in line for line in lines), lines
    first = _checkpoints(workdir)
    assert first

    more = "--config.mesh.fsdp=2", "--config.stage1.train.checkpoint.every=2"
    run = _start(workdir, 2, log, *more, options=("--timeout", str(HANGS)))
    pid = _signal(run, workdir, log, first[-1] + 6, 1, signal.SIGSTOP)
    code, lines = _end(run, log)
    assert code == 1 and len(lines) == 2, log.read_text()
    assert all(_hung(line, pid) for line in lines), lines
    second = _checkpoints(workdir)
    assert second[-1] > first[-1]

    recipe.run(config_lib.read_config_file(str(CONFIG)), workdir, devices=jax.devices()[:1])
    _same_as(undisturbed, workdir)
    starts = json.loads((workdir / "config.json").read_text())["starts"]
    told = [re.search(r" in (\d+) processes", s["devices"]) for s in starts]
    assert [found and found[1] for found in told] == ["4", "2", None]


def test_a_refused_config_ends_all_and_is_not_tried_again(undisturbed, tmp_path):
    log = tmp_path / "log"
    run = _start(undisturbed, 2, log, "--config.mesh.fsdp=2", "--config.seed=7")
    assert run.wait(timeout=120) == 2, log.read_text()
    assert log.read_text().count("seed was 0, is 7") >= 2  # both say it, none waits for the other
