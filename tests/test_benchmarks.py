"""The n-gram baseline is a proper distribution, worked out by hand on a small corpus."""

import importlib.util

import pytest
from conftest import ROOT

_spec = importlib.util.spec_from_file_location("bits_per_byte", ROOT / "benchmarks/bits_per_byte.py")
bits_per_byte = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(bits_per_byte)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_probabilities_sum_to_one(order):
    documents = [[0, 5, 6, 5, 6, 7, 1], [0, 5, 6, 1], [0, 7, 5, 6, 8, 1]]
    model = bits_per_byte.KneserNey(documents, order, 10, 0)
    for context in [(0, 0, 0), (0, 5, 6), (6, 5, 6), (9, 9, 9), (5, 6, 7)]:
        history = context[len(context) - order + 1 :]
        assert sum(model.probability(history, w) for w in range(10)) == pytest.approx(1.0)


def test_bigram_by_hand():
    """Corpus: <s> a b </s>, <s> a a </s>; order 2."""
    a, b, s, e = 2, 3, 0, 1
    model = bits_per_byte.KneserNey([[s, a, b, e], [s, a, a, e]], 2, 4, s)
    # Bigrams: sa 2, ab 1, be 1, aa 1, ae 1; n1 = 4, n2 = 1, so D2 = 4/6. Unigrams count left neighbours:
    # a {s, a} 2, b {a} 1, e {b, a} 2; n1 = 1, n2 = 2, so D1 = 1/5.
    unigram_b = (1 - 0.2 + 0.2 * 3 / 4) / 5
    assert model.probability((a,), b) == pytest.approx((1 - 2 / 3 + 2 / 3 * 3 * unigram_b) / 3)
