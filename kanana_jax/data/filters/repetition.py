"""Repetition inside documents: Gopher's statistics (arXiv:2112.11446, Table A1), exact and cheap.

For every n-gram that occurred before, only two positions are kept: its own and the first. One more unit at both shows
whether the longer n-gram occurred there too; if not, positions with the same first one and the same unit are
grouped. Each length looks only at the remainder of the shorter one, and ordinary text leaves almost nothing.
"""

import numpy as np

from kanana_jax.data.arrays.documents import Documents, running
from kanana_jax.data.arrays.hashing import first_equal, mix
from kanana_jax.data.arrays.units import Units

TOP = (2, 3, 4)
DUPLICATE = (5, 6, 7, 8, 9, 10)
# A bit for each of these lengths; the bits of all lengths up to n.
_UP_TO = {n: np.uint8((1 << i + 1) - 1) for i, n in enumerate(DUPLICATE)}
_ALL, _SETS = np.uint8((1 << len(DUPLICATE)) - 1), 1 << len(DUPLICATE)


def ngram_characters(
    documents: Documents, hashes: np.ndarray, units: Units, skip: bool
) -> tuple[np.ndarray, dict[int, np.ndarray], dict[int, np.ndarray]]:
    """Repeated n-grams of units.

    Args:
      hashes: uint64 `[W]`, one for each unit; for units of single characters, their code points.
      skip: how overlapping repeated n-grams are counted. True, as in datatrove: once one is found, its text is skipped.
        False, as in Gopher and RedPajama: every character that any of them covers counts once.

    Returns:
      The share of units that did not occur before; for n in 2..4, the characters of the most frequent
      n-gram (with one space between units, times its count; 0 if none occurs twice; among equally frequent ones the
      first); for n in 5..10, the characters of n-grams that occurred before. All `[D]`.
    """
    W, D = len(hashes), len(documents.texts)
    nothing = np.zeros(D)
    top, duplicate = dict.fromkeys(TOP, nothing), dict.fromkeys(DUPLICATE, nothing)
    if not W:
        return np.ones(D), top, duplicate
    bounds = documents.bounds(units.starts)
    counts = bounds[1:] - bounds[:-1]
    of = np.arange(D).repeat(counts)
    lengths = ends = None
    if not units.single:
        lengths = units.ends - units.starts
        ends = running(lengths)
    first = _first_characters(hashes, of, D) if units.single else first_equal(mix(hashes + of.astype(np.uint64)))
    # A unit is identified by its first place in its document, so that no repeated n-gram crosses into the next one.
    numbers = np.append(first, np.full(DUPLICATE[-1], W))
    at = (first != np.arange(W)).nonzero()[0]
    first = first.take(at)
    share = np.where(counts, (counts - documents.count(of[at])) / np.maximum(counts, 1), 1.0)
    begins = np.zeros(W, np.uint8)  # which n-grams that occurred before begin at each place, a bit for each n
    for n in range(2, DUPLICATE[-1] + 1):
        at, first = _longer(numbers, at, first, n)
        if not len(at):
            break
        if n in top:
            place, often = _most_frequent(first, counts, bounds)
            top[n] = (_characters(ends, place, n) + n - 1) * often
        elif skip:
            found = _found_again(at, first, n)
            duplicate[n] = documents.count(of[found], _characters(ends, found, n))
        else:
            begins[at] = _UP_TO[n]
    return share, top, duplicate if skip else _covered(begins, of, lengths, D)


def _characters(ends: np.ndarray | None, places: np.ndarray, n: int) -> np.ndarray:
    """Repetition counts of n-grams at some places; `ends` are of units, None if all are single characters."""
    return np.full(len(places), n) if ends is None else ends[places + n] - ends[places]


def _first_characters(codes: np.ndarray, of: np.ndarray, count: int) -> np.ndarray:
    """For each character, its first position in its document: by tables, as there are few different ones."""
    astral = (codes > 0xFFFF).nonzero()[0]
    if len(astral):
        codes = codes.copy()
        codes[astral] = 0x10000 + np.unique(codes[astral], return_inverse=True)[1]
    codes = codes.astype(np.int64)
    there = np.zeros(0x10000 + len(astral), bool)
    there[codes] = True
    different = np.count_nonzero(there) + 1
    keys = there.cumsum().take(codes)
    if count > 1:
        keys += of * different
    first = np.full(count * different, len(codes))
    np.minimum.at(first, keys, np.arange(len(codes)))
    return first.take(keys)


def _longer(numbers: np.ndarray, at: np.ndarray, first: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of n-grams that occurred before, and where they occurred first; given the same for (n-1)-grams."""
    last = numbers[n - 1 :]
    unit = last.take(at)
    again = last.take(first) == unit
    others = (~again).nonzero()[0]
    of_others = first_equal((first.take(others) * len(numbers) + unit.take(others)).view(np.uint64))
    later = (of_others != np.arange(len(others))).nonzero()[0]
    there = others.take(later)
    again[there] = True
    first[there] = at.take(others.take(of_others.take(later)))
    return at.compress(again), first.compress(again)


def _most_frequent(first: np.ndarray, counts: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """By document, the first place of the most frequent n-gram (the earliest among equals), and its count; or 0, 0."""
    often = np.bincount(first, minlength=bounds[-1])
    some = (counts > 0).nonzero()[0]
    most = np.zeros(len(counts), np.int64)
    most[some] = np.maximum.reduceat(often, bounds[some])
    hits = (often == np.maximum(most, 1).repeat(counts)).nonzero()[0]
    place = np.append(hits, 0)[hits.searchsorted(bounds[:-1])]
    return np.where(most, place, 0), np.where(most, most + 1, 0)


def _found_again(at: np.ndarray, first: np.ndarray, n: int) -> np.ndarray:
    """Places of n-grams that occurred before, skipping the next `n - 1` places after each."""
    passed, seen, found, end = bytearray(int(at[-1]) + n), set(), [], 0
    # Skipped text does not count as an occurrence, so this is a sequential walk, not an array operation.
    for place, earlier in zip(at.tolist(), first.tolist()):
        if place < end:
            continue
        if passed[earlier] and earlier not in seen:
            seen.add(earlier)
        else:
            found.append(place)
            end = place + n
            passed[place + 1 : end] = b"\1" * (n - 1)
    return np.array(found, np.int64)


def _covered(begins: np.ndarray, of: np.ndarray, lengths: np.ndarray | None, count: int) -> dict[int, np.ndarray]:
    """Characters of the units (all of one, or of these lengths) that repeated n-grams cover, by n and document."""
    covered = begins.copy()
    for offset in range(1, DUPLICATE[-1]):
        covered[offset:] |= begins[:-offset] & (_ALL - _UP_TO.get(offset, np.uint8(0)))
    table = np.bincount(of * _SETS + covered, lengths, minlength=count * _SETS).reshape(count, _SETS)
    return {n: table[:, np.arange(_SETS) >> i & 1 > 0].sum(axis=1) for i, n in enumerate(DUPLICATE)}
