"""Repetition inside documents: Gopher's statistics (arXiv:2112.11446, Table A1), exact and nearly free.

An n-gram that occurs twice is made of two (n-1)-grams that occur twice, so each length sorts only what the
shorter one left over; ordinary text leaves almost nothing.
"""

import numpy as np

from kanana_jax.data.filters.documents import Documents
from kanana_jax.data.filters.hashing import mix
from kanana_jax.data.filters.units import Units

TOP = (2, 3, 4)
DUPLICATE = (5, 6, 7, 8, 9, 10)


def duplicates(documents: Documents, hashes: np.ndarray, of: np.ndarray, lengths: np.ndarray):
    """How many elements have occurred before in their document, and their characters; both `[D]`.

    Args:
      hashes, of, lengths: of each element, the document in which it stands, its characters.
    """
    order, ordered = _sorted(mix(hashes + of.astype(np.uint64)), 64)
    again = order[1:][ordered[1:] == ordered[:-1]]
    return documents.count(of[again]), documents.count(of[again], lengths[again])


def ngram_characters(documents: Documents, hashes: np.ndarray, units: Units, skip: bool):
    """Repeated n-grams of units.

    Args:
      hashes: uint64 `[W]`, one for each unit.
      skip: how repeated n-grams that overlap are counted. True, as datatrove does: one is found, and what it covers is
        passed over. False, as Gopher says and RedPajama does: every character that any of them covers, once.

    Returns:
      The share of units that are different from all others before; for n in 2..4 the characters of the most frequent
      n-gram (with one space between units, times its count; 0 if none occurs twice; among equally frequent ones the
      first); for n in 5..10 the characters of n-grams that occurred before. All `[D]`.
    """
    W, D = len(hashes), len(documents.texts)
    nothing = np.zeros(D)
    top, duplicate = dict.fromkeys(TOP, nothing), dict.fromkeys(DUPLICATE, nothing)
    if not W:
        return np.ones(D), top, duplicate
    of = documents.of(units.starts)
    lengths = np.zeros(W + 1, np.int64)
    np.cumsum(units.ends - units.starts, out=lengths[1:])
    # Salted by document, so that nothing is repeated across two.
    groups = _Groups(mix(hashes + of.astype(np.uint64)), 64, np.arange(W))
    counts = documents.count(of)
    again = documents.count(of[groups.at[~groups.begins]])
    share = np.where(counts, (counts - again) / np.maximum(counts, 1), 1.0)
    number = np.zeros(W + 1, np.uint64)  # of the (n-1)-gram at each place, 0 where it occurs once
    inside = np.append(of[1:] == of[:-1], False)
    for n in range(2, DUPLICATE[-1] + 1):
        if not len(groups.at):
            break
        number[:] = 0
        number[groups.at] = groups.number
        repeated = number > 0
        at = np.flatnonzero(repeated[:-1] & repeated[1:] & inside)
        # Two (n-1)-grams make an n-gram: equal pairs of numbers are equal n-grams, without any hash.
        bits = int(groups.number[-1]).bit_length()
        groups = _Groups((number[at] << np.uint64(bits)) | number[at + 1], 2 * bits, at)
        if n in top and len(groups.at):
            first, sizes = groups.most_frequent(of, D)
            top[n] = np.where(sizes > 0, (lengths[first + n] - lengths[first] + n - 1) * sizes, 0)
        if n in duplicate and len(groups.at):
            found = groups.found_again(n) if skip else groups.repeated()
            ends = np.minimum(found + n, np.append(found[1:], W))
            duplicate[n] = documents.count(of[found], lengths[ends] - lengths[found])
    return share, top, duplicate


class _Groups:
    """Places with equal keys, two or more of them together.

    Attributes:
      at: places whose key occurs elsewhere, those of a group side by side and in order.
      number: their groups, 1 and up.
      begins: whether a group begins here.
    """

    def __init__(self, keys: np.ndarray, bits: int, at: np.ndarray):
        order, ordered = _sorted(keys, bits)
        same = ordered[1:] == ordered[:-1]
        together = np.zeros(len(keys) + 1, bool)
        together[1:-1] = same
        keep = together[1:] | together[:-1]
        begins = ~together[:-1][keep]
        self.at = at[order[keep]]
        self.number = np.cumsum(begins, dtype=np.uint64)
        self.begins = begins

    def most_frequent(self, of: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """By document, the first place of its largest group (of equal ones the earliest) and its size, or 0 and 0."""
        starts = np.flatnonzero(self.begins)
        sizes = np.diff(np.append(starts, len(self.at)))
        first = self.at[starts]
        best = np.zeros(count, np.int64)
        np.maximum.at(best, of[first], (sizes << 40) + (1 << 40) - 1 - first)
        return np.where(best, (1 << 40) - 1 - (best & ((1 << 40) - 1)), 0), best >> 40

    def repeated(self) -> np.ndarray:
        """Places of all n-grams that occurred before, in order."""
        mark = np.zeros(int(self.at.max()) + 1, bool)
        mark[self.at[~self.begins]] = True
        return np.flatnonzero(mark)

    def found_again(self, n: int) -> np.ndarray:
        """Places of n-grams that occurred before, when the next `n - 1` places after each are passed over."""
        order = np.argsort(self.at)
        at = self.at[order]
        numbers, stops = self.number[order].tolist(), np.searchsorted(at, at + n).tolist()
        seen = bytearray(int(self.number[-1]) + 1)
        found, k, count = [], 0, len(at)
        # What is passed over does not count as an occurrence, so this is one walk and no array operation.
        while k < count:
            number = numbers[k]
            if seen[number]:
                found.append(k)
                k = stops[k]
            else:
                seen[number] = 1
                k += 1
        return at[found]


def _sorted(keys: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """A stable order of the keys, and the keys in it; `bits` of each are used.

    Key and place are sorted as one number, several times faster than `argsort`. Keys that are hashes of 64 bits lose
    their low ones: with a million units 44 are left.
    """
    places = max(len(keys) - 1, 1).bit_length()
    if bits == 64:
        bits, keys = 64 - places, keys >> np.uint64(places)
    if bits + places > 64:
        order = np.argsort(keys, kind="stable")
        return order, keys[order]
    packed = (keys << np.uint64(places)) | np.arange(len(keys), dtype=np.uint64)
    packed.sort()
    return (packed & np.uint64((1 << places) - 1)).astype(np.int64), packed >> np.uint64(places)
