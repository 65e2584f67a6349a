"""Sentences of Korean, Japanese and English text: where they end, by their marks and what stands around them.

A mark inside quotation marks or brackets ends nothing (「雨だ。」と言った). A full stop ends nothing after an
abbreviation, an initial or a number that goes on (3.14, 2024. 3. 15.), nor before a small letter. The end of a line
always ends a sentence, and a citation like [2] belongs to the sentence before it.
"""

import re
from collections.abc import Iterator, Mapping

# Quotation marks and brackets whose two sides differ.
_PAIRS = {"「": "」", "『": "』", "“": "”", "‘": "’", "（": "）", "(": ")", "《": "》", "〈": "〉", "【": "】"}
_CLOSING = frozenset("」』”’）)》〉】\"'")
_MARK = re.compile(r"\.{1,6}|[!?]{1,6}|…{1,6}|[。！？]{1,6}")
_CITED = re.compile(r"(?:[ \t]?\[\d{1,3}\]){1,8}")
# A title or a reference: something always follows.
_GOES_ON_TEXT = """
    mr mrs ms dr prof st rev gen sen rep gov capt col sgt vs cf e.g i.e viz approx al ed eds trans jan feb mar apr jun
    jul aug sep sept oct nov dec mt
"""
_GOES_ON = frozenset(_GOES_ON_TEXT.split())
# Words too (no, art, sec): they stand for a reference where a number follows.
_BEFORE_NUMBER = frozenset(("no", "nos", "fig", "figs", "eq", "eqs", "sec", "ch", "vol", "pp", "p", "art", "ver"))
_NUMBER = re.compile(r"[(\[]?\d|(?:[IVXLC]{2,8}|[VXLC])\b")
# They may end a sentence: they do where a word follows that opens one.
_MAY_END_TEXT = "etc inc ltd co corp llc jr sr u.s u.k u.n e.u a.m p.m ph.d m.d b.c a.d d.c"
_MAY_END = frozenset(_MAY_END_TEXT.split())
_OPENERS_TEXT = """
    a an the it its he she they we you i this that these those there in on at as but and so if when while for from
    after before however then his her their our my no not to with what who by since although
"""
_OPENERS = frozenset(_OPENERS_TEXT.split())
# Behind a quotation and a space these go on with the sentence around it.
_QUOTED_ON = ("라고", "라는", "라며", "하고", "하며", "하는")
_NEAR = 60  # characters before and behind a mark that are looked at
_DEEPEST = 8  # quotations in quotations
_WORD = re.compile(r"[A-Za-z][A-Za-z.]{0,12}$")
_NEXT_WORD = re.compile(r"[^\W\d_]{1,20}")
_LAST_NUMBER = re.compile(r"\d$")
_ENDING = frozenset("다요죠까음임함됨네")


def sentences(text: str) -> list[str]:
    """The sentences of a text, without the space around them."""
    return [text[begin:end] for begin, end in spans(text)]


def spans(text: str) -> Iterator[tuple[int, int]]:
    """Where each sentence of a text begins and ends."""
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
    """Where sentences within a line end, with the marks and citations that belong to them."""
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
    """The closing marks that are waited for behind a letter; a mark that is never closed opens nothing.

    Args:
      last: the last place of each closing mark in the line.
      at: the letter's place.
    """
    if letter in waited:  # what was opened inside and never closed ends, too
        return waited[: len(waited) - 1 - waited[::-1].index(letter)]
    closing = letter if letter == '"' else _PAIRS.get(letter)
    opens = closing is not None and last[closing] > at and len(waited) < _DEEPEST
    return (*waited, closing) if opens else waited


def _is_end(line: str, mark: re.Match[str], end: int, closed: bool) -> bool:
    """Whether a mark outside quotations, with what belongs to it up to `end`, ends a sentence."""
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
    """Whether a full stop that a space follows ends a sentence."""
    if not before.strip() or re.fullmatch(r"\s{0,20}(?:\d{1,3}|[A-Za-z가-하])", before):  # 1. of a list
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
