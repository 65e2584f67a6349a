"""Every verb that writes takes a lock on its place, and is refused while another process has it."""

import json
import os
import pathlib
import random
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

from kanana_jax.cli import main
from kanana_jax.files import LOCK, locked

TINY = str(ROOT / "configs/tiny.py") + ":test"
# Places are OUT; inputs need not be there, since the lock is taken before anything is read.
VERBS = {
    "run": (True, ["run", "--config", TINY, "--workdir", "OUT"]),
    "filter": (True, ["filter", "--config", "data/en", "--input", "no.jsonl", "--output", "OUT"]),
    "dedup": (True, ["dedup", "--input", "no.jsonl", "--output", "OUT"]),
    "lines": (True, ["lines", "--input", "no.jsonl", "--output", "OUT"]),
    "contamination": (True, ["contamination", "--input", "a=no.jsonl", "--output", "OUT"]),
    "thresholds": (
        False,
        ["thresholds", "--english-config", "data/en", "--english", "no.jsonl", "--config", "data/ko"]
        + ["--lang", "ko", "--input", "no.jsonl", "--output", "OUT"],
    ),
    "tokenizer": (True, ["tokenizer", "train", "--input", "ko=no.jsonl", "--output", "OUT"]),
    "quality train": (True, ["quality", "train", "--config", "data/pairs_en", "--output", "OUT"]),
    "quality score": (False, ["quality", "score", "no.bin", "--input", "no.jsonl", "--output", "OUT"]),
    "import": (False, ["import", "no", "OUT"]),
    "export": (False, ["export", "no", "OUT"]),
    "eval": (False, ["eval", "no", "--tasks", "gsm8k", "--output", "OUT"]),
    "observe": (True, ["observe", "--output", "OUT"]),
    "observe --template": (True, ["observe", "--template", "--output", "OUT"]),
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_is_refused_while_another_process_writes_there(verb, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder, arguments = VERBS[verb]
    out = tmp_path / "out"
    with locked(out, folder=folder):
        before = sorted(tmp_path.rglob("*"))
        assert main([str(out) if a == "OUT" else a for a in arguments]) == 1
        error = capsys.readouterr().err
        assert f"{out} is in use by process {os.getpid()} on " in error and "Traceback" not in error
        assert sorted(tmp_path.rglob("*")) == before
    assert not list(tmp_path.rglob(f"*{LOCK}"))


def test_labels_of_one_s_own_are_locked_too(tmp_path, capsys):
    labels, config = tmp_path / "labels.jsonl", tmp_path / "config.py"
    config.write_text(
        "from ml_collections import ConfigDict\n\n\n"
        "def get_config():\n"
        "    endpoint = dict(url='http://localhost:9/v1', model='no')\n"
        f"    quality = dict(loop=dict(pool=('no.jsonl',)), endpoint=endpoint, labels={str(labels)!r})\n"
        "    return ConfigDict(dict(quality=quality))\n"
    )
    with locked(labels, folder=False):
        assert main(["quality", "train", "--config", str(config), "--output", str(tmp_path / "out")]) == 1
    assert f"{labels} is in use by" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def _told(verb: str, out: pathlib.Path, capsys) -> str:
    assert main([str(out) if a == "OUT" else a for a in VERBS[verb][1]]) in (1, 2)
    (line,) = [text for text in capsys.readouterr().err.splitlines() if text.startswith("kanana:")]
    assert str(out) in line and "Error" not in line and ": " in line.partition(str(out))[2], line
    return line


@pytest.mark.parametrize("verb", VERBS)
def test_a_place_that_a_file_stands_in_the_way_of(verb, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "file"
    file.write_text("mine")
    _told(verb, file / "out", capsys)
    if VERBS[verb][0]:
        _told(verb, file, capsys)
    assert file.read_text() == "mine" and [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.fixture(scope="module")
def read_only(tmp_path_factory):
    """A file system that nothing can be written to, by root neither."""
    folder = tmp_path_factory.mktemp("read_only")
    command = ["mount", "-t", "tmpfs", "-o", "ro,size=64k", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("only root of a machine can mount a read-only file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("verb", VERBS)
def test_a_read_only_place(verb, read_only, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    _told(verb, read_only / "out", capsys)
    if VERBS[verb][0]:
        _told(verb, read_only, capsys)


@pytest.fixture
def full(tmp_path):
    """A file system with next to no space."""
    folder = tmp_path / "full"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("only root of a machine can mount a small file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("verb", ["filter", "dedup", "contamination"])
def test_a_full_disk(verb, full, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng = random.Random(0)
    words = ["river", "sea", "stone", "light"]
    texts = [" ".join(rng.choice(words) + str(rng.random()) for _ in range(90)) for _ in range(64)]
    documents = [{"id": str(i), "lang": "en", "text": text} for i, text in enumerate(texts)]
    (tmp_path / "no.jsonl").write_text("".join(json.dumps(d) + "\n" for d in documents))
    more = ["--signals", "--keep-dropped"] if verb == "filter" else []
    out = full / "out"
    assert main([*(str(out) if a == "OUT" else a for a in VERBS[verb][1]), *more]) == 1
    (line,) = [text for text in capsys.readouterr().err.splitlines() if text.startswith("kanana:")]
    assert str(out) in line and "free space" in line and "Error" not in line, line
    assert not list(full.rglob("*.partial")) and not list(full.rglob(f"*{LOCK}"))


def test_who_reads_the_output_may_leave_and_a_full_device_is_told(tmp_path):
    start = "import sys; from kanana_jax.cli import main; sys.exit(main())"
    kanana = [sys.executable, "-c", start, "observe", "--template", "--output"]
    reading, writing = os.pipe()
    os.close(reading)
    closed = subprocess.run([*kanana, str(tmp_path / "a")], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (closed.returncode, closed.stderr) == (141, "")
    with open("/dev/full", "w") as device:
        full = subprocess.run([*kanana, str(tmp_path / "b")], stdout=device, stderr=subprocess.PIPE, text=True)
    assert full.returncode == 1
    assert (
        full.stderr == "kanana: cannot write the output (No space left on device): free space, or send it elsewhere\n"
    )
