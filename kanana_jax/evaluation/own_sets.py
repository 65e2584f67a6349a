"""A team's own evaluation questions: a file with one question per line, whose form follows from its fields.

    {"question": …, "choices": […], "answer": …}   multiple choice: a choice's text, its letter, or its number from 0
    {"question": …, "answer": …}                   a short answer; or "answers": […], each of which is right
    {"question": …, "reference": …}                a free answer, compared with a reference text

This module does not import the harness; `own_tasks.py` makes the task.
"""

import dataclasses
import logging
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from kanana_jax.data.arrays import characters
from kanana_jax.errors import ConfigError, nearest
from kanana_jax.evaluation.rows import Rows, placed_rows
from kanana_jax.files import local_copy

log = logging.getLogger("kanana")
Form = Literal["choices", "answers", "reference"]
Language = Literal["ko", "ja", "en"]
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_KINDS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
_ENDINGS = tuple(f"{kind}{packed}" for kind in _KINDS for packed in ("", ".gz") if kind != ".parquet" or not packed)
# The fields of a row other than its question → its form.
_FORMS: Mapping[frozenset[str], Form] = {
    frozenset({"choices", "answer"}): "choices",
    frozenset({"answer"}): "answers",
    frozenset({"answers"}): "answers",
    frozenset({"reference"}): "reference",
}
_SHAPES = "'choices' and 'answer', or 'answer', or 'answers', or 'reference'"
_FIELDS = ("choices", "answer", "answers", "reference")
_FEW = 8  # from this many questions on, it is no coincidence if the first choice is never right


@dataclasses.dataclass(frozen=True)
class OwnSet:
    """A checked file of questions.

    Attributes:
      name: name of the task: the file's name without its ending.
      file: path or address that the user gave.
      form: form of all questions.
      rows: `{"question", "choices", "right"}` (`right` is the index of the right choice) or `{"question", "answers"}`.
      language: language of the prompt around the questions.
      unread: other fields of the rows, which are ignored.
    """

    name: str
    file: str
    form: Form
    rows: Rows
    language: Language
    unread: tuple[str, ...]


def is_file(name: str) -> bool:
    """Whether a name given to `--tasks` is that of a file, by its ending."""
    return name.endswith(_ENDINGS)


def name_of(file: str) -> str:
    """The name of a file's task."""
    last = file.rsplit("/", 1)[-1]
    return last.removesuffix(next((ending for ending in sorted(_ENDINGS, key=len) if last.endswith(ending)), ""))


def read(file: str) -> OwnSet:
    """Reads a file of questions, local or in a bucket.

    Raises:
      ConfigError: the file cannot be read, a line is not a question, or lines have different forms; the message names
        the file, the line and the field.
    """
    name = name_of(file)
    if not name:
        raise ConfigError(f"{file} has no name before its ending, which names the task: rename it")
    rows: Rows = []
    first: tuple[str, Form] | None = None
    others: dict[str, None] = {}
    for place, whole in placed_rows(local_copy(file), name, {}):
        row = {key: value for key, value in whole.items() if value is not None}
        form = _form(row, place)
        first = first or (place, form)
        if form != first[1]:
            raise ConfigError(
                f"{place}: field '{_told(form)}', but {first[0]} has '{_told(first[1])}': a file holds one form of "
                "questions, with one metric: write two files"
            )
        rows.append(_question(row, form, place))
        others |= dict.fromkeys(key for key in row if key not in ("question", *_FIELDS))
    assert first is not None  # an empty file is refused
    _warn(file, first[1], rows)
    return OwnSet(name, file, first[1], rows, language([row["question"] for row in rows]), tuple(others))


def _told(form: Form) -> str:
    return "answer" if form == "answers" else form


def _form(row: Mapping[str, Any], place: str) -> Form:
    found = frozenset(field for field in _FIELDS if field in row)
    if found in _FORMS:
        return _FORMS[found]
    if found == {"choices"}:
        raise ConfigError(f"{place}: no field 'answer', which names the right one of 'choices'")
    if not found:
        near = _near([key for key in row if key != "question"], _FIELDS)
        raise ConfigError(f"{place}: no field 'answer'{near}: beside 'question' a line has {_SHAPES}")
    both = "' and '".join(field for field in _FIELDS if field in found)
    raise ConfigError(f"{place}: fields '{both}' together: beside 'question' a line has {_SHAPES}")


def _near(keys: Sequence[str], fields: Sequence[str]) -> str:
    """A hint if a key is likely a misspelt field, else an empty string."""
    hints = ((key, nearest(key, fields)) for key in keys)
    return next((f" ('{key}': {hint})" for key, hint in hints if hint.startswith("did you mean")), "")


def _question(row: Mapping[str, Any], form: Form, place: str) -> dict[str, Any]:
    if "question" not in row:
        near = _near(list(row), ("question",))
        raise ConfigError(f"{place}: no field 'question'{near}")
    found: dict[str, Any] = {"question": _text(row["question"], "question", place)}
    if form == "choices":
        choices = _texts(row["choices"], "choices", place)
        if not 2 <= len(choices) <= len(LETTERS):
            raise _bad(place, "choices", f"has {len(choices)} choices: give 2 to {len(LETTERS)}")
        if twice := [choice for choice, n in Counter(map(plain, choices)).items() if n > 1]:
            raise _bad(place, "choices", f"has {_short(twice[0])} twice, and only one could be right")
        return found | {"choices": choices, "right": _right(row["answer"], choices, place)}
    field = "reference" if form == "reference" else "answer" if "answer" in row else "answers"
    answers = _texts(row[field], field, place) if field == "answers" else [_text(row[field], field, place)]
    return found | {"answers": answers}


def _right(answer: Any, choices: list[str], place: str) -> int:
    """The index of the right choice."""
    if isinstance(answer, int) and not isinstance(answer, bool):
        if 0 <= answer < len(choices):
            same = [number for number, choice in enumerate(choices) if plain(choice) == str(answer)]
            if same in ([], [answer]):
                return answer
            counted = f"choice {answer} from 0 is {_short(choices[answer])}, choice {same[0]} reads '{answer}'"
            raise _bad(place, "answer", f"is {answer}, but {counted}: give the text in quotes, or the letter")
        last = len(choices) - 1
        raise _bad(place, "answer", f"is {answer}, but the {last + 1} choices are numbered from 0 to {last}")
    if isinstance(answer, str):
        text = plain(answer)
        for number, choice in enumerate(choices):
            if plain(choice) == text:
                return number
        letter = text.strip("(). ").upper()
        if len(letter) == 1 and letter in LETTERS[: len(choices)]:
            return LETTERS.index(letter)
    way = "give the choice's text, its letter (A, B …) or its number, counted from 0 and not in quotes"
    raise _bad(place, "answer", f"is {_short(answer)}, none of the choices: {way}")


def _text(value: Any, field: str, place: str) -> str:
    """A field's text; a number is converted to text."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise _bad(place, field, f"is {_short(value)}, which is not text")
    if not normalised(value):
        raise _bad(place, field, f"is {_short(value)}, which holds no letter, digit or sign")
    return value.strip()


def _texts(value: Any, field: str, place: str) -> list[str]:
    if not isinstance(value, list) or not value:
        raise _bad(place, field, f"is {_short(value)}, where a list of texts belongs")
    return [_text(one, field, place) for one in value]


def _bad(place: str, field: str, problem: str) -> ConfigError:
    return ConfigError(f"{place}: field '{field}' {problem}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _warn(file: str, form: Form, rows: Rows) -> None:
    """Warns about input that is allowed but rarely intended."""
    seen = Counter(plain(row["question"]) for row in rows)
    if again := sum(n - 1 for n in seen.values()):
        log.warning("%s: %d of %d questions were asked before in the same file", file, again, len(rows))
    if form == "choices" and len(rows) >= _FEW and all(row["right"] > 0 for row in rows):
        log.warning("%s: the first choice is never right: are its answers counted from 1? They count from 0", file)


def language(questions: list[str]) -> Language:
    """The language of the prompt for these questions: Korean if they use Hangul, Japanese for kana, else English."""
    scripts = characters.scripts_of(characters.code_points("".join(questions)))
    count = dict(zip(characters.SCRIPTS, np.bincount(scripts, minlength=len(characters.SCRIPTS)).tolist()))
    hangul, kana = count["hangul"] + count["jamo"], count["hiragana"] + count["katakana"]
    letters = hangul + kana + count["han"] + count["latin"]
    if 5 * max(hangul, kana) < letters:  # only a few foreign names
        return "en"
    return "ko" if hangul > kana else "ja" if kana else "en"


def plain(text: str) -> str:
    """A text in NFKC with single spaces: composed Hangul, and one width of letters and kana."""
    return " ".join(unicodedata.normalize("NFKC", text).replace("〜", "~").replace("−", "-").split())


def normalised(text: str) -> str:
    """The form in which short answers are compared: without case, width, spaces and punctuation.

    What distinguishes numbers is kept: a minus sign before a number, anything between two digits (3.5, 10:30, `1 2`)
    except commas of thousands, and `%` `#` `&` `@`, which occur in units and names.
    """
    text = plain(text).casefold()
    kept: list[str] = []
    gap = ""
    for at, char in enumerate(text):
        if not _is_kept(text, at):
            gap += char
            continue
        if gap and kept and kept[-1].isdigit() and char.isdigit() and not (gap == "," and _is_group(text, at)):
            kept.append(gap.strip() or " ")
        gap = ""
        kept.append(char)
    return "".join(kept)


def _is_kept(text: str, at: int) -> bool:
    char = text[at]
    if char in "%#&@":
        return True
    if char == "-":  # kept only as the sign of a negative number
        before, behind = text[at - 1 : at], text[at + 1 : at + 2]
        return behind.isdigit() and not before.isalnum()
    return unicodedata.category(char)[0] in "LMNS"


def _is_group(text: str, at: int) -> bool:
    """Whether exactly three digits begin here."""
    return text[at : at + 3].isdigit() and len(text[at : at + 3]) == 3 and not text[at + 3 : at + 4].isdigit()
