"""From documents that share a key to clusters, and from clusters to verdicts; whole arrays, no graph library."""

from collections.abc import Iterable
from typing import Literal

import numpy as np

KEPT, EXACT, NEAR = 0, 1, 2
Keep = Literal["first", "longest", "best"]


def edges_of(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Neighbours among documents with equal keys (a chain through each group); two arrays of places."""
    order = np.argsort(keys, kind="stable")
    same = keys[order[1:]] == keys[order[:-1]]
    return order[:-1][same], order[1:][same]


def components(count: int, edges: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """The smallest place that each of `count` documents is connected to, int64 `[count]`.

    Labels fall to the least among neighbours and jump to their label's label, until nothing changes.
    """
    pairs = list(edges)
    a = np.concatenate([pair[0] for pair in pairs]) if pairs else np.zeros(0, np.int64)
    b = np.concatenate([pair[1] for pair in pairs]) if pairs else np.zeros(0, np.int64)
    labels = np.arange(count)
    while True:
        before = labels.copy()
        least = np.minimum(labels[a], labels[b])
        # Hooking the labels themselves joins whole clusters at once.
        np.minimum.at(labels, before[a], least)
        np.minimum.at(labels, before[b], least)
        while True:
            jumped = labels[labels]
            if np.array_equal(jumped, labels):
                break
            labels = jumped
        if np.array_equal(labels, before):
            return labels


def verdicts(
    labels: np.ndarray, texts: np.ndarray, lengths: np.ndarray, quality: np.ndarray, keep: Keep
) -> tuple[np.ndarray, np.ndarray]:
    """The verdict on each document, and the one that is kept in its place.

    Args:
      labels: from `components`.
      texts: a number for each different text, `[N]`.
      lengths, quality: `[N]`; of equally long or good ones the first is kept.

    Returns:
      uint8 `KEPT`, `EXACT` (the kept one has the same text) or `NEAR`, and places, both `[N]`.
    """
    count = len(labels)
    preference = {"first": np.zeros(count), "longest": -lengths.astype(np.float64), "best": -quality}[keep]
    order = np.lexsort((np.arange(count), preference, labels))
    first = np.ones(count, bool)
    first[1:] = labels[order[1:]] != labels[order[:-1]]
    kept_of_label = np.zeros(count, np.int64)
    kept_of_label[labels[order[first]]] = order[first]
    kept = kept_of_label[labels]
    verdict = np.where(texts == texts[kept], EXACT, NEAR).astype(np.uint8)
    verdict[kept == np.arange(count)] = KEPT
    return verdict, kept
