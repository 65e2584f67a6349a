"""What jobs leave behind, damaged at random: told in one sentence, or made again as it was; never taken as it is.

`KANANA_DAMAGED=1000` tries so many in place of 320.
"""

import json
import os
import random
import shutil

import numpy as np
import pytest

from kanana_jax.data import filters
from kanana_jax.data.arrays import tables
from kanana_jax.data.dedup import index, lines, local, verdicts
from kanana_jax.data.filters import decontamination, job
from kanana_jax.data.quality import ClassifierConfig, pairs
from kanana_jax.errors import UserError

COUNT = int(os.environ.get("KANANA_DAMAGED", "320"))
QUESTION = "Which of these six rivers that flow from the north to the sea is the longest one of all rivers here"


def _text(i):
    return f"{' '.join(f'w{i}x{k}' for k in range(12))}\nfooter of all pages\n{QUESTION if i == 3 else ''}"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Documents with copies, and the whole results of every job on them."""
    folder = tmp_path_factory.mktemp("world")
    rows = [{"id": str(i % 5), "text": _text(i % 9)} for i in range(14)]
    (folder / "in").mkdir()
    for name, part in (("a", rows[:6]), ("b", rows[6:])):
        (folder / f"in/{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    whole = folder / "whole"
    local.run(index.DedupConfig(), [str(folder / "in")], whole / "dedup")
    lines.run(lines.LinesConfig(4, 2), [str(folder / "in")], whole / "lines")
    decontamination.build({"q": [QUESTION]}, decontamination.ContaminationConfig(), whole / "sets")
    _filter(folder, whole, whole / "filter", stop=4)
    shutil.copytree(whole / "filter", whole / "stopped")
    _filter(folder, whole, whole / "filter")
    _train(folder, whole / "pairs")
    return folder


def _filter(folder, at, output, stop=0):
    rules = {"q": filters.Rule("contamination", max=0.0)}
    config = filters.FilterConfig(
        duplicates=str(at / "dedup"), lines=str(at / "lines"), contamination=str(at / "sets"), rules=rules
    )

    def progress(documents, size, seconds):
        if documents == stop:
            raise KeyboardInterrupt

    try:
        job.run({"default": config}, str(folder / "in"), output, job.JobConfig(chunk=2, save_every=1), progress)
    except KeyboardInterrupt:
        assert stop
    return [(output / name).read_bytes() for name in ("kept.jsonl.gz", "report.json") if not stop]


def _train(folder, output):
    config = pairs.PairsConfig((str(folder / "in/a.jsonl"),), (str(folder / "in/b.jsonl"),), heldout=0.4)
    small = ClassifierConfig(dim=2, buckets=100, epochs=1, min_count=1)
    return pairs.run(config, small, output)


def _dedup(folder, output):
    local.run(index.DedupConfig(), [str(folder / "in")], output)
    return [(output / name).read_bytes() for name in (index.FILE, verdicts.FILE, "duplicates.jsonl", "report.json")]


def _damage(rng, file):
    data = file.read_bytes() or b"?"
    at = rng.randrange(len(data) + 1)
    how = rng.randrange(9)
    if how == 0:
        file.unlink()
    elif how == 1:
        file.write_bytes(b"")
    elif how == 2:
        file.write_bytes(data[:at])
    elif how == 3:
        file.write_bytes(data + rng.randbytes(rng.randrange(1, 20)))
    elif how == 4:
        file.write_bytes(rng.randbytes(len(data)))
    elif how == 5:
        file.write_bytes(data[:at] + b"\0" * 16 + data[at + 16 :])
    elif how == 6:
        other = rng.choice(sorted(f for f in file.parent.iterdir() if f != file) or [file])
        file.write_bytes(other.read_bytes() if other.is_file() else b"?")
    else:
        at = rng.randrange(len(data))
        file.write_bytes(data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :])
    return how


# Folder → its files that are damaged, and the verb that meets them.
MEET = {
    "dedup": ((verdicts.FILE,), lambda folder, at: _filter(folder, at, at / "new")),
    "lines": ((lines.FILE,), lambda folder, at: _filter(folder, at, at / "new")),
    "sets": ((decontamination.FILE,), lambda folder, at: _filter(folder, at, at / "new")),
    "state of dedup": (
        (index.FILE, verdicts.FILE, "report.json", "duplicates.jsonl"),
        lambda folder, at: _dedup(folder, at / "dedup"),
    ),
    "stopped": (
        ("state.json", "inputs.json", "kept.jsonl.gz", "dropped.jsonl.gz"),
        lambda folder, at: _filter(folder, folder / "whole", at / "stopped"),
    ),
    "filter": (
        ("state.json", "inputs.json", "kept.jsonl.gz", "report.json"),
        lambda folder, at: _filter(folder, folder / "whole", at / "filter"),
    ),
}


@pytest.mark.parametrize("what", MEET)
def test_a_damaged_file_is_told_or_made_again(world, tmp_path, what):
    names, meet = MEET[what]
    rng, told, again = random.Random(what), 0, 0
    at = tmp_path / "at"
    shutil.copytree(world / "whole", at)
    wanted = meet(world, at)
    for case in range(COUNT // len(MEET) + 1):
        shutil.rmtree(at)
        shutil.copytree(world / "whole", at)
        file = at / {"state of dedup": "dedup"}.get(what, what) / rng.choice(names)
        how = _damage(rng, file)
        try:
            found = meet(world, at)
        except UserError as error:
            told += 1
            assert "\n" not in str(error) and str(at) in str(error), (case, file.name, how, error)
        else:
            again += 1
            assert found == wanted, (case, file.name, how)
    assert told > (5 if COUNT > 100 else 0)


@pytest.mark.parametrize("what", [verdicts.FILE, index.FILE, lines.FILE, decontamination.FILE])
def test_a_file_that_is_whole_but_makes_no_sense_is_told(world, tmp_path, what):
    """Arrays of other kinds, lengths and values under a right digest."""
    folder = {verdicts.FILE: "dedup", index.FILE: "dedup", lines.FILE: "lines"}.get(what, "sets")
    rng = random.Random(what)
    about, arrays = tables.read(world / "whole" / folder / what)
    for case in range(COUNT // 16):
        at = tmp_path / str(case)
        shutil.copytree(world / "whole", at)
        changed, told = dict(arrays), dict(about)
        name = rng.choice(sorted(changed))
        array = changed[name]
        change = rng.randrange(6)
        if change == 0:
            del changed[name]
        elif change == 1:
            changed[name] = array[:-1]
        elif change == 2:
            changed[name] = np.concatenate([array, array])
        elif change == 3:
            changed[name] = np.full_like(array, rng.choice([7, 123, 200]))
        elif change == 4:
            changed[name] = array.astype(np.float64 if array.dtype != np.float64 else np.uint8)
        else:
            told = {key: rng.choice([None, 0, "x", [], {}]) for key in about}
        tables.write(at / folder / what, told, changed)
        try:
            if what == index.FILE:
                _dedup(world, at / "dedup")
            else:
                _filter(world, at, at / "new")
        except UserError as error:
            assert "\n" not in str(error), (case, name, change, error)


def test_damaged_reports_of_training_are_told(world, tmp_path):
    rng, wanted = random.Random(0), _train(world, world / "whole/pairs")
    for case in range(COUNT // 16):
        shutil.copytree(world / "whole/pairs", tmp_path / str(case))
        how = _damage(rng, tmp_path / str(case) / "report.json")
        try:
            found = _train(world, tmp_path / str(case))
        except UserError as error:
            assert "\n" not in str(error) and str(tmp_path) in str(error), (case, how, error)
        else:
            assert found["config_hash"] == wanted["config_hash"] and len(found["rounds"]) == 1
