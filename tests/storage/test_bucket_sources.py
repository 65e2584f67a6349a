"""Shards in buckets: a source is converted once, and brought to a host once; a cached teacher likewise."""

import json

import numpy as np
import pytest
from buckets import BUCKET, S3, Gcs, gcs, s3

from kanana_jax.data.read import sources
from kanana_jax.data.stream import teacher_cache
from kanana_jax.errors import UserError
from kanana_jax.files import place, write_json


@pytest.fixture(params=["gcs", "s3"])
def bucket(request, tmp_path, monkeypatch):
    monkeypatch.setenv("KANANA_JAX_CACHE", str(tmp_path / "cache"))
    server = request.getfixturevalue(request.param)
    yield server, place(f"{'gs' if request.param == 'gcs' else 's3'}://{BUCKET}/{request.node.originalname}")
    server.fault = None


def _texts(split):
    return [json.loads(split[i])["text"] for i in range(len(split))]


def test_a_source_is_the_same_as_on_a_disk_and_comes_once(bucket, tmp_path):
    server, cache = bucket
    file = tmp_path / "news.jsonl"
    file.write_text("".join(json.dumps({"id": str(i), "text": f"text {i}"}) + "\n" for i in range(40)))
    config = sources.SourceConfig(str(file), "en", holdout=0.2)
    local, remote = sources.prepare("news", config, tmp_path / "local"), sources.prepare("news", config, cache)
    for split in sources.SPLITS:
        assert _texts(remote.split(split)) == _texts(local.split(split))
    assert remote.digest == local.digest

    read = []
    server.fault = lambda method, path, size: read.append(path) if ".array_record" in path and method == "GET" else None
    assert _texts(sources.load_prepared("news", config, cache).split("train")) == _texts(local.split("train"))
    assert not [path for path in read if "alt=media" in path]  # names and sizes may be asked for
    server.fault = None

    file.unlink()  # what was converted is enough
    assert _texts(sources.prepare("news", config, cache).split("train")) == _texts(local.split("train"))
    (cache / remote.folder.name / "index.json").unlink()
    with pytest.raises(UserError):
        sources.prepare("news", config, cache)


def test_a_cached_teacher_is_read_from_a_bucket(bucket):
    _, folder = bucket
    entries = [
        teacher_cache.Entry(bytes(16), row, np.full((2, 1), row, np.uint8), np.full((2, 1), -0.5, np.float16))
        for row in range(4)
    ]
    name = teacher_cache.shard_name(0, 0)
    with teacher_cache.shard_writer(folder / name) as write:
        for entry in entries:
            write(teacher_cache.encode(entry))
    with pytest.raises(UserError, match="index.json is missing"):
        teacher_cache.TeacherCache(folder)
    index = {
        "k": 1,
        "seq_len": 2,
        "batch_size": 2,
        "steps": 2,
        "rows": 4,
        "vocab_size": 9,
        "tokenizer": "",
        "teacher": "",
    }
    shards = [{"file": name, "steps": [0, 2], "rows": [[0, 2]]}]
    write_json(folder / "index.json", index | {"ids_dtype": "uint8", "log_probs_dtype": "float16", "shards": shards})
    found = teacher_cache.TeacherCache(folder).read(1, [0, 1])
    assert [entry.number for entry in found] == [2, 3] and found[1].ids.tolist() == [[3], [3]]
