"""The line rules of C4 (Raffel et al. 2020, §2.2) as spans to cut, in the order and detail of the original code."""

import dataclasses
import re

import numpy as np

from kanana_jax.data.arrays import characters
from kanana_jax.data.arrays.documents import Documents
from kanana_jax.data.arrays.lines import Lines, three_dots
from kanana_jax.data.arrays.spans import Span

_RULES = ("citation", "c4_long_word", "c4_no_terminal_punctuation", "c4_few_words", "c4_javascript", "c4_policy")
_CITATION = re.compile(r"\[\d{0,9}\]|\[edit\]|\[citation needed\]")
_POLICY = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")


@dataclasses.dataclass(frozen=True)
class C4Config:
    """C4's line rules; without `terminal_punctuation` they are FineWeb's.

    Attributes:
      max_notice_words: longest line that is cut for naming JavaScript, cookies or policies; a longer one is about them.
    """

    terminal_punctuation: bool = True
    min_words_per_line: int = 3
    max_word_characters: int = 1000
    max_notice_words: int = 10**9


@dataclasses.dataclass(frozen=True)
class C4:
    """The outcome of the line rules.

    Attributes:
      spans: for each document, the lines and citation marks to cut, in positions of its text.
      cut: characters in the spans, `[D]`.
      sentences: sentences in the remaining lines, `[D]`.
      lorem_ipsum, curly_bracket: 1 if a remaining line contains it, `[D]`.
    """

    spans: tuple[tuple[Span, ...], ...]
    cut: np.ndarray
    sentences: np.ndarray
    lorem_ipsum: np.ndarray
    curly_bracket: np.ndarray


def apply(documents: Documents, lines: Lines, config: C4Config) -> C4:
    """A line is cut by the first rule that it breaks; blank lines separate paragraphs and stay."""
    codes, text, D = documents.codes, documents.text, len(documents.texts)
    if not len(codes):
        nothing = np.zeros(D)
        return C4(((),) * D, nothing, nothing, nothing, nothing)
    rule = np.zeros(len(lines.starts), np.int8)
    visible = np.zeros(len(codes) + 2, np.int8)
    visible[1:-1] = (documents.bits & characters.SPACE) == 0
    edge = np.diff(visible)
    word_starts, word_ends = np.flatnonzero(edge == 1), np.flatnonzero(edge == -1)
    words = np.diff(np.searchsorted(word_starts, lines.starts), append=len(word_starts))
    long = word_starts[word_ends - word_starts > config.max_word_characters]
    rule[lines.at(long)] = 1
    found = [match.span() for match in _CITATION.finditer(text)] if "[" in text else []
    citations = np.array(found, np.int64).reshape(-1, 2)
    cited = lines.at(citations[:, 0])
    if config.terminal_punctuation:
        last = _without_citations(documents, lines, citations, cited)
        at = np.maximum(last, 0)
        end = codes[at]
        ends = (end == 0x2E) | (end == 0x3F) | (end == 0x21) | (end == 0x22) | (end == 0x27)
        rule[(rule == 0) & ~(ends & (last >= 0) & ~three_dots(codes, at))] = 2
    rule[(rule == 0) & (words < config.min_words_per_line)] = 3
    lower = _lower(text)
    lorem, notice = _lines_with(lines, "lorem ipsum", lower), words <= config.max_notice_words
    rule[_lines_with(lines, "javascript", lower) & (rule == 0) & ~lorem & notice] = 4
    bracket = _lines_with(lines, "{", text) & (rule == 0)
    for phrase in _POLICY:
        rule[_lines_with(lines, phrase, lower) & (rule == 0) & ~lorem & ~bracket & notice] = 5
    stays = rule == 0
    dropped = np.flatnonzero(~stays & ~lines.blank)
    marks = stays[cited].nonzero()[0]
    starts = np.concatenate([lines.starts[dropped], citations[marks, 0]])
    ends = np.concatenate([lines.ends[dropped], citations[marks, 1]])
    of = np.concatenate([lines.of[dropped], lines.of[cited[marks]]])
    why = np.concatenate([rule[dropped], np.zeros(len(marks), np.int8)])
    begins = documents.starts[of]
    spans: list[list[Span]] = [[] for _ in range(D)]
    for document, *span, i in zip(of.tolist(), (starts - begins).tolist(), (ends - begins).tolist(), why.tolist()):
        spans[document].append((*span, _RULES[i]))
    return C4(
        tuple(tuple(sorted(found)) for found in spans),
        documents.count(of, ends - starts),
        documents.count(lines.of[stays], _sentences(documents, lines)[stays]),
        (documents.count(lines.of[lorem & stays]) > 0).astype(np.int64),
        (documents.count(lines.of[bracket]) > 0).astype(np.int64),
    )


def _lower(text: str) -> str:
    lower = text.lower()
    if len(lower) != len(text):  # İ becomes two characters, but positions must not move
        lower = "".join(c.lower() if len(c.lower()) == 1 else c for c in text)
    return lower


def _lines_with(lines: Lines, phrase: str, text: str) -> np.ndarray:
    mask = np.zeros(len(lines.starts), bool)
    if phrase in text:
        mask[lines.at(np.array([match.start() for match in re.finditer(re.escape(phrase), text)]))] = True
    return mask


def _without_citations(documents: Documents, lines: Lines, citations: np.ndarray, cited: np.ndarray) -> np.ndarray:
    """The last visible character of each line when citation marks (`[N, 2]`, in the lines `cited`) are cut."""
    if not len(citations):
        return lines.last
    last, begins = lines.last.tolist(), lines.starts[cited].tolist()
    # From the end, since a mark may precede another.
    for (start, end), i, begin in zip(reversed(citations.tolist()), reversed(cited.tolist()), reversed(begins)):
        if last[i] == end - 1:  # the mark ended the line: now the character before it does
            before = np.flatnonzero(documents.bits[begin:start] & (characters.SPACE | characters.FORMAT) == 0)
            last[i] = begin + int(before[-1]) if len(before) else -1
    return np.array(last)


def _sentences(documents: Documents, lines: Lines) -> np.ndarray:
    """Sentences of each line: ends before a space; a line has at least one."""
    terminal = np.flatnonzero((documents.bits & characters.TERMINAL) != 0)
    after = np.minimum(terminal + 1, len(documents.codes) - 1)
    terminal = terminal[documents.bits[after] & characters.SPACE > 0]
    line = lines.at(terminal)
    return np.bincount(line[terminal < lines.last[line]], minlength=len(lines.starts)) + 1
