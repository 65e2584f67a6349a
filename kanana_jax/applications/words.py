"""Words of a text that a search counts: Korean morphemes, Japanese and Chinese characters in twos, stems of others.

Korean particles and endings are cut off by a morphological analyser (Kiwi), since '법은' and '법을' are the same word.
Japanese needs no analyser: pairs of neighbouring characters find as well as words do.
"""

import functools
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from kanana_jax.errors import UserError, install

Cut = Callable[[Sequence[str]], list[list[str]]]
# Nouns, numerals, roots, verbs, adjectives, adverbs: parts of speech that say what a text is about (Sejong's tags).
_CONTENT = frozenset(("NNG", "NNP", "NNB", "NR", "XR", "VV", "VA", "MAG", "VV-R", "VV-I", "VA-R", "VA-I"))
_HANGUL = "\u1100-\u11ff\u3131-\u318e\uac00-\ud7a3"
_CHARACTERS = "\u3005\u3007\u3041-\u3096\u30a1-\u30fa\u30fc\u3400-\u4dbf\u4e00-\u9fff"
_KANA = "\u3041-\u3096\u30a1-\u30fa\u30fc"
_ALONE = re.compile(f"(?<![^{_KANA}])[^{_KANA}](?![^{_KANA}])")  # a word of one Han character
_RUNS = re.compile(f"([{_CHARACTERS}]+)|([{_HANGUL}]+)|(\\d+(?:[.,]\\d+)*|[^\\W\\d_{_CHARACTERS}{_HANGUL}]+)")


def morphemes(texts: Sequence[str]) -> list[list[str]]:
    """Morphemes that mean something for Hangul, pairs of characters for kana and Han, stems without common words else.

    Raises:
      UserError: a text has Hangul, and kiwipiepy is not installed; or bm25s is not.
    """
    plain = [_normal(text) for text in texts]
    korean = [i for i, text in enumerate(plain) if re.search(f"[{_HANGUL}]", text)]
    analysed = dict(zip(korean, _kiwi().tokenize([plain[i] for i in korean]))) if korean else {}
    return [[*_others(text), *_content(analysed.get(i, ()))] for i, text in enumerate(plain)]


def bigrams(texts: Sequence[str]) -> list[list[str]]:
    """Pairs of neighbouring characters of Hangul, kana and Han; stems without common words else."""
    return [[*_others(text), *(pair for run in _RUNS.finditer(text) for pair in _pairs(run[2] or ""))]
            for text in map(_normal, texts)]  # fmt: skip


def spaced(texts: Sequence[str]) -> list[list[str]]:
    """Runs of letters and digits, as spaces and marks part them."""
    return [re.findall(r"\w+", _normal(text)) for text in texts]


def _normal(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold().replace("#", " ")  # a hashtag is its word


def _others(text: str) -> Iterator[str]:
    """What needs no analysis of Korean."""
    common, stemmer = _english()
    for characters, _, word in _RUNS.findall(text):
        if characters:
            yield from _pairs(characters)
            if len(characters) > 1:
                yield from _ALONE.findall(characters)
        elif word and word not in common:
            yield stemmer.stemWord(word)


def _pairs(run: str) -> Iterator[str]:
    """Neighbouring characters in twos; one alone stays."""
    if len(run) == 1:
        yield run
    for i in range(len(run) - 1):
        yield run[i : i + 2]


def _content(tokens: Sequence[Any]) -> Iterator[str]:
    for token in tokens:
        if token.tag in _CONTENT and re.search(f"[{_HANGUL}]", token.form):
            yield token.form


@functools.cache
def _english() -> tuple[frozenset[str], Any]:
    """Common words, and Snowball's stemmer, by which 'refund' and 'refunds' are one."""
    try:
        import Stemmer
        from bm25s.stopwords import STOPWORDS_EN_PLUS
    except ImportError as error:
        raise UserError(f"searching needs bm25s and PyStemmer: {install('rag')}") from error
    return frozenset(STOPWORDS_EN_PLUS), Stemmer.Stemmer("english")


@functools.cache
def _kiwi() -> Any:
    """The analyser, which takes seconds to load."""
    try:
        import kiwipiepy
    except ImportError as error:
        raise UserError(f"searching Korean text needs kiwipiepy: {install('rag')}") from error
    return kiwipiepy.Kiwi()
