"""Share of a text covered by the phrases of a list, and the number of distinct ones; a phrase matches as a whole word.

Only phrases whose character pairs (fours, in ASCII) occur in the texts are searched for.
A phrase begins and ends at a boundary of its own script: `토토` is not part of `토토로`, nor `カジノ` of `カジノキ`,
nor `login` of `logins`. A Korean one may be followed by a particle (`카지노에서`). Kanji have no boundaries and match
anywhere. Among overlapping phrases, the one that begins first counts, and of these the longest.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from kanana_jax.data.arrays.spans import Span

_PAIR_BITS = 18
_ALWAYS = 1 << _PAIR_BITS  # a place in the table of pairs that is always set
# What may follow the stem of an eojeol. Not 로, with which other words continue (토토로).
_PARTICLES = "은|는|이|가|을|를|의|에|에서|에는|에도|도|와|과|만|나|이나|까지|부터|라는|이라는|입니다|이다"
_KINDS = ("[가-힣]", "[ァ-ヺー]", "[0-9a-zà-öø-ÿ]")  # letters whose runs are words, in lower case


class Phrases:
    """Groups of phrases, ready to be looked for, in capitals or not."""

    def __init__(self, *groups: Sequence[str]):
        self._groups = len(groups)
        # ASCII is lowered quickly as bytes; most other scripts have no capitals; the rest is lowered slowly as text.
        self._ascii: list[tuple[int, str]] = []
        self._plain: list[tuple[int, str, str]] = []  # and as it may be written
        self._cased: list[tuple[int, str]] = []
        for group, phrases in enumerate(groups):
            for phrase in dict.fromkeys(p.lower() for p in phrases if p):
                if phrase.isascii():
                    self._ascii.append((group, phrase))
                elif phrase == phrase.upper():
                    self._plain.append((group, phrase, phrase))
                elif len(phrase) == len(phrase.upper()) == 1:
                    self._plain += [(group, phrase, phrase), (group, phrase, phrase.upper())]
                else:
                    self._cased.append((group, phrase))
        self._words = {phrase: _Word(phrase) for _, phrase, *_ in (*self._ascii, *self._plain, *self._cased)}
        longest = max([4, *(len(phrase) for _, phrase in self._ascii)])
        self._fours = np.full((len(self._ascii), longest - 3), _ALWAYS, np.int64)
        for row, (_, phrase) in zip(self._fours, self._ascii):
            row[: max(0, len(phrase) - 3)] = _fours(phrase.encode())
        longest = max([2, *(len(phrase) for _, phrase, _ in self._plain)])
        self._pairs = np.full((len(self._plain), longest - 1), _ALWAYS, np.int64)
        for row, (_, phrase, _) in zip(self._pairs, self._plain):
            row[: len(phrase) - 1] = _pairs(np.array([ord(c) for c in phrase], np.uint32))

    def measure(self, texts: Sequence[str], data: Sequence[bytes], codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distinct phrases, and the characters that they cover, by group and text; int64 `[groups, texts]`.

        Args:
          data: the texts in UTF-8.
          codes: code points of all texts together, with a separator between two.
        """
        different, covered = np.zeros((2, self._groups, len(texts)), np.int64)
        there: dict[tuple[int, int], set[str]] = {}
        for group, phrase, places in self._candidates(texts, data, codes):
            for i in places:
                there.setdefault((group, i), set()).add(phrase)
        lowered: dict[int, str] = {}
        for (group, i), phrases in there.items():
            if i not in lowered:
                lowered[i] = texts[i].lower()
            found = _found((self._words[phrase] for phrase in phrases), lowered[i])
            different[group, i] = len({phrase for _, _, phrase in found})
            covered[group, i] = sum(end - start for start, end, _ in found)
        return different, covered

    def _candidates(
        self, texts: Sequence[str], data: Sequence[bytes], codes: np.ndarray
    ) -> Iterator[tuple[int, str, list[int]]]:
        """Group, phrase and the texts that contain its letters, as a word or not."""
        if self._ascii:
            lower = [text.lower() for text in data]
            there = np.zeros(_ALWAYS + 1, bool)
            there[_fours(b"\n".join(lower))] = True
            there[_ALWAYS] = True
            for at in np.flatnonzero(there[self._fours].all(axis=1)):
                group, phrase = self._ascii[at]
                wanted = phrase.encode()
                yield group, phrase, [i for i, text in enumerate(lower) if wanted in text]
        if self._plain:
            there = np.zeros(_ALWAYS + 1, bool)
            there[_pairs(codes)] = True
            there[_ALWAYS] = True
            for at in np.flatnonzero(there[self._pairs].all(axis=1)):
                group, phrase, written = self._plain[at]
                yield group, phrase, [i for i, text in enumerate(texts) if written in text]
        if self._cased:
            lowered = [text.lower() for text in texts]
            for group, phrase in self._cased:
                yield group, phrase, [i for i, text in enumerate(lowered) if phrase in text]

    def find(self, text: str) -> list[tuple[int, int]]:
        """Positions of the phrases of any group in a text."""
        lowered = text.lower()
        if len(lowered) != len(text):  # İ becomes two characters
            lowered = "".join(c.lower() if len(c.lower()) == 1 else c for c in text)
        return [(start, end) for start, end, _ in _found(self._words.values(), lowered)]


class _Word:
    """A pattern for a phrase as a whole word of lowered text."""

    def __init__(self, phrase: str):
        first, last = (next((kind for kind in _KINDS if re.match(kind, c)), "") for c in (phrase[0], phrase[-1]))
        self._phrase = phrase
        self._before = re.compile(first) if first else None
        ends = f"(?:{_PARTICLES})?(?!{last})" if last == _KINDS[0] else f"(?!{last})"
        self._after = re.compile(ends) if last else None

    def find(self, text: str) -> Iterator[Span]:
        at = text.find(self._phrase)
        while at >= 0:
            end = at + len(self._phrase)
            begins = self._before is None or not at or not self._before.match(text, at - 1)
            if begins and (self._after is None or self._after.match(text, end)):
                yield at, end, self._phrase
            at = text.find(self._phrase, at + 1)


def _found(words: Iterable[_Word], text: str) -> list[Span]:
    """Matches without overlap: the earliest, and of these the longest."""
    found: list[Span] = []
    for span in sorted((span for word in words for span in word.find(text)), key=lambda s: (s[0], -s[1])):
        if not found or span[0] >= found[-1][1]:
            found.append(span)
    return found


def _pairs(codes: np.ndarray) -> np.ndarray:
    """A hash of `_PAIR_BITS` bits for each two neighbours; int64."""
    hashes = codes[:-1] * np.uint32(0x9E3779B1)
    hashes += codes[1:] * np.uint32(0x85EBCA77)
    return (hashes >> np.uint32(32 - _PAIR_BITS)).astype(np.int64)


def _fours(data: bytes) -> np.ndarray:
    """A hash of `_PAIR_BITS` bits for each four neighbours; int64."""
    if len(data) < 4:
        return np.zeros(0, np.int64)
    words = np.ndarray(len(data) - 3, np.dtype("<u4"), data, 0, (1,))
    return (words * np.uint32(0x9E3779B1) >> np.uint32(32 - _PAIR_BITS)).astype(np.int64)
