"""Precision, recall and thresholds against their definitions, counted one by one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanana_jax.data.quality import curves

SCORED = st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=2, max_size=40).filter(
    lambda found: 0 < sum(good for good, _ in found) < len(found)
)


@given(SCORED)
def test_each_point_is_counted(found):
    good, scores = np.array([g for g, _ in found]), np.array([s for _, s in found], float)
    curve = curves.precision_recall(good, scores)
    area, before = 0.0, 0.0
    assert curve.thresholds.tolist() == sorted(set(scores), reverse=True)
    for threshold, precision, recall in zip(curve.thresholds, curve.precision, curve.recall):
        kept = [g for g, s in found if s >= threshold]
        assert precision == pytest.approx(sum(kept) / len(kept))
        assert recall == pytest.approx(sum(kept) / sum(good))
        assert curve.at(threshold) == (precision, recall)
        area += (recall - before) * precision
        before = recall
    assert curve.average_precision == pytest.approx(area)
    threshold, f1 = curve.best_f1()
    best = max(2 * p * r / max(p + r, 1e-12) for p, r in zip(curve.precision, curve.recall))
    assert f1 == pytest.approx(best) and threshold in scores
    assert curve.at(scores.max() + 1)[1] == 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50), st.floats(0.01, 1))
def test_the_threshold_keeps_the_share_and_a_higher_one_does_not(scores, share):
    scores = np.array(scores)
    threshold = curves.threshold_to_keep(scores, share)
    assert np.mean(scores >= threshold) >= share
    assert np.mean(scores > threshold) < share


def test_what_has_no_curve():
    for good in ([True, True], [False, False]):
        with pytest.raises(ValueError):
            curves.precision_recall(np.array(good), np.zeros(2))
    with pytest.raises(ValueError):
        curves.threshold_to_keep(np.zeros(0), 0.1)
    nan_last = curves.precision_recall(np.array([True, False]), np.array([0.1, np.nan]))
    assert nan_last.average_precision == 1.0
