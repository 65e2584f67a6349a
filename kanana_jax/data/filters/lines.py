"""Lines, paragraphs and sentences of a document, all at once; the line rules of C4 as spans to cut."""

import dataclasses
import re

import numpy as np

from kanana_jax.data.filters import characters
from kanana_jax.data.filters.hashing import PrefixHash
from kanana_jax.data.filters.repetition import duplicates

# (start, end, rule): what an edit cuts out of the normalised text.
Span = tuple[int, int, str]

_CITATION = re.compile(r"\[\d{0,9}\]|\[edit\]|\[citation needed\]")
_POLICY = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
SHORT_LINE = 30  # characters (FineWeb, arXiv:2406.17557, §3.6)


@dataclasses.dataclass(frozen=True)
class Lines:
    """The lines of a document without the empty ones after its last character; all int64 `[N]`.

    Attributes:
      starts, ends: in code points, without the newline.
      first, last: the first and the last character that is not a space, or -1 in a blank line.
    """

    starts: np.ndarray
    ends: np.ndarray
    first: np.ndarray
    last: np.ndarray

    @property
    def blank(self) -> np.ndarray:
        return self.first < 0


def split(codes: np.ndarray, bits: np.ndarray) -> Lines:
    """Splits at newlines (the text is normalised: there is no other line separator)."""
    breaks = np.flatnonzero(codes == 10)
    starts = np.concatenate([[0], breaks + 1]).astype(np.int64)
    ends = np.concatenate([breaks, [len(codes)]]).astype(np.int64)
    if starts[-1] == len(codes):  # as str.splitlines: a last newline ends a line and begins none
        starts, ends = starts[:-1], ends[:-1]
    visible = np.append(np.flatnonzero((bits & characters.SPACE) == 0), len(codes))
    from_ = np.searchsorted(visible, starts)
    to = np.searchsorted(visible, ends)
    blank = from_ == to
    return Lines(starts, ends, np.where(blank, -1, visible[from_]), np.where(blank, -1, visible[to - 1]))


def line_signals(codes: np.ndarray, bits: np.ndarray, lines: Lines, hashes: PrefixHash) -> dict[str, float]:
    """Shares of lines, paragraphs and their characters (see `signals.Signals` for each)."""
    total, written = len(codes), ~lines.blank
    count, visible_lines = len(lines.starts), int(written.sum())
    last = codes[lines.last[written]]
    ellipsis = (last == 0x2026) | _three_dots(codes, lines.last[written])
    first = codes[lines.first[written]]
    bullets = (first == 0x2022) | (first == 0x2D)
    lengths = lines.ends - lines.starts
    full = lengths > 0
    line_hashes = hashes.of(lines.starts[full], lines.ends[full])
    repeated, repeated_characters = duplicates(line_hashes, lengths[full])
    in_written = written[full]
    written_characters = repeated_characters
    if not in_written.all():
        _, written_characters = duplicates(line_hashes[in_written], lengths[full][in_written])
    paragraph_starts, paragraph_ends = _paragraphs(lines, full)
    paragraphs, paragraph_characters = duplicates(
        hashes.of(paragraph_starts, paragraph_ends), paragraph_ends - paragraph_starts
    )
    newlines = total - int(lengths.sum()) if count else 0
    ends_here = codes[lines.ends[written] - 1]
    return {
        "lines": visible_lines,
        "paragraphs": len(paragraph_starts),
        "bullet_lines": _share(bullets.sum(), count),
        "ellipsis_lines": _share(ellipsis.sum(), count),
        "duplicate_lines": _share(repeated, int(full.sum())),
        "duplicate_line_characters": _share(repeated_characters, total),
        "duplicate_paragraphs": _share(paragraphs, len(paragraph_starts)),
        "duplicate_paragraph_characters": _share(paragraph_characters, total),
        "line_punctuation": _share((characters.bits_of(ends_here) & characters.TERMINAL > 0).sum(), visible_lines),
        "short_lines": _share((lengths[written] <= SHORT_LINE).sum(), visible_lines),
        "fineweb_duplicate_line_characters": _share(written_characters, total - newlines),
        "newlines": newlines,
    }


def _share(part: float, whole: float) -> float:
    return float(part) / whole if whole else 0.0


def _three_dots(codes: np.ndarray, at: np.ndarray) -> np.ndarray:
    before, first = np.maximum(at - 1, 0), np.maximum(at - 2, 0)
    return (at >= 2) & (codes[at] == 0x2E) & (codes[before] == 0x2E) & (codes[first] == 0x2E)


def _paragraphs(lines: Lines, full: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Runs of lines between empty ones."""
    edge = np.diff(np.concatenate([[0], full.astype(np.int8), [0]]))
    return lines.starts[edge[:-1] == 1], lines.ends[edge[1:] == -1]


def sentence_lengths(codes: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """Visible characters of each sentence, int64; a sentence ends at a run of terminal marks or at a newline.

    A full stop ends one only before a space, a closing mark or the end, so that 3.14 and `os.path` stay whole.
    """
    if not len(codes):
        return np.zeros(0, np.int64)
    terminal = (bits & characters.TERMINAL) > 0
    after = np.append(bits[1:], characters.SPACE)
    end = (terminal & ((codes != 0x2E) | (after & (characters.SPACE | characters.SYMBOL) > 0))) | (codes == 10)
    visible = np.cumsum((bits & characters.SPACE) == 0)
    lengths = np.diff(np.concatenate([[0], visible[end], visible[-1:]]))
    return lengths[lengths > 1]  # a mark that ends what has ended is no sentence


@dataclasses.dataclass(frozen=True)
class C4:
    """What C4's line rules (Raffel et al. 2020, §2.2) make of a document.

    Attributes:
      spans: lines and citation marks to cut.
      sentences: in the lines that stay.
      words: whitespace-separated, in the lines that stay.
      lorem_ipsum, curly_bracket: 1 if a line that would stay holds it.
    """

    spans: tuple[Span, ...]
    sentences: int
    words: int
    lorem_ipsum: int
    curly_bracket: int


@dataclasses.dataclass(frozen=True)
class C4Config:
    """C4's line rules; `terminal_punctuation` off is what FineWeb uses."""

    terminal_punctuation: bool = True
    min_words_per_line: int = 3
    max_word_characters: int = 1000


def c4(text: str, codes: np.ndarray, bits: np.ndarray, lines: Lines, config: C4Config) -> C4:
    """Applies the line rules in C4's order: a line falls to the first that it breaks."""
    count = len(lines.starts)
    rule = np.zeros(count, np.int8)
    if not len(codes):
        return C4((), 0, 0, 0, 0)
    visible = np.zeros(len(codes) + 2, np.int8)
    visible[1:-1] = (bits & characters.SPACE) == 0
    edge = np.diff(visible)
    word_starts, word_ends = np.flatnonzero(edge == 1), np.flatnonzero(edge == -1)
    line_words = np.searchsorted(word_starts, lines.ends) - np.searchsorted(word_starts, lines.starts)
    long = word_starts[word_ends - word_starts > config.max_word_characters]
    rule[np.searchsorted(lines.starts, long, side="right") - 1] = 1
    last, citations = lines.last.copy(), []
    if "[" in text:
        citations = [match.span() for match in _CITATION.finditer(text)]
        last = _without_citations(bits, lines, last, citations)
    if config.terminal_punctuation:
        at = np.maximum(last, 0)
        end = codes[at]
        ends = (end == 0x2E) | (end == 0x3F) | (end == 0x21) | (end == 0x22) | (end == 0x27)
        rule[(rule == 0) & ~(ends & (last >= 0) & ~_three_dots(codes, at))] = 2
    rule[(rule == 0) & (line_words < config.min_words_per_line)] = 3
    lower = _lower(text)
    lorem = _lines_with(lines, "lorem ipsum", lower)
    rule[_lines_with(lines, "javascript", lower) & (rule == 0) & ~lorem] = 4
    bracket = _lines_with(lines, "{", text) & (rule == 0)
    for phrase in _POLICY:
        rule[_lines_with(lines, phrase, lower) & (rule == 0) & ~lorem & ~bracket] = 5
    stays = rule == 0
    kept = stays | lines.blank  # a blank line parts paragraphs: it stays, where C4 joins all lines
    spans = [(int(lines.starts[i]), int(lines.ends[i]), _RULES[rule[i]]) for i in np.flatnonzero(~kept)]
    if citations:
        line = np.searchsorted(lines.starts, [s for s, _ in citations], side="right") - 1
        spans += [(s, e, "citation") for (s, e), i in zip(citations, line) if stays[i]]
    return C4(
        tuple(sorted(spans)),
        _sentences(codes, bits, lines, stays),
        int(line_words[stays].sum()),
        int((lorem & stays).any()),
        int(bracket.any()),
    )


_RULES = (
    "",
    "c4_long_word",
    "c4_no_terminal_punctuation",
    "c4_few_words",
    "c4_javascript",
    "c4_policy",
)


def _lower(text: str) -> str:
    lower = text.lower()
    if len(lower) != len(text):  # İ becomes two characters, and places must stay
        lower = "".join(c.lower() if len(c.lower()) == 1 else c for c in text)
    return lower


def _lines_with(lines: Lines, phrase: str, text: str) -> np.ndarray:
    mask = np.zeros(len(lines.starts), bool)
    if phrase in text:
        starts = [match.start() for match in re.finditer(re.escape(phrase), text)]
        mask[np.searchsorted(lines.starts, starts, side="right") - 1] = True
    return mask


def _without_citations(bits, lines: Lines, last: np.ndarray, citations: list[tuple[int, int]]) -> np.ndarray:
    """The last visible character of each line when citation marks are cut."""
    for start, end in reversed(citations):
        i = int(np.searchsorted(lines.starts, start, side="right")) - 1
        if last[i] == end - 1:  # the mark ended the line: what stands before it does now, a space included
            last[i] = start - 1 if start > lines.starts[i] else -1
    return last


def _sentences(codes: np.ndarray, bits: np.ndarray, lines: Lines, stays: np.ndarray) -> int:
    """Sentences of the lines that stay: ends before a space or at the line's end; a line has at least one."""
    if not stays.any():
        return 0
    terminal = (bits & characters.TERMINAL) > 0
    after = np.append(bits[1:], characters.SPACE)
    at = np.flatnonzero(terminal & (after & characters.SPACE > 0))
    line = np.searchsorted(lines.starts, at, side="right") - 1
    inner = at < lines.last[line]
    per_line = np.bincount(line[inner & (line >= 0)], minlength=len(stays)) + 1
    return int(per_line[stays].sum())


def cut(text: str, spans: tuple[Span, ...]) -> str:
    """The text without the spans; a line that is cut whole goes with its newline."""
    pieces, at = [], 0
    for start, end, _ in spans:
        if start < at:
            continue
        pieces.append(text[at:start])
        whole = (start == 0 or text[start - 1] == "\n") and text[end : end + 1] == "\n"
        at = end + 1 if whole else end
    return "".join([*pieces, text[at:]]).strip()
