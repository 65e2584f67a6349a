"""Precision-recall curves of scores, and the choice of a threshold."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Curve:
    """Precision and recall of "keep if score ≥ threshold", at each occurring score from the highest down.

    Attributes:
      thresholds, precision, recall: float64 `[K]`.
      average_precision: area under the step curve.
    """

    thresholds: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    average_precision: float

    def best_f1(self) -> tuple[float, float]:
        """The threshold with the highest F1, and that F1."""
        f1 = 2 * self.precision * self.recall / np.maximum(self.precision + self.recall, 1e-12)
        at = int(np.argmax(f1))
        return float(self.thresholds[at]), float(f1[at])

    def at(self, threshold: float) -> tuple[float, float]:
        """Precision and recall at a threshold; (NaN, 0) if nothing is kept."""
        kept = int(np.count_nonzero(self.thresholds >= threshold))
        return (float(self.precision[kept - 1]), float(self.recall[kept - 1])) if kept else (float("nan"), 0.0)


def precision_recall(good: np.ndarray, scores: np.ndarray) -> Curve:
    """The curve of scores `[N]` against the truth `good`, bool `[N]`; NaN scores rank last.

    Raises:
      ValueError: no or all documents are good.
    """
    good = np.asarray(good, bool)
    if not 0 < good.sum() < len(good):
        raise ValueError("a curve needs good and other documents")
    scores = np.nan_to_num(np.asarray(scores, np.float64), nan=-np.inf)
    order = np.argsort(-scores, kind="stable")
    ordered, hits = scores[order], np.cumsum(good[order])
    last = np.append(ordered[1:] != ordered[:-1], True)  # equal scores are kept or dropped together
    kept = np.flatnonzero(last) + 1
    precision, recall = hits[last] / kept, hits[last] / good.sum()
    area = float(np.sum(np.diff(recall, prepend=0.0) * precision))
    return Curve(ordered[last], precision, recall, area)


def threshold_to_keep(scores: np.ndarray, share: float) -> float:
    """The highest threshold at which at least `share` of the documents are kept (DCLM keeps the top 10%).

    Raises:
      ValueError: there are no scores, or the share lies outside (0, 1].
    """
    scores = np.nan_to_num(np.asarray(scores, np.float64), nan=-np.inf)
    if not len(scores) or not 0 < share <= 1:
        raise ValueError(f"share {share} of {len(scores)} documents cannot be kept")
    count = int(np.ceil(share * len(scores)))
    return float(np.partition(scores, len(scores) - count)[len(scores) - count])
