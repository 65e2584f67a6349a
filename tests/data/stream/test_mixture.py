"""The mixture against its definition: exact arithmetic, shares, and independence of the lanes."""

import fractions

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kanana_jax.data.stream import mixture


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(0, 2**40))
@settings(max_examples=200, deadline=None)
def test_a_row_takes_the_interval_that_its_point_falls_into(weights, row):
    """Against exact rational arithmetic; points within rounding of an edge may fall either way."""
    total = sum(weights)
    point = fractions.Fraction(row * 0x9E3779B97F4A7C15 % 2**64, 2**64)
    edges = [fractions.Fraction(sum(weights[: i + 1]), total) for i in range(len(weights))]
    if any(abs(point - edge) < fractions.Fraction(1, 2**40) for edge in edges):
        return
    want = next(i for i, edge in enumerate(edges) if point < edge)
    assert int(mixture.source_of_row(row, [w / total for w in weights])) == want


def test_shares_of_any_prefix_are_close_to_the_weights():
    shares = np.array([0.55, 0.3, 0.1, 0.05])
    drawn = mixture.source_of_row(np.arange(20_000), shares)
    counts = np.cumsum(np.eye(4)[drawn], axis=0)
    off = np.abs(counts - shares * np.arange(1, 20_001)[:, None])
    assert off.max() < 4  # rows; independent draws would be some hundred off


def test_a_row_number_alone_decides_and_arrays_equal_single_rows():
    shares = [0.2, 0.5, 0.3]
    rows = np.random.default_rng(0).integers(0, 2**50, 200)
    np.testing.assert_array_equal(
        mixture.source_of_row(rows, shares), [int(mixture.source_of_row(int(row), shares)) for row in rows]
    )


def test_the_last_point_belongs_to_a_source():
    """Shares that add up to less than 1, as rounding leaves them, must not point beyond the last source."""
    drawn = mixture.source_of_row(np.arange(1000), [0.3, 0.3, 0.3])
    assert set(drawn.tolist()) == {0, 1, 2}


def test_the_order_of_a_config_decides_no_row():
    weights = {"b": 1.0, "a": 3.0, "none": 0.0, "c": 4.0}
    shares = mixture.normalised(weights, [*weights], "m")
    assert [*shares.items()] == [("a", 0.375), ("b", 0.125), ("c", 0.5)]
    assert [*mixture.normalised(dict(reversed(weights.items())), [*weights], "m").items()] == [*shares.items()]
