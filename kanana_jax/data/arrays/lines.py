"""Lines, paragraphs and sentences of documents, all at once."""

import dataclasses

import numpy as np

from kanana_jax.data.arrays import characters
from kanana_jax.data.arrays.documents import Documents, running
from kanana_jax.data.arrays.hashing import PrefixHash, first_equal, mix

_BACKTICK, _TILDE = 0x60, 0x7E
SHORT_LINE = 30  # characters (FineWeb, arXiv:2406.17557, §3.6)


@dataclasses.dataclass(frozen=True)
class Lines:
    """The `N` lines of several documents; all int64 `[N]`.

    Attributes:
      starts, ends: code points of each line, without the newline.
      first, last: the first and last visible character (neither a space nor a format character such as U+200B), or
        -1 in a blank line.
      of: the line's document.
    """

    starts: np.ndarray
    ends: np.ndarray
    first: np.ndarray
    last: np.ndarray
    of: np.ndarray

    @property
    def blank(self) -> np.ndarray:
        return self.first < 0

    def at(self, places: np.ndarray) -> np.ndarray:
        """The lines in which places lie."""
        return np.searchsorted(self.starts, places, side="right") - 1


def split(documents: Documents) -> Lines:
    """Splits at newlines (texts are normalised: there is no other line separator)."""
    codes = documents.codes
    breaks = np.flatnonzero(codes == 10)
    starts = np.concatenate([[0], breaks + 1]).astype(np.int64)
    ends = np.concatenate([breaks, [len(codes)]]).astype(np.int64)
    visible = np.flatnonzero(documents.bits & (characters.SPACE | characters.FORMAT) == 0)
    bounds = np.concatenate([np.searchsorted(visible, starts), [len(visible)]])
    from_, to = bounds[:-1], bounds[1:]  # newlines are not visible
    blank = from_ == to
    if len(visible):
        first, last = visible[np.minimum(from_, len(visible) - 1)], visible[to - 1]
    else:
        first = last = from_
    return Lines(starts, ends, np.where(blank, -1, first), np.where(blank, -1, last), documents.of(starts))


def line_signals(documents: Documents, lines: Lines, hashes: PrefixHash) -> dict[str, np.ndarray]:
    """Shares of lines, paragraphs and their characters (see `signals.Signals`), and `newlines`; each `[D]`."""
    codes, count = documents.codes, documents.count
    lengths = lines.ends - lines.starts
    written, full = np.flatnonzero(~lines.blank), np.flatnonzero(lengths)
    of, of_full = lines.of[written], lines.of[full]
    lines_there, total = count(of), documents.lengths
    first, last = codes[lines.first[written]], lines.last[written]
    ellipsis = (codes[last] == 0x2026) | three_dots(codes, last)
    bullet = (first == 0x2022) | (first == 0x2D)
    ends_well = documents.bits[last] & characters.TERMINAL > 0
    line_hashes = hashes.of(lines.starts[full], np.where(lines.blank, lines.ends, lines.last + 1)[full])
    again, again_characters = _repeated(documents, line_hashes, of_full, lengths[full])
    visible_again = again_characters
    if len(written) < len(full):
        some = np.flatnonzero(~lines.blank[full])
        _, visible_again = _repeated(documents, line_hashes[some], of, lengths[written])
    starts, ends = _paragraphs(lines, lengths > 0)
    of_paragraph = documents.of(starts)
    paragraphs, paragraph_characters = _repeated(documents, hashes.of(starts, ends), of_paragraph, ends - starts)
    all_lines = count(lines.of)
    newlines = np.where(total > 0, all_lines - 1, 0)
    return {
        "lines": lines_there,
        "paragraphs": count(of_paragraph),
        "bullet_lines": share(count(of[bullet]), all_lines),
        "ellipsis_lines": share(count(of[ellipsis]), all_lines),
        "duplicate_lines": share(again, count(of_full)),
        "duplicate_line_characters": share(again_characters, total),
        "duplicate_paragraphs": share(paragraphs, count(of_paragraph)),
        "duplicate_paragraph_characters": share(paragraph_characters, total),
        "line_punctuation": share(count(of[ends_well]), lines_there),
        "short_lines": share(count(of[last - lines.starts[written] < SHORT_LINE]), lines_there),
        "fineweb_duplicate_line_characters": share(visible_again, total - newlines),
        "newlines": newlines,
    }


def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole; 0 if the whole is 0."""
    return part / np.maximum(whole, 1)


def three_dots(codes: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Returns whether `...` ends at a place."""
    dot = codes[at] == 0x2E
    if not dot.any():
        return dot
    return dot & (at >= 2) & (codes[np.maximum(at - 1, 0)] == 0x2E) & (codes[np.maximum(at - 2, 0)] == 0x2E)


def _paragraphs(lines: Lines, full: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Runs of lines between empty ones, each in one document."""
    same = np.append(lines.of[1:] == lines.of[:-1], False)  # as the next line
    begins = full & np.append(True, ~(full[:-1] & same[:-1]))
    ends = full & ~(np.append(full[1:], False) & same)
    return lines.starts[begins], lines.ends[ends]


def sentence_lengths(documents: Documents) -> tuple[np.ndarray, np.ndarray]:
    """Visible characters of each sentence, and its document; a sentence ends at terminal marks or at a newline.

    A full stop ends one only before a space, a closing mark or the end, so that 3.14 and `os.path` stay whole.
    """
    codes, bits = documents.codes, documents.bits
    if not len(codes):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    terminal = np.flatnonzero((bits & characters.TERMINAL) != 0)
    after = bits[np.minimum(terminal + 1, len(codes) - 1)] & (characters.SPACE | characters.SYMBOL) > 0
    ends_here = (codes[terminal] != 0x2E) | after | (terminal == len(codes) - 1)
    ends = np.concatenate([terminal[ends_here], np.flatnonzero(codes == 10), [len(codes) - 1]])
    ends.sort()
    lengths = np.diff(running((bits & characters.SPACE) == 0).take(ends + 1), prepend=0)
    sentence = lengths > 1  # a mark after the end of a sentence is not a sentence
    return lengths[sentence], documents.of(ends[sentence])


def fenced(documents: Documents, lines: Lines) -> np.ndarray:
    """Lines of fenced code and the fences around it; an unclosed one ends with its document (CommonMark)."""
    inside = np.zeros(len(lines.starts), bool)
    if "```" not in documents.text and "~~~" not in documents.text:
        return inside
    codes = np.append(documents.codes, np.zeros(2, np.uint32))
    first = codes.take(lines.first)
    marked = ((first == _BACKTICK) | (first == _TILDE)) & ~lines.blank
    for step in (1, 2):
        marked &= codes.take(lines.first + step) == first
    opened, mark = -1, 0
    for line in marked.nonzero()[0].tolist():
        if opened >= 0 and lines.of[line] != lines.of[opened]:
            inside[opened : np.searchsorted(lines.of, lines.of[opened], side="right")] = True
            opened = -1
        if opened < 0:
            opened, mark = line, first[line]
        elif first[line] == mark:
            inside[opened : line + 1] = True
            opened = -1
    if opened >= 0:
        inside[opened : np.searchsorted(lines.of, lines.of[opened], side="right")] = True
    return inside


def _repeated(documents: Documents, hashes: np.ndarray, of: np.ndarray, lengths: np.ndarray):
    """Number of elements that occurred before in their document, and their characters; both `[D]`.

    Args:
      hashes, of, lengths: the hash, document and length in characters of each element.
    """
    again = (first_equal(mix(hashes + of.astype(np.uint64))) != np.arange(len(hashes))).nonzero()[0]
    return documents.count(of[again]), documents.count(of[again], lengths[again])
