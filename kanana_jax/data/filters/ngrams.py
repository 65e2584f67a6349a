"""n-grams of comparable content in every language, by which documents are compared with evaluation sets.

A unit is a word: a run of letters, digits and marks, without the `'` inside a word and the `,` or `.` inside a number.
Characters of Han, hiragana and katakana are units of their own. Units are weighed by their script, and an n-gram
is the shortest run of units equivalent to 13 English words: 10 eojeol, or 30 characters. These figures come
from NTREX-128 (Federmann et al. 2022), 1,997 sentences in all three languages: 42.4k words, 31.8k eojeol, 99.5k
characters and 1.6k words among them. So the language need not be known, mixed text is split alike everywhere, and
an English question is found in a Korean page.
"""

import dataclasses
import functools
import math
import sys
import unicodedata

import numpy as np

from kanana_jax.data.arrays import characters
from kanana_jax.data.arrays.documents import Documents, running
from kanana_jax.data.arrays.hashing import PrefixHash

_KEPT = characters.LETTER | characters.DIGIT | characters.MARK
_BEGINS = np.uint32(1 << 21)  # no code point has this bit
_ALONE, _KOREAN = ("hiragana", "katakana", "han"), ("hangul", "jamo")


@dataclasses.dataclass(frozen=True)
class Lengths:
    """Length of an n-gram.

    Attributes:
      words, eojeol, characters: length in text of one kind (an eojeol is a word with Hangul in it); in mixed text
        each unit counts proportionally.
      shortest_words: a text shorter than an n-gram counts as one if it is equivalent to this many words.
    """

    words: int = 13
    eojeol: int = 10
    characters: int = 30
    shortest_words: int = 8

    def __post_init__(self):
        if min(self.words, self.eojeol, self.characters, self.shortest_words) < 1:
            raise ValueError("words must be at least 1, and so must eojeol, characters and shortest_words")
        if self.shortest_words > self.words:
            raise ValueError(f"shortest_words {self.shortest_words} must not be above words {self.words}")

    @property
    def whole(self) -> int:
        """The weight of an n-gram: divisible by all lengths, so that sums are exact."""
        return math.lcm(self.words, self.eojeol, self.characters)

    @property
    def shortest(self) -> int:
        """The weight of the shortest text that counts as an n-gram."""
        return self.whole // self.words * self.shortest_words


class Units:
    """The units of several documents as one array of folded characters, without separators.

    Attributes:
      places: positions of these characters in the documents.
      bounds: unit `i` is characters `bounds[i]:bounds[i + 1]`; `[U + 1]`.
      weight: total weight of the units before each, `[U + 1]`.
      documents: units of document `d` are `documents[d]:documents[d + 1]`.
      stop: where each unit's document ends, `[U]`.
    """

    def __init__(self, texts: Documents, lengths: Lengths):
        ideographs, hangul = _scripts()
        kept = (texts.bits & _KEPT) > 0
        self.places = kept.nonzero()[0]
        kinds = texts.kinds.take(self.places)
        begins = np.ones(len(self.places) + 1, bool)
        begins[1:-1] = np.diff(self.places) != 1
        begins[_joined(texts, self.places, begins)] = False
        alone, korean = ideographs.take(kinds), hangul.take(kinds)
        begins[:-1] |= alone
        begins[1:] |= alone
        self.bounds = begins.nonzero()[0]
        first = self.bounds[:-1]
        codes = _folded().take(texts.codes.take(self.places))
        codes[first] |= _BEGINS
        self.hashes = PrefixHash(codes)
        weights = np.full(len(first), lengths.whole // lengths.words)
        if korean.any():
            weights[np.diff(running(korean).take(self.bounds)) > 0] = lengths.whole // lengths.eojeol
        weights[alone.take(first)] = lengths.whole // lengths.characters
        self.weight = running(weights)
        ends = np.append(texts.starts, len(texts.codes))
        self.documents = np.searchsorted(self.places.take(first), ends)
        self.stop = np.repeat(self.documents[1:], np.diff(self.documents))

    def ends(self, starts: np.ndarray, weight: int) -> np.ndarray:
        """Ends of the runs of units that begin at `starts` and carry a weight; past the last unit if there is none."""
        return np.searchsorted(self.weight, self.weight.take(starts) + weight)

    def of(self, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Hashes of runs of units, uint64."""
        return self.hashes.of(self.bounds.take(starts), self.bounds.take(ends))


def _joined(texts: Documents, places: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """Mask of places after an apostrophe in a word, or a comma or point in a number, where no unit begins."""
    at = begins[1:-1].nonzero()[0] + 1
    mark = places.take(at) - 1
    near = places.take(at - 1) == mark - 1
    at, mark = at.compress(near), mark.compress(near)
    code = texts.codes.take(mark)
    both = texts.bits.take(mark - 1) & texts.bits.take(mark + 1)
    word = ((code == 0x27) | (code == 0x2019)) & (both & characters.LETTER > 0)
    number = ((code == 0x2E) | (code == 0x2C)) & (both & characters.DIGIT > 0)
    return at.compress(word | number)


@functools.lru_cache(1)
def _folded() -> np.ndarray:
    """Each code point without case and width, if that is a single character; uint32 `[0x110000]`."""
    table = np.arange(sys.maxunicode + 1, dtype=np.uint32)
    for code in range(0x20000):  # beyond, there is neither
        folded = unicodedata.normalize("NFKC", chr(code)).casefold()
        if len(folded) == 1:
            table[code] = ord(folded)
    return table


@functools.lru_cache(1)
def _scripts() -> tuple[np.ndarray, np.ndarray]:
    """Returns whether characters of a kind are units of their own, and whether they are Korean; bool `[kinds]`."""
    scripts = characters.kinds()[1]
    alone, korean = ([characters.SCRIPTS.index(name) for name in names] for names in (_ALONE, _KOREAN))
    return np.isin(scripts, alone), np.isin(scripts, korean)
