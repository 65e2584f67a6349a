"""Several documents as one array of characters, which makes whole-array work cheap for short ones too."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import numpy as np

from kanana_jax.data.arrays import characters

# With fewer, NumPy's calls cost as much as their work; with more, its arrays no longer fit into the caches.
BATCH_CHARACTERS, BATCH_TEXTS = 1 << 17, 128


@dataclasses.dataclass(frozen=True)
class Documents:
    """`D` normalised texts, separated by newlines, as `C` code points.

    Attributes:
      codes: uint32 `[C]`.
      kinds: kinds of the characters (`characters.kinds`), uint8 `[C]`.
      starts, ends: int64 `[D]`, places in `codes`.
    """

    texts: tuple[str, ...]
    codes: np.ndarray
    kinds: np.ndarray
    starts: np.ndarray
    ends: np.ndarray

    @functools.cached_property
    def text(self) -> str:
        return "\n".join(self.texts)

    @functools.cached_property
    def bits(self) -> np.ndarray:
        """Properties of the characters, uint8 `[C]`."""
        return characters.kinds()[0].take(self.kinds)

    @functools.cached_property
    def visible(self) -> np.ndarray:
        """Places of the characters that are not spaces, int64."""
        return np.flatnonzero((self.bits & characters.SPACE) == 0)

    @functools.cached_property
    def histogram(self) -> np.ndarray:
        """Characters by document and kind, int64 `[D, kinds]`; the newlines between documents count as well."""
        D, kinds = len(self.texts), len(characters.kinds()[0])
        of = np.repeat(np.arange(0, D * kinds, kinds), self.lengths + 1)[: len(self.codes)]
        return np.bincount(of + self.kinds, minlength=D * kinds).reshape(D, kinds)

    @functools.cached_property
    def _of(self) -> np.ndarray:
        return np.repeat(np.arange(len(self.texts)), self.lengths + 1)

    @property
    def lengths(self) -> np.ndarray:
        return self.ends - self.starts

    def of(self, places: np.ndarray) -> np.ndarray:
        """The documents in which places (sorted or not) lie; a newline between two belongs to the first."""
        return self._of.take(places)

    def bounds(self, places: np.ndarray) -> np.ndarray:
        """Offsets of each document's first place in a sorted list of places, then the list's length; `[D + 1]`."""
        return np.concatenate([np.searchsorted(places, self.starts), [len(places)]])

    def count(self, documents: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        """Number of occurrences of each document in a list, or the sum of their weights; `[D]`."""
        return np.bincount(documents, weights, minlength=len(self.texts))

    def count_kinds(self, kinds: np.ndarray) -> np.ndarray:
        """Characters of each document whose kind is among the flagged ones (`[kinds]`, no spaces), int64 `[D]`."""
        return self.histogram @ kinds.astype(np.int64)


def running(values: np.ndarray) -> np.ndarray:
    """The sum of the values (or how many flags are set) before each place, int64 `[places + 1]`."""
    before = np.zeros(len(values) + 1, np.int64)
    np.cumsum(values, out=before[1:])
    return before


def sums(values: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """The sum of each document's values, int64 `[D]`; `bounds` as of `Documents.bounds`."""
    return np.diff(running(values)[bounds])


def batches(
    texts: Sequence[str], most_characters: int = BATCH_CHARACTERS, most_texts: int = BATCH_TEXTS
) -> Iterator[Sequence[str]]:
    """Splits a list of texts into lists of limited characters and texts; a longer text gets a list of its own."""
    start = size = 0
    for i, text in enumerate(texts):
        if i > start and (size + len(text) > most_characters or i - start == most_texts):
            yield texts[start:i]
            start, size = i, 0
        size += len(text)
    if start < len(texts):
        yield texts[start:]


def join(texts: Sequence[str]) -> Documents:
    """Puts normalised texts side by side."""
    codes = characters.code_points("\n".join(texts))
    lengths = np.array([len(text) for text in texts], np.int64)
    ends = np.cumsum(lengths + 1) - 1
    return Documents(tuple(texts), codes, characters.kinds_of(codes), ends - lengths, ends)
