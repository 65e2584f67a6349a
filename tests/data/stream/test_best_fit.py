"""Best-fit packing, by its properties and a naive packer."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kanana_jax.data.stream.best_fit import BestFitPacker, best_fit
from kanana_jax.data.stream.encode import Example
from kanana_jax.data.stream.packing import Packer

# Every token is of one document and place alone: documents begin with 100, 200, …
documents = st.lists(st.integers(2, 27), min_size=1, max_size=20).map(
    lambda lengths: [np.arange(100 * i, 100 * i + n, dtype=np.int32) for i, n in enumerate(lengths, 1)]
)


def _rows(docs, T, rows, start=0, offset=0):
    packer = BestFitPacker(T, False, rows)
    for key in range(start, len(docs)):
        packer.add(key, (Example(docs[key]),), offset if key == start else 0)
        while packer.ready():
            yield packer.take(), packer.position() or (key + 1, 0), key


@given(st.lists(st.integers(1, 20), max_size=60), st.integers(20, 40))
def test_bins_are_those_of_best_fit_decreasing(lengths, capacity):
    naive: list[list[int]] = []
    for item in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        rooms = [capacity - sum(lengths[i] for i in items) for items in naive]
        fitting = [(room, number) for number, room in enumerate(rooms) if room >= lengths[item]]
        if fitting:
            naive[min(fitting)[1]].append(item)
        else:
            naive.append([item])
    assert best_fit(lengths, capacity) == sorted(map(sorted, naive))


@given(documents, st.integers(2, 12), st.integers(1, 4))
@settings(max_examples=200, deadline=None)
def test_only_what_is_longer_than_a_row_is_cut_and_every_target_comes_once(docs, T, rows):
    taken = list(_rows(docs, T, rows))
    windows = 1 + max((key for _, position, key in taken if position == (key + 1, 0)), default=-1)
    whole = [row for row, position, key in taken if key < windows]
    targets = np.concatenate([row.targets[row.weights > 0] for row in whole] or [[]])
    np.testing.assert_array_equal(np.sort(targets), np.sort(np.concatenate([d[1:] for d in docs[:windows]] or [[]])))
    for row in whole:
        for segment in set(row.segment_ids) - {0}:
            inside = row.segment_ids == segment
            held = [*row.inputs[inside], *row.targets[inside][row.weights[inside] > 0][-1:]]
            first, length = int(held[0]), len(docs[int(held[0]) // 100 - 1])
            np.testing.assert_array_equal(row.positions[inside], np.arange(inside.sum()))
            # The last token of a full row is a target alone, and one that is no target of its segment is EOS's.
            assert list(dict.fromkeys(held)) == list(range(first, first + min(length - first % 100, T + 1)))
            assert first % 100 == 0 or length > T + 1


@given(documents, st.integers(2, 12), st.integers(1, 4), st.integers(0, 30))
@settings(max_examples=200, deadline=None)
def test_a_packer_resumes_after_any_row(docs, T, rows, stop):
    whole = list(_rows(docs, T, rows))
    if not whole:
        return
    stop = min(stop, len(whole) - 1)
    again, rest = list(_rows(docs, T, rows, *whole[stop][1])), whole[stop + 1 :]
    assert len(again) == len(rest)
    for (a, _, _), (b, _, _) in zip(again, rest):
        for x, y in zip(a, b):
            np.testing.assert_array_equal(x, y)


def test_less_is_padding_than_in_order_where_records_stay_whole():
    random, T, rows = np.random.default_rng(0), 64, 32
    records = [[Example(np.arange(1, n + 1), None) for n in pair] for pair in random.integers(2, 24, (400, 2))]

    def filled(packer):
        found = []
        for key, record in enumerate(records):
            packer.add(key, record)
            while packer.ready():
                found.append(packer.take())
        # Both sequences of a record are neighbours in one row.
        assert all(row.segment_ids.max() % 2 == 0 for row in found)
        return np.mean([row.segment_ids > 0 for row in found])

    assert filled(BestFitPacker(T, True, rows)) > 0.95 > 0.9 > filled(Packer(T, whole=True))
