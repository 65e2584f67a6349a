"""Packing and the mixture, by their properties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kanana_jax.data.stream import mixture, packing
from kanana_jax.data.stream.encode import Example
from kanana_jax.errors import ConfigError

BOS, EOS = 1, 2
documents = st.lists(
    st.lists(st.integers(3, 50), max_size=12).map(lambda t: np.array([BOS, *t, EOS], np.int32)), min_size=1, max_size=12
)


def _pack(docs, T):
    return packing.pack([(Example(d),) for d in docs], T)


@given(documents, st.integers(2, 9))
@settings(max_examples=200, deadline=None)
def test_every_token_but_bos_is_a_target_exactly_once(docs, T):
    rows = _pack(docs, T)
    carried = rows.weights > 0
    want = np.concatenate([d[1:] for d in docs])
    np.testing.assert_array_equal(rows.targets[carried], want)
    np.testing.assert_array_equal(rows.inputs[carried], np.concatenate([d[:-1] for d in docs]))


@given(documents, st.integers(2, 9))
@settings(max_examples=200, deadline=None)
def test_segments_hold_one_document_and_positions_count(docs, T):
    rows = _pack(docs, T)
    for inputs, segments, positions in zip(rows.inputs, rows.segment_ids, rows.positions):
        for segment in set(segments) - {0}:
            where = np.flatnonzero(segments == segment)
            assert (np.diff(where) == 1).all()
            np.testing.assert_array_equal(positions[where], np.arange(len(where)))
            assert BOS not in inputs[where][1:]
        assert (inputs[segments == 0] == 0).all()


@given(documents, st.integers(2, 9), st.integers(0, 30))
@settings(max_examples=200, deadline=None)
def test_a_packer_resumes_from_its_position_after_any_row(docs, T, stop):
    def rows_of(packer, start, offset=0):
        for key in range(start, len(docs)):
            packer.add(key, (Example(docs[key]),), offset if key == start else 0)
            while packer.ready():
                yield packer.take(), packer.position(), key

    whole = list(rows_of(packing.Packer(T), 0))
    if not whole:
        return
    _, position, last = whole[min(stop, len(whole) - 1)]
    rest = [row for row, _, _ in whole[min(stop, len(whole) - 1) + 1 :]]
    again = [row for row, _, _ in rows_of(packing.Packer(T), *position)]
    assert len(again) == len(rest)
    for a, b in zip(again, rest):
        for x, y in zip(a, b):
            np.testing.assert_array_equal(x, y)


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=6), st.integers(0, 10**9), st.integers(50, 3000))
@settings(max_examples=100, deadline=None)
def test_every_run_of_rows_meets_the_shares(weights, first, rows):
    shares = np.array(weights) / sum(weights)
    drawn = mixture.source_of_row(np.arange(first, first + rows), shares)
    counts = np.bincount(drawn, minlength=len(shares))
    assert np.abs(counts - shares * rows).max() <= 2 + 2 * np.log2(rows)


def test_mixture_errors():
    with pytest.raises(ConfigError, match="did you mean 'ko_web'"):
        mixture.normalised({"ko_wbe": 1.0}, ["ko_web", "en"], "stage1.mixture")
    with pytest.raises(ConfigError, match="negative"):
        mixture.normalised({"en": -1.0}, ["en"], "m")
    with pytest.raises(ConfigError, match="no source a weight"):
        mixture.normalised({"en": 0.0}, ["en"], "m")
    assert mixture.normalised({"a": 3, "b": 1, "c": 0}, ["a", "b", "c"], "m") == {"a": 0.75, "b": 0.25}


def test_each_sequence_stays_whole_in_a_row_of_its_own_choice():
    """Where a record's sequences may part; resumed between two of one record, at any row, the rest is the same."""
    random, T = np.random.default_rng(0), 12
    records = [[Example(random.integers(3, 99, n)) for n in random.integers(2, 9, 3)] for _ in range(20)]

    def rows(packer, first, offset=0):
        for key in range(first, len(records)):
            packer.add(key, records[key], offset if key == first else 0)
            while packer.ready():
                row = packer.take()
                yield row, packer.position()

    found = list(rows(packing.Packer(T, "each"), 0))
    parts = [
        np.append(row.inputs, row.targets[-1])[np.append(row.segment_ids, 0) == i]
        for row, _ in found
        for i in range(1, 1 + row.segment_ids.max())
    ]
    whole = [example.tokens for record in records for example in record]
    # A row's last token is a target alone.
    assert all(
        np.array_equal(part, tokens[: len(part)]) and len(tokens) - len(part) < 2 for part, tokens in zip(parts, whole)
    )
    positions = [position for _, position in found]
    assert any(offset for _, offset in positions)
    for index, position in enumerate(positions[:-1]):
        (again, _), *_ = rows(packing.Packer(T, "each"), *position)
        for ours, theirs in zip(again, found[index + 1][0]):
            np.testing.assert_array_equal(ours, theirs)
