"""MinHash: keys of bands, by which candidates meet, and sketches, by which their similarity is estimated.

Bands of rows find candidates (Broder 1997; Leskovec et al., Mining of Massive Datasets, §3.4). One shared band says
little of a pair's similarity; the sketch, one permutation hashing of the same shingles (Li, Owen & Zhang 2012,
arXiv:1208.1259), estimates it without bias.
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
_PRINTS = 255  # values of a bin's fingerprint; 0 is an empty bin


@dataclasses.dataclass(frozen=True)
class Shingles:
    """The units by which two documents are compared: runs of `n` words (in Korean eojeol) or characters."""

    unit: units.Unit = "word"
    n: int = 5

    def __post_init__(self):
        if self.n < 1:
            raise ValueError("n must be at least 1")


@dataclasses.dataclass(frozen=True)
class MinHashConfig:
    """Bands of rows, and bins of a sketch.

    Documents of Jaccard similarity s meet in a band with probability 1 − (1 − s^rows)^bands. The sketch estimates s
    with a standard error of at most √(s (1 − s) / bins); of documents with few shingles it is smaller.

    14 × 8 is FineWeb's (arXiv:2406.17557, §3.4): 0.92 at s = 0.8. English takes its word 5-grams; Korean eojeol carry
    about as much as two English words, hence 3; Japanese is compared by 10 characters, about five words.

    Attributes:
      shingles: by language; `default` for all others.
      seed: of the hash functions.
      bins: of the sketch, a byte each.
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
            raise ValueError("shingles must say what 'default' is")

    def probability(self, similarity: float) -> float:
        """Probability that two documents of this Jaccard similarity share a band."""
        return 1 - (1 - similarity**self.rows) ** self.bands

    def accepted(self, similarity: float, threshold: float) -> float:
        """Binomial probability that the sketches of two long documents this similar show at least `threshold`."""
        n, least = self.bins, math.ceil(threshold * self.bins - 1e-9)
        if not 0 < similarity < 1:
            return float(similarity >= 1)
        log_s, log_rest = math.log(similarity), math.log1p(-similarity)
        ways = (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(least, n + 1))
        return sum(math.exp(way + k * log_s + (n - k) * log_rest) for k, way in enumerate(ways, least))


def normalise(text: str) -> str:
    """NFC and lower case; combining marks stay, since が is not か, and Hangul is not taken apart."""
    return characters.normalise(text).lower()


def text_key(text: str) -> bytes:
    """16 bytes, equal for texts that are equal but for case, Unicode form and the white space between words."""
    return hashlib.blake2b(" ".join(normalise(text).split()).encode(), digest_size=16).digest()


def shingle_hashes(texts: Sequence[str], shingles: Shingles) -> list[np.ndarray]:
    """The different shingles of each text, uint64, ascending; punctuation between words does not matter.

    A text of fewer than `n` units is one shingle, an empty one has none.
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
    """Returns whether each value is the first of its kind, bool `[n]`."""
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
    """Keys of a document's bands, uint64 `[bands]`; documents that share one are candidates.

    Args:
      hashes: its different shingles.
    """
    factors, summands = _functions(config.bands * config.rows, config.seed)
    least = np.full(len(factors), np.iinfo(np.uint64).max, np.uint64)
    for start in range(0, len(hashes), _BLOCK):
        block = hashes[None, start : start + _BLOCK]
        for i in range(0, len(factors), 16):  # what fits the cache
            part = slice(i, i + 16)
            values = factors[part, None] * block + summands[part, None]
            least[part] = np.minimum(least[part], values.min(axis=1))
    least = least.reshape(config.bands, config.rows) >> np.uint64(32)
    keys = np.arange(config.bands, dtype=np.uint64)
    for row in least.T:
        keys = mix(keys + row)
    return keys


def sketch(hashes: np.ndarray, config: MinHashConfig) -> np.ndarray:
    """A fingerprint of the least shingle in each bin of the hashes' range, uint8 `[bins]`; 0 where there is none.

    Args:
      hashes: the different shingles, ascending.
    """
    bins = (hashes >> np.uint64(32)) * np.uint64(config.bins) >> np.uint64(32)
    least = _firsts(bins)
    found = np.zeros(config.bins, np.uint8)
    found[bins[least]] = (hashes[least] & np.uint64(0xFFFFFFFF)) % np.uint64(_PRINTS) + np.uint64(1)
    return found


def similarity(own: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Estimated Jaccard similarity of a document and `[m]` others by their sketches, float64 `[m]`.

    Equal fingerprints over bins that are not empty in both, less those that are equal by chance, one in 255.
    """
    empty = _true((own | others) == 0)
    filled = len(own) - empty
    equal = _true(own == others) - empty
    both = np.count_nonzero(own) + _true(others != 0) - filled
    return np.maximum(equal - (both - equal) / (_PRINTS - 1), 0.0) / np.maximum(filled, 1)


def _true(found: np.ndarray) -> np.ndarray:
    """Number of true values in each row of bool `[m, bins]`, counted in bits of eight at once."""
    return np.bitwise_count(found.view(np.uint64)).sum(axis=1, dtype=np.int64)
