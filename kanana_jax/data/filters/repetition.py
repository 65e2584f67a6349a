"""Repetition inside a document: Gopher's statistics (arXiv:2112.11446, Table A1), exact and nearly free.

An n-gram that occurs twice is made of two (n-1)-grams that occur twice, so each length sorts only what the
shorter one left over; ordinary text leaves almost nothing.
"""

import bisect

import numpy as np

from kanana_jax.data.filters.hashing import mix
from kanana_jax.data.filters.units import Units

TOP = (2, 3, 4)
DUPLICATE = (5, 6, 7, 8, 9, 10)


def duplicates(hashes: np.ndarray, lengths: np.ndarray) -> tuple[int, int]:
    """How many elements have occurred before, and their characters."""
    if len(hashes) < 2:
        return 0, 0
    order = np.argsort(hashes)
    ordered = hashes[order]
    again = ordered[1:] == ordered[:-1]
    return int(np.count_nonzero(again)), int(lengths[order[1:][again]].sum())


def ngram_characters(hashes: np.ndarray, units: Units) -> tuple[float, dict[int, int], dict[int, int]]:
    """Repeated n-grams of units.

    Args:
      hashes: uint64 `[W]`, one for each unit.

    Returns:
      The share of units that are different from all others before; for n in 2..4 the characters of the most frequent
      n-gram (with one space between units, times its count; 0 if none occurs twice; among equally frequent ones the
      first); for n in 5..10 the characters of n-grams that occurred before, each found n-gram skipped as a whole, as
      datatrove counts (RedPajama counts every character once instead).
    """
    W = len(hashes)
    top, duplicate = dict.fromkeys(TOP, 0), dict.fromkeys(DUPLICATE, 0)
    if W < 2:
        return 1.0, top, duplicate
    sums = np.zeros(W + 1, np.int64)
    np.cumsum(units.ends - units.starts, out=sums[1:])
    at = np.arange(W)
    rolling, unit = hashes, hashes
    group, different = _groups(rolling)
    share = different / W
    for n in range(2, DUPLICATE[-1] + 1):
        # Where the (n-1)-grams here and one further both occur elsewhere.
        repeated = np.zeros(W + 1, bool)
        repeated[at[group >= 0]] = True
        at = at[(group >= 0) & repeated[at + 1] & (at + n <= W)]
        if len(at) < 2:
            break
        rolling = mix(rolling[: W - n + 1]) + unit[n - 1 :]
        group, _ = _groups(rolling[at])
        if n in top:
            top[n] = _most_frequent(at, group, sums, n)
        if n in duplicate:
            duplicate[n] = _found_again(at, group, sums, n)
    return share, top, duplicate


def _groups(hashes: np.ndarray) -> tuple[np.ndarray, int]:
    """For each element a number shared by its equals, or -1 if it has none; and how many are different."""
    order = np.argsort(hashes)
    ordered = hashes[order]
    new = np.empty(len(hashes), bool)
    new[0] = True
    np.not_equal(ordered[1:], ordered[:-1], out=new[1:])
    alone = new.copy()
    alone[:-1] &= new[1:]
    number = np.cumsum(new)
    number[alone] = -1
    group = np.empty(len(hashes), np.int64)
    group[order] = number
    return group, int(np.count_nonzero(new))


def _most_frequent(at: np.ndarray, group: np.ndarray, sums: np.ndarray, n: int) -> int:
    inside = group >= 0
    if not inside.any():
        return 0
    counts = np.bincount(group[inside])
    most = int(counts.max())
    first = at[int(np.argmax((counts[np.maximum(group, 0)] == most) & inside))]
    return int(sums[first + n] - sums[first] + n - 1) * most


def _found_again(at: np.ndarray, group: np.ndarray, sums: np.ndarray, n: int) -> int:
    inside = group >= 0
    if not inside.any():
        return 0
    at = at[inside]
    position, numbers = at.tolist(), group[inside].tolist()
    seen = bytearray(max(numbers) + 1)
    found = []
    k, count = 0, len(position)
    while k < count:
        if seen[numbers[k]]:
            found.append(k)
            k = bisect.bisect_left(position, position[k] + n, k + 1, min(k + n, count))
        else:
            seen[numbers[k]] = 1
            k += 1
    at = at[found]
    return int((sums[at + n] - sums[at]).sum())
