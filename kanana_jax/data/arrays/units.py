"""The units that statistics count: words (English), eojeol (Korean), characters (Japanese).

A word is a run of letters, digits and combining marks, or a run of symbols; `'` inside a word and `.` or `,` inside a
number belong to them. Korean eojeol are such words: a particle stays with its noun, and no morphology is guessed.
"""

import dataclasses
from typing import Literal

import numpy as np

from kanana_jax.data.arrays import characters
from kanana_jax.data.arrays.documents import Documents

Unit = Literal["word", "character"]


@dataclasses.dataclass(frozen=True)
class Units:
    """`codes[starts[i]:ends[i]]` is unit `i`; both int64 `[W]`, without overlap, in order."""

    starts: np.ndarray
    ends: np.ndarray
    single: bool = False  # whether all units are single characters

    def __len__(self) -> int:
        return len(self.starts)


def of(documents: Documents, unit: Unit) -> Units:
    """The units of documents."""
    if unit == "character":
        return Units(documents.visible, documents.visible + 1, single=True)
    return split(documents.codes, documents.bits, unit)


def split(codes: np.ndarray, bits: np.ndarray, unit: Unit) -> Units:
    """The units of a text."""
    space = (bits & characters.SPACE) > 0
    if unit == "character":
        starts = np.flatnonzero(~space)
        return Units(starts, starts + 1, single=True)
    return words(codes, bits, space)


def words(codes: np.ndarray, bits: np.ndarray, space: np.ndarray) -> Units:
    if not len(codes):
        empty = np.zeros(0, np.int64)
        return Units(empty, empty)
    inside = (bits & (characters.LETTER | characters.DIGIT | characters.MARK)) > 0
    joiner = (codes == 0x27) | (codes == 0x2019) | (codes == 0x2E) | (codes == 0x2C)
    at = np.flatnonzero(joiner[1:-1]) + 1
    if len(at):
        before, after = bits[at - 1], bits[at + 1]
        letters = (before & after & characters.LETTER > 0) & ((codes[at] == 0x27) | (codes[at] == 0x2019))
        numbers = (before & after & characters.DIGIT > 0) & ((codes[at] == 0x2E) | (codes[at] == 0x2C))
        inside[at[letters | numbers]] = True
    kind = np.where(space, np.int8(2), inside)
    change = np.flatnonzero(kind[1:] != kind[:-1]) + 1
    starts = np.concatenate([[0], change])
    ends = np.concatenate([change, [len(codes)]])
    keep = kind[starts] != 2
    return Units(starts.compress(keep), ends.compress(keep))
