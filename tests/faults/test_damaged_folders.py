"""Damaged model folders, teacher caches and checkpoints: what it was, or one sentence; never a traceback or another model.

KANANA_DAMAGED=1000 tries that many of each. What cannot be noticed is left out: figures of a history (`model.json`), and
flips within the arrays of a checkpoint, whose format keeps no sums.
"""

import json
import os
import pathlib
import random
import shutil

import jax
import numpy as np
import pytest
import tokenizers

from kanana_jax.data.stream import teacher_cache
from kanana_jax.data.stream.teacher_cache import Entry, TeacherCache
from kanana_jax.errors import UserError
from kanana_jax.inference.session import Session
from kanana_jax.interop import model_folder
from kanana_jax.models.architecture import Architecture, RopeScaling, Runtime
from kanana_jax.models.transformer import abstract_params
from kanana_jax.training.checkpoint import CheckpointConfig, Checkpoints
from kanana_jax.training.step import TrainState

COUNT = int(os.environ.get("KANANA_DAMAGED", "40"))
A = Architecture(
    vocab_size=24, embed_dim=8, mlp_dim=12, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=4, max_seq_len=64,
    rope_scaling=RopeScaling("llama3", 8.0, 32, 1.0, 4.0),
)  # fmt: skip


def damaged(rng: random.Random, source: pathlib.Path, folder: pathlib.Path) -> str:
    """A copy of a folder with one or two of its files damaged; says how."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder)
    told = []
    for _ in range(rng.choice((1, 1, 2))):
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        file = rng.choice(files)
        data, kind = bytearray(file.read_bytes()), rng.choice(sorted(DAMAGE))
        place = rng.randrange(len(data)) if data else 0
        DAMAGE[kind](rng, file, data, place, files)
        told.append(f"{kind} {file.relative_to(folder)} at {place}")
    return ", ".join(told)


def _put(file, data):
    file.write_bytes(bytes(data))


def _flip(rng, file, data, place, files):
    if data:
        data[place] ^= 1 << rng.randrange(8)
    _put(file, data)


def _other_byte(rng, file, data, place, files):
    if data:
        data[place] = rng.choice(b'0123456789-.,:[]{}"eEtfn \x00\xff')
    _put(file, data)


DAMAGE = {
    "flipped": _flip,
    "other byte in": _other_byte,
    "cut": lambda rng, file, data, place, files: _put(file, data[:place]),
    "emptied": lambda rng, file, data, place, files: _put(file, b""),
    "removed": lambda rng, file, data, place, files: file.unlink(),
    "zeros in": lambda rng, file, data, place, files: _put(file, data[:place] + bytes(16) + data[place + 16 :]),
    "piece lost of": lambda rng, file, data, place, files: _put(file, data[:place] + data[place + rng.randrange(1, 40) :]),
    "piece twice in": lambda rng, file, data, place, files: _put(file, data[: place + 20] + data[place:]),
    "longer": lambda rng, file, data, place, files: _put(file, data + rng.randbytes(rng.randrange(1, 40))),
    "another in place of": lambda rng, file, data, place, files: _put(file, rng.choice(files).read_bytes()),
    "random": lambda rng, file, data, place, files: _put(file, rng.randbytes(len(data))),
}  # fmt: skip


def _tried(rng, source, folder, attempt, same):
    """How many of `COUNT` were refused, and how many read as before; whatever else happens is a failure."""
    counts = {"refused": 0, "as before": 0}
    for _ in range(COUNT):
        told = damaged(rng, source, folder)
        try:
            found = attempt(folder)
        except UserError as error:
            assert "\n" not in str(error) and len(str(error)) < 1200, (told, str(error))
            counts["refused"] += 1
            continue
        except BaseException as error:
            raise AssertionError(f"{told}: {type(error).__name__}: {error}") from error
        assert same(found), f"{told}: read as something else, without a word"
        counts["as before"] += 1
    print(f"\n{COUNT} damaged: {counts}")
    assert min(counts.values()) >= COUNT / 20
    return counts


def _equal(a, b):
    same = jax.tree.structure(a) == jax.tree.structure(b)
    return same and all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    root = tmp_path_factory.mktemp("model")
    words = {w: i for i, w in enumerate(["<unk>", "<s>", "</s>", *"abcdefghijklmnopqrstu"])}
    tokenizers.Tokenizer(tokenizers.models.BPE(words, [], unk_token="<unk>")).save(str(root / "tokenizer.json"))
    (root / "tokenizer_config.json").write_text('{"bos_token": "<s>", "eos_token": "</s>"}')
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), abstract_params(A, Runtime()))
    special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}
    model_folder.write(root / "written", A, params, {}, root, special)
    model_folder.transfer(root / "written", root / "model", keep_card=True)  # its history knows the tokenizer
    return root / "model"


def test_damaged_model_folders(model, tmp_path):
    def attempt(folder):
        session = Session.load(str(folder), devices=jax.devices()[:1])
        return session.params, session.model.architecture, session.tokenizer.encode("abcab").tolist(), session.stop_ids

    want = attempt(model)
    # Ends that are added or lost cost no logits; a tokenizer's companions are no part of what was trained.
    _tried(
        random.Random(0),
        model,
        tmp_path / "f",
        attempt,
        lambda found: _equal(found[0], want[0]) and found[1:3] == want[1:3],
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Two shards of two steps of four rows, as the stage writes them."""
    folder, rng, k = tmp_path_factory.mktemp("cache"), np.random.default_rng(0), 3
    shards = []
    for shard in range(2):
        name = teacher_cache.shard_name(shard, 0)
        with teacher_cache.shard_writer(folder / name) as append:
            for row in range(8):
                ids, values = rng.integers(0, 99, (5, k)).astype(np.uint8), rng.normal(size=(5, k)).astype(np.float16)
                append(teacher_cache.encode(Entry(rng.bytes(16), 8 * shard + row, ids, values)))
        shards.append({"file": name, "steps": [2 * shard, 2 * shard + 2], "rows": [[0, 4]], "bytes": 1})
    index = dict(
        of="teacher", teacher="abc", vocab_size=99, k=k, seq_len=8, batch_size=4, steps=4, rows=16, ids_dtype="uint8",
        log_probs_dtype="float16", tokenizer="def", data={"seed": 0}, shards=shards,
    )  # fmt: skip
    (folder / teacher_cache.INDEX).write_text(json.dumps(index))
    return folder


def test_damaged_teacher_caches(cache, tmp_path):
    def attempt(folder):
        found = TeacherCache(folder)
        found.check("s", tokenizer="def", seq_len=8, batch_size=4, steps=4, top_k=0, teacher="abc")
        return [tuple(map(np.asarray, entry)) for step in range(4) for entry in found.read(step, range(4))]

    want = attempt(cache)
    _tried(random.Random(1), cache, tmp_path / "f", attempt, lambda found: _equal(found, want))


def _state(value):
    rng = np.random.default_rng(value)
    params = {"w": jax.numpy.asarray(rng.normal(size=(8, 4)).astype(np.float32))}
    zero = jax.numpy.int32(0)
    return TrainState(
        jax.numpy.int32(value), params, {"m": params}, jax.numpy.zeros(2, np.uint32), zero, zero, jax.numpy.float32(0)
    )


def _position(step):
    return {"0": {"rows": list(range(20)), "step": step, "lang": "가"}}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints") / "c"
    saved = Checkpoints(folder, CheckpointConfig())
    for step in (2, 4):
        saved.save(step, _state(step), _position(step))
        saved.wait()
    saved.close()
    return folder


def test_damaged_checkpoints(checkpoints, tmp_path):
    def attempt(folder):
        opened = Checkpoints(folder, CheckpointConfig())
        try:
            step = opened.latest()
            if step is None:
                raise UserError("none is left")
            state, data = opened.restore(step, _state(0))
            return step, jax.tree.map(np.asarray, state), data
        finally:
            opened.close()

    def same(found):
        step, state, data = found
        shapes = [x.shape for x in jax.tree.leaves(state)]
        return shapes == [x.shape for x in jax.tree.leaves(_state(step))] and data == _position(step)

    _tried(random.Random(2), checkpoints, tmp_path / "f", attempt, same)
