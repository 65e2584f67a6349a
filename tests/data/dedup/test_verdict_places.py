"""A verdict belongs to a document: whatever ids repeat, however inputs are named, whatever came or went since."""

import dataclasses
import gzip
import json
import os
import shutil

import numpy as np
import pytest

from kanana_jax.data import filters
from kanana_jax.data.arrays import tables
from kanana_jax.data.dedup import local, verdicts
from kanana_jax.data.dedup.index import DedupConfig
from kanana_jax.data.filters import job
from kanana_jax.data.read import origins, records, sources
from kanana_jax.errors import ConfigError, UserError

WORDS = ("마을", "강가", "나무", "바람", "노래", "시장", "기차", "바다", "겨울", "저녁", "편지", "우물", "지붕")


def _text(number):
    """Texts that have nothing in common."""
    rng = np.random.default_rng(number)
    return " ".join(f"{WORDS[k]}{number}x{i}" for i, k in enumerate(rng.integers(0, len(WORDS), 60)))


def _write(path, rows):
    """Rows are numbers of texts, or (id, number)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"text": _text(r)} if isinstance(r, int) else {"id": r[0], "text": _text(r[1])} for r in rows]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(lines, mtime=0) if path.suffix == ".gz" else lines)
    return str(path)


def _dedup(inputs, output):
    return local.run(DedupConfig(), [str(path) for path in inputs], output)


def _survivors(verdicts_of, inputs, folder):
    """Numbers of the texts that a filter keeps, by input."""
    shutil.rmtree(folder, ignore_errors=True)
    config = {"default": filters.FilterConfig(duplicates=str(verdicts_of))}
    kept = []
    for number, path in enumerate(inputs):
        job.run(config, str(path), folder / str(number))
        with gzip.open(folder / str(number) / "kept.jsonl.gz", "rt") as file:
            kept.append([int(json.loads(line)["text"].split("x")[0].lstrip("".join(WORDS))) for line in file])
    return kept


def test_ids_that_repeat_and_ids_that_are_missing(tmp_path):
    """Of each text one survives, the first, whether ids repeat with the same or with other texts, or are missing."""
    one = _write(tmp_path / "a/part.jsonl", [("1", 1), ("2", 2), ("1", 1), ("1", 3), 4])
    two = _write(tmp_path / "b/part.jsonl", [("1", 5), ("2", 1), ("3", 4), 6, 4])
    report = _dedup([one, two], tmp_path / "out")
    assert (report["documents"], report["kept"], report["exact"]) == (10, 6, 4)
    assert _survivors(tmp_path / "out", [one, two], tmp_path / "f") == [[1, 2, 3, 4], [5, 6]]
    lines = [json.loads(line) for line in (tmp_path / "out/duplicates.jsonl").open(encoding="utf-8")]
    assert [(x["place"].rpartition("/")[2], x["kept_place"][-12:]) for x in lines] == [
        (f"part.jsonl:{number}", f"part.jsonl:{kept}") for number, kept in ((3, 1), (2, 1), (3, 5), (5, 5))
    ]


def test_any_name_of_the_same_files_finds_the_same_verdicts(tmp_path, monkeypatch):
    """Folder, glob, list, one file, relative, absolute, symbolic link, another place; two files that hold the same."""
    web = tmp_path / "web"
    _write(web / "x/0.jsonl.gz", [1, 2])
    _write(web / "y/0.jsonl.gz", [1, 2])
    _write(web / "1.jsonl", [2, 3])
    names = ["1.jsonl", "x/0.jsonl.gz", "y/0.jsonl.gz"]
    monkeypatch.chdir(tmp_path)
    os.symlink(web, tmp_path / "link")
    judged = {
        "folder": ["web"],
        "globs": ["web/*.jsonl", str(web / "*/*.gz")],
        "files": [str(web / name) for name in names],
        "symbolic": ["link/1.jsonl", "link/**/*.gz", "web/1.jsonl"],
    }
    for how, inputs in judged.items():
        report = _dedup(inputs, tmp_path / how)
        assert (report["documents"], report["kept"]) == (6, 3), how
        assert _survivors(how, [web / name for name in names], tmp_path / "f") == [[2, 3], [1], []], how
        assert _survivors(how, ["web"], tmp_path / "f") == [[2, 3, 1]]
    shutil.copytree(web, tmp_path / "moved/web")
    shutil.rmtree(web)
    monkeypatch.chdir(tmp_path / "moved")
    assert _survivors(tmp_path / "files", ["web/y/0.jsonl.gz", "web/x/0.jsonl.gz"], tmp_path / "f") == [[], [1]]
    os.rename("web/1.jsonl", "web/other.jsonl")
    assert _survivors(tmp_path / "files", ["web/other.jsonl"], tmp_path / "f") == [[2, 3]]
    os.rename("web/x", "web/z")
    os.rename("web/y", "web/w")
    with pytest.raises(UserError, match=r"z/0.jsonl.gz holds what .* hold.*kanana dedup"):
        _survivors(tmp_path / "files", ["web/z/0.jsonl.gz"], tmp_path / "f")


def test_what_was_not_judged_is_an_error_and_nothing_is_written(tmp_path):
    path = _write(tmp_path / "a.jsonl", [1, 2])
    _dedup([path], tmp_path / "out")
    config = {"default": filters.FilterConfig(duplicates=str(tmp_path / "out"))}
    other = _write(tmp_path / "b.jsonl", [3])
    for bad, why in ((other, "b.jsonl is not among"), (_write(tmp_path / "a.jsonl", [1, 2, 4]), "a.jsonl has changed")):
        with pytest.raises(UserError, match=f"{why}.*kanana dedup"):
            job.run(config, bad, tmp_path / "f")
    assert not (tmp_path / "f").exists()
    _write(tmp_path / "a.jsonl", [1, 2])
    _write(tmp_path / "copy/b.jsonl", [1, 2])
    _write(tmp_path / "copy/c.jsonl", [1, 2])
    with pytest.raises(UserError, match="has judged only"):
        job.run(config, str(tmp_path / "copy"), tmp_path / "f")
    judge = filters.Filter(config["default"])
    with pytest.raises(UserError, match="does not carry its place"):
        judge({"id": "1", "text": _text(1), "source": "s"})
    (origin,) = records.find(path)
    placed = next(iter(records.documents_of(dataclasses.replace(origin, digest="0"), source="s")))
    with pytest.raises(UserError, match="has changed"):
        judge(placed)


def test_the_training_stream_looks_up_by_the_place_before_conversion(tmp_path):
    path = _write(tmp_path / "a/s.jsonl", [("1", 1), ("1", 2), ("1", 1)] + [("1", k) for k in range(10, 40)])
    _dedup([path], tmp_path / "out")
    prepared = sources.prepare("s", sources.SourceConfig(path, "ko", holdout=0.0), tmp_path / "cache")
    every = filters.Filters({"ko": filters.FilterConfig(duplicates=str(tmp_path / "out"))})
    judge = every.of("s", "ko", {}, prepared.origins)
    found = [judge(json.loads(data)).rules for data in prepared.split("train")]
    assert found == [(), (), ("exact_duplicate",)] + [()] * 30
    again = sources.prepare(
        "t", sources.SourceConfig(_write(tmp_path / "b.jsonl", [7]), "ko", holdout=0.0), tmp_path / "cache"
    )
    with pytest.raises(UserError, match="b.jsonl is not among"):
        every.of("t", "ko", {}, again.origins)


def test_later_runs_read_what_is_new_and_keep_the_first_in_their_order(tmp_path, monkeypatch):
    """Every later run leaves what one run over everything leaves, to the byte."""
    read = []
    lines_of = records.lines_of

    def spy(origin, **settings):
        read.append(os.path.basename(origin.path))
        return lines_of(origin, **settings)

    monkeypatch.setattr(records, "lines_of", spy)
    web = tmp_path / "web"
    globbed = str(web / "*.jsonl")
    one = _write(web / "m.jsonl", [("a", 1), ("b", 2)])

    def check(inputs, new):
        read.clear()
        _dedup(inputs, tmp_path / "out")
        assert read == new
        _dedup(inputs, tmp_path / "fresh")
        for name in ("verdicts.safetensors", "duplicates.jsonl", "report.json", "index.safetensors"):
            assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "fresh" / name).read_bytes()
        shutil.rmtree(tmp_path / "fresh")

    check([globbed], ["m.jsonl"])
    check([globbed], [])
    first = _write(web / "b.jsonl", [("c", 2), ("d", 3)])  # comes before in the glob, and is preferred then
    check([globbed], ["b.jsonl"])
    assert _survivors(tmp_path / "out", [first, one], tmp_path / "f") == [[2, 3], [1]]
    check([one, first], [])
    assert _survivors(tmp_path / "out", [first, one], tmp_path / "f") == [[3], [1, 2]]
    _write(web / "b.jsonl", [("c", 2), ("d", 3), ("e", 1), ("f", 4)])  # it grew
    check([globbed], ["b.jsonl"])
    os.utime(one, ns=(1, 1))
    check([globbed], [])  # touched, and hashed, but not read
    _write(web / "b.jsonl", [("c", 5)])  # it shrank
    check([str(web)], ["b.jsonl"])
    os.rename(first, web / "z.jsonl")
    check([str(web)], ["z.jsonl"])
    assert _survivors(tmp_path / "out", [one], tmp_path / "f") == [[1, 2]]


def test_what_is_not_named_again_stays_first_unless_it_is_gone_or_has_changed(tmp_path):
    one, two = _write(tmp_path / "w/a.jsonl", [1, 2]), _write(tmp_path / "w/b.jsonl", [2, 3])
    _dedup([one], tmp_path / "out")
    _dedup([two], tmp_path / "out")
    assert _survivors(tmp_path / "out", [one, two], tmp_path / "f") == [[1, 2], [3]]
    _write(tmp_path / "w/a.jsonl", [9])
    with pytest.raises(UserError, match="a.jsonl was judged before and has changed: name it"):
        _dedup([two], tmp_path / "out")
    os.remove(one)
    with pytest.raises(UserError, match="a.jsonl was judged before and is gone"):
        _dedup([tmp_path / "w"], tmp_path / "out")
    assert _dedup([two], tmp_path / "out")["documents"] == 4  # a shard that was read and deleted counts on


def test_an_output_of_an_older_version_is_told(tmp_path):
    path = _write(tmp_path / "a.jsonl", [1])
    (tmp_path / "old").mkdir()
    np.save(tmp_path / "old/ids.npy", np.zeros(1, np.uint64))
    (tmp_path / "old/index.json").write_text("{}")
    with pytest.raises(UserError, match="by id, of an older version: run `kanana dedup"):
        verdicts.Verdicts(tmp_path / "old")
    with pytest.raises(ConfigError, match="older version"):
        _dedup([path], tmp_path / "old")


def test_a_reader_beside_a_writer_sees_one_generation(tmp_path):
    """Opened verdicts stay what they were; a job whose verdicts are replaced stops instead of mixing two."""
    path = _write(tmp_path / "a.jsonl", [1, 1, *range(10, 60)])
    _dedup([path], tmp_path / "out")
    before = verdicts.opened(str(tmp_path / "out"))
    config = {"default": filters.FilterConfig(duplicates=str(tmp_path / "out"))}

    def replace(documents, size, seconds):
        if documents == 20:
            _dedup([_write(tmp_path / "b.jsonl", [1])], tmp_path / "out")

    with pytest.raises(UserError, match="was replaced while"):
        job.run(config, path, tmp_path / "f", job.JobConfig(chunk=10, save_every=1), replace)
    origin = records.find(path)
    before.check(origins.identify(origin))
    assert verdicts.opened(str(tmp_path / "out")) is not before


def test_tables_are_whole_or_refused(tmp_path):
    """Every byte that differs, and every cut, is seen; the same contents give the same bytes."""
    arrays = {"a": np.arange(5, dtype=np.uint8), "b": np.arange(6, dtype=np.uint64).reshape(3, 2), "c": np.zeros(0)}
    digest = tables.write(tmp_path / "t", {"k": ["가", 1]}, arrays)
    data = (tmp_path / "t").read_bytes()
    about, found = tables.read(tmp_path / "t")
    assert about == {"k": ["가", 1]} and tables.digest_of(tmp_path / "t") == digest
    assert all(
        np.array_equal(found[name], array) and found[name].dtype == array.dtype for name, array in arrays.items()
    )
    for at in range(len(data)):
        (tmp_path / "t").write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(ValueError):
            tables.read(tmp_path / "t")
        (tmp_path / "t").write_bytes(data[:at])
        with pytest.raises(ValueError):
            tables.read(tmp_path / "t")
