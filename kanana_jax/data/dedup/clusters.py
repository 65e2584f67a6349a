"""Verdicts on documents: a document is dropped if a kept document has the same text or resembles it.

Similarity is not transitive here: a document that resembles only dropped documents is kept. Documents are therefore
visited in order of preference, and each is compared with the kept documents that share a band with it.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np

from kanana_jax.data.dedup import minhash

KEPT, EXACT, NEAR = 0, 1, 2
Keep = Literal["first", "longest", "best"]


@dataclasses.dataclass(frozen=True)
class Documents:
    """The inputs to the verdicts on `N` documents.

    Attributes:
      texts: a number for each distinct text, `[N]`.
      bands: uint64 `[N, bands]`; all zeros where a text has no shingle.
      sketches: uint8 `[N, bins]`.
      lengths: characters, `[N]`.
      quality: `[N]`, −∞ where unknown.
    """

    texts: np.ndarray
    bands: np.ndarray
    sketches: np.ndarray
    lengths: np.ndarray
    quality: np.ndarray


def verdicts(found: Documents, keep: Keep, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """The verdict on each document, and the document that is kept in its place.

    Among documents of one text, the preferred one is judged, and the others share its verdict. It is dropped if a kept
    document of higher preference shares a band with it and has an estimated similarity of at least `threshold`; the
    most similar such document is kept in its place.

    Args:
      keep: the order of preference; ties are broken by input order.
      threshold: Jaccard similarity.

    Returns:
      Verdicts uint8 `[N]`: `KEPT`, `EXACT` (the kept document has the same text) or `NEAR`; and the places of the kept
      documents, int64 `[N]`.
    """
    count = len(found.texts)
    preference = {"first": np.zeros(count), "longest": -found.lengths.astype(np.float64), "best": -found.quality}[keep]
    order = np.lexsort((np.arange(count), preference))
    _, firsts, of_text = np.unique(found.texts[order], return_index=True, return_inverse=True)
    alone = np.sort(firsts)  # in `order`, the preferred document of each text
    kept_of = order[alone][_greedy(found.bands, found.sketches, order[alone], threshold)]
    kept = np.empty(count, np.int64)
    kept[order] = kept_of[np.searchsorted(alone, firsts)][of_text]
    verdict = np.where(found.texts == found.texts[kept], EXACT, NEAR).astype(np.uint8)
    verdict[kept == np.arange(count)] = KEPT
    return verdict, kept


def _greedy(bands: np.ndarray, sketches: np.ndarray, order: np.ndarray, threshold: float) -> np.ndarray:
    """For each place in `order`, the place of the document kept for it, which may be the same one."""
    kept = np.arange(len(order))
    members: dict[int, list[int]] = defaultdict(list)  # group → its kept documents
    for place, groups in _meetings(bands, order):
        met = {other for group in groups for other in members[group]}
        if met:
            others = np.array(sorted(met))
            alike = minhash.similarity(sketches[order[place]], sketches[order[others]])
            best = int(alike.argmax())
            if alike[best] >= threshold:
                kept[place] = others[best]
                continue
        for group in groups:
            members[group].append(place)
    return kept


def _meetings(bands: np.ndarray, order: np.ndarray) -> Iterator[tuple[int, list[int]]]:
    """Yields, ascending, each place in `order` that shares a band with another, and its groups of equal band keys."""
    some = np.flatnonzero(np.asarray(bands.any(axis=1))[order])
    places, groups, count = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], 0
    for band in range(bands.shape[1]):
        _, numbers, sizes = np.unique(bands[order[some], band], return_inverse=True, return_counts=True)
        meets = sizes[numbers] > 1
        places.append(some[meets])
        groups.append(numbers[meets] + count)
        count += len(sizes)
    all_places, all_groups = np.concatenate(places), np.concatenate(groups)
    by_place = np.argsort(all_places, kind="stable")
    found, starts = np.unique(all_places[by_place], return_index=True)
    ordered, ends = all_groups[by_place].tolist(), [*starts[1:].tolist(), len(by_place)]
    for place, start, end in zip(found.tolist(), starts.tolist(), ends):
        yield place, ordered[start:end]


def stars(sketches: np.ndarray, threshold: float) -> np.ndarray:
    """For each of m documents, the first one connected to it by similarities of at least `threshold`, `[m]`."""
    pairs = [
        (np.full(len(alike), i), i + 1 + alike)
        for i in range(len(sketches) - 1)
        for alike in [np.flatnonzero(minhash.similarity(sketches[i], sketches[i + 1 :]) >= threshold)]
    ]
    return components(len(sketches), pairs)


def components(count: int, edges: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Connected components: the smallest place connected to each of `count` documents, int64 `[count]`.

    Labels are replaced by the smallest label among neighbours, then by their label's label, until nothing changes.
    """
    pairs = list(edges)
    a = np.concatenate([pair[0] for pair in pairs]) if pairs else np.zeros(0, np.int64)
    b = np.concatenate([pair[1] for pair in pairs]) if pairs else np.zeros(0, np.int64)
    labels = np.arange(count)
    while True:
        before = labels.copy()
        least = np.minimum(labels[a], labels[b])
        # Updating the labels' own entries joins whole clusters at once.
        np.minimum.at(labels, before[a], least)
        np.minimum.at(labels, before[b], least)
        while True:
            jumped = labels[labels]
            if np.array_equal(jumped, labels):
                break
            labels = jumped
        if np.array_equal(labels, before):
            return labels
