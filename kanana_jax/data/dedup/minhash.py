"""MinHash: band keys, which find candidate pairs, and sketches, which estimate their similarity.

Bands of rows find candidates (Broder 1997; Leskovec et al., Mining of Massive Datasets, §3.4). One shared band says
little about a pair's similarity. The sketch, a one-permutation hash of the same shingles (Li, Owen & Zhang 2012,
arXiv:1208.1259), is an unbiased estimate of it.
"""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Sequence

import numpy as np

from kanana_jax import languages
from kanana_jax.data.arrays import characters, units
from kanana_jax.data.arrays.documents import join
from kanana_jax.data.arrays.hashing import PrefixHash, mix

_BLOCK = 1 << 14  # shingles hashed at once
_PRINTS = 255  # number of fingerprint values of a bin; 0 marks an empty bin


@dataclasses.dataclass(frozen=True)
class Shingles:
    """Units by which documents are compared: n-grams of words (in Korean, eojeol) or of characters."""

    unit: units.Unit = "word"
    n: int = 5

    def __post_init__(self):
        if self.n < 1:
            raise ValueError("n must be at least 1")


@dataclasses.dataclass(frozen=True)
class MinHashConfig:
    """Parameters of the bands and of the sketch.

    Documents of Jaccard similarity s share a band with probability 1 − (1 − s^rows)^bands. The sketch estimates s with
    a standard error of at most √(s (1 − s) / bins), less for documents with few shingles.

    14 bands of 8 rows are FineWeb's (arXiv:2406.17557, §3.4), with probability 0.92 at s = 0.8. English uses FineWeb's
    word 5-grams. A Korean eojeol carries about as much as two English words, hence 3-grams. Japanese is compared by 10
    characters, about five words.

    Attributes:
      bands, rows: number of bands, and of rows (hash functions) per band.
      shingles: language → shingles; `default` applies to all other languages.
      seed: seed of the hash functions.
      bins: bins of the sketch, one byte each.
    """

    bands: int = 14
    rows: int = 8
    shingles: dict[str, Shingles] = dataclasses.field(
        default_factory=lambda: {"default": Shingles(), "ko": Shingles("word", 3), "ja": Shingles("character", 10)}
    )
    seed: int = 0
    bins: int = 512

    def __post_init__(self):
        object.__setattr__(self, "shingles", {languages.tag(lang): own for lang, own in self.shingles.items()})
        if min(self.bands, self.rows) < 1:
            raise ValueError("bands and rows must be at least 1")
        if not 8 <= self.bins <= 1 << 16 or self.bins % 8:
            raise ValueError(f"bins must be a multiple of 8 up to 65536, not {self.bins}")
        if "default" not in self.shingles:
            raise ValueError("shingles must have a 'default'")

    def probability(self, similarity: float) -> float:
        """Probability that two documents of this Jaccard similarity share a band."""
        return 1 - (1 - similarity**self.rows) ** self.bands

    def accepted(self, similarity: float, threshold: float) -> float:
        """Binomial probability that the estimated similarity of two long documents is at least `threshold`."""
        n, least = self.bins, math.ceil(threshold * self.bins - 1e-9)
        if not 0 < similarity < 1:
            return float(similarity >= 1)
        log_s, log_rest = math.log(similarity), math.log1p(-similarity)
        ways = (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(least, n + 1))
        return sum(math.exp(way + k * log_s + (n - k) * log_rest) for k, way in enumerate(ways, least))


def normalise(text: str) -> str:
    """NFC and lower case. Combining marks are kept, since が is not か, and Hangul is not decomposed."""
    return characters.normalise(text).lower()


def text_key(text: str) -> bytes:
    """A 16-byte hash, equal for texts that differ only in case, Unicode form and white space between words."""
    return hashlib.blake2b(" ".join(normalise(text).split()).encode(), digest_size=16).digest()


def shingle_hashes(texts: Sequence[str], shingles: Shingles) -> list[np.ndarray]:
    """The hashes of each text's distinct shingles, uint64, ascending; punctuation between words is ignored.

    A text of fewer than `n` units is a single shingle; an empty text has none.
    """
    documents = join([normalise(text) for text in texts])
    found = units.split(documents.codes, documents.bits, shingles.unit)
    sums = np.zeros(len(documents.codes) + 1, np.int64)
    np.cumsum(documents.bits & characters.SYMBOL == 0, out=sums[1:])
    words = sums[found.ends] > sums[found.starts]
    starts, ends = found.starts[words], found.ends[words]
    hashes = PrefixHash(documents.codes).of(starts, ends)
    firsts = np.searchsorted(starts, documents.starts)
    lasts = np.append(firsts[1:], len(starts))
    result = []
    for first, last in zip(firsts.tolist(), lasts.tolist()):
        own = hashes[first:last]
        n = min(shingles.n, len(own))
        rolled = np.zeros(max(len(own) - n + 1, 0) if n else 0, np.uint64)
        for k in range(n):
            rolled = mix(rolled + own[k : k + len(rolled)])
        rolled.sort()
        result.append(rolled[_firsts(rolled)])
    return result


def _firsts(ascending: np.ndarray) -> np.ndarray:
    """Mask of the first occurrence of each value, bool `[n]`."""
    found = np.ones(len(ascending), bool)
    found[1:] = ascending[1:] != ascending[:-1]
    return found


@functools.lru_cache(8)
def _functions(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Multiply-shift hash functions (Dietzfelbinger et al. 1997): odd factors and summands, `[count]`."""
    places = np.arange(2 * count, dtype=np.uint64) + np.uint64(seed << 32)
    values = mix(mix(places))
    return values[:count] | np.uint64(1), values[count:]


def band_keys(hashes: np.ndarray, config: MinHashConfig) -> np.ndarray:
    """Keys of a document's bands, uint64 `[bands]`; documents that share a key are candidates.

    Args:
      hashes: hashes of the document's distinct shingles.
    """
    factors, summands = _functions(config.bands * config.rows, config.seed)
    least = np.full(len(factors), np.iinfo(np.uint64).max, np.uint64)
    for start in range(0, len(hashes), _BLOCK):
        block = hashes[None, start : start + _BLOCK]
        for i in range(0, len(factors), 16):  # blocks that fit into the cache
            part = slice(i, i + 16)
            values = factors[part, None] * block + summands[part, None]
            least[part] = np.minimum(least[part], values.min(axis=1))
    least = least.reshape(config.bands, config.rows) >> np.uint64(32)
    keys = np.arange(config.bands, dtype=np.uint64)
    for row in least.T:
        keys = mix(keys + row)
    return keys


def sketch(hashes: np.ndarray, config: MinHashConfig) -> np.ndarray:
    """The sketch: a fingerprint of the smallest hash in each bin of the hash range, uint8 `[bins]`; 0 in empty bins.

    Args:
      hashes: hashes of the distinct shingles, ascending.
    """
    bins = (hashes >> np.uint64(32)) * np.uint64(config.bins) >> np.uint64(32)
    least = _firsts(bins)
    found = np.zeros(config.bins, np.uint8)
    found[bins[least]] = (hashes[least] & np.uint64(0xFFFFFFFF)) % np.uint64(_PRINTS) + np.uint64(1)
    return found


def similarity(own: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Estimated Jaccard similarity of a document to m others, float64 `[m]`.

    The share of equal fingerprints among bins that are not empty in both, corrected for chance agreement (one in 255).

    Args:
      own: sketch, uint8 `[bins]`.
      others: sketches, uint8 `[m, bins]`.
    """
    empty = _true((own | others) == 0)
    filled = len(own) - empty
    equal = _true(own == others) - empty
    both = np.count_nonzero(own) + _true(others != 0) - filled
    return np.maximum(equal - (both - equal) / (_PRINTS - 1), 0.0) / np.maximum(filled, 1)


def _true(found: np.ndarray) -> np.ndarray:
    """Number of true values in each row of bool `[m, bins]`, eight at a time by bit counts."""
    return np.bitwise_count(found.view(np.uint64)).sum(axis=1, dtype=np.int64)
