"""Kinds of characters: one table over all code points, looked up for whole documents at once.

A document becomes an array of code points; their properties are bits, their script a small number, and both together
one of a few dozen kinds. Everything else in this package works on these arrays.
"""

import functools
import sys
import unicodedata

import numpy as np

LETTER, DIGIT, SPACE, SYMBOL, TERMINAL, UPPER, MARK, FORMAT = (1 << i for i in range(8))
SCRIPTS = ("none", "latin", "hangul", "jamo", "hiragana", "katakana", "han", "digit", "other")

# Sentence ends that occur in the languages here (of Unicode's Sentence_Terminal property).
_TERMINAL = ".!?‼‽⁇⁈⁉⸮。！？．｡﹒﹖﹗"
# Gopher (arXiv:2112.11446, A.1.1) counts words that are not symbols, without defining a symbol. Here these are
# Unicode's punctuation and symbols, and control characters.
_SYMBOL_CATEGORIES = ("P", "S", "Cc")


@functools.lru_cache(1)
def _tables() -> tuple[np.ndarray, np.ndarray]:
    """Bits and scripts: uint8 `[0x110000]`."""
    bits = np.zeros(sys.maxunicode + 1, np.uint8)
    scripts = np.zeros(sys.maxunicode + 1, np.uint8)
    last = 0x20000  # beyond, except for the Han planes, there are only private, tag and unassigned characters
    categories = [unicodedata.category(chr(i)) for i in range(last)]
    first = np.array([ord(c[0]) for c in categories], np.uint8)
    bits[:last] |= np.where(first == ord("L"), LETTER, 0).astype(np.uint8)
    bits[:last] |= np.where(first == ord("M"), MARK, 0).astype(np.uint8)
    bits[:last] |= np.where(first == ord("N"), DIGIT, 0).astype(np.uint8)
    bits[:last] |= np.where([c == "Cf" for c in categories], FORMAT, 0).astype(np.uint8)
    symbol = [c[0] in "PS" or c in _SYMBOL_CATEGORIES for c in categories]
    bits[:last] |= np.where(symbol, SYMBOL, 0).astype(np.uint8)
    bits[:last] |= np.where([c == "Lu" for c in categories], UPPER, 0).astype(np.uint8)
    for i in range(last):
        if chr(i).isspace():
            bits[i] = SPACE
    for c in _TERMINAL:
        bits[ord(c)] |= TERMINAL
    scripts[bits & LETTER > 0] = SCRIPTS.index("other")
    scripts[bits & DIGIT > 0] = SCRIPTS.index("digit")
    for script, ranges in _RANGES.items():
        for start, end in ranges:
            part = slice(start, end + 1)
            scripts[part] = np.where(bits[part] & (LETTER | MARK) > 0, SCRIPTS.index(script), scripts[part])
    bits[0x20000:0x40000] = LETTER
    scripts[0x20000:0x40000] = SCRIPTS.index("han")
    return bits, scripts


@functools.lru_cache(1)
def _kinds() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The kind of each code point, uint8 `[0x110000]`; bits and script of each kind, uint8 `[kinds]`."""
    bits, scripts = _tables()
    pairs = bits.astype(np.int64) << 8 | scripts
    there = np.zeros(1 << 16, bool)
    there[pairs] = True
    found = there.nonzero()[0]
    return (there.cumsum() - 1).astype(np.uint8).take(pairs), (found >> 8).astype(np.uint8), found.astype(np.uint8)


_RANGES = {
    "latin": ((0x41, 0x5A), (0x61, 0x7A), (0xAA, 0xAA), (0xBA, 0xBA), (0xC0, 0x24F), (0x1E00, 0x1EFF),
              (0xFF21, 0xFF5A)),
    "hangul": ((0xAC00, 0xD7A3),),
    "jamo": ((0x1100, 0x11FF), (0x3130, 0x318C), (0x318E, 0x318F), (0xA960, 0xA97F), (0xD7B0, 0xD7FF),
             (0xFFA0, 0xFFDC)),  # U+318D is the dot between words in statutes
    "hiragana": ((0x3041, 0x309F),),
    "katakana": ((0x30A0, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9F)),
    "han": ((0x2E80, 0x2FDF), (0x3005, 0x3007), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF)),
}  # fmt: skip

_NEWLINES = {ord(c): "\n" for c in "\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"}


def normalise(text: str) -> str:
    """Normalises a text for all other code: NFC, one kind of newline, none at the end, no NUL, no lone surrogates.

    NFC and not NFKC: the latter would change what is written (㎡, full-width letters, ligatures).
    """
    if "\0" in text:
        text = text.replace("\0", "")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            text = text.encode("utf-8", "replace").decode()
        text = unicodedata.normalize("NFC", text)  # an already composed text is not copied
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if any(chr(c) in text for c in _NEWLINES):
        text = text.translate(_NEWLINES)
    return text.rstrip("\n")


def code_points(text: str) -> np.ndarray:
    """uint32 `[characters]`."""
    return np.frombuffer(text.encode("utf-32-le"), np.uint32)


def kinds_of(codes: np.ndarray) -> np.ndarray:
    """Places in `kinds()`, uint8 `[characters]`."""
    return _kinds()[0].take(codes)


def kinds() -> tuple[np.ndarray, np.ndarray]:
    """Property bits and script of each existing kind of character; both uint8."""
    return _kinds()[1:]


def bits_of(codes: np.ndarray) -> np.ndarray:
    """Property bits, uint8 `[characters]`."""
    return _tables()[0].take(codes)


def scripts_of(codes: np.ndarray) -> np.ndarray:
    """Places in `SCRIPTS`, uint8 `[characters]`."""
    return _tables()[1].take(codes)
