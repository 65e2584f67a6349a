"""The separator between two lines of a paragraph: a space, nothing, or the removal of a hyphen.

Japanese and Chinese use no spaces, and between them and Latin letters every document has its own convention. Korean
uses spaces, but many pages break lines within words. Statistics over the inside of the document's lines decide which it
is.
"""

import math
import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np

from kanana_jax.data.arrays import characters
from kanana_jax.data.extract.markup import words

_UNSPACED = r"\u2e80-\u2fff\u3005-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_FULL = re.compile(r"[\u3000-\u3003\u3008-\u301f\u30fb\uff00-\uff65]")
_WIDE = re.compile(f"[{_UNSPACED}]")
_HANGUL = re.compile(r"[\uac00-\ud7a3]")
_MIXED = re.compile(f"[{_UNSPACED}]( ?)(?=[A-Za-z0-9(/~])|[A-Za-z0-9)]( ?)(?=[{_UNSPACED}])")
_WORD = re.compile(r"[^\W_]+")
_COMPOUND = re.compile(r"(?<![^\W\d_])[^\W\d_]+(?:-[^\W\d_]+)+")
_PATH = re.compile(r"[^/\s]{0,200}/\S*[/=&?_-]$|(?>\S*?://)\S*\.$")
_PATH_PART = re.compile(r"\w\S{0,60}[/._=&%~#?-]\w|//\w")
_OPENERS, _CLOSERS = "([{「『（［【〈《", ")]}」』）］】〉》”’,.;:!?、。，．"
# Endings that follow a noun and never stand alone.
_PARTICLES = words(
    "은 는 이 가 을 를 에 의 와 과 도 로 으로 에서 에게 에게서 한테 께서 까지 부터 만 만을 만이 라고 이라고 "
    "라는 이라는 란 이란 입니다 이다 이며 이고 이나 나 인 인데 이지만 지만 에는 에도 에서는 에서도 에만 로는 "
    "로도 으로는 으로도 로서 으로서 로써 으로써 와는 과는 와의 과의 보다 처럼 마다 마저 조차 밖에 뿐만 이랑 "
    "든지 이든지 라도 이라도 들 들은 들이 들을 들의 들에 이라면 라면 이었다 였다 이므로 므로 까지는 까지의 "
    "부터는 만의 적인 적으로 스럽게 니다 습니다 면서 어야 아야 었다 았다 다"
)
# Iterations (EM) for the share of line breaks within words.
_ROUNDS = 8


class Spacing:
    """The spacing conventions of a document, from statistics over the inside of its lines.

    Args:
      texts: the lines; their first and last words may be incomplete and are not counted.
      spaced: for each line, whether the file has a space at its end.
      breaks: the texts before and after each line break within a paragraph.
    """

    def __init__(self, texts: Sequence[str], spaced: Sequence[bool], breaks: Sequence[tuple[str, str]]):
        self.words: Counter[str] = Counter()
        self.compounds: Counter[str] = Counter()
        # Counts of character pairs without and with a space between them; `*` stands for any character.
        self.joined: Counter[str] = Counter()
        self.parted: Counter[str] = Counter()
        habits: Counter[bool] = Counter()
        korean: list[str] = []
        inner: list[str] = []
        for text in texts:
            inner += text.lower().split()[1:-1]
            if "-" in text:
                self.compounds.update(found.lower() for found in _COMPOUND.findall(text))
            if _HANGUL.search(text):
                korean.append(text)
            elif _WIDE.search(text):
                habits.update(bool(m[1] or m[2]) for m in _MIXED.finditer(text))
        self.words.update(inner)
        self._count_pairs("\n".join(korean))
        self.mixed = " " if habits[True] > habits[False] else ""
        hangul = [is_spaced for text, is_spaced in zip(texts, spaced) if _HANGUL.match(text[-1:])]
        # If the file keeps spaces at line ends, a missing one means that the word continues.
        self.tells = sum(hangul) > 0.2 * len(hangul)
        self._prior = 0.0
        self._known: dict[tuple[str, str], float] = {}
        evidence = [] if self.tells else [self._evidence(a, b) for a, b in breaks if _is_korean(a[-1], b[0])]
        for _ in range(_ROUNDS if evidence else 0):
            share = sum(_sigmoid(self._prior + e) for e in evidence) / len(evidence)
            self._prior = math.log((share * len(evidence) + 0.5) / ((1 - share) * len(evidence) + 0.5))

    def between(self, before: str, after: str) -> str:
        """The separator between two lines, the first of which does not end with a space."""
        a, b = before[-1], after[0]
        if _FULL.match(a) or _FULL.match(b) or a in _OPENERS or b in _CLOSERS:
            return ""
        wide = bool(_WIDE.match(a)) + bool(_WIDE.match(b))
        hangul = bool(_HANGUL.match(a)) + bool(_HANGUL.match(b))
        if wide == 2 or (wide and not hangul and not (a + b).isalnum()):
            return ""
        if wide and not hangul:
            return self.mixed
        if _is_korean(a, b):
            return "" if self.tells or self._prior + self._evidence(before, after) > 0 else " "
        token = before.split()[-1]
        if _PATH_PART.match(after) and (_PATH.match(token) or after.startswith("//")):
            return ""
        return " "

    def hyphened(self, before: str, after: str) -> str:
        """The first line with or without the hyphen at its end."""
        head, tail = before.split()[-1] if before.split() else "", _WORD.match(after)
        start = re.search(r"(?<![^\W_])[^\W_]+$", head)
        if start is None or tail is None:
            return f"{before}-"
        if self.compounds[f"{start[0]}-{tail[0]}".lower()] > self._count(start[0] + tail[0]):
            return f"{before}-"
        is_word = start[0].isalpha() and tail[0][:1].islower() or start[0].isupper() and tail[0].isupper()
        is_word = is_word and tail[0].isalpha() and "-" not in head
        return before if is_word or self._count(start[0] + tail[0]) else f"{before}-"

    def _count(self, word: str) -> int:
        return self.words[word.lower()]

    def _count_pairs(self, lines: str) -> None:
        codes = _kinds(characters.code_points(lines))
        blank = (codes[1:-1] == ord(" ")).nonzero()[0]
        for first, second, into, apart in (
            (codes[:-1], codes[1:], self.joined, " \n"),
            (codes[blank], codes[blank + 2], self.parted, string.whitespace + "\u3000\xa0"),
        ):
            pairs, counts = np.unique(first.astype(np.uint64) << np.uint64(32) | second, return_counts=True)
            for pair, n in zip(pairs.tolist(), counts.tolist()):
                a, b = chr(pair >> 32), chr(pair & 0xFFFFFFFF)
                if a not in apart and b not in apart:
                    for key in (a + b, f"{a}*", f"*{b}", "**"):
                        into[key] += n

    def _evidence(self, before: str, after: str) -> float:
        """`_weighed`, cached, since every break is evaluated twice."""
        found = self._known.get((before, after))
        if found is None:
            found = self._known[before, after] = self._weighed(before, after)
        return found

    def _weighed(self, before: str, after: str) -> float:
        """The log odds that a break lies within a word, from the adjacent characters and the adjacent words.

        For rare pairs, the two characters are treated as independent (naive Bayes).
        """
        a, b = _kind(before[-1]), _kind(after[0])
        usual = self._odds("**", 0.5, 0.0)
        apart = self._odds(f"{a}*", 0.5, usual) + self._odds(f"*{b}", 0.5, usual) - usual
        score = self._odds(a + b, 2.0, apart) - usual
        x, y = before.split()[-1].lower(), after.split()[0].lower()
        piece = re.sub(r"(?<!\W)\W+$", "", y)
        if self.words[x + y] or self.words[x + piece] or piece in _PARTICLES:
            score += 3.0
        else:
            score -= 1.5 * (self.words[x] > 0) + 1.5 * (self.words[y] > 0)
        return score

    def _odds(self, pair: str, weight: float, otherwise: float) -> float:
        """Log odds of joined over separated pairs, shrunk towards `otherwise` with the weight of `weight` pairs."""
        share = _sigmoid(otherwise)
        joined, parted = self.joined[pair] + weight * share, self.parted[pair] + weight * (1 - share)
        return math.log((joined + 1e-9) / (parted + 1e-9))


def _is_korean(a: str, b: str) -> bool:
    """Whether a Korean word may be broken between two characters."""
    if _HANGUL.match(b):
        return a.isalnum() or a in ")”’\"'"
    return b in "(“‘" and bool(_HANGUL.match(a))


def _kind(c: str) -> str:
    return c if not c.isascii() else "0" if c.isdigit() else "a" if c.isalpha() else c


def _kinds(codes: np.ndarray) -> np.ndarray:
    """`_kind` of code points, `[N]`."""
    kinds = np.arange(128, dtype=codes.dtype)
    for c in range(128):
        kinds[c] = ord(_kind(chr(c)))
    return np.where(codes < 128, kinds.take(np.minimum(codes, 127)), codes)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-max(-30.0, min(x, 30.0))))
