"""All that the rules may look at, in one pass over a document: numbers, so that thresholds need no text."""

import re
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kanana_jax.data.filters import characters, lines, repetition, units
from kanana_jax.data.filters.hashing import PrefixHash, text_hash


class Signals(NamedTuple):
    """What is measured of a document; shares are in [0, 1].

    Gopher is arXiv:2112.11446 (A.1.1, Table A1), C4 is Raffel et al. 2020 (§2.2), FineWeb is arXiv:2406.17557 (§3.6),
    Swallow is arXiv:2404.17733 (§3).
    """

    characters: float  # of the normalised text
    bytes: float
    lines: float  # that are not blank
    paragraphs: float
    # Gopher, quality
    words: float  # units that are not only symbols
    mean_word_length: float
    hashes_per_word: float
    ellipses_per_word: float
    bullet_lines: float
    ellipsis_lines: float
    alphabetic_words: float  # share of units with a letter
    stop_words: float  # how many of the language's are there
    stop_endings: float  # how many different endings of words (Korean particles)
    # Gopher, repetition
    duplicate_lines: float
    duplicate_line_characters: float
    duplicate_paragraphs: float
    duplicate_paragraph_characters: float
    top_2_gram: float
    top_3_gram: float
    top_4_gram: float
    duplicate_5_gram: float
    duplicate_6_gram: float
    duplicate_7_gram: float
    duplicate_8_gram: float
    duplicate_9_gram: float
    duplicate_10_gram: float
    different_words: float
    # C4, after its line rules
    c4_kept: float  # share of characters
    c4_sentences: float
    c4_lorem_ipsum: float
    c4_curly_bracket: float
    # FineWeb
    line_punctuation: float
    short_lines: float  # of at most 30 characters
    fineweb_duplicate_line_characters: float
    newlines_per_word: float
    # scripts: shares of the characters that are not spaces
    hangul: float
    jamo: float  # single letters, as in ㅋㅋㅋ
    hiragana: float
    katakana: float
    han: float
    latin: float
    digits: float
    symbols: float
    upper: float  # of Latin letters
    # sentences (Swallow's bounds are for Japanese)
    mean_sentence: float  # characters
    longest_sentence: float
    ellipses_per_sentence: float
    spam_words: float  # per 1,000 characters
    boilerplate: float  # footer phrases per line
    compression: float  # zlib's size / size


NAMES = Signals._fields


class Lexicon:
    """A language's word lists, ready to be looked up."""

    def __init__(
        self,
        stop_words: Sequence[str] = (),
        stop_endings: Sequence[str] = (),
        spam: Sequence[str] = (),
        boilerplate: Sequence[str] = (),
    ):
        self.stop_words = np.array(sorted(text_hash(w) for w in stop_words), np.uint64)
        self.stop_endings = np.array(sorted(ord(e) for e in stop_endings), np.uint32)
        self.spam = _any_of(spam)
        self.boilerplate = _any_of(boilerplate)


def _any_of(phrases: Sequence[str]) -> re.Pattern | None:
    if not phrases:
        return None
    return re.compile("|".join(re.escape(p) for p in sorted(phrases, key=len, reverse=True)), re.IGNORECASE)


def measure(
    text: str,
    unit: units.Unit,
    lexicon: Lexicon,
    c4: lines.C4Config = lines.C4Config(),
    words: units.Units | None = None,
) -> tuple[Signals, lines.C4]:
    """The signals of a normalised text, and what C4's line rules would cut.

    Args:
      words: units found by another tokenizer; default `units.split`.
    """
    codes = characters.code_points(text)
    bits = characters.bits_of(codes)
    data = text.encode()
    total = len(codes)
    hashes = PrefixHash(codes)
    structure = lines.split(codes, bits)
    found = units.split(codes, bits, unit) if words is None else words
    from_lines = lines.line_signals(codes, bits, structure, hashes)
    newlines = from_lines.pop("newlines")
    cuts = lines.c4(text, codes, bits, structure, c4)
    word_hashes = hashes.of(found.starts, found.ends)
    different, top, duplicate = repetition.ngram_characters(word_hashes, found)
    sentence_lengths = lines.sentence_lengths(codes, bits)
    ellipses = text.count("...") + text.count("…")
    count = max(len(found), 1)
    size = max(total, 1)
    signals = Signals(
        characters=total,
        bytes=len(data),
        **from_lines,
        **_word_signals(codes, bits, found, word_hashes, lexicon),
        hashes_per_word=text.count("#") / count,
        ellipses_per_word=ellipses / count,
        **{f"top_{n}_gram": value / size for n, value in top.items()},
        **{f"duplicate_{n}_gram": value / size for n, value in duplicate.items()},
        different_words=different,
        c4_kept=1.0 - sum(end - start for start, end, _ in cuts.spans) / size,
        c4_sentences=cuts.sentences,
        c4_lorem_ipsum=cuts.lorem_ipsum,
        c4_curly_bracket=cuts.curly_bracket,
        newlines_per_word=newlines / count,
        **_script_signals(codes, bits),
        mean_sentence=float(sentence_lengths.mean()) if len(sentence_lengths) else 0.0,
        longest_sentence=float(sentence_lengths.max()) if len(sentence_lengths) else 0.0,
        ellipses_per_sentence=ellipses / max(len(sentence_lengths), 1),
        spam_words=1000 * _occurrences(lexicon.spam, text) / size,
        boilerplate=_occurrences(lexicon.boilerplate, text) / max(from_lines["lines"], 1),
        compression=len(zlib.compress(data, 1)) / max(len(data), 1),
    )
    return signals, cuts


def _occurrences(pattern: re.Pattern | None, text: str) -> int:
    return 0 if pattern is None else sum(1 for _ in pattern.finditer(text))


def _word_signals(codes, bits, found: units.Units, hashes: np.ndarray, lexicon: Lexicon) -> dict[str, float]:
    count = len(found)
    if not count:
        return {
            "words": 0.0,
            "mean_word_length": 0.0,
            "alphabetic_words": 0.0,
            "stop_words": 0.0,
            "stop_endings": 0.0,
        }
    not_symbol = _any_between(bits & characters.SYMBOL == 0, found)
    words = int(np.count_nonzero(not_symbol))
    lengths = (found.ends - found.starts)[not_symbol]
    letters = _any_between(bits & characters.LETTER > 0, found)
    return {
        "words": words,
        "mean_word_length": float(lengths.sum()) / words if words else 0.0,
        "alphabetic_words": np.count_nonzero(letters) / count,
        "stop_words": _present(lexicon.stop_words, hashes),
        "stop_endings": _present(lexicon.stop_endings, codes[found.ends[found.ends - found.starts > 1] - 1]),
    }


def _any_between(flags: np.ndarray, found: units.Units) -> np.ndarray:
    sums = np.zeros(len(flags) + 1, np.int32)
    np.cumsum(flags, out=sums[1:])
    return sums[found.ends] > sums[found.starts]


def _present(wanted: np.ndarray, values: np.ndarray) -> int:
    """How many of the wanted (sorted) values occur."""
    if not len(wanted) or not len(values):
        return 0
    at = np.minimum(np.searchsorted(wanted, values), len(wanted) - 1)
    return len(np.unique(at[wanted[at] == values]))


def _script_signals(codes, bits) -> dict[str, float]:
    visible = max(int(np.count_nonzero(bits & characters.SPACE == 0)), 1)
    counts = dict(zip(characters.SCRIPTS, characters.script_counts(codes).tolist()))
    return {
        **{name: counts[name] / visible for name in ("hangul", "jamo", "hiragana", "katakana", "han", "latin")},
        "digits": counts["digit"] / visible,
        "symbols": np.count_nonzero(bits & characters.SYMBOL) / visible,
        "upper": np.count_nonzero(bits & characters.UPPER) / max(counts["latin"], 1),
    }
