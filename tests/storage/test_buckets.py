"""The servers of the other tests here: what they answer is what the two services say that they answer."""

import fsspec
import pytest
from buckets import BUCKET, DROP, S3, Gcs, gcs, s3


@pytest.fixture
def files(gcs):
    import gcsfs

    return gcsfs.GCSFileSystem(skip_instance_cache=True)


@pytest.fixture
def store(gcs):
    import tensorstore

    return tensorstore.KvStore.open({"driver": "gcs", "bucket": BUCKET, "path": "kv/"}).result()


def test_an_object_is_made_once(gcs, files):
    for size in (3, 6_000_000):  # in one request, and resumable
        name = f"{BUCKET}/once/{size}"
        with files.open(name, "xb") as out:
            out.write(b"a" * size)
        with pytest.raises(FileExistsError), files.open(name, "xb") as out:
            out.write(b"b" * size)
        assert files.cat(name) == gcs.content(f"once/{size}") == b"a" * size


def test_generations_are_compared(gcs, store):
    first = store.write("x", b"1").result()
    assert store.write("x", b"2", if_equal=first.generation).result().generation != first.generation
    assert store.write("x", b"3", if_equal=first.generation).result().generation == b""
    found = store.read("x").result()
    assert found.value == b"2"
    assert store.read("x", if_not_equal=found.stamp.generation).result().state == "unspecified"


def test_names_come_in_pages_and_between_offsets(gcs, files, store, monkeypatch):
    monkeypatch.setattr(gcs, "page", 2)
    files.pipe({f"{BUCKET}/{name}": b"" for name in ("kv/a", "kv/b", "kv/c/d", "kv0", "ku/z")})
    assert sorted(key for key in store.list().result() if key != b"x") == [b"a", b"b", b"c/d"]
    assert sorted(files.ls(f"{BUCKET}/kv")) == [f"{BUCKET}/kv/{name}" for name in ("a", "b", "c", "x")]
    import tensorstore

    store.delete_range(tensorstore.KvStore.KeyRange()).result()
    assert gcs.names("k") == ["ku/z", "kv0"]


def test_s3_holds_objects(s3):
    import s3fs

    files = s3fs.S3FileSystem(skip_instance_cache=True)
    files.pipe(f"{BUCKET}/a/b", b"x" * 100)
    assert s3.names() == ["a/b"] and s3.content("a/b") == files.cat(f"{BUCKET}/a/b") == b"x" * 100
    with pytest.raises(FileExistsError):
        files.pipe_file(f"{BUCKET}/a/b", b"y", mode="create")
    assert files.cat(f"{BUCKET}/a/b") == b"x" * 100


@pytest.mark.parametrize("kind", ["gcs", "s3"])
def test_requests_fail_as_asked(kind, request, monkeypatch):
    server = request.getfixturevalue(kind)
    files = fsspec.filesystem(kind, skip_instance_cache=True)
    asked = []

    def fault(method, path, size):
        asked.append((method, path, size))
        return {1: 503, 2: DROP}.get(len(asked))

    monkeypatch.setattr(server, "fault", fault)
    files.pipe(f"{BUCKET}/late", b"x")
    assert server.content("late") == b"x" and len(asked) >= 3 and "late" in asked[-1][1]
    monkeypatch.setattr(server, "fault", lambda method, path, size: 403)
    with pytest.raises(PermissionError if kind == "s3" else OSError):
        files.cat(f"{BUCKET}/late")
