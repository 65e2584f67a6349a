"""Some documents as one array of characters: what makes whole-array work cheap for short ones too."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from kanana_jax.data.filters import characters


@dataclasses.dataclass(frozen=True)
class Documents:
    """`D` normalised texts, a newline between two, as `C` code points.

    Attributes:
      codes: uint32 `[C]`.
      bits: properties of the characters, uint8 `[C]`.
      starts, ends: int64 `[D]`, places in `codes`.
    """

    texts: tuple[str, ...]
    codes: np.ndarray
    bits: np.ndarray
    starts: np.ndarray
    ends: np.ndarray

    @functools.cached_property
    def text(self) -> str:
        return "\n".join(self.texts)

    @property
    def lengths(self) -> np.ndarray:
        return self.ends - self.starts

    def of(self, places: np.ndarray) -> np.ndarray:
        """The documents in which places (sorted or not) lie; a newline between two belongs to the one before."""
        return np.searchsorted(self.starts, places, side="right") - 1

    def count(self, documents: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        """How often each document occurs in a list, or the weights it gathers; `[D]`."""
        return np.bincount(documents, weights, minlength=len(self.texts))

    def sums(self, flags: np.ndarray) -> np.ndarray:
        """Characters of each document for which a flag `[C]` is set, int64 `[D]`."""
        sums = running(flags)
        return sums[self.ends] - sums[self.starts]


def running(flags: np.ndarray) -> np.ndarray:
    """How many flags are set before each place, int64 `[C + 1]`."""
    sums = np.zeros(len(flags) + 1, np.int64)
    np.cumsum(flags, out=sums[1:])
    return sums


def join(texts: Sequence[str]) -> Documents:
    """Puts normalised texts side by side."""
    codes = characters.code_points("\n".join(texts))
    lengths = np.array([len(text) for text in texts], np.int64)
    ends = np.cumsum(lengths + 1) - 1
    return Documents(tuple(texts), codes, characters.bits_of(codes), ends - lengths, ends)
