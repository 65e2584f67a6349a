"""How often phrases stand in texts, in capitals or not: each phrase is searched where its pairs of characters occur."""

from collections.abc import Sequence

import numpy as np

_PAIR_BITS = 18
_ALWAYS = 1 << _PAIR_BITS  # a place in the table of pairs that is always set


class Phrases:
    """Groups of phrases, ready to be looked for.

    A count is the sum over a group's phrases of how often each stands in the lowered text without overlapping itself.
    """

    def __init__(self, *groups: Sequence[str]):
        self._groups = len(groups)
        # ASCII is lowered quickly as bytes; most other writing has no capitals; what has is lowered slowly as text.
        self._ascii: list[tuple[int, bytes]] = []
        self._plain: list[tuple[int, str]] = []
        self._cased: list[tuple[int, str]] = []
        for group, phrases in enumerate(groups):
            for phrase in dict.fromkeys(p.lower() for p in phrases if p):
                if phrase.isascii():
                    self._ascii.append((group, phrase.encode()))
                elif phrase == phrase.upper():
                    self._plain.append((group, phrase))
                elif len(phrase) == len(phrase.upper()) == 1:
                    self._plain += [(group, phrase), (group, phrase.upper())]
                else:
                    self._cased.append((group, phrase))
        longest = max([2, *(len(phrase) for _, phrase in self._plain)])
        self._pairs = np.full((len(self._plain), longest - 1), _ALWAYS, np.int64)
        for row, (_, phrase) in zip(self._pairs, self._plain):
            row[: len(phrase) - 1] = _pairs(np.array([ord(c) for c in phrase], np.uint32))

    def count(self, texts: Sequence[str], data: Sequence[bytes], codes: np.ndarray) -> np.ndarray:
        """Occurrences by group and text, int64 `[groups, texts]`.

        Args:
          data: the texts in UTF-8.
          codes: of all texts together, with something between two.
        """
        counts = np.zeros((self._groups, len(texts)), np.int64)
        if self._ascii:
            lower = [text.lower() for text in data]
            for group, phrase in self._ascii:
                counts[group] += [text.count(phrase) for text in lower]
        if self._plain:
            there = np.zeros(_ALWAYS + 1, bool)
            there[_pairs(codes)] = True
            there[_ALWAYS] = True
            for i in np.flatnonzero(there[self._pairs].all(axis=1)):
                group, phrase = self._plain[i]
                counts[group] += [text.count(phrase) for text in texts]
        if self._cased:
            lowered = [text.lower() for text in texts]
            for group, phrase in self._cased:
                counts[group] += [text.count(phrase) for text in lowered]
        return counts


def _pairs(codes: np.ndarray) -> np.ndarray:
    """A hash of `_PAIR_BITS` bits for each two neighbours; int64."""
    hashes = codes[:-1] * np.uint32(0x9E3779B1)
    hashes += codes[1:] * np.uint32(0x85EBCA77)
    return (hashes >> np.uint32(32 - _PAIR_BITS)).astype(np.int64)
