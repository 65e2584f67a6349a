"""Hashes of all substrings of a document at the cost of one pass (polynomials modulo 2^64)."""

import functools

import numpy as np

_BASE = 0x9E3779B97F4A7C15 | 1
_INVERSE = pow(_BASE, -1, 1 << 64)


_KEPT = 1 << 18  # powers that are cached between calls


def _powers(base: int, count: int) -> np.ndarray:
    """`base ** [0, count)` modulo 2^64."""
    return _kept_powers(base)[:count] if count <= _KEPT else _new_powers(base, count)


@functools.lru_cache(2)
def _kept_powers(base: int) -> np.ndarray:
    return _new_powers(base, _KEPT)


def _new_powers(base: int, count: int) -> np.ndarray:
    powers = np.full(count, base, np.uint64)
    powers[0] = 1
    return np.multiply.accumulate(powers, out=powers)


def mix(values: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser (Steele et al. 2014): spreads uint64 values over all bits."""
    z = values + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def first_equal(keys: np.ndarray) -> np.ndarray:
    """For each uint64 key, the place of the first equal key; int64.

    A table holds the first place for each value of a few bits of a hash; the few keys that collide there go on to
    another table.
    """
    factor = _BASE
    first, met = _first_in_table(keys, factor, 0)
    left = met
    while len(left):
        keys, factor = keys.take(met), factor * _BASE % (1 << 64)
        found, met = _first_in_table(keys, factor, 3)
        first[left] = left.take(found)
        left = left.take(met)
    return first


def _first_in_table(keys: np.ndarray, factor: int, spare: int) -> tuple[np.ndarray, np.ndarray]:
    """The first place in each key's slot of one table, and the places of keys that meet another key there; int64."""
    count = len(keys)
    bits = count.bit_length() + spare
    slots = ((keys * np.uint64(factor)) >> np.uint64(64 - bits)).view(np.int64)
    table = np.full(1 << bits, count)
    np.minimum.at(table, slots, np.arange(count))
    found = table.take(slots)
    return found, (keys.take(found) != keys).nonzero()[0]


class PrefixHash:
    """Hash of `codes[start:end]` for any number of ranges at once; equal substrings have equal hashes."""

    def __init__(self, codes: np.ndarray):
        n = len(codes)
        self._sums = np.zeros(n + 1, np.uint64)
        values = self._sums[1:]
        np.add(codes, np.uint64(1), out=values)
        values *= _powers(_BASE, n)
        np.cumsum(values, out=values)
        self._inverse = _powers(_INVERSE, n + 1)

    def of(self, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """uint64, one for each range."""
        return mix((self._sums.take(ends) - self._sums.take(starts)) * self._inverse.take(starts))


def text_hash(text: str) -> int:
    """The hash that `PrefixHash` gives for this text, wherever it occurs."""
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    return int(PrefixHash(codes).of(np.array([0]), np.array([len(codes)]))[0])
