r"""Extraction of the answer that a text gives: the letter of a choice or a number, in Korean, Japanese and English.

The rule: the **last statement of an answer** counts. A statement is a cue followed by a value ('정답은 B', '答えは12',
'the answer is C', `\boxed{B}`, '#### 12') or a value followed by a cue ('B가 정답입니다', 'Dが正解', 'C is the
answer'). A value is not a statement if it is negated ('정답은 A가 아니라'), one of a list ('A 또는 C'), or the
beginning of another word ('B형', 'A common …'). Conditional, hedged and interrogative statements ('만약 …', 'かもしれ',
'일까요?') count only if there is no other; without any statement, a line that consists of a value counts. Text before
`</think>` is ignored.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from kanana_jax.evaluation import answer_words as words
from kanana_jax.evaluation import numerals

Doc = Mapping[str, Any]
Answers = Sequence[Sequence[str]]  # one or more per document
_LONGEST = 16_000  # only this many characters at the end of an answer are read
INVALID = "[invalid]"  # the harness's marker for a text without an answer

_CIRCLED = {ord(c): f"{i}번" for marks in ("①②③④⑤", "❶❷❸❹❺", "➀➁➂➃➄") for i, c in enumerate(marks, 1)}
_WRAPPED = re.compile(r"\\(?:text|textbf|textrm|textit|mathrm|mathbf|mathit|operatorname)\s*\{([^{}]*)\}")
_MARKS = re.compile(r"</?(?:b|strong|em|i|u|p|span|br|div)\s*/?>|\\[()\[\]]|\*\*+|__+|`+|\$|\\(?=\$|%)|\\left|\\right")
_BRACES = re.compile(r"\\[{}]|(?P<box>\\f?box(?:ed)?\s*\{)|[{}]")
_FRACTION = re.compile(r"\\[dt]?frac\s*(?:\{([^{}]*)\}|(\d))\s*(?:\{([^{}]*)\}|(\d))")


class Value(NamedTuple):
    """A kind of answer to extract: a letter or a number.

    Attributes:
      at: maps text and offset to the value that begins there and the offset of its end; None if there is no value.
      places: pattern that matches wherever a value may begin.
      listed: whether it is one of a few choices, so that a statement with several of them is not an answer.
    """

    at: Callable[[str, int], tuple[str, int] | None]
    places: re.Pattern
    listed: bool


def plain(text: str) -> str:
    r"""A text without thinking and markup, with full-width forms as ASCII, ② as '2번', and `\boxed{x}` as ⟦x⟧."""
    text = text.rpartition("</think>")[2][-_LONGEST:].translate(_CIRCLED)
    text = unicodedata.normalize("NFKC", numerals.without_exponents(text))
    text = re.sub(r"\{,\}|\\[,!;:]|\\ ", lambda m: "," if m[0] == "{,}" else "", text)
    text = _boxes_marked(text)
    for _ in range(2):
        text = _WRAPPED.sub(r"\1", text)
    text = re.sub(r"(?<=\d)(?=\\[dt]?frac)", " ", text)
    text = _FRACTION.sub(lambda m: f"{m[1] or m[2]}/{m[3] or m[4]}", text)
    return re.sub(r"\{(\w+)\}", r"\1", _MARKS.sub("", text))


def boxed(text: str) -> str | None:
    r"""The content of the last `\boxed{…}`, which may contain braces; None if there is none."""
    found = _boxes(text)
    return text[found[-1][1] : found[-1][2]] if found else None


def _boxes(text: str) -> list[tuple[int, int, int]]:
    r"""For each complete `\boxed{…}`, its start and the start and end of its content, in order of the starts."""
    found: list[tuple[int, int, int]] = []
    open_braces: list[re.Match] = []
    for match in _BRACES.finditer(text):
        if match["box"] or match[0] == "{":
            open_braces.append(match)
        elif match[0] == "}" and open_braces:
            begun = open_braces.pop()
            if begun["box"]:
                found.append((begun.start(), begun.end(), match.start()))
    return sorted(found)


def _boxes_marked(text: str) -> str:
    made, done = [], 0
    for start, begin, end in _boxes(text):
        if start >= done:
            made += [text[done:start], "⟦", text[begin:end].rpartition("=")[2].strip(), "⟧"]
            done = end + 1
    return "".join([*made, text[done:]])


def stated(text: str, value: Value) -> str | None:
    """The last value stated in a text; None if there is no statement.

    Args:
      text: as `plain` returns it.
      value: the kind of answer.
    """
    strong, weak = [], []
    for place, found, sure in sorted(_statements(text, value)):
        (strong if sure and not _conditional(text, place) else weak).append(found)
    return (strong or weak or [None])[-1]


def _statements(text: str, value: Value) -> Iterator[tuple[int, str, bool]]:
    """Yields place and value of each statement, and whether it is neither hedged nor merely descriptive."""
    for cue in (words.CUE, words.WEAK_CUE) if value.listed else (words.CUE,):
        for match in cue.finditer(text):
            filler = words.FILLED.match(text, match.end())
            begin = filler.end() if filler else match.end()
            found = value.at(text, begin)
            if found is not None:
                yield from _judged(text, value, begin, *found, sure=cue is words.CUE)
    for match in words.DENIED.finditer(text):
        denied = value.at(text, match.end())
        if denied is not None:
            yield from _after(text, value, denied[1], words.NOT_BUT)
    for place, found in _values(text, value):
        for behind, sure in ((words.BEHIND.match, True), (words.BEHIND_WEAK.match, False)):
            if behind(text, found[1]):
                yield place, found[0], sure


def _values(text: str, value: Value) -> Iterator[tuple[int, tuple[str, int]]]:
    """Yields the place of every value, and the value with its end, without overlaps."""
    end = 0
    for match in value.places.finditer(text):
        found = value.at(text, match.start()) if match.start() >= end else None
        if found is not None:
            yield match.start(), found
            end = found[1]


def _judged(text: str, value: Value, begin: int, found: str, end: int, sure: bool) -> Iterator[tuple[int, str, bool]]:
    last = _end_of_list(text, value, end) if value.listed else end
    rest = text[last : last + 60]
    if words.NEGATED.match(rest):
        yield from _after(text, value, last, words.CORRECTED)
    elif last == end and (sure or not words.TOPIC.match(text, end)):
        yield begin, found, sure and not words.HEDGED.match(rest)


def _after(text: str, value: Value, end: int, turn: re.Pattern) -> Iterator[tuple[int, str, bool]]:
    """Yields the value that replaces a denied one ('not A but B')."""
    match = turn.match(text[end : end + 80])
    found = value.at(text, end + match.end()) if match else None
    if (
        found is not None
        and not words.TOPIC.match(text, found[1])
        and not words.NEGATED.match(text[found[1] : found[1] + 40])
    ):
        yield end, found[0], True


def _end_of_list(text: str, value: Value, end: int) -> int:
    """The end of a list of adjacent values; a value that begins a new clause does not belong to the list."""
    while match := words.AND.match(text, end):
        other = value.at(text, match.end())
        if other is None or words.TOPIC.match(text, other[1]):
            break
        end = other[1]
    return end


def _conditional(text: str, place: int) -> bool:
    begin = max(text.rfind(end, 0, place) for end in (". ", ".\n", "。", "\n", "! ", "? ", "!\n", "?\n"))
    return words.CONDITION.search(text[begin + 1 : place]) is not None


def _letter(letters: str) -> Value:
    capital = f"[{letters}]"
    small = rf"(?<=[(\"'⟦\[])[{letters.lower()}](?=[)\"'⟧\]])|[{letters.lower()}](?=\s*(?:[.,)!。]|$))"
    digits = f"[1-{len(letters)}]"
    place = re.compile(
        rf"(?<![A-Za-z0-9])(?:(?P<letter>{capital}|{small})(?![A-Za-z0-9+#&]|['’][a-z])|(?P<digit>{digits})\s*(?:번|番))"
    )

    def at(text: str, begin: int) -> tuple[str, int] | None:
        match = place.match(text, begin)
        if match is None:
            return None
        rest = text[match.end() :]
        if match["digit"]:
            return letters[int(match["digit"]) - 1], match.end()
        if re.match("[가-힣]", rest) and not re.match(words.PARTICLES, rest):
            return None
        if re.match("[ぁ-ヿ]", rest) and not re.match(words.KANA, rest) or re.match("(?!番)[一-龥]", rest):
            return None
        if match["letter"] == "A" and re.match(rf" +(?!(?:{words.AFTER_A})\b)[a-z]", rest):
            return None  # 'A common …': an article
        return match["letter"].upper(), match.end()

    return Value(at, place, listed=True)


_NUMBER = Value(numerals.at, numerals.PLACE, listed=False)


def letter(text: str, letters: str = "ABCD") -> str | None:
    """The letter of the choice that a text gives as its answer (see the module), or None; '1번' stands for A."""
    value = _letter(letters)
    text = plain(text)
    return stated(text, value) or _alone(text, value)


def _alone(text: str, value: Value) -> str | None:
    """The value of the last line that consists of a value, or of the only line if it begins with one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for line in reversed(lines):
        begin = re.match(r"[\"'“‘「『(\[⟦]*", line)
        found = value.at(line, begin.end() if begin else 0)
        if found is not None:
            rest = re.match(r"[\"'”’」』)\]⟧]*\s*(?:입니다|이다|이에요|예요|です|だ|번)*[.。!]*$", line[found[1] :])
            if rest or (len(lines) == 1 and re.match(r"[)\]]?[.:)]\s", line[found[1] :])):
                return found[0]
    return None


def number(text: str, anywhere: bool = False) -> str | None:
    """The number that a text gives as its answer, in the form of `numerals.canonical`; None if there is none.

    Args:
      anywhere: whether to take the last number of the text if no answer is stated.
    """
    text = plain(text)
    found = stated(text, _NUMBER)
    if found is None and anywhere:
        found = next((found for _, (found, _) in reversed(list(_values(text, _NUMBER)))), None)
    return found


def same_number(one: str | None, other: str | None) -> bool:
    """Whether both texts are the same number."""
    values: list[Fraction | None] = [None if text is None else numerals.parse(text) for text in (one, other)]
    return values[0] is not None and values[0] == values[1]


def _filtered(extract: Callable[[str], str | None]) -> Callable[[Answers, Sequence[Doc]], list[list[str]]]:
    def apply(answers: Answers, docs: Sequence[Doc]) -> list[list[str]]:
        return [[extract(answer) or INVALID for answer in several] for several in answers]

    return apply


# Filters for task files; each must be followed by `take_first`.
letters_to_d = _filtered(letter)
letters_to_e = _filtered(lambda text: letter(text, "ABCDE"))
numbers = _filtered(number)
numbers_anywhere = _filtered(lambda text: number(text, anywhere=True))
