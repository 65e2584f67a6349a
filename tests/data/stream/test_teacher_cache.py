"""A cache gives back what was written, to any number of readers, for the same rows only."""

import json

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kanana_jax.data.stream import teacher_cache
from kanana_jax.data.stream.cached import CachedStream
from kanana_jax.data.stream.packing import Rows
from kanana_jax.data.stream.teacher_cache import Entry, TeacherCache
from kanana_jax.errors import ConfigError, UserError

T, B, K, STEPS, LANES = 10, 8, 3, 7, 4
PER_LANE = B // LANES


@given(
    st.binary(min_size=16, max_size=16),
    st.integers(0, 2**64 - 1),
    st.sampled_from(["uint8", "uint16", "uint32"]),
    st.sampled_from(["float16", "float32"]),
    st.integers(0, 5),
    st.integers(1, 6),
    st.data(),
)
@settings(max_examples=150, deadline=None)
def test_records_come_back(digest, number, ids_type, log_probs_type, n, k, data):
    ids = data.draw(hnp.arrays(ids_type, (n, k)))
    log_probs = data.draw(hnp.arrays(log_probs_type, (n, k)))
    encoded = teacher_cache.encode(Entry(digest, number, ids, log_probs))
    found = teacher_cache.decode(encoded, k, ids_type, log_probs_type)
    assert (found.digest, found.number) == (digest, number)
    np.testing.assert_array_equal(found.ids, ids)
    assert found.log_probs.tobytes() == log_probs.tobytes() and found.log_probs.shape == (n, k)
    for broken in (encoded[:-1], encoded + b"x", encoded[:10]):
        with pytest.raises(ValueError, match="record"):
            teacher_cache.decode(broken, k, ids_type, log_probs_type)


@pytest.mark.parametrize(
    "vocabulary, dtype", [(2, "uint8"), (256, "uint8"), (257, "uint16"), (65536, "uint16"), (128256, "uint32")]
)
def test_ids_take_the_smallest_dtype(vocabulary, dtype):
    assert teacher_cache.ids_dtype(vocabulary) == dtype


def test_every_part_of_a_row_is_in_its_digest():
    row = _row(0, 0, seed=0)
    rows = Rows(*(x[None] for x in row))
    whole = teacher_cache.row_digest(rows, 0)
    assert whole == teacher_cache.row_digest(Rows(*(x.astype(np.int64) for x in rows)), 0)
    for key in teacher_cache.HASHED:
        changed = getattr(rows, key).copy()
        changed[0, -1] += 1
        assert teacher_cache.row_digest(rows._replace(**{key: changed}), 0) != whole


def _row(step, row, seed):
    rng = np.random.default_rng([seed, step, row])
    weights = (rng.random(T) < 0.8).astype(np.float32)
    ints = {key: rng.integers(0, 99, T, dtype=np.int32) for key in ("inputs", "positions", "segment_ids", "targets")}
    return Rows(**ints, weights=weights, source=np.int32(0))


def _said(step, row):
    """What the teacher says of a row: ids `[T, K]` and log-probabilities."""
    rng = np.random.default_rng([77, step, row])
    return rng.integers(0, 300, (T, K)).astype(np.uint16), (-rng.random((T, K))).astype(np.float16)


class _Stream:
    """Rows like `BatchStream`'s, by lanes."""

    def __init__(self, rows, seed=0):
        self.rows, self.seed, self.step = rows, seed, 0
        self.wait_seconds = self.filter_seconds = 0.25
        self.closed = False

    def __next__(self):
        made = [_row(self.step, int(row), self.seed) for row in self.rows]
        self.step += 1
        return Rows(*(np.stack(parts) for parts in zip(*made)))

    def get_state(self):
        lanes = sorted({int(row) // PER_LANE for row in self.rows})
        return {str(lane): {"row": self.step * PER_LANE, "sources": {}} for lane in lanes}

    def set_state(self, state):
        self.step = next(iter(state.values()))["row"] // PER_LANE

    def close(self):
        self.closed = True


def _write(folder, processes, per_shard=3):
    """As that many processes would, each with its share of the rows."""
    folder.mkdir(exist_ok=True)
    shards = []
    for shard, first in enumerate(range(0, STEPS, per_shard)):
        end = min(first + per_shard, STEPS)
        for process in range(processes):
            mine = np.flatnonzero(np.arange(B) // 2 % processes == process)  # not in one piece
            path = folder / teacher_cache.shard_name(shard, process)
            with teacher_cache.shard_writer(path) as write:
                for step in range(first, end):
                    for row in mine:
                        held, (ids, log_probs) = _row(step, int(row), 0), _said(step, row)
                        kept = held.weights > 0
                        digest = teacher_cache.row_digest(Rows(*(x[None] for x in held)), 0)
                        entry = Entry(digest, step * B + int(row), ids[kept], log_probs[kept])
                        write(teacher_cache.encode(entry))
            ranges = [[int(row), int(row) + 1] for row in mine]
            shards.append({"file": path.name, "steps": [first, end], "rows": ranges, "bytes": path.stat().st_size})
    index = dict(
        teacher="t" * 32, tokenizer="x" * 64, k=K, rows=STEPS * B, seq_len=T, batch_size=B, steps=STEPS, vocab_size=300,
        ids_dtype="uint16", log_probs_dtype="float16", data={"seed": 0, "mixture": {"web": 1.0}}, shards=shards,
    )  # fmt: skip
    (folder / "index.json").write_text(json.dumps(index))
    return folder


def _taught(folder, rows, stream=None, steps=STEPS, **more):
    about = {"seed": 0, "mixture": {"web": 1.0}}
    stream = stream or _Stream(rows)
    return CachedStream(stream, rows, TeacherCache(folder), steps=steps, stage="s", **dict(about=about) | more)


@pytest.mark.parametrize("writers", [1, 2, 3])
@pytest.mark.parametrize("readers", [1, 2, 4])
def test_any_number_of_writers_and_readers(tmp_path, writers, readers):
    folder = _write(tmp_path / "c", writers)
    for reader in range(readers):
        rows = np.array_split(np.arange(B), readers)[reader]
        stream = _taught(folder, rows)
        for step in range(STEPS):
            batch = next(stream)
            for i, row in enumerate(rows):
                ids, log_probs = _said(step, row)
                kept = batch.rows.weights[i] > 0
                np.testing.assert_array_equal(batch.teacher_ids[i], ids * kept[:, None])
                np.testing.assert_array_equal(batch.teacher_log_probs[i], np.where(kept[:, None], log_probs, 0))
                np.testing.assert_array_equal(batch.rows.inputs[i], _row(step, int(row), 0).inputs)
        with pytest.raises(UserError, match="more than the 7 steps"):
            next(stream)
        stream.close()
        assert stream._stream.closed


def test_a_smaller_k_is_a_prefix_and_waiting_is_told(tmp_path):
    folder, rows = _write(tmp_path / "c", 1), np.arange(B)
    full, two = _taught(folder, rows), _taught(folder, rows, top_k=2)
    a, b = next(full), next(two)
    assert b.teacher_ids.shape == (B, T, 2)
    np.testing.assert_array_equal(b.teacher_log_probs, a.teacher_log_probs[..., :2])
    assert two.wait_seconds >= 0.25 and two.filter_seconds == 0.25


def test_positions_pass_through(tmp_path):
    folder, rows = _write(tmp_path / "c", 2), np.arange(4)
    stream = _taught(folder, rows)
    ahead = [next(stream) for _ in range(5)]
    state = stream.get_state()
    assert state == {"0": {"row": 10, "sources": {}}, "1": {"row": 10, "sources": {}}}
    stream.set_state({lane: {"row": 6, "sources": {}} for lane in "0123"})  # as saved by all processes together
    for batch in ahead[3:]:
        again = next(stream)
        jax.tree.map(np.testing.assert_array_equal, again, batch)
    fresh = _Stream(rows)
    fresh.set_state(state)
    np.testing.assert_array_equal(next(_taught(folder, rows, fresh)).rows.inputs, next(stream).rows.inputs)


def test_other_rows_are_refused_and_the_reason_told(tmp_path):
    folder, rows = _write(tmp_path / "c", 1), np.arange(B)
    with pytest.raises(UserError, match=r"stage 's': row 0 of step 0 is not the row .* \(its seed differ\)"):
        next(_taught(folder, rows, _Stream(rows, seed=1), about={"seed": 1, "mixture": {"web": 1.0}}))
    with pytest.raises(UserError, match="its seed, mixture differ"):
        next(_taught(folder, rows, _Stream(rows, seed=1), about={"seed": 1, "mixture": {"web": 0.5}}))
    with pytest.raises(UserError, match="nothing in the config differs, so the documents must"):
        next(_taught(folder, rows, _Stream(rows, seed=1)))

    class Late(_Stream):
        def __next__(self):
            batch = super().__next__()
            if self.step == 3:
                batch.targets[5, 2] += 1
            return batch

    stream = _taught(folder, rows, Late(rows))
    next(stream), next(stream)
    with pytest.raises(UserError, match="row 5 of step 2"):
        next(stream)


def _check(folder, **change):
    same = dict(tokenizer="x" * 64, seq_len=T, batch_size=B, steps=STEPS, top_k=0, teacher=None)
    TeacherCache(folder).check("student", **same | change)


@pytest.mark.parametrize(
    "change, told",
    [
        (dict(tokenizer="y" * 64), r"another tokenizer \(xxxxxxxxxxxx…, the recipe's is yyyy"),
        (dict(teacher="u" * 32), r"another model \(tttttttttttt…, distill.teacher is uuuu"),
        (dict(seq_len=20), "rows of seq_len 10, the stage needs 20"),
        (dict(batch_size=4), "rows of batch_size 8, the stage needs 4"),
        (dict(steps=8), "ends after 7 steps, the stage has 8"),
        (dict(top_k=4), "has 3 entries per token, distill.top_k is 4"),
    ],
)
def test_caches_for_something_else_are_refused(tmp_path, change, told):
    folder = _write(tmp_path / "c", 1)
    _check(folder)
    _check(folder, steps=2, top_k=3, teacher="t" * 32)
    with pytest.raises(ConfigError, match=f"stage 'student': .*{told}") as caught:
        _check(folder, **change)
    assert "\n" not in str(caught.value)


def test_what_is_not_whole_is_told(tmp_path):
    with pytest.raises(UserError, match="holds no cached teacher"):
        TeacherCache(tmp_path)
    (tmp_path / "progress.json").write_text("{}")
    with pytest.raises(UserError, match="is not finished"):
        TeacherCache(tmp_path)
    folder = _write(tmp_path / "c", 2)
    first, second = sorted(folder.glob("*.array_record"))[:2]
    data = first.read_bytes()
    first.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="broken shard|of its 56 rows"):
        TeacherCache(folder)
    first.write_bytes(second.read_bytes())
    with pytest.raises(UserError, match="hold other rows"):
        TeacherCache(folder).read(0, np.arange(B))
    first.unlink()
    with pytest.raises(UserError, match="000000-00000.array_record is missing"):
        TeacherCache(folder)


def test_a_shard_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(KeyError), teacher_cache.shard_writer(tmp_path / "a.array_record") as write:
        write(b"x")
        raise KeyError
    assert not list(tmp_path.iterdir())
    with (
        pytest.raises(UserError, match="cannot write .*no/a.array_record .* free space"),
        teacher_cache.shard_writer(tmp_path / "no/a.array_record") as write,
    ):
        write(b"x")
    with teacher_cache.shard_writer(tmp_path / "b.array_record") as write:
        write(b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["b.array_record"]
