r"""The answer that a text gives: the letter of a choice, or a number, in Korean, Japanese and English.

The rule: the **last statement of an answer** counts. A statement is a cue with a value ('정답은 B', '答えは12',
'the answer is C', `\boxed{B}`, '#### 12') or a value with a cue behind it ('B가 정답입니다', 'Dが正解', 'C is the
answer'). No statement are: a value that is negated ('정답은 A가 아니라'), one of a list ('A 또는 C'), or the beginning
of another word ('B형', 'A common …'). Conditional, hedged and asking ones ('만약 …', 'かもしれ', '일까요?') count only
where there is no other, and after them a line that is nothing but a value. Text before `</think>` is no answer.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from kanana_jax.evaluation import answer_words as words
from kanana_jax.evaluation import numerals

Doc = Mapping[str, Any]
Answers = Sequence[Sequence[str]]  # several of each document
_LONGEST = 16_000  # characters at the end of an answer that are read
INVALID = "[invalid]"  # what the harness's filters say of a text without an answer

_CIRCLED = {ord(c): f"{i}번" for marks in ("①②③④⑤", "❶❷❸❹❺", "➀➁➂➃➄") for i, c in enumerate(marks, 1)}
_WRAPPED = re.compile(r"\\(?:text|textbf|textrm|textit|mathrm|mathbf|mathit|operatorname)\s*\{([^{}]*)\}")
_MARKS = re.compile(r"</?(?:b|strong|em|i|u|p|span|br|div)\s*/?>|\\[()\[\]]|\*\*+|__+|`+|\$|\\(?=\$|%)|\\left|\\right")
_BRACES = re.compile(r"\\[{}]|(?P<box>\\f?box(?:ed)?\s*\{)|[{}]")
_FRACTION = re.compile(r"\\[dt]?frac\s*(?:\{([^{}]*)\}|(\d))\s*(?:\{([^{}]*)\}|(\d))")


class Value(NamedTuple):
    """Kind of answer to extract: a letter or a number.

    Attributes:
      at: text and place → what it says there and where that ends; None: nothing.
      places: where it may stand in a text.
      listed: whether it is one of a few choices, so that several of them in one statement are no answer.
    """

    at: Callable[[str, int], tuple[str, int] | None]
    places: re.Pattern
    listed: bool


def plain(text: str) -> str:
    r"""The answer's text without markup: full-width forms as ASCII, ② as '2번', `\boxed{x}` as ⟦x⟧."""
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
    r"""The content of the last `\boxed{…}`, braces within it included."""
    found = _boxes(text)
    return text[found[-1][1] : found[-1][2]] if found else None


def _boxes(text: str) -> list[tuple[int, int, int]]:
    r"""Start of each whole `\boxed{…}`, and start and end of its content, in order of their starts."""
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
    """The last statement of a value in a text that is `plain`; None: there is none."""
    strong, weak = [], []
    for place, found, sure in sorted(_statements(text, value)):
        (strong if sure and not _conditional(text, place) else weak).append(found)
    return (strong or weak or [None])[-1]


def _statements(text: str, value: Value) -> Iterator[tuple[int, str, bool]]:
    """Place, value, and whether it is neither hedged nor a mere description."""
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
    """Every value and its place; none of them within another."""
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
    """The value that takes the place of one that was denied."""
    match = turn.match(text[end : end + 80])
    found = value.at(text, end + match.end()) if match else None
    if (
        found is not None
        and not words.TOPIC.match(text, found[1])
        and not words.NEGATED.match(text[found[1] : found[1] + 40])
    ):
        yield end, found[0], True


def _end_of_list(text: str, value: Value, end: int) -> int:
    """End of the last of adjacent values; a value that begins a clause of its own is not one of them."""
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
    """The letter of the choice that a text gives as its answer (see the module); a number with 번 counts from A."""
    value = _letter(letters)
    text = plain(text)
    return stated(text, value) or _alone(text, value)


def _alone(text: str, value: Value) -> str | None:
    """The last line that is nothing but a value, or the only line that begins with one."""
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
    """The number that a text gives as its answer, as `numerals.canonical` writes it.

    Args:
      anywhere: without a statement the text's last number is taken.
    """
    text = plain(text)
    found = stated(text, _NUMBER)
    if found is None and anywhere:
        found = next((found for _, (found, _) in reversed(list(_values(text, _NUMBER)))), None)
    return found


def same_number(one: str | None, other: str | None) -> bool:
    """Returns whether both say the same number."""
    values: list[Fraction | None] = [None if text is None else numerals.parse(text) for text in (one, other)]
    return values[0] is not None and values[0] == values[1]


def _filtered(extract: Callable[[str], str | None]) -> Callable[[Answers, Sequence[Doc]], list[list[str]]]:
    def apply(answers: Answers, docs: Sequence[Doc]) -> list[list[str]]:
        return [[extract(answer) or INVALID for answer in several] for several in answers]

    return apply


# Filters of task files, each to be followed by `take_first`.
letters_to_d = _filtered(letter)
letters_to_e = _filtered(lambda text: letter(text, "ABCDE"))
numbers = _filtered(number)
numbers_anywhere = _filtered(lambda text: number(text, anywhere=True))
