"""What a reference says, kept on disk: of a sequence in any row, and of no other reference (a whole stage: `test_dpo`)."""

import dataclasses

import numpy as np
import pytest

from kanana_jax.data.stream import packing
from kanana_jax.data.stream.encode import Example
from kanana_jax.errors import ConfigError, UserError
from kanana_jax.files import place
from kanana_jax.stages.reference_cache import ReferenceCache, ReferenceKey

KEY = ReferenceKey("w", "float32", "t", "c")


def _rows(rng, order, T):
    examples = [Example(np.arange(3, 9 + i), np.r_[0, 0, np.ones(4 + i)].astype("f4")) for i in range(5)]
    rows = packing.pack([[examples[i]] for i in order], T, whole=True)
    return rows, -rng.random(rows.weights.shape).astype("f4")


def test_values_belong_to_sequences_not_to_rows(tmp_path):
    rng = np.random.default_rng(0)
    rows, log_probs = _rows(rng, range(5), 31)
    cache = ReferenceCache("dpo", tmp_path / "cache", KEY, tmp_path / "a")
    assert cache.find(rows) is None
    carries = rows.weights > 0
    np.testing.assert_array_equal(cache.add(rows, log_probs), np.where(carries, log_probs, 0))
    by_sequence = {len(x): x for x in _sequences(rows, log_probs)}
    other, unused = _rows(rng, (3, 1, 0), 13)
    assert len(other.inputs) > 1 and other.inputs.shape != rows.inputs.shape
    # Read again by another stage; what is known is not overwritten.
    again = ReferenceCache("dpo", tmp_path / "cache", KEY, tmp_path / "b")
    found = again.add(other, unused)
    for values in _sequences(other, found):
        np.testing.assert_array_equal(values, by_sequence[len(values)])
    changed = other._replace(inputs=other.inputs + (np.arange(13) == 0))  # another first token of the prompt
    assert again.find(changed) is None


def _sequences(rows, values):
    return [
        values[row][(rows.segment_ids[row] == i) & (rows.weights[row] > 0)]
        for row in range(len(rows.inputs))
        for i in range(1, rows.segment_ids[row].max() + 1)
    ]


def test_a_cache_of_something_else_is_refused(tmp_path):
    rows, log_probs = _rows(np.random.default_rng(0), range(5), 31)
    want = ReferenceCache("dpo", tmp_path / "cache", KEY, tmp_path / "a").add(rows, log_probs)
    for field in ("weights", "dtype", "tokenizer", "template"):
        with pytest.raises(ConfigError, match=rf"belongs to another reference \({field} differ\): name another folder"):
            ReferenceCache("dpo", tmp_path / "cache", dataclasses.replace(KEY, **{field: "x"}), tmp_path / "a")
    (file,) = (tmp_path / "cache").glob("log_probs-*")
    data = file.read_bytes()
    file.write_bytes(data[:-3])  # killed while it wrote
    torn = ReferenceCache("dpo", tmp_path / "cache", KEY, tmp_path / "a")
    assert torn.find(rows) is None and len(file.read_bytes()) < len(data) - 3
    np.testing.assert_array_equal(torn.add(rows, log_probs), want)
    assert len(file.read_bytes()) == len(data)
    file.write_bytes(data[:20] + np.float32(np.nan).tobytes() + data[24:])
    with pytest.raises(UserError, match="is damaged at byte 0: remove it"):
        ReferenceCache("dpo", tmp_path / "cache", KEY, tmp_path / "a")
    with pytest.raises(ConfigError, match="name a folder on a disk"):
        ReferenceCache("dpo", place("gs://bucket/cache"), KEY, tmp_path / "a")
