"""Told to stop, a verb ends with its code and a sentence, wherever it is; nothing of it is left behind."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT

# A command that is at something for a minute, with the shortest patience.
DOES = """
import hashlib, signal, sys, threading, time
from kanana_jax.cli import process
from kanana_jax import cli
process.GRACE_S, process.UNWIND_S, process.SAME_S = 0.3, 0.6, 0.3

def action(options, overrides, command):
    print("begun", flush=True)
    {does}

parser = cli._parser
def patched():
    made = parser()
    made._subparsers._group_actions[0].choices["tasks" if False else "plan"].set_defaults(action=action)
    return made
cli._parser = patched
sys.exit(process.leave(cli.main(["plan", "--config", "tiny", "--topology", "v5p-8"])))
"""
SLEEPS = "time.sleep(60)"
NATIVE = "hashlib.pbkdf2_hmac('sha256', b'', b'', 1 << 28)"  # holds the main thread, not the interpreter
SWALLOWS = """
    while True:
        try: time.sleep(60)
        except BaseException: pass"""
CLEANS_UP = """
    try: time.sleep(60)
    finally: time.sleep(60)"""
WRAPS = """
    try: time.sleep(60)
    except BaseException as error: raise ImportError('while loading') from error"""
THREAD = "threading.Thread(target=time.sleep, args=(60,)).start(); time.sleep(60)"


@pytest.fixture(autouse=True)
def heard():
    """Signals that a shell in the background or `nohup` has the tests ignore; processes that are started would, too."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    ignored = [number for number in numbers if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.default_int_handler)  # which is the default again in what is started
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


def _start(does: str, **more) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", DOES.format(does=does)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )
    assert process.stdout.readline() == "begun\n", process.stderr.read()
    return process


DOINGS = (SLEEPS, NATIVE, SWALLOWS, CLEANS_UP, WRAPS, THREAD)
ENDS = ((signal.SIGTERM, 75), (signal.SIGHUP, 75), (signal.SIGINT, 130))


@pytest.mark.parametrize(
    "does, signum, code",
    [
        # Each work and each signal once; `make check-more` tries every pair.
        pytest.param(does, *end, marks=() if does is SLEEPS or end is ENDS[0] else pytest.mark.more)
        for end in ENDS
        for does in DOINGS
    ],
)
def test_one_signal_ends_it_whatever_it_does(does, signum, code):
    process = _start(does)
    process.send_signal(signum)
    assert process.wait(20) == code
    (line,) = process.stderr.read().splitlines()
    assert line.startswith("kanana: ") and "run the same command again" in line
    assert signum == signal.SIGINT or signum.name in line


def test_a_second_signal_ends_it_at_once():
    process = _start(CLEANS_UP.replace("finally:", "finally: process.UNWIND_S = 50;"))
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 75


def test_a_signal_that_comes_twice_at_once_is_one():
    does = "try: time.sleep(60)\n    finally: time.sleep(0.2); print('cleaned', flush=True)"
    process = _start(f"process.UNWIND_S, process.SAME_S = 30, 5\n    {does}")
    time.sleep(0.5)  # it is inside of `try` now
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 75
    assert process.stdout.read() == "cleaned\n"


def test_nohup_holds():
    process = _start(SLEEPS, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.send_signal(signal.SIGHUP)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 75


def test_a_loop_that_saves_is_not_cut_off_but_by_a_second_signal():
    saves = """
    from kanana_jax.training.preemption import termination
    with termination() as told:
        told(); print('asked', flush=True)
        while not told(): time.sleep(0.01)
        time.sleep({}); print('saved', flush=True)"""
    process = _start(saves.format(1.5))
    assert process.stdout.readline() == "asked\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0 and process.stdout.read() == "saved\n"
    process = _start(saves.format(60))
    assert process.stdout.readline() == "asked\n"
    process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    process.send_signal(signal.SIGHUP)
    assert process.wait(20) == 75


def _children(pid: int) -> list[int]:
    found = []
    for folder in os.listdir("/proc"):
        if folder.isdigit():
            try:
                with open(f"/proc/{folder}/stat") as file:
                    if int(file.read().rpartition(")")[2].split()[1]) == pid:
                        found.append(int(folder))
            except OSError:
                continue
    return found


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    file = tmp_path_factory.mktemp("documents") / "in.jsonl.gz"
    with gzip.open(file, "wt", compresslevel=1) as lines:
        for i in range(40_000):
            lines.write(
                json.dumps({"id": str(i), "lang": "en", "text": f"The river number {i} runs to the sea. " * 20}) + "\n"
            )
    return file


@pytest.fixture
def filtering(documents, tmp_path):
    """A `kanana filter` with two workers at work, in a process group of its own."""
    command = ["filter", "--config", "data/en", "--input", str(documents), "--output", "out", "--workers", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "kanana_jax", *command],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.time() + 60
    saved = tmp_path / "out/state.json"
    while time.time() < deadline and not (saved.exists() and json.loads(saved.read_text()).get("chunks")):
        time.sleep(0.02)
    assert len(_children(process.pid)) == 3  # and the tracker of resources
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize(
    "how", [pytest.param("group SIGTERM", marks=pytest.mark.more), "group SIGINT", "SIGTERM", "SIGKILL"]
)
def test_workers_of_a_filter_end_with_it_and_say_nothing(filtering, how):
    children = _children(filtering.pid)
    signum = getattr(signal, how.split()[-1])
    (os.killpg if "group" in how else os.kill)(filtering.pid, signum)
    code = filtering.wait(30)
    assert code == {signal.SIGTERM: 75, signal.SIGINT: 130, signal.SIGKILL: -9}[signum]
    deadline = time.time() + 10
    while time.time() < deadline and any(os.path.exists(f"/proc/{pid}") for pid in children):
        time.sleep(0.05)
    assert not [pid for pid in children if os.path.exists(f"/proc/{pid}")]
    lines = filtering.stderr.read().splitlines()
    assert [line[:7] for line in lines] == ([] if signum == signal.SIGKILL else ["kanana:"]), lines
