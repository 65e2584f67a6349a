"""Every verb that writes takes a lock on its place, and is refused while another process has it."""

import os

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
    "import": (True, ["import", "no", "OUT"]),
    "export": (True, ["export", "no", "OUT"]),
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
