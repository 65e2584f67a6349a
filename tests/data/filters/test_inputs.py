"""What a job reads is what was meant: inputs that changed are refused by name, and outputs never come back as inputs."""

import gzip
import json
import os
import shutil

import pytest

from kanana_jax import cli
from kanana_jax.data import filters
from kanana_jax.data.filters import job
from kanana_jax.data.read import records
from kanana_jax.errors import ConfigError, UserError

CONFIGS = {"default": filters.FilterConfig(rules={"short": filters.Rule("characters", min=3)})}


def _write(path, names):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"id": name, "text": f"text of {name}"}) + "\n" for name in names))
    return str(path)


def _run(folder, output="out", stop=0, **settings):
    def progress(documents, size, seconds):
        if documents == stop:
            raise KeyboardInterrupt

    return job.run(
        CONFIGS, str(folder / "in/*.jsonl"), folder / output, job.JobConfig(chunk=2, save_every=1, **settings), progress
    )


def _came(folder):
    _write(folder / "in/a.jsonl", ["new"])


def _grew(folder):
    _write(folder / "in/b.jsonl", ["b0", "b1", "b2", "b3", "b4"])


def _changed(folder):
    _write(folder / "in/c.jsonl", ["c0", "c1", "c2", "x3"])


def _gone(folder):
    os.remove(folder / "in/c.jsonl")


def _renamed(folder):
    os.rename(folder / "in/b.jsonl", folder / "in/d.jsonl")


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    "change, name", [(_came, "a.jsonl"), (_grew, "b.jsonl"), (_changed, "c.jsonl"), (_gone, "c.jsonl"), (_renamed, "d")]
)
def test_another_input_is_refused_by_name(tmp_path, finished, change, name):
    for letter in "bc":
        _write(tmp_path / f"in/{letter}.jsonl", [f"{letter}{i}" for i in range(4)])
    if finished:
        _run(tmp_path)
    else:
        with pytest.raises(KeyboardInterrupt):
            _run(tmp_path, stop=4)
    change(tmp_path)
    before = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    with pytest.raises(ConfigError, match=rf"started with other inputs \(.*{name}.*name another --output"):
        _run(tmp_path)
    assert before == {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}


def test_touched_files_go_on(tmp_path):
    _write(tmp_path / "in/b.jsonl", [f"b{i}" for i in range(8)])
    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path, stop=4)
    os.utime(tmp_path / "in/b.jsonl", ns=(1, 1))
    assert _run(tmp_path)["documents"] == 8
    with gzip.open(tmp_path / "out/kept.jsonl.gz", "rt") as file:
        assert [json.loads(line)["id"] for line in file] == [f"b{i}" for i in range(8)]


def test_what_was_written_is_there_whole_or_the_job_says_so(tmp_path):
    _write(tmp_path / "in/b.jsonl", [f"b{i}" for i in range(8)])
    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path, stop=4)
    os.truncate(tmp_path / "out/kept.jsonl.gz", 3)
    with pytest.raises(UserError, match="kept.jsonl.gz has changed since"):
        _run(tmp_path)
    _run(tmp_path, "done", keep_dropped=True)
    for name in ("kept.jsonl.gz", "dropped.jsonl.gz", "report.json"):
        data = (tmp_path / "done" / name).read_bytes()
        for damaged in (data + b" ", None):
            os.remove(tmp_path / "done" / name)
            if damaged is not None:
                (tmp_path / "done" / name).write_bytes(damaged)
            with pytest.raises(UserError, match=f"finished but damaged .*{name}"):
                _run(tmp_path, "done", keep_dropped=True)
            (tmp_path / "done" / name).write_bytes(data)
    assert _run(tmp_path, "done", keep_dropped=True)["documents"] == 8


def test_a_kill_in_the_last_moment_loses_nothing(tmp_path, monkeypatch):
    """Between the last file and the state that says it is finished."""
    _write(tmp_path / "in/b.jsonl", [f"b{i}" for i in range(8)])
    finish = job.job_state.finish
    monkeypatch.setattr(job.job_state, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path, signals=True)
    monkeypatch.setattr(job.job_state, "finish", finish)
    report = _run(tmp_path, signals=True)
    assert report == _run(tmp_path, "fresh", signals=True)
    for name in ("kept.jsonl.gz", "signals.parquet"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "fresh" / name).read_bytes()
    assert sorted(os.listdir(tmp_path / "out")) == sorted(os.listdir(tmp_path / "fresh"))


def _verbs(folder, given, output):
    """Each verb that reads documents or rows and writes, with its arguments."""
    config = folder / "config.py"
    config.write_text(
        "from ml_collections import ConfigDict\n"
        "def get_config(arg=''):\n"
        "    c = ConfigDict()\n"
        "    c.filters = dict(default=dict(rules=dict(s=dict(signal='characters', min=1.0))))\n"
        "    c.filters.en = c.filters.default\n"
        "    pairs = dict(good=(arg,), other=(arg,))\n"
        "    c.quality = dict(pairs=pairs)\n"
        "    return c\n"
    )
    shared = ["--input", given, "--output", str(output)]
    thresholds = ["thresholds", "--english-config", str(config), "--english", given, "--config", str(config)]
    return {
        "filter": ["filter", "--config", str(config), *shared],
        "dedup": ["dedup", *shared],
        "beam": ["dedup", *shared, "--beam=--runner=DirectRunner"],
        "lines": ["lines", *shared],
        "contamination": ["contamination", "--input", f"a={given}:text", "--output", str(output)],
        "train": ["quality", "train", "--config", f"{config}:{given}", "--output", str(output)],
        "score": ["quality", "score", "none.bin", *shared],
        "tokenizer": ["tokenizer", "train", "--input", f"en={given}", "--output", str(output)],
        "thresholds": [*thresholds, "--lang", "en", *shared],
    }


@pytest.mark.parametrize("verb", ["filter", "dedup", "beam", "lines", "train", "score", "tokenizer", "thresholds"])
def test_an_output_in_its_input_is_refused_before_anything_is_written(tmp_path, capsys, verb):
    _write(tmp_path / "in/a.jsonl", ["a"])
    os.symlink(tmp_path / "in", tmp_path / "link")
    os.makedirs(tmp_path / "far")
    os.symlink(tmp_path / "far", tmp_path / "in/near")
    places = [
        ("in", "in/out"),
        ("in", "in"),
        ("in", "link/x/out"),
        ("link", "in/out"),
        ("in/**/*.jsonl", "in/x/out"),
        ("in/*/*.jsonl", "in/out"),
        ("in/a.jsonl", "in/a.jsonl"),
        ("in/a.jsonl", "in"),
        ("in/../in", "in/out"),
    ]
    before = sorted(tmp_path.rglob("*"))
    for given, output in places:
        arguments = _verbs(tmp_path, str(tmp_path / given), tmp_path / output)[verb]
        assert cli.main(arguments) == 2, (given, output)
        assert "overlap" in capsys.readouterr().err
        (tmp_path / "config.py").unlink()
        shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_output_beside_its_input_is_not_refused(tmp_path):
    _write(tmp_path / "in/a.jsonl", ["a0", "a1"])
    assert job.run(CONFIGS, str(tmp_path / "in/*.jsonl"), tmp_path / "in/out")["documents"] == 2
    assert job.run(CONFIGS, str(tmp_path / "in/*.jsonl"), tmp_path / "in2")["documents"] == 2


def test_rows_of_evaluation_sets_are_not_overwritten(tmp_path, capsys):
    path = _write(tmp_path / "in/a.jsonl", ["a"])
    assert cli.main(["contamination", "--input", f"a={path}:text", "--output", path]) == 2
    assert "overlap" in capsys.readouterr().err


def test_what_a_job_left_is_no_input_of_a_folder_or_glob(tmp_path):
    """Dropped documents come back only where their file itself is named; kept ones once the job has finished."""
    _write(tmp_path / "in/b.jsonl", ["b0", "b1", "", "b3"])
    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path, stop=2)
    with pytest.raises(UserError, match="kept.jsonl.gz belongs to a job that has not finished"):
        list(records.read(str(tmp_path / "out/kept.jsonl.gz"), source="s"))
    _run(tmp_path, "done", keep_dropped=True)
    (tmp_path / "done/report.html").write_text("<p>report</p>")
    for given in ("done", "done/*.gz", "*/*.gz"):
        with pytest.raises(UserError, match=r"dropped\.jsonl\.gz.*earlier job|not finished"):
            list(records.read(str(tmp_path / given), source="s"))
    for name in ("kept", "dropped"):
        assert isinstance(list(records.read(str(tmp_path / f"done/{name}.jsonl.gz"), source="s")), list)
    assert len(list(records.read(str(tmp_path / "done/k*.gz"), source="s"))) == 4
    assert cli.main(["dedup", "--input", str(tmp_path / "in/b.jsonl"), "--output", str(tmp_path / "in/dups")]) == 0
    with pytest.raises(UserError, match=r"duplicates\.jsonl, which an earlier job"):
        list(records.read(str(tmp_path / "in"), source="s"))


def test_what_is_named_twice_is_not_lost(tmp_path, capsys):
    """Two files of one evaluation set are both in it; one language of a tokenizer is one path."""
    words = "which of these six rivers that flow from the north to the sea is longest"
    one, two = (_write(tmp_path / f"{name}.jsonl", [f"{words} {name}"]) for name in ("p", "q"))
    output = ["--output", str(tmp_path / "out")]
    assert cli.main(["contamination", "--input", f"a={one}:text", f"a={two}:text", *output]) == 0
    assert json.loads((tmp_path / "out/contamination.json").read_text())["sets"]["a"]["items"] == 2
    assert cli.main(["tokenizer", "train", "--input", f"ko={one}", f"ko={two}", *output]) == 2
    assert "names 'ko' twice" in capsys.readouterr().err
