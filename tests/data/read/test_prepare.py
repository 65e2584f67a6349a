"""Conversion part by part: the same bytes for any number of workers, and after a kill."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from kanana_jax.data.read import convert, meter, sources
from kanana_jax.data.read.origins import Origin
from kanana_jax.errors import UserError


def _documents(folder, count=60):
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"{number:03d}.v1.txt").write_text(f"문서 {number * 7919} 입니다. " * (1 + number % 7))
    rows = [{"text": f"row {n}", "id": f"r{n}"} for n in range(40)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "empty.txt").write_text("")
    (folder / "x.exe").write_text("x")


def _bytes(cache):
    return {file.relative_to(cache).as_posix(): file.read_bytes() for file in cache.rglob("*") if file.is_file()}


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(convert, "MIN_PART", 600)
    monkeypatch.setattr(convert, "MAX_FILES", 7)


def _configs(tmp_path):
    _documents(tmp_path / "in")
    return {
        "a": sources.SourceConfig(str(tmp_path / "in"), "ko", holdout=0.1),
        "b": sources.SourceConfig("microworld://news/en?count=20&size=50", "en", holdout=0.2),
        "c": sources.SourceConfig(str(tmp_path / "in"), "ko", holdout=0.1, max_documents=50),
    }


def test_the_same_bytes_for_any_number_of_workers(tmp_path, small_parts):
    configs, seen = _configs(tmp_path), []
    made = [sources.prepare_all(configs, tmp_path / f"c{n}", n, seen.append) for n in (1, 2, 3)]
    one, two, three = (_bytes(tmp_path / f"c{n}") for n in (1, 2, 3))
    assert one == two == three and len([name for name in one if "/train-" in name]) > 8
    ids = [json.loads(d)["id"] for s in sources.SPLITS for d in made[0]["a"].split(s)]
    assert len(ids) == len(set(ids)) == 100 and made[0]["a"].left_out.count == 2
    assert sum(made[0]["c"].documents(s) for s in sources.SPLITS) == 50
    assert seen[-1].share == 1.0 and seen[-1].documents == 170


def test_the_digest_does_not_depend_on_parts(tmp_path, monkeypatch):
    configs = _configs(tmp_path)
    whole = sources.prepare_all(configs, tmp_path / "whole")
    monkeypatch.setattr(convert, "MIN_PART", 600)
    parts = sources.prepare_all(configs, tmp_path / "parts")
    assert len(list(parts["a"].folder.glob("train-*"))) > len(list(whole["a"].folder.glob("train-*"))) == 1
    assert all(whole[name].digest == parts[name].digest for name in configs)
    assert len({source.digest for source in whole.values()}) == 3


def test_finished_parts_are_not_made_again(tmp_path, small_parts, monkeypatch):
    configs, calls = _configs(tmp_path), []
    sources.prepare_all(configs, tmp_path / "want")
    original = convert.convert

    def interrupted(part):
        calls.append((part.name, part.number))
        if len(calls) == 6:
            raise KeyboardInterrupt
        return original(part)

    monkeypatch.setattr(convert, "convert", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sources.prepare_all(configs, tmp_path / "got")
    assert len(list((tmp_path / "got").glob("a-*.parts/part-*.json"))) == 5
    before = [calls.pop() for _ in range(len(calls))]
    seen = []
    calls.extend([("", -1)] * 10)  # past the interruption
    sources.prepare_all(configs, tmp_path / "got", show=seen.append)
    assert not set(before[1:]) & set(calls) and before[0] in calls
    assert _bytes(tmp_path / "got") == _bytes(tmp_path / "want") and seen[-1].share == 1.0


PROGRAM = """
import pathlib, sys
from kanana_jax.data.read import convert, sources
convert.MIN_PART, convert.MAX_FILES = 600, 7
if __name__ == "__main__":
    config = sources.SourceConfig(sys.argv[1], "ko", holdout=0.1)
    sources.prepare_all({"a": config}, pathlib.Path(sys.argv[2]), int(sys.argv[3]))
"""


@pytest.mark.more  # its parts are tried above and below
def test_a_killed_preparation_resumes_to_the_same_bytes(tmp_path):
    _documents(tmp_path / "in", 400)
    (tmp_path / "p.py").write_text(PROGRAM)
    command = [sys.executable, str(tmp_path / "p.py"), str(tmp_path / "in")]
    subprocess.run([*command, str(tmp_path / "want"), "1"], check=True)
    child = subprocess.Popen([*command, str(tmp_path / "got"), "2"])
    while child.poll() is None and len(list((tmp_path / "got").glob("*.parts/part-*.json"))) < 3:
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    child.wait()
    subprocess.run([*command, str(tmp_path / "got"), "2"], check=True)
    assert _bytes(tmp_path / "got") == _bytes(tmp_path / "want")


def test_what_a_killed_worker_left_half_written_goes(tmp_path, small_parts, monkeypatch):
    configs = {"a": _configs(tmp_path)["a"]}
    sources.prepare_all(configs, tmp_path / "want")
    original = convert.convert

    def killed(part):
        if part.number == 4:
            part.about.with_name(f"{part.about.name}.4000000.partial").write_text('{"thresh')
            next(part.folder.glob("train-000002-*")).with_name("train-000004-000.array_record").write_bytes(b"\0" * 9)
            raise KeyboardInterrupt
        return original(part)

    monkeypatch.setattr(convert, "convert", killed)
    with pytest.raises(KeyboardInterrupt):
        sources.prepare_all(configs, tmp_path / "got")
    monkeypatch.setattr(convert, "convert", original)
    sources.prepare_all(configs, tmp_path / "got")
    assert _bytes(tmp_path / "got") == _bytes(tmp_path / "want")


def test_parts_of_files_that_have_changed_go(tmp_path, small_parts, monkeypatch):
    configs = {"a": _configs(tmp_path)["a"]}
    (tmp_path / "in" / "zz.jsonl").write_text('{"text": 1}\n')
    with pytest.raises(UserError, match="1 of 101 lines are broken"):
        sources.prepare_all(configs, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*"))
    original = convert.convert
    monkeypatch.setattr(convert, "convert", lambda part: original(part) if part.number < 3 else os.kill(0, 1000))
    with pytest.raises(OSError):
        sources.prepare_all(configs, tmp_path / "cache")
    (left,) = (tmp_path / "cache").glob("a-*.parts")
    monkeypatch.setattr(convert, "convert", original)
    (tmp_path / "in" / "zz.jsonl").unlink()
    sources.prepare_all(configs, tmp_path / "cache")
    assert not left.exists() and len(list((tmp_path / "cache").glob("a-*"))) == 1


def _origins(sizes):
    return [Origin(f"/d/{n}", f"/d/{n}", "/d/", f"{size}:1") for n, size in enumerate(sizes)]


def test_parts_are_cut_by_sizes_alone_and_hold_every_file_once():
    found = _origins(n * 1000 for n in range(5000))
    parts = list(convert.cut(found, whole=False))
    limit = sum(origin.size for origin in found) / convert.PARTS
    assert [origin for part in parts for origin in part] == found and convert.PARTS < len(parts) < 1.1 * convert.PARTS
    assert all(sum(origin.size for origin in part) <= limit for part in parts)
    assert [len(part) for part in convert.cut(_origins([10] * 5000), whole=False)] == [2000, 2000, 1000]
    assert [len(part) for part in convert.cut(_origins([10] * 5000), whole=True)] == [5000]
    assert [len(part) for part in convert.cut(_origins([1 << 34] * 3), whole=False)] == [1, 1, 1]


def test_a_meter_tells_the_sum_of_its_cells_and_what_was_done_before():
    seen = []
    with meter.metered(100, 40, seen.append) as file:
        meter.note(file, 0, 10, 1, 5)
        meter.note(file, 3, 20, 2, 6)
        meter.note(file, 0, 15, 2, 7)
    last = seen[-1]
    assert (last.done, last.total, last.documents, last.text_bytes, last.share) == (75, 100, 4, 13, 0.75)
