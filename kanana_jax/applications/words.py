"""Tokenization for lexical search: Korean morphemes, bigrams of Japanese and Chinese characters, stems of other words.

A morphological analyser (Kiwi) removes Korean particles and endings, since '법은' and '법을' are the same word.
Japanese needs no analyser: bigrams of characters retrieve as well as words.
"""

import functools
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from kanana_jax.errors import UserError, install

Cut = Callable[[Sequence[str]], list[list[str]]]
# Content words in the Sejong tag set: nouns, numerals, roots, verbs, adjectives, adverbs.
_CONTENT = frozenset(("NNG", "NNP", "NNB", "NR", "XR", "VV", "VA", "MAG", "VV-R", "VV-I", "VA-R", "VA-I"))
_HANGUL = "\u1100-\u11ff\u3131-\u318e\uac00-\ud7a3"
_CHARACTERS = "\u3005\u3007\u3041-\u3096\u30a1-\u30fa\u30fc\u3400-\u4dbf\u4e00-\u9fff"
_KANA = "\u3041-\u3096\u30a1-\u30fa\u30fc"
_ALONE = re.compile(f"(?<![^{_KANA}])[^{_KANA}](?![^{_KANA}])")  # a word of one Han character
_RUNS = re.compile(f"([{_CHARACTERS}]+)|([{_HANGUL}]+)|(\\d+(?:[.,]\\d+)*|[^\\W\\d_{_CHARACTERS}{_HANGUL}]+)")


def morphemes(texts: Sequence[str]) -> list[list[str]]:
    """Words of each text: content morphemes for Hangul, bigrams for kana and Han, otherwise stems without stop words.

    Raises:
      UserError: bm25s or PyStemmer is not installed, or a text has Hangul and kiwipiepy is not installed.
    """
    plain = [_normal(text) for text in texts]
    korean = [i for i, text in enumerate(plain) if re.search(f"[{_HANGUL}]", text)]
    analysed = dict(zip(korean, _kiwi().tokenize([plain[i] for i in korean]))) if korean else {}
    return [[*_others(text), *_content(analysed.get(i, ()))] for i, text in enumerate(plain)]


def bigrams(texts: Sequence[str]) -> list[list[str]]:
    """Words of each text: bigrams of characters for Hangul, kana and Han, otherwise stems without stop words."""
    return [[*_others(text), *(pair for run in _RUNS.finditer(text) for pair in _pairs(run[2] or ""))]
            for text in map(_normal, texts)]  # fmt: skip


def spaced(texts: Sequence[str]) -> list[list[str]]:
    """Words of each text: runs of letters and digits, separated by spaces and punctuation."""
    return [re.findall(r"\w+", _normal(text)) for text in texts]


def _normal(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold().replace("#", " ")  # treat a hashtag as its word


def _others(text: str) -> Iterator[str]:
    """The words that are not Korean: bigrams of kana and Han, and stems."""
    common, stemmer = _english()
    for characters, _, word in _RUNS.findall(text):
        if characters:
            yield from _pairs(characters)
            if len(characters) > 1:
                yield from _ALONE.findall(characters)
        elif word and word not in common:
            yield stemmer.stemWord(word)


def _pairs(run: str) -> Iterator[str]:
    """Bigrams of characters; a single character is kept as it is."""
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
    """English stop words, and the Snowball stemmer, which maps 'refund' and 'refunds' to one stem."""
    try:
        import Stemmer
        from bm25s.stopwords import STOPWORDS_EN_PLUS
    except ImportError as error:
        raise UserError(f"searching needs bm25s and PyStemmer: {install('rag')}") from error
    return frozenset(STOPWORDS_EN_PLUS), Stemmer.Stemmer("english")


@functools.cache
def _kiwi() -> Any:
    """The Korean analyser; cached, since it takes seconds to load."""
    try:
        import kiwipiepy
    except ImportError as error:
        raise UserError(f"searching Korean text needs kiwipiepy: {install('rag')}") from error
    return kiwipiepy.Kiwi()
