"""MinHash signatures cut into bands (Broder 1997; Leskovec et al., Mining of Massive Datasets, §3.4)."""

import dataclasses
import functools
import hashlib
from collections.abc import Sequence

import numpy as np

from kanana_jax import languages
from kanana_jax.data.arrays import characters, units
from kanana_jax.data.arrays.documents import join
from kanana_jax.data.arrays.hashing import PrefixHash, mix

_BLOCK = 1 << 14  # shingles hashed at once


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
    """Bands of rows: documents of Jaccard similarity s meet in a band with probability 1 − (1 − s^rows)^bands.

    14 × 8 is FineWeb's (arXiv:2406.17557, §3.4): 0.92 at s = 0.8. English takes its word 5-grams; Korean eojeol carry
    about as much as two English words, hence 3; Japanese is compared by 10 characters, about five words.

    Attributes:
      shingles: by language; `default` for all others.
      seed: of the hash functions.
    """

    bands: int = 14
    rows: int = 8
    shingles: dict[str, Shingles] = dataclasses.field(
        default_factory=lambda: {"default": Shingles(), "ko": Shingles("word", 3), "ja": Shingles("character", 10)}
    )
    seed: int = 0

    def __post_init__(self):
        object.__setattr__(self, "shingles", {languages.tag(lang): own for lang, own in self.shingles.items()})
        if min(self.bands, self.rows) < 1:
            raise ValueError("bands and rows must be at least 1")
        if "default" not in self.shingles:
            raise ValueError("shingles must say what 'default' is")

    def probability(self, similarity: float) -> float:
        """That two documents of this Jaccard similarity are found."""
        return 1 - (1 - similarity**self.rows) ** self.bands


def normalise(text: str) -> str:
    """NFC and lower case; combining marks stay, since が is not か, and Hangul is not taken apart."""
    return characters.normalise(text).lower()


def text_key(text: str) -> bytes:
    """16 bytes, equal for texts that are equal but for case, Unicode form and the white space between words."""
    return hashlib.blake2b(" ".join(normalise(text).split()).encode(), digest_size=16).digest()


def shingle_hashes(texts: Sequence[str], shingles: Shingles) -> list[np.ndarray]:
    """The different shingles of each text, uint64; punctuation between words does not matter.

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
        result.append(np.unique(rolled))
    return result


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
