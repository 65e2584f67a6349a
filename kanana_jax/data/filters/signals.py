"""The signals that rules test, computed in one pass over documents; thresholds then need no text."""

import re
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kanana_jax.data.arrays import characters, lines, units
from kanana_jax.data.arrays.documents import Documents, batches, join, running, sums
from kanana_jax.data.arrays.hashing import PrefixHash, text_hash
from kanana_jax.data.arrays.spans import Span
from kanana_jax.data.filters import c4 as c4_rules
from kanana_jax.data.filters import repetition
from kanana_jax.data.filters.c4 import C4Config
from kanana_jax.data.filters.phrases import Phrases


class Signals(NamedTuple):
    """The measurements of a document; shares are in [0, 1]. NaN: not measured.

    Gopher is arXiv:2112.11446 (A.1.1, Table A1), C4 is Raffel et al. 2020 (§2.2), FineWeb is arXiv:2406.17557 (§3.6),
    Swallow is arXiv:2404.17733 (§3).
    """

    characters: float  # of the normalised text
    bytes: float
    lines: float  # that are not blank
    paragraphs: float
    prose: float  # share of the characters outside fenced code; all else here ignores the code
    # Gopher, quality
    words: float  # units that are not only symbols
    mean_word_length: float
    hashes_per_word: float
    ellipses_per_word: float
    bullet_lines: float
    ellipsis_lines: float
    alphabetic_words: float  # share of units with a letter
    stop_words: float  # how many of the language's stop words occur
    stop_word_share: float  # as a share of the words
    stop_endings: float  # how many distinct endings of words (Korean particles)
    ended_words: float  # share of the words of its script (two letters or more) with such an ending
    # Gopher, repetition
    duplicate_lines: float
    duplicate_line_characters: float
    duplicate_paragraphs: float
    duplicate_paragraph_characters: float
    top_2_gram: float  # times its count: above 1 where occurrences overlap
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
    hiragana_of_japanese: float  # share of kana and kanji: high in sentences, low in lists of nouns
    # sentences (Swallow's bounds are for Japanese)
    mean_sentence: float  # characters
    longest_sentence: float
    ellipses_per_sentence: float
    spam_words: float  # how many distinct ones
    spam: float  # share of the characters that spam words cover
    boilerplate_phrases: float  # how many distinct ones
    boilerplate: float  # share of the characters that footer phrases cover
    unfilled: float  # share of the characters in the gaps of a template: {{name}}, {% if gift %}
    compression: float  # zlib's size / size


NAMES = Signals._fields
# Mustache, Handlebars, Jinja and Liquid; names and arguments only, so that formulas do not match.
UNFILLED = re.compile(r"\{\{[#/^>&{]?[\w.\- |]{1,60}\}\}|\{%[^%{}\n]{1,80}%\}")


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
        self.stop_characters = _numbered([word for word in stop_words if len(word) == 1])
        self.stop_endings = _numbered(stop_endings)
        self.phrases = Phrases(spam, boilerplate)


def _numbered(wanted: Sequence[str]) -> np.ndarray:
    """A table of code points with the index of each wanted one, from 1; 0 for all others.

    Code points beyond the table count as its last.
    """
    table = np.zeros(max(map(ord, wanted), default=0) + 2, np.int64)
    for number, character in enumerate(sorted(set(wanted)), 1):
        table[ord(character)] = number
    return table


def measure(
    texts: Sequence[str],
    unit: units.Unit,
    lexicon: Lexicon,
    c4: C4Config | None = None,
    words: units.Units | None = None,
) -> list[tuple[Signals, tuple[Span, ...]]]:
    """The signals of normalised texts, and the cuts of C4's line rules.

    Args:
      c4: C4's line rules; without them `c4_*` are NaN and nothing is cut.
      words: units found by another tokenizer in the texts joined by newlines; default: `units.split`.
    """
    if words is not None:
        return _measure(texts, unit, lexicon, c4, words)
    return [row for batch in batches(texts) for row in _measure(batch, unit, lexicon, c4, None)]


def _measure(
    texts: Sequence[str], unit: units.Unit, lexicon: Lexicon, c4: C4Config | None, words: units.Units | None
) -> list[tuple[Signals, tuple[Span, ...]]]:
    documents = join(texts)
    codes, size = documents.codes, np.maximum(documents.lengths, 1)
    hashes = PrefixHash(codes)
    structure = lines.split(documents)
    found = units.of(documents, unit) if words is None else words
    columns = lines.line_signals(documents, structure, hashes)
    newlines = columns.pop("newlines")
    numbers = codes.take(found.starts) if found.single else hashes.of(found.starts, found.ends)
    count = np.maximum(np.diff(documents.bounds(found.starts)), 1)
    different, top, duplicate = repetition.ngram_characters(documents, numbers, found, unit == "word")
    cuts = None if c4 is None else c4_rules.apply(documents, structure, c4)
    nan = np.full(len(texts), np.nan)
    sentences, of_sentence = lines.sentence_lengths(documents)
    sentence_count = np.maximum(documents.count(of_sentence), 1)
    longest = np.zeros(len(texts), np.int64)
    np.maximum.at(longest, of_sentence, sentences)
    ellipses = np.array([text.count("...") + text.count("…") for text in texts])
    data = [text.encode() for text in texts]
    (spam_words, footers), (spam, boilerplate) = lexicon.phrases.measure(texts, data, codes)
    columns |= {
        "characters": documents.lengths,
        "prose": np.ones(len(texts)),
        "bytes": np.array([len(d) for d in data]),
        **_word_signals(documents, found, numbers, lexicon),
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
        "spam_words": spam_words,
        "spam": spam / size,
        "boilerplate_phrases": footers,
        "boilerplate": boilerplate / size,
        "unfilled": np.array([_unfilled(text) for text in texts]) / size,
        "compression": np.array([len(zlib.compress(d, 1)) / max(len(d), 1) for d in data]),
    }
    table = np.stack([np.asarray(columns[name], np.float64) for name in NAMES], axis=1).tolist()
    spans = ((),) * len(texts) if cuts is None else cuts.spans
    return [(Signals(*row), found) for row, found in zip(table, spans)]


def _unfilled(text: str) -> int:
    if "{{" not in text and "{%" not in text:
        return 0
    return sum(match.end() - match.start() for match in UNFILLED.finditer(text))


def _word_signals(
    documents: Documents, found: units.Units, numbers: np.ndarray, lexicon: Lexicon
) -> dict[str, np.ndarray]:
    bounds = documents.bounds(found.starts)
    if found.single:
        bits, _ = characters.kinds()
        words = length = documents.count_kinds(bits & (characters.SYMBOL | characters.SPACE) == 0)
        letters = documents.count_kinds(bits & characters.LETTER > 0)
        number = _number_characters(documents.codes, lexicon.stop_characters)
        stop_words, stopped = _present(documents, number), documents.count(documents.of(number.nonzero()[0]))
        stop_endings, ended = np.zeros(len(words)), np.zeros(len(words))
    else:
        not_symbol = _any_between(documents.bits & characters.SYMBOL == 0, found)
        lengths = found.ends - found.starts
        words, length = sums(not_symbol, bounds), sums(lengths * not_symbol, bounds)
        letters = sums(_any_between(documents.bits & characters.LETTER > 0, found), bounds)
        number = _number(numbers, lexicon.stop_words)
        stop_words = _present(documents, number, found.starts)
        stopped = documents.count(documents.of(found.starts[number > 0]))
        last = (found.ends - 1).compress(lengths > 1)
        endings = _number_characters(documents.codes[last], lexicon.stop_endings)
        stop_endings, ended = _present(documents, endings, last), _ended(documents, endings, last)
    return {
        "words": words,
        "mean_word_length": length / np.maximum(words, 1),
        "alphabetic_words": letters / np.maximum(np.diff(bounds), 1),
        "stop_words": stop_words,
        "stop_word_share": lines.share(stopped, words),
        "stop_endings": stop_endings,
        "ended_words": ended,
    }


def _ended(documents: Documents, endings: np.ndarray, last: np.ndarray) -> np.ndarray:
    """The share of words with an ending among those in its script, where `last` holds the last characters."""
    if not endings.any():
        return np.zeros(len(documents.texts))
    scripts = characters.kinds()[1].take(documents.kinds.take(last))
    same = np.isin(scripts, np.unique(scripts[endings > 0]))
    return lines.share(documents.count(documents.of(last[endings > 0])), documents.count(documents.of(last[same])))


def _any_between(flags: np.ndarray, found: units.Units) -> np.ndarray:
    before = running(flags)
    return before.take(found.ends) > before.take(found.starts)


def _number(values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Index (from 1) of each value among the wanted, sorted ones; 0 if it is not among them."""
    if not len(wanted):
        return np.zeros(len(values), np.int64)
    at = np.searchsorted(wanted, values)
    return np.where(wanted[np.minimum(at, len(wanted) - 1)] == values, at + 1, 0)


def _number_characters(codes: np.ndarray, table: np.ndarray) -> np.ndarray:
    return table.take(np.minimum(codes, len(table) - 1))


def _present(documents: Documents, numbers: np.ndarray, places: np.ndarray | None = None) -> np.ndarray:
    """Number of values above 0 in each document; `places` are their positions, if not all."""
    there = numbers.nonzero()[0]
    of, numbers = documents.of(there if places is None else places.take(there)), numbers.take(there)
    seen = np.zeros((len(documents.texts), numbers.max(initial=0) + 1), bool)
    seen[of, numbers] = True
    return seen.sum(axis=1)


def _script_signals(documents: Documents) -> dict[str, np.ndarray]:
    bits, scripts = characters.kinds()
    capitals = (bits & characters.UPPER > 0) & (scripts == characters.SCRIPTS.index("latin"))
    counts = {name: documents.count_kinds(scripts == i) for i, name in enumerate(characters.SCRIPTS)}
    visible = np.maximum(documents.count_kinds(bits & characters.SPACE == 0), 1)
    return {
        **{name: counts[name] / visible for name in ("hangul", "jamo", "hiragana", "katakana", "han", "latin")},
        "hiragana_of_japanese": lines.share(
            counts["hiragana"], counts["hiragana"] + counts["katakana"] + counts["han"]
        ),
        "digits": counts["digit"] / visible,
        "symbols": documents.count_kinds(bits & characters.SYMBOL > 0) / visible,
        "upper": documents.count_kinds(capitals) / np.maximum(counts["latin"], 1),
    }
