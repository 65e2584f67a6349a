"""All that the rules may look at, in one pass over documents: numbers, so that thresholds need no text."""

import re
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kanana_jax.data.filters import c4 as c4_rules
from kanana_jax.data.filters import characters, lines, repetition, units
from kanana_jax.data.filters.c4 import C4Config, Span
from kanana_jax.data.filters.documents import Documents, join, running
from kanana_jax.data.filters.hashing import PrefixHash, text_hash


class Signals(NamedTuple):
    """What is measured of a document; shares are in [0, 1]. NaN: not measured.

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
    texts: Sequence[str],
    unit: units.Unit,
    lexicon: Lexicon,
    c4: C4Config | None = None,
    words: units.Units | None = None,
) -> list[tuple[Signals, tuple[Span, ...]]]:
    """The signals of normalised texts, and what C4's line rules would cut out of them.

    Args:
      c4: its line rules; without them `c4_*` are NaN and nothing is cut.
      words: units found by another tokenizer in all texts, a newline between two; default `units.split`.
    """
    if not texts:
        return []
    documents = join(texts)
    codes, size = documents.codes, np.maximum(documents.lengths, 1)
    hashes = PrefixHash(codes)
    structure = lines.split(documents)
    found = units.split(codes, documents.bits, unit) if words is None else words
    columns = lines.line_signals(documents, structure, hashes)
    newlines = columns.pop("newlines")
    word_hashes = hashes.of_single(found.starts) if found.single else hashes.of(found.starts, found.ends)
    count = np.maximum(documents.count(documents.of(found.starts)), 1)
    different, top, duplicate = repetition.ngram_characters(documents, word_hashes, found, unit == "word")
    cuts = None if c4 is None else c4_rules.apply(documents, structure, c4)
    nan = np.full(len(texts), np.nan)
    sentences, of_sentence = lines.sentence_lengths(documents)
    sentence_count = np.maximum(documents.count(of_sentence), 1)
    longest = np.zeros(len(texts), np.int64)
    np.maximum.at(longest, of_sentence, sentences)
    ellipses = np.array([text.count("...") + text.count("…") for text in texts])
    data = [text.encode() for text in texts]
    columns |= {
        "characters": documents.lengths,
        "bytes": [len(d) for d in data],
        **_word_signals(documents, found, word_hashes, lexicon),
        "hashes_per_word": np.array([text.count("#") for text in texts]) / count,
        "ellipses_per_word": ellipses / count,
        **{f"top_{n}_gram": value / size for n, value in top.items()},
        **{f"duplicate_{n}_gram": value / size for n, value in duplicate.items()},
        "different_words": different,
        "c4_kept": nan if cuts is None else 1.0 - cuts.cut / size,
        "c4_sentences": nan if cuts is None else cuts.sentences,
        "c4_lorem_ipsum": nan if cuts is None else cuts.lorem_ipsum,
        "c4_curly_bracket": nan if cuts is None else cuts.curly_bracket,
        "newlines_per_word": newlines / count,
        **_script_signals(documents),
        "mean_sentence": documents.count(of_sentence, sentences) / sentence_count,
        "longest_sentence": longest,
        "ellipses_per_sentence": ellipses / sentence_count,
        "spam_words": 1000 * _occurrences(lexicon.spam, texts) / size,
        "boilerplate": lines.share(_occurrences(lexicon.boilerplate, texts), columns["lines"]),
        "compression": [len(zlib.compress(d, 1)) / max(len(d), 1) for d in data],
    }
    table = np.stack([np.asarray(columns[name], np.float64) for name in NAMES], axis=1).tolist()
    spans = ((),) * len(texts) if cuts is None else cuts.spans
    return [(Signals(*row), found) for row, found in zip(table, spans)]


def _occurrences(pattern: re.Pattern | None, texts: Sequence[str]) -> np.ndarray:
    if pattern is None:
        return np.zeros(len(texts))
    return np.array([sum(1 for _ in pattern.finditer(text)) for text in texts])


def _word_signals(documents: Documents, found: units.Units, hashes, lexicon: Lexicon) -> dict[str, np.ndarray]:
    of = documents.of(found.starts)
    not_symbol = _any_between(documents.bits & characters.SYMBOL == 0, found)
    letters = _any_between(documents.bits & characters.LETTER > 0, found)
    lengths = found.ends - found.starts
    words = documents.count(of[not_symbol])
    long = lengths > 1
    return {
        "words": words,
        "mean_word_length": documents.count(of[not_symbol], lengths[not_symbol]) / np.maximum(words, 1),
        "alphabetic_words": documents.count(of[letters]) / np.maximum(documents.count(of), 1),
        "stop_words": _present(documents, of, lexicon.stop_words, hashes),
        "stop_endings": _present(documents, of[long], lexicon.stop_endings, documents.codes[found.ends[long] - 1]),
    }


def _any_between(flags: np.ndarray, found: units.Units) -> np.ndarray:
    if found.single:
        return flags[found.starts]
    sums = running(flags)
    return sums[found.ends] > sums[found.starts]


def _present(documents: Documents, of: np.ndarray, wanted: np.ndarray, values: np.ndarray) -> np.ndarray:
    """How many of the wanted (sorted) values occur in each document."""
    if not len(wanted) or not len(values):
        return np.zeros(len(documents.texts))
    at = np.minimum(np.searchsorted(wanted, values), len(wanted) - 1)
    hit = wanted[at] == values
    seen = np.zeros((len(documents.texts), len(wanted)), bool)
    seen[of[hit], at[hit]] = True
    return seen.sum(axis=1)


def _script_signals(documents: Documents) -> dict[str, np.ndarray]:
    D, scripts = len(documents.texts), len(characters.SCRIPTS)
    of = np.repeat(np.arange(D), documents.lengths + 1)[: len(documents.codes)]
    counts = np.bincount(of * scripts + characters.scripts_of(documents.codes), minlength=D * scripts)
    counts = dict(zip(characters.SCRIPTS, counts.reshape(D, scripts).T))
    visible = np.maximum(documents.sums(documents.bits & characters.SPACE == 0), 1)
    return {
        **{name: counts[name] / visible for name in ("hangul", "jamo", "hiragana", "katakana", "han", "latin")},
        "digits": counts["digit"] / visible,
        "symbols": documents.sums(documents.bits & characters.SYMBOL > 0) / visible,
        "upper": documents.sums(documents.bits & characters.UPPER > 0) / np.maximum(counts["latin"], 1),
    }
