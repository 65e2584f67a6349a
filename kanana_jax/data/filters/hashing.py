"""Hashes of all substrings of a document at the cost of one pass (polynomials modulo 2^64)."""

import functools

import numpy as np

_BASE = 0x9E3779B97F4A7C15 | 1
_INVERSE = pow(_BASE, -1, 1 << 64)


@functools.lru_cache(8)
def _powers(base: int, count: int) -> np.ndarray:
    """`base ** [0, count)` modulo 2^64."""
    powers = np.full(count, base, np.uint64)
    powers[0] = 1
    with np.errstate(over="ignore"):
        return np.multiply.accumulate(powers)


def _powers_up_to(base: int, count: int) -> np.ndarray:
    return _powers(base, 1 << max(count, 1 << 12).bit_length())


def mix(values: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser (Steele et al. 2014): spreads uint64 values over all bits."""
    z = values + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


class PrefixHash:
    """Hash of `codes[start:end]` for any number of ranges at once; equal substrings have equal hashes."""

    def __init__(self, codes: np.ndarray):
        n = len(codes)
        self._codes = codes
        self._sums = np.zeros(n + 1, np.uint64)
        np.cumsum((codes.astype(np.uint64) + np.uint64(1)) * _powers_up_to(_BASE, n)[:n], out=self._sums[1:])
        self._inverse = _powers_up_to(_INVERSE, n + 1)

    def of_single(self, places: np.ndarray) -> np.ndarray:
        """As `of(places, places + 1)`, without the sums."""
        return mix(self._codes[places].astype(np.uint64) + np.uint64(1))

    def of(self, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """uint64, one for each range."""
        return mix((self._sums[ends] - self._sums[starts]) * self._inverse[starts])


def text_hash(text: str) -> int:
    """What `PrefixHash` gives for this text wherever it stands."""
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    return int(PrefixHash(codes).of(np.array([0]), np.array([len(codes)]))[0])
