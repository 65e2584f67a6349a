"""Sources on disk: what real files hold, shards, the split, and what a broken file says."""

import datetime
import gzip
import hashlib
import json
import os

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from kanana_jax.data.read import convert, records, sources
from kanana_jax.data.read.record import Broken
from kanana_jax.errors import ConfigError, UserError

LINES = [json.dumps({"id": f"d{i}", "text": f"문서 {i * 7919} " * 5}, ensure_ascii=False).encode() for i in range(400)]
BODY = b"\n".join(LINES) + b"\n"


def _prepare(path, tmp_path, **config):
    return sources.prepare("s", sources.SourceConfig(str(path), "ko", **config), tmp_path / "cache")


def _stored(prepared, split="train"):
    return [json.loads(data) for data in prepared.split(split)] if prepared.documents(split) else []


def test_many_small_shards_hold_every_document_once_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(convert, "SHARD_BYTES", 2000)
    (tmp_path / "a.jsonl").write_bytes(BODY)
    prepared = _prepare(tmp_path / "a.jsonl", tmp_path, holdout=0.1)
    assert len(list(prepared.folder.glob("train-*"))) > 5
    for split in sources.SPLITS:
        stored = _stored(prepared, split)
        assert [int(r["id"][1:]) for r in stored] == sorted(int(r["id"][1:]) for r in stored)
        assert prepared.index[split] == {
            "documents": len(stored),
            "bytes": sum(len(r["text"].encode()) for r in stored),
        }
    assert sorted(r["id"] for s in sources.SPLITS for r in _stored(prepared, s)) == sorted(f"d{i}" for i in range(400))


def test_the_split_is_the_hash_of_the_key_and_nothing_else(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(BODY)
    held = {r["id"] for r in _stored(_prepare(tmp_path / "a.jsonl", tmp_path, holdout=0.2), "heldout")}
    want = {
        f"d{i}"
        for i in range(400)
        if int(hashlib.blake2b(f"d{i}".encode(), digest_size=8).hexdigest(), 16) < 0.2 * 2**64
    }
    assert held == want and 50 < len(held) < 110


def test_a_changed_file_or_config_is_converted_anew_and_the_same_is_reused(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(BODY)
    first = _prepare(path, tmp_path)
    stamp = (first.folder / "index.json").stat().st_mtime_ns
    assert _prepare(path, tmp_path).folder == first.folder
    assert (first.folder / "index.json").stat().st_mtime_ns == stamp
    assert _prepare(path, tmp_path, holdout=0.2).folder != first.folder
    path.write_bytes(BODY + LINES[0].replace(b'"d0"', b'"new"') + b"\n")
    again = _prepare(path, tmp_path)
    assert again.folder != first.folder
    assert sum(again.documents(s) for s in sources.SPLITS) == 401


def test_files_that_are_gone_are_not_missed_once_they_were_converted(tmp_path, caplog):
    path = tmp_path / "a.jsonl"
    path.write_bytes(BODY)
    other = sources.prepare(
        "s-t", sources.SourceConfig(str(path), "ko"), tmp_path / "cache"
    )  # a name that begins alike
    first = _prepare(path, tmp_path)
    path.unlink()
    again = _prepare(path, tmp_path)
    assert again.folder == first.folder != other.folder and "a.jsonl is gone" in caplog.text
    with pytest.raises(UserError, match="a.jsonl' has no documents"):
        _prepare(path, tmp_path, holdout=0.2)  # another split was never made
    with pytest.raises(UserError, match="a.jsonl' has no documents"):
        sources.prepare("t", sources.SourceConfig(str(path), "ko"), tmp_path / "cache")


def test_the_digest_is_of_contents_in_their_order(tmp_path):
    def digest(name, lines, **config):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.jsonl").write_bytes(b"\n".join(lines))
        return _prepare(tmp_path / name, tmp_path, **config).digest

    texts = [json.dumps({"text": f"text {i}", "n": i}).encode() for i in range(50)]
    first = digest("a", texts, holdout=0.0)
    assert first and digest("renamed", texts, holdout=0.0) == first
    changed = {
        "order": texts[::-1],
        "more": [*texts, texts[0]],
        "fewer": texts[:-1],
        "text": [*texts[:-1], texts[-1].replace(b"text 49", b"text 94")],
        "meta": [*texts[:-1], texts[-1].replace(b": 49", b": 94")],
    }
    found = [digest(name, lines, holdout=0.0) for name, lines in changed.items()]
    assert len({first, *found}) == 6
    assert digest("split", LINES, holdout=0.2) != digest("unsplit", LINES, holdout=0.0)


def test_max_documents_and_reading_what_nobody_prepared(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(BODY)
    assert _prepare(tmp_path / "a.jsonl", tmp_path, max_documents=7, holdout=0.0).documents("train") == 7
    with pytest.raises(UserError, match="storage that all hosts share"):
        sources.load_prepared("s", sources.SourceConfig(str(tmp_path / "a.jsonl"), "ko"), tmp_path / "elsewhere")


def test_documents_without_an_id_are_split_one_by_one(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"id": None, "text": f"text {i}"}) + "\n" for i in range(300)))
    prepared = _prepare(path, tmp_path, holdout=0.2)
    assert 20 < prepared.documents("heldout") < 120
    ids = [r["id"] for split in sources.SPLITS for r in _stored(prepared, split)]
    assert len(set(ids)) == 300


def test_the_split_of_documents_without_an_id_does_not_depend_on_where_the_folder_lies(tmp_path):
    def ids(folder, path):
        (tmp_path / folder / "ko").mkdir(parents=True)
        lines = "".join(json.dumps({"text": f"text {i}"}) + "\n" for i in range(50))
        (tmp_path / folder / "ko" / "a.jsonl").write_text(lines)
        return [r["id"] for r in _stored(_prepare(tmp_path / folder / path, tmp_path, holdout=0.2), "heldout")]

    assert ids("one", "ko") == ids("far/away", "ko") and ids("third", "ko")[0].startswith("a.jsonl:")
    assert ids("fourth", "*/a.jsonl")[0].startswith("ko/a.jsonl:")


def test_dates_bytes_and_lone_surrogates_in_other_fields_are_kept_as_text(tmp_path):
    (tmp_path / "in").mkdir()
    row = {
        "text": ["a"],
        "at": [datetime.datetime(2020, 1, 2, 3)],
        "raw": [b"x\xff"],
        "nested": [{"days": [datetime.date(2021, 5, 6)]}],
    }
    pyarrow.parquet.write_table(pyarrow.table(row), tmp_path / "in" / "a.parquet")
    (tmp_path / "in" / "b.jsonl").write_text('{"id": "\\ud800x", "text": "b", "title": "t\\udc00", "n": 1.5}\n')
    parquet, jsonl = _stored(_prepare(tmp_path / "in", tmp_path, holdout=0.0))
    assert parquet["meta"] == {"at": "2020-01-02 03:00:00", "raw": "x\ufffd", "nested": {"days": ["2021-05-06"]}}
    assert jsonl["id"] == "?x" and jsonl["meta"] == {"title": "t?", "n": 1.5}


def test_a_byte_order_mark_is_no_broken_line(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + BODY)
    assert not [r for r in records.read(str(tmp_path / "a.jsonl"), source="s") if isinstance(r, Broken)]


def test_a_number_too_long_to_read_is_a_broken_line(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(BODY + b'{"text": "x", "n": ' + b"9" * 5000 + b"}\n")
    assert _prepare(tmp_path / "a.jsonl", tmp_path, max_broken_share=0.01).index["broken_lines"] == 1


def test_a_zstandard_file_of_many_frames_is_read_whole(tmp_path):
    (tmp_path / "a.jsonl.zst").write_bytes(b"".join(zstandard.compress(line + b"\n") for line in LINES[:50]))
    assert len(list(records.read(str(tmp_path / "a.jsonl.zst"), source="s"))) == 50


def _flipped(data, at):
    return data[:at] + bytes(b ^ 0xFF for b in data[at : at + 40]) + data[at + 40 :]


def _parquet_bytes():
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table({"text": [f"document {i} " * 50 for i in range(3000)]}), sink)
    return sink.getvalue().to_pybytes()


DAMAGED = {
    "cut.jsonl.gz": lambda: gzip.compress(BODY)[:-30],
    "flipped.jsonl.gz": lambda: _flipped(gzip.compress(BODY), 600),
    "cut.jsonl.zst": lambda: zstandard.compress(BODY)[:-30],
    "junk.jsonl.zst": lambda: b"no zstandard here",
    "cut.parquet": lambda: _parquet_bytes()[:-50],
    "flipped.parquet": lambda: _flipped(_parquet_bytes(), 2000),
    "junk.array_record": lambda: b"junk" * 100,
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_named_and_leaves_nothing_behind(tmp_path, name):
    (tmp_path / name).write_bytes(DAMAGED[name]())
    with pytest.raises(UserError, match=f"{name} is truncated or (does )?not .*fetch it again"):
        _prepare(tmp_path / name, tmp_path, max_broken_share=1.0)
    assert not list((tmp_path / "cache").glob("*"))


def test_shards_in_their_own_source_are_refused(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jsonl").write_bytes(BODY)
    with pytest.raises(ConfigError, match="overlap"):
        sources.prepare("s", sources.SourceConfig(str(tmp_path / "in"), "ko"), tmp_path / "in/run/data")
    assert os.listdir(tmp_path / "in") == ["a.jsonl"]


def test_touched_files_are_not_converted_again(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(BODY)
    first = _prepare(path, tmp_path)
    os.utime(path, ns=(1, 1))
    assert _prepare(path, tmp_path).folder == first.folder
    assert len(list((tmp_path / "cache").glob("s-*"))) == 1
