"""What is written whole, and the lock on a place that one process writes to."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import pytest

from kanana_jax.errors import UserError
from kanana_jax.files import load_json, locked, read_json, sync_tree, whole, whole_file, write_json

HOLD = """
import pathlib, sys, time
from kanana_jax.files import locked
with locked(pathlib.Path(sys.argv[1]), folder=sys.argv[2] == "folder"):
    {inside}
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def hold():
    """Starts a process that holds a lock; gives it once it does."""
    started = []

    def start(place: pathlib.Path, folder: bool = True, inside: str = "pass"):
        code, kind = HOLD.format(inside=inside), "folder" if folder else "file"
        process = subprocess.Popen([sys.executable, "-c", code, str(place), kind], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize("folder", [True, False])
def test_a_second_process_is_refused_by_name_and_a_killed_one_has_no_lock(tmp_path, hold, folder):
    place = tmp_path / "a/place"
    process = hold(place, folder)
    with pytest.raises(UserError) as refused, locked(place, folder=folder):
        pass
    message = str(refused.value)
    assert f"process {process.pid} on {socket.gethostname()}" in message and str(place) in message
    process.kill()
    process.wait()
    with locked(place, folder=folder):
        pass
    assert not [p.name for p in tmp_path.rglob("*") if p.is_file()]
    with locked(tmp_path / "b/place", folder=folder):
        pass
    assert not (tmp_path / "b").exists()  # nothing was written: nothing is left


def test_the_lock_is_the_place_s_and_not_its_name_s(tmp_path, hold):
    place = tmp_path / "place"
    hold(place)
    (tmp_path / "link").symlink_to(place)
    with pytest.raises(UserError, match="is in use"), locked(tmp_path / "link"):
        pass
    with locked(tmp_path / "other"):
        pass


@pytest.mark.parametrize(
    "inside",
    [
        "import os; ends = os.pipe(); os.fork() or (os.close(1), os.write(ends[1], b'.'), time.sleep(30), os._exit(0)); "
        "os.read(ends[0], 1)",
        "import subprocess; subprocess.Popen(['sleep', '30'], stdout=subprocess.DEVNULL)",
    ],
)
def test_a_child_does_not_keep_the_lock_of_its_dead_parent(tmp_path, hold, inside):
    process = hold(tmp_path, inside=inside)
    process.kill()
    process.wait()
    with locked(tmp_path):
        pass


def test_the_lock_holds_while_its_folder_is_replaced(tmp_path, hold):
    place = tmp_path / "place"
    with locked(place), whole(place) as partial:
        (partial / "new").touch()
        code = "import pathlib, sys; from kanana_jax.files import locked; locked(pathlib.Path(sys.argv[1])).__enter__()"
        second = subprocess.run([sys.executable, "-c", code, str(place)], capture_output=True, text=True)
        assert f"process {os.getpid()} on" in second.stderr
    assert [p.name for p in place.iterdir()] == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["place"]


def test_many_that_come_and_go_never_hold_it_together(tmp_path):
    """Whoever holds it makes a folder and removes it; two at once would meet."""
    code = (
        "import pathlib, sys, time\n"
        "from kanana_jax.errors import UserError\n"
        "from kanana_jax.files import locked\n"
        "place, met, held = pathlib.Path(sys.argv[1]), 0, 0\n"
        "end = time.time() + 1.5\n"
        "while time.time() < end:\n"
        "    try:\n"
        "        with locked(place):\n"
        "            (place / 'alone').mkdir(); held += 1; (place / 'alone').rmdir()\n"
        "    except UserError as error:\n"
        "        assert 'in use' in str(error), error\n"
        "print(held)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "place")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    outputs = [process.communicate() for process in processes]
    assert [error for _, error in outputs] == [""] * 4
    assert sum(int(held) for held, _ in outputs) > 20


def test_a_folder_that_vanishes_while_it_is_made_is_made_again(tmp_path, monkeypatch):
    """`mkdir` meets another's folder, which is gone when it looks whether that is one."""
    make, left = pathlib.Path.mkdir, [FileExistsError(17, "File exists"), FileNotFoundError(2, "No such file")]

    def mkdir(self, *arguments, **options):
        if left:
            raise left.pop()
        return make(self, *arguments, **options)

    monkeypatch.setattr(pathlib.Path, "mkdir", mkdir)
    with locked(tmp_path / "place"):
        assert not left and (tmp_path / "place").is_dir()


def test_leftovers_of_the_killed_go_and_what_was_to_be_replaced_comes_back(tmp_path):
    place = tmp_path / "place"
    deep = place / "stage/deep"
    deep.mkdir(parents=True)
    (deep / "a.json.41.partial").touch()
    (tmp_path / "place.41.partial").mkdir()
    (tmp_path / "place.41.partial/x").touch()
    (tmp_path / "place2.41.partial").touch()  # of another place
    (place / "model.41.old.partial").mkdir()
    (place / "model.41.old.partial/weights").touch()
    (place / "notes.2024.old").touch()  # a user's
    with locked(place):
        pass
    found = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*"))
    assert found == [
        "place",
        "place/model",
        "place/model/weights",
        "place/notes.2024.old",
        "place/stage",
        "place/stage/deep",
        "place2.41.partial",
    ]


@pytest.mark.parametrize(
    "text, told",
    [
        ("", "is empty"),
        ('{"a": 1', "not whole JSON"),
        ("[1]", "no JSON object"),
        ("[" * 100_000, "not whole JSON"),
        ("\udcff", "not whole"),
    ],
)
def test_a_damaged_json_file_is_told_by_its_name(tmp_path, text, told):
    file = tmp_path / "state.json"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=told) as error:
        read_json(file)
    assert str(file) in str(error.value) and "delete it" in str(error.value)


def test_a_key_that_a_json_file_lacks_is_told_with_its_name(tmp_path):
    write_json(tmp_path / "state.json", {"a": {"b": 1}})
    state = load_json(tmp_path / "state.json")
    assert state == {"a": {"b": 1}} and state.get("c") is None and "c" not in state
    with pytest.raises(UserError, match="state.json lacks 'c'"):
        state["c"]


def test_a_missing_or_unreadable_json_file(tmp_path):
    assert read_json(tmp_path / "no.json") is None
    with pytest.raises(UserError, match="is missing"):
        load_json(tmp_path / "no.json")
    with pytest.raises(UserError, match="cannot read"):
        load_json(tmp_path)


class _Disk:
    """The order of what reaches the disk, as the operating system is asked for it."""

    def __init__(self, monkeypatch):
        self.calls = []
        for name in ("fsync", "replace", "rename"):
            monkeypatch.setattr(os, name, self._noting(name, getattr(os, name)))

    def _noting(self, name, call):
        def noted(first, *rest):
            self.calls.append((name, os.readlink(f"/proc/self/fd/{first}") if name == "fsync" else str(first)))
            return call(first, *rest)

        return noted


def test_a_file_is_on_the_disk_before_its_name_and_the_name_before_the_return(tmp_path, monkeypatch):
    disk = _Disk(monkeypatch)
    write_json(tmp_path / "a.json", {})
    kinds = [(name, "folder" if path == str(tmp_path) else "file") for name, path in disk.calls]
    assert kinds == [("fsync", "file"), ("replace", "file"), ("fsync", "folder")]


@pytest.mark.parametrize("there", [False, True])
def test_a_folder_is_on_the_disk_before_its_name(tmp_path, monkeypatch, there):
    place = tmp_path / "place"
    if there:
        place.mkdir()
        (place / "before").touch()
    disk = _Disk(monkeypatch)
    with whole(place) as partial:
        (partial / "inner").mkdir()
        (partial / "inner/a").write_text("x")
    synced = [path for name, path in disk.calls if name == "fsync"]
    for inside in ("inner/a", "inner", ""):
        assert str(partial / inside) in synced
    assert synced[-1] == str(tmp_path)
    assert sorted(str(p.relative_to(place)) for p in place.rglob("*")) == ["inner", "inner/a"]
    assert [p.name for p in tmp_path.iterdir()] == ["place"]


def test_places_that_cannot_be_written(tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    for place in (file, file / "below", tmp_path / ("x" * 300)):
        for attempt in (
            lambda place=place: locked(place).__enter__(),
            lambda place=place: whole(place / "w").__enter__(),
            lambda place=place: write_json(place / "f.json", {}),
        ):
            with pytest.raises(UserError, match="cannot write") as error:
                attempt()
            assert str(place) in str(error.value) and "name a" in str(error.value)
    assert file.read_text() == "mine" and [p.name for p in tmp_path.iterdir()] == ["file"]


def test_an_error_inside_leaves_nothing_half_written(tmp_path):
    write_json(tmp_path / "a.json", {"before": 1})
    with pytest.raises(RuntimeError), whole_file(tmp_path / "a.json") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    with pytest.raises(RuntimeError), whole(tmp_path / "b") as partial:
        (partial / "x").touch()
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert json.loads((tmp_path / "a.json").read_text()) == {"before": 1}


def test_a_network_s_error_inside_is_not_the_disk_s(tmp_path):
    with pytest.raises(ConnectionResetError), whole_file(tmp_path / "a"):
        raise ConnectionResetError


def test_a_tree_is_on_the_disk_from_its_leaves(tmp_path, monkeypatch):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/c").write_text("x")
    disk = _Disk(monkeypatch)
    sync_tree(tmp_path / "a")
    assert {path for _, path in disk.calls} == {str(tmp_path / inside) for inside in ("a", "a/b", "a/b/c")}
