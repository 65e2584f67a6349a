"""Sentence splitting for Korean, Japanese and English, by punctuation and its context.

Punctuation inside quotation marks or brackets does not end a sentence (「雨だ。」と言った). Neither does a full stop
after an abbreviation or initial, within a number (3.14, 2024. 3. 15.), or before a lower-case letter. A line break
always ends a sentence, and a citation like [2] belongs to the sentence before it.
"""

import re
from collections.abc import Iterator, Mapping

# Quotation marks and brackets whose opening and closing forms differ.
_PAIRS = {"「": "」", "『": "』", "“": "”", "‘": "’", "（": "）", "(": ")", "《": "》", "〈": "〉", "【": "】"}
_CLOSING = frozenset("」』”’）)》〉】\"'")
_MARK = re.compile(r"\.{1,6}|[!?]{1,6}|…{1,6}|[。！？]{1,6}")
_CITED = re.compile(r"(?:[ \t]?\[\d{1,3}\]){1,8}")
# Titles and references, which are always followed by something.
_GOES_ON_TEXT = """
    mr mrs ms dr prof st rev gen sen rep gov capt col sgt vs cf e.g i.e viz approx al ed eds trans jan feb mar apr jun
    jul aug sep sept oct nov dec mt
"""
_GOES_ON = frozenset(_GOES_ON_TEXT.split())
# Abbreviations that are also words (no, art, sec): they introduce a reference only if a number follows.
_BEFORE_NUMBER = frozenset(("no", "nos", "fig", "figs", "eq", "eqs", "sec", "ch", "vol", "pp", "p", "art", "ver"))
_NUMBER = re.compile(r"[(\[]?\d|(?:[IVXLC]{2,8}|[VXLC])\b")
# Abbreviations that may end a sentence: they do if the next word is a typical opener.
_MAY_END_TEXT = "etc inc ltd co corp llc jr sr u.s u.k u.n e.u a.m p.m ph.d m.d b.c a.d d.c"
_MAY_END = frozenset(_MAY_END_TEXT.split())
_OPENERS_TEXT = """
    a an the it its he she they we you i this that these those there in on at as but and so if when while for from
    after before however then his her their our my no not to with what who by since although
"""
_OPENERS = frozenset(_OPENERS_TEXT.split())
# After a quotation and a space, these continue the sentence around it.
_QUOTED_ON = ("라고", "라는", "라며", "하고", "하며", "하는")
_NEAR = 60  # characters of context examined before and after a mark
_DEEPEST = 8  # nested quotations
_WORD = re.compile(r"[A-Za-z][A-Za-z.]{0,12}$")
_NEXT_WORD = re.compile(r"[^\W\d_]{1,20}")
_LAST_NUMBER = re.compile(r"\d$")
_ENDING = frozenset("다요죠까음임함됨네")


def sentences(text: str) -> list[str]:
    """The sentences of a text, without surrounding whitespace."""
    return [text[begin:end] for begin, end in spans(text)]


def spans(text: str) -> Iterator[tuple[int, int]]:
    """The (begin, end) character offsets of each sentence of a text."""
    at = 0
    for line in text.splitlines(keepends=True):
        begin = 0
        for end in (*_ends(line), len(line)):
            part = line[begin:end]
            if part.strip():
                left = begin + len(part) - len(part.lstrip())
                yield at + left, at + left + len(part.strip())
            begin = end
        at += len(line)


def _ends(line: str) -> Iterator[int]:
    """Offsets of the ends of sentences within a line, after the punctuation and citations that belong to them."""
    last = {mark: line.rfind(mark) for mark in ('"', *_PAIRS.values())}
    waited, place = tuple[str, ...](), 0
    for match in _MARK.finditer(line):
        if match.start() < place:
            continue
        for at in range(place, match.start()):
            waited = _around(line[at], waited, last, at)
        end = match.end()
        while end < len(line) and line[end] in _CLOSING and (waited or line[end] not in "\"'"):
            waited = _around(line[end], waited, last, end)
            end += 1
        closed, place = end > match.end(), end
        if waited:
            continue
        if cited := _CITED.match(line, end):
            place = end = cited.end()
        if _is_end(line, match, end, closed):
            yield end


def _around(letter: str, waited: tuple[str, ...], last: Mapping[str, int], at: int) -> tuple[str, ...]:
    """The closing marks expected after a character; an opening mark that is never closed is ignored.

    Args:
      letter: the character.
      waited: the closing marks expected before it, innermost last.
      last: the last offset of each closing mark in the line.
      at: offset of the character.
    """
    if letter in waited:  # also closes marks that were opened inside and never closed
        return waited[: len(waited) - 1 - waited[::-1].index(letter)]
    closing = letter if letter == '"' else _PAIRS.get(letter)
    opens = closing is not None and last[closing] > at and len(waited) < _DEEPEST
    return (*waited, closing) if opens else waited


def _is_end(line: str, mark: re.Match[str], end: int, closed: bool) -> bool:
    """Whether a punctuation mark outside quotations ends a sentence.

    Args:
      end: offset after the mark and the closing marks and citations that follow it.
      closed: whether closing marks follow it.
    """
    rest = line[end : end + _NEAR]
    following = rest.lstrip()
    if not following:
        return True
    spaced = len(following) < len(rest)
    if closed and (not spaced or following.startswith(_QUOTED_ON)):
        return False
    if mark[0][0] in "。！？":
        return True
    before = line[max(mark.start() - _NEAR, 0) : mark.start()]
    if not spaced:
        return mark[0] == "." and before[-1:] in _ENDING and "가" <= following[0] <= "힣"
    if following[0].islower():
        return False
    if mark[0][0] in "!?":
        return True
    if len(mark[0]) > 2 or mark[0][0] == "…":
        return following[0].isupper()
    return _full_stop_ends(before, following)


def _full_stop_ends(before: str, following: str) -> bool:
    """Whether a full stop followed by a space ends a sentence, given the text before and after it."""
    if not before.strip() or re.fullmatch(r"\s{0,20}(?:\d{1,3}|[A-Za-z가-하])", before):  # a list marker such as '1.'
        return False
    if _LAST_NUMBER.search(before):
        return following[0].isupper() or following[0] in '"“‘('
    found = _WORD.search(before)
    word = found[0].lower() if found else ""
    if word in _GOES_ON:
        return False
    if word in _BEFORE_NUMBER:
        return not _NUMBER.match(following)
    initial = found is not None and len(found[0]) == 1 and found[0].isupper()
    if word in _MAY_END or initial:
        opener = _NEXT_WORD.match(following)
        return opener is not None and opener[0].lower() in _OPENERS
    return True
