"""Paths in buckets against two servers: read, written whole, staged, locked, and a sentence for each error."""

import json
import os
import pathlib
import pickle
import subprocess
import sys
import time

import pytest
from buckets import BUCKET, DROP, gcs, s3

from kanana_jax.errors import ConfigError, UserError
from kanana_jax.files import (
    bucket_lock,
    load_json,
    locked,
    place,
    read_json,
    stage_down,
    upload,
    whole,
    whole_file,
    write_json,
)
from kanana_jax.files.objects import read_version, write_if


@pytest.fixture(params=["gs", "s3"])
def store(request, tmp_path, monkeypatch):
    """A server and the address of its bucket."""
    monkeypatch.setenv("KANANA_JAX_CACHE", str(tmp_path / "cache"))
    return request.getfixturevalue("gcs" if request.param == "gs" else "s3"), f"{request.param}://{BUCKET}"


@pytest.fixture
def quick(monkeypatch):
    """Attempts without the pauses between them."""
    import asyncio

    sleep = asyncio.sleep
    monkeypatch.setattr(asyncio, "sleep", lambda seconds, *rest: sleep(0, *rest))


def test_text_becomes_a_path():
    assert place("a/b") == pathlib.Path("a/b") and type(place("a")) is type(pathlib.Path())
    path = place("gs://b/x/y.json")
    assert str(path) == os.fspath(path) == "gs://b/x/y.json" and (path.name, path.suffix) == ("y.json", ".json")
    assert str(path.parent / "z") == "gs://b/x/z" and place(path) is path and str(path.with_name("q")) == "gs://b/x/q"
    assert str((place("gs://b/x") / ".." / "y").resolve()) == "gs://b/y"
    assert pickle.loads(pickle.dumps(path)) == path and path != place("s3://b/x/y.json")
    for wrong in ("az://b/x", "gs://", "s3://b/../c"):
        with pytest.raises(ConfigError):
            place(wrong)


def test_objects_are_files(store):
    server, root = store
    folder = place(f"{root}/files")
    assert not folder.exists() and not (folder / "a.txt").is_file()
    (folder / "a.txt").write_text("가", encoding="utf-8")
    with (folder / "deep/b.txt").open("w", encoding="utf-8") as out:
        out.write("b\n")
    with pytest.raises(ZeroDivisionError), (folder / "never.txt").open("w", encoding="utf-8") as out:
        out.write(str(1 / 0))
    assert server.content("files/a.txt") == "가".encode() and (folder / "a.txt").stat().st_size == 3
    assert folder.is_dir() and not folder.is_file() and (folder / "a.txt").is_file()
    assert [p.name for p in folder.iterdir()] == ["a.txt", "deep"]
    assert [str(p) for p in folder.rglob("*.txt")] == [f"{root}/files/a.txt", f"{root}/files/deep/b.txt"]
    with (folder / "deep" / "b.txt").open(encoding="utf-8") as file:
        assert file.read() == "b\n"
    with pytest.raises(FileNotFoundError):
        (folder / "c").read_bytes()
    (folder / "a.txt").unlink()
    (folder / "a.txt").unlink(missing_ok=True)
    folder.rmtree()
    assert server.names("files") == []


def test_files_are_written_whole_or_not_at_all(store):
    server, root = store
    file = place(f"{root}/whole/a.json")
    write_json(file, {"a": 1})
    assert load_json(file) == {"a": 1} and read_json(file.with_name("b.json")) is None
    with pytest.raises(ZeroDivisionError), whole_file(file) as temporary:
        temporary.write_text(str(1 / 0), encoding="utf-8")
    assert server.names("whole") == ["whole/a.json"] and load_json(file) == {"a": 1}
    file.write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="is not whole JSON"):
        load_json(file)
    with pytest.raises(UserError, match="is missing"):
        load_json(file.with_name("b.json"))


def test_a_folders_last_file_says_that_it_is_whole(store, monkeypatch):
    server, root = store
    folder = place(f"{root}/model")
    for text in ("old", "new"):
        with whole(folder, last=("config.json", "model.json")) as local:
            for name in ("config.json", "model.json", "part/w", text):
                (local / name).parent.mkdir(exist_ok=True)
                (local / name).write_text(text, encoding="utf-8")
    assert server.names("model/") == [f"model/{name}" for name in ("config.json", "model.json", "new", "part/w")]
    # Stopped after any request, a reader never finds the last file beside older or missing ones.
    broken = 0
    for most in (*range(1, 15), 40):
        asked = []
        monkeypatch.setattr(
            server, "fault", lambda *request: asked.append(request) or (403 if len(asked) > most else None)
        )
        try:
            with whole(folder, last=("config.json", "model.json")) as local:
                for name in ("config.json", "model.json", "part/w"):
                    (local / name).parent.mkdir(exist_ok=True)
                    (local / name).write_text(str(most), encoding="utf-8")
        except UserError as error:
            assert "no permission" in str(error)
            broken += 1
        monkeypatch.setattr(server, "fault", None)
        if "model/model.json" in server.names("model/"):
            assert len({server.content(f"model/{name}") for name in ("config.json", "model.json", "part/w")}) == 1
    assert broken > 3 and server.content("model/part/w") == b"40"


def test_staged_files_are_fetched_once_and_again_when_they_change(store):
    server, root = store
    folder = place(f"{root}/staged")
    for name in ("a", "b/c"):
        (folder / name).write_text(name, encoding="utf-8")
    local = stage_down(folder)
    assert (local / "b" / "c").read_text(encoding="utf-8") == "b/c" and local.name == "staged"
    (local / "a").write_text("x", encoding="utf-8")  # seen only where it is not fetched again
    assert (stage_down(folder) / "a").read_text(encoding="utf-8") == "x"
    (folder / "a").write_text("changed", encoding="utf-8")
    (folder / "b" / "c").unlink()
    assert (stage_down(folder) / "a").read_text(encoding="utf-8") == "changed" and not (local / "b" / "c").exists()
    assert stage_down(folder / "a").read_text(encoding="utf-8") == "changed" and stage_down(local) == local
    with pytest.raises(FileNotFoundError):
        stage_down(folder / "never")


def test_many_processes_of_a_host_use_what_one_has_staged(store):
    _, root = store
    (place(f"{root}/shared") / "a").write_text("a", encoding="utf-8")
    code = "import sys; from kanana_jax.files import *; print(stage_down(place(sys.argv[1])), flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, f"{root}/shared"]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as first:
        assert first.stdout and first.stdout.readline().strip().endswith("shared")  # and uses it as long as it lives
        again = subprocess.run(command, input="", capture_output=True, text=True, timeout=60, check=True)
        assert (stage_down(place(f"{root}/shared")) / "a").read_text(encoding="utf-8") == "a"
        first.communicate("")
    assert again.stdout.strip().endswith("shared")


def test_the_cache_is_bounded(store, monkeypatch, tmp_path):
    _, root = store
    for name in ("one", "two", "three"):
        place(f"{root}/cached/{name}").write_bytes(b"x" * 400)
    code = "import sys; from kanana_jax.files import *; print(stage_down(place(sys.argv[1])))"
    other = subprocess.run(
        [sys.executable, "-c", code, f"{root}/cached/one"], capture_output=True, text=True, check=True
    ).stdout.strip()
    monkeypatch.setenv("KANANA_JAX_CACHE_GB", "1e-6")
    two = stage_down(place(f"{root}/cached/two"))
    assert os.path.exists(other)
    with pytest.raises(UserError, match="KANANA_JAX_CACHE_GB"):  # `two` is in use here, `one` would not be enough
        stage_down(place(f"{root}/cached/three")) and stage_down(place(f"{root}/cached/one"))
    assert not os.path.exists(other) and two.stat().st_size == 400


def test_a_lock_is_taken_once_renewed_and_released(store, monkeypatch):
    server, root = store
    folder = place(f"{root}/run")
    with locked(folder):
        assert server.names("run") == ["run/.lock"]
        with pytest.raises(UserError, match=f"in use by process {os.getpid()} on"), locked(folder):
            pass
        before = server.content("run/.lock")
    assert server.names("run") == [] and b"renewed" in before
    monkeypatch.setattr(bucket_lock, "RENEW_S", 0.02)
    with locked(folder):
        first, seen = server.content("run/.lock"), 0
        for _ in range(200):
            time.sleep(0.02)
            if server.content("run/.lock") != first:
                seen = 1
                break
        assert seen


def test_a_stale_lock_is_taken_over_by_one(store):
    _, root = store
    folder = place(f"{root}/stale")
    lock = folder / ".lock"
    lock.write_text('{"pid": 1, "host": "gone", "renewed": 1000.0}', encoding="utf-8")
    with (
        pytest.raises(UserError, match="process 1 on gone"),
        bucket_lock.held(lock, folder, now=lambda: 1599.0),
    ):
        pass
    with bucket_lock.held(lock, folder, now=lambda: 1601.0):
        assert read_version(lock) is not None


def test_the_lock_of_a_killed_process_of_this_machine_is_taken_over_at_once(store):
    _, root = store
    folder = place(f"{root}/killed")
    code = (
        "import os, signal, sys; from kanana_jax.files import locked, place\n"
        "with locked(place(sys.argv[1])):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, f"{root}/killed"], timeout=60)
    left = json.loads((folder / ".lock").read_bytes())
    with locked(folder):
        assert json.loads((folder / ".lock").read_bytes())["pid"] == os.getpid()
    # The same number on another machine, or in another space of process ids, may live.
    (folder / ".lock").write_text(json.dumps(left | {"machine": "elsewhere"}), encoding="utf-8")
    with pytest.raises(UserError, match=f"in use by process {left['pid']}"), locked(folder):
        pass


def test_a_conditional_write_has_one_winner(store):
    _, root = store
    file = place(f"{root}/once/x")
    mark = write_if(file, b"1", None)
    assert mark and write_if(file, b"2", None) is None and write_if(file, b"1", None) == mark
    second = write_if(file, b"3", mark)
    assert second and write_if(file, b"4", mark) is None and read_version(file) == (b"3", second)
    assert read_version(file.with_name("y")) is None and write_if(file.with_name("y"), b"5", mark) is None


def test_who_loses_its_lock_ends(store):
    _, root = store
    code = (
        "import sys, time; from kanana_jax.files import *; from kanana_jax.files import bucket_lock\n"
        "bucket_lock.RENEW_S = 0.05\n"
        "with locked(place(sys.argv[1])):\n"
        "    print('held', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, f"{root}/lost"], stdout=-1, stderr=-1, text=True)
    assert process.stdout and process.stdout.readline() == "held\n"
    place(f"{root}/lost/.lock").write_text("{}", encoding="utf-8")
    _, told = process.communicate(timeout=60)
    assert process.returncode == 1 and "taken by another process" in told


def test_errors_are_one_sentence_each(store, quick, monkeypatch):
    server, root = store
    wrong = f"{root.partition(':')[0]}://no-such-bucket"
    for action in (
        lambda: place(f"{wrong}/x").read_bytes(),
        lambda: place(f"{wrong}/x").is_file(),
        lambda: write_json(place(f"{wrong}/x"), {}),
        lambda: stage_down(place(f"{wrong}/x")),
        lambda: locked(place(f"{wrong}/x")).__enter__(),
    ):
        with pytest.raises(UserError, match=r"there is no bucket \w+://no-such-bucket: check"):
            action()
    file = place(f"{root}/refused/x")
    file.write_bytes(b"x")
    monkeypatch.setattr(server, "fault", lambda *_: 403)
    for action in (file.read_bytes, file.is_file, lambda: file.write_bytes(b"y"), lambda: stage_down(file)):
        with pytest.raises(UserError, match=f"no permission to (read|write) {root}/refused/x"):
            action()
    asked = []
    monkeypatch.setattr(server, "fault", lambda *request: asked.append(request) or DROP)
    with pytest.raises(UserError, match=f"cannot read {root}/refused/x .*all attempts have failed"):
        file.read_bytes()
    assert 2 < len(asked) < 40
    count = len(asked)
    monkeypatch.setattr(
        server, "fault", lambda *request: asked.append(request) or (503 if len(asked) < count + 3 else None)
    )
    assert file.read_bytes() == b"x"


def test_a_missing_package_is_named(monkeypatch):
    for scheme, package in (("gs", "gcsfs"), ("s3", "s3fs")):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(UserError, match=rf"needs the package {package}: pip install .*\[cloud\]"):
            place(f"{scheme}://b/x").read_bytes()


def test_an_address_imports_no_tensorflow_and_local_paths_no_fsspec():
    code = (
        "import sys; from kanana_jax.files import *; place('x').exists(); assert 'etils' not in sys.modules\n"
        "place('gs://b/x'); assert 'fsspec' not in sys.modules and 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
