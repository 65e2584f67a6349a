"""Checkpoints in buckets: what was saved comes back, on any devices; what was not sent whole never was."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import fsspec
import jax
import numpy as np
import pytest
import saver
from buckets import BUCKET, DROP, S3, Gcs, gcs, s3
from conftest import FLAGS

from kanana_jax.errors import UserError
from kanana_jax.files import place
from kanana_jax.training import loop
from kanana_jax.training.checkpoint import CheckpointConfig
from kanana_jax.training.step import TrainState

KINDS = {"gcs": "gs", "s3": "s3"}


@pytest.fixture(params=KINDS)
def bucket(request, tmp_path, monkeypatch):
    """A server and an address in its bucket that is this test's."""
    monkeypatch.setenv("KANANA_JAX_CACHE", str(tmp_path / "cache"))
    server = request.getfixturevalue(request.param)
    yield server, f"{KINDS[request.param]}://{BUCKET}/{request.node.originalname}/checkpoints"
    server.fault = None


def _state(step: int, devices: int = 1) -> TrainState:
    return saver.state(step, jax.devices()[:devices])


def _opened(address, **config):
    return loop._checkpoints(place(address), CheckpointConfig(**config))


_shapes = saver.shapes


def _same(found, wanted):
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), found, wanted)


def test_what_was_saved_comes_back_on_other_devices(bucket):
    server, address = bucket
    checkpoints = _opened(address, keep_last=2, keep_best=1)
    for step, loss in ((1, 3.0), (2, 1.0), (3, None), (4, 2.0), (5, None)):
        checkpoints.save(step, _state(step, 4), {"stream": {"0": {"step": step}}}, loss)
    checkpoints.wait()
    assert checkpoints.steps() == [2, 4, 5] and checkpoints.latest() == 5
    checkpoints.judged(5, 0.5)
    checkpoints.close()
    prefix = address.partition(f"{BUCKET}/")[2]
    assert {name.removeprefix(f"{prefix}/").split("/")[0] for name in server.names(prefix)} == {"2", "4", "5"}

    again = _opened(address, keep_last=1, keep_best=1)
    assert again.steps() == [2, 4, 5]
    wanted = _state(5, 2)
    state, data = again.restore(5, _shapes(wanted))
    assert data == {"stream": {"0": {"step": 5}}}
    _same(state, wanted)
    assert state.params["w"].sharding == wanted.params["w"].sharding
    again.save(6, _state(6), data, 9.0)
    again.wait()
    assert again.steps() == [5, 6]  # the newest, and the best as judged later
    again.close()


@pytest.mark.parametrize("how", [403, DROP])
def test_a_connection_lost_in_the_middle_leaves_the_checkpoint_before(bucket, how):
    server, address = bucket
    if how == DROP and address.startswith("gs"):
        pytest.skip("TensorStore asks thirty times, for a quarter of an hour")
    address = address.replace("checkpoints", str(how))
    prefix = address.partition(f"{BUCKET}/")[2]
    checkpoints = _opened(address)
    checkpoints.save(1, _state(1), {"0": {}})
    checkpoints.wait()
    sent = []

    def fault(method, path, size):
        """After some writes of the second checkpoint nothing is answered any more."""
        if f"{prefix}/2/" in path and method in ("PUT", "POST"):
            sent.append(path)
        return how if len(sent) > 3 else None

    server.fault = fault
    with pytest.raises(UserError, match=r"step \d is incomplete in .*, is of step 1: "):
        checkpoints.save(2, _state(2), {"0": {}})
        checkpoints.wait()
    checkpoints.close()
    server.fault = None
    assert any(name.startswith(f"{prefix}/2/") for name in server.names())

    again = _opened(address)
    assert again.steps() == [1]
    again.save(2, _state(3), {"0": {}})
    again.wait()
    assert not again.close() and _opened(address).steps() == [1, 2]
    state, _ = _opened(address).restore(2, _shapes(_state(3)))
    _same(state, _state(3))


def test_two_processes_on_disks_of_their_own(gcs, s3, tmp_path, monkeypatch):
    """Each sends its shards; both read all, and so does one."""
    addresses = [f"{scheme}://{BUCKET}/two/checkpoints" for scheme in KINDS.values()]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = f"--xla_force_host_platform_device_count=2 {FLAGS}"
    env = os.environ | gcs.environment | s3.environment | {"XLA_FLAGS": flags}
    env["JAX_CPU_COLLECTIVES_IMPLEMENTATION"] = "gloo"
    processes = [
        subprocess.Popen(
            [sys.executable, pathlib.Path(saver.__file__), f"127.0.0.1:{port}", str(index), *addresses],
            env=env | {"KANANA_JAX_CACHE": str(tmp_path / f"host{index}")},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    try:
        for process in processes:
            said = process.communicate(timeout=280)[1]
            assert process.returncode == 0, said
    finally:
        for process in processes:
            process.kill()
    monkeypatch.setenv("KANANA_JAX_CACHE", str(tmp_path / "one"))
    for address in addresses:
        checkpoints = _opened(address)
        assert checkpoints.steps() == [2, 3]
        state, data = checkpoints.restore(3, _shapes(_state(3, 1)))
        assert data == {"0": {"step": 3}}
        _same(state, _state(3, 1))
        checkpoints.close()
    manifest = json.loads(s3.content("two/checkpoints/3/manifest.json"))
    assert {name.split("/")[1] for name, _, _ in manifest["files"] if "ocdbt" in name} == {
        f"ocdbt.process_{i}" for i in (0, 1)
    }


def test_a_file_that_changed_is_refused(s3, tmp_path, monkeypatch):
    monkeypatch.setenv("KANANA_JAX_CACHE", str(tmp_path / "cache"))
    address = f"s3://{BUCKET}/changed"
    checkpoints = _opened(address)
    checkpoints.save(1, _state(1), {"0": {}})
    checkpoints.close()
    files = json.loads(s3.content("changed/1/manifest.json"))["files"]
    name, size, _ = next(row for row in files if "/d/" in row[0])
    fsspec.filesystem("s3").pipe_file(f"{BUCKET}/changed/1/{name}", b"x" * size)
    with pytest.raises(UserError, match=name):
        _opened(address).restore(1, _shapes(_state(1)))
    fsspec.filesystem("s3").pipe_file(f"{BUCKET}/changed/1/manifest.json", b"{")
    with pytest.raises(UserError, match=r"manifest.json differs from what was written"):
        _opened(address)


def test_uploads_in_parts_that_were_left_are_ended(s3):
    begun = s3.client.create_multipart_upload(Bucket=BUCKET, Key="parts/2/state/x")
    other = s3.client.create_multipart_upload(Bucket=BUCKET, Key="elsewhere")
    _opened(f"s3://{BUCKET}/parts").close()
    left = s3.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", ())
    assert [upload["UploadId"] for upload in left] == [other["UploadId"]] != [begun["UploadId"]]


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_bucket_is_one_sentence(kind, request):
    request.getfixturevalue(kind)
    with pytest.raises(UserError, match=rf"{KINDS[kind]}://no-such-bucket"):
        checkpoints = _opened(f"{KINDS[kind]}://no-such-bucket/x")
        checkpoints.save(1, _state(1), {"0": {}})
        checkpoints.wait()
