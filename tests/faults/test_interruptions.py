"""Killed, told to stop, out of disk: a run ends with the losses of an undisturbed one, or with a clear error."""

import json
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import FLAGS, ROOT, losses

STEPS = 30
# KANANA_KILLS=10 makes the drill longer.
KILLS = int(os.environ.get("KANANA_KILLS", "2"))


def _command(workdir: pathlib.Path, *more: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "kanana_jax",
        "run",
        "--config",
        str(ROOT / "tests/multiprocess/small.py"),
        "--workdir",
        str(workdir),
        f"--config.stage1.train.tokens={480 * STEPS}",
        "--config.stage1.train.checkpoint.every=3",
        "--config.sources.dialogue.holdout=0.2",
        "--config.stage1.train.eval_every=10",
        *more,
    ]


def _start(command, **kwargs):
    env = os.environ | {"XLA_FLAGS": FLAGS}  # one device, and little effort
    return subprocess.Popen(
        command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **kwargs
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    process = _start(_command(workdir))
    assert process.wait() == 0, process.stderr.read()
    return workdir


@pytest.fixture
def workdir(undisturbed, tmp_path):
    """One that holds nothing but the programs of `undisturbed`."""
    shutil.copytree(undisturbed / "compiled", tmp_path / "run/compiled")
    return tmp_path / "run"


def _wait_for_step(workdir, step, process):
    file = workdir / "stage1/metrics.jsonl"
    while process.poll() is None:
        if file.exists() and f'"step": {step},' in file.read_text():
            return True
        time.sleep(0.002)
    return False


def _out_of_disk(workdir):
    """What a run says for which a limit on the size of written files stands for the full disk."""

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

    process = _start(_command(workdir), preexec_fn=limit)
    assert process.wait() == 1
    return process.stderr.read()


def test_killed_again_and_again_and_out_of_disk_the_losses_are_the_same_bits(undisturbed, workdir):
    """A full disk is told and the last checkpoint stands; the run goes on once there is room."""
    rng = random.Random(int(os.environ.get("KANANA_KILL_SEED", "0")))
    killed, during_write = 0, 0
    for wanted in (rng.randrange(2, 8), *sorted(rng.sample(range(8, STEPS - 6), KILLS - 1))):
        process = _start(_command(workdir))
        if _wait_for_step(workdir, wanted, process):
            # Half of the time wait for a checkpoint that is just being written.
            deadline = time.time() + 3
            while killed % 2 and time.time() < deadline and not list((workdir / "stage1/checkpoints").glob("*tmp*")):
                time.sleep(0.001)
            during_write += bool(list((workdir / "stage1/checkpoints").glob("*tmp*")))
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.wait()
    before = sorted(int(p.name) for p in (workdir / "stage1/checkpoints").iterdir() if p.name.isdigit())
    error = _out_of_disk(workdir)
    (message,) = [line for line in error.splitlines() if line.startswith("kanana:")]
    assert "Traceback" not in error, error
    assert "could not be written" in message and "disk is full" in message and "last complete one is step" in message
    after = sorted(int(p.name) for p in (workdir / "stage1/checkpoints").iterdir() if p.name.isdigit())
    assert before and before[-1] in after
    process = _start(_command(workdir))
    assert process.wait() == 0, process.stderr.read()
    print(f"killed {killed} times, {during_write} during a checkpoint")
    assert killed >= max(KILLS // 2, 1)
    assert losses(workdir) == losses(undisturbed)
    assert json.loads((workdir / "stage1/data_state.json").read_text()) == json.loads(
        (undisturbed / "stage1/data_state.json").read_text()
    )


def test_sigterm_saves_exits_75_and_goes_on(undisturbed, workdir):
    process = _start(_command(workdir, "--config.stage1.train.checkpoint.every=1000"))
    assert _wait_for_step(workdir, 5, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 75
    message = process.stderr.read()
    assert "saved at step" in message and "Traceback" not in message
    (step,) = [int(p.name) for p in (workdir / "stage1/checkpoints").iterdir() if p.name.isdigit()]
    assert 5 <= step < STEPS
    process = _start(_command(workdir, "--config.stage1.train.checkpoint.every=1000"))
    assert process.wait() == 0, process.stderr.read()
    assert losses(workdir) == losses(undisturbed)
