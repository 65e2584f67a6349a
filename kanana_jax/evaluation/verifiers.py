"""Verifiable rewards: programs that check whether an answer is right, well formed, or in the right language.

A prompt's record names its verifier and the expected answer; without a name, a number is expected:

| verifier | `answer` | reward |
|---|---|---|
| `number` | a number, or a text whose last `####` precedes one (GSM8K) | 1 if the answer's number is the same |
| `letter` | `A` … `E` | 1 if that is the choice that the answer states |
| `exact` | a text, or several | 1 if the answer is one of them, without case, spaces and signs |
| `contains` | a text, or several | 1 if the answer contains one of them, compared likewise |
| `boxed` | a text, or several; or nothing | 1 if one of them is in `\\boxed{…}`; 1 for any box |
| `regex` | a pattern | 1 if the whole answer matches |
| `length` | `{"min", "max", "unit"}`, in `characters`, `words` or `lines` | 1 if the length is between them |
| `json` | nothing, or the keys of an object | 1 if the answer is JSON, with these keys |
| `language` | a language tag; or nothing: the record's language | the share of letters in the language's scripts |
| `ifbench` | `{"instruction_id_list", "kwargs"}` | the share of instructions that are followed strictly |

Numbers and letters are extracted by `answers.py`, in Korean, Japanese and English. Thinking is ignored.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from kanana_jax import languages
from kanana_jax.data.arrays import characters
from kanana_jax.errors import UserError, install
from kanana_jax.evaluation import answers, instructions
from kanana_jax.evaluation.short_answers import normalised

# Stands for the verifier that each record names.
RECORD = "record"
_SECONDS = 1.0  # limit of time to match a pattern against an answer


@dataclasses.dataclass(frozen=True, eq=False)
class Question:
    """A prompt, and how its answers are scored.

    Attributes:
      id: id of its record.
      ids: tokens of the prompt, int32 `[T]`.
      text: the prompt's last turn, for people and for verifiers that use it.
      lang: two-letter tag of its language; empty if unknown.
      verifier: key in `VERIFIERS`; empty if the record names none.
      answer: the verifier's expected answer.
    """

    id: str
    ids: np.ndarray
    text: str
    lang: str = ""
    verifier: str = ""
    answer: Any = None


# (questions, answers) → rewards, float `[N]`, where answer `i` is to question `i`: a verifier, reward model or judge.
Scorer = Callable[[Sequence[Question], Sequence[str]], np.ndarray]
Verifier = Callable[[str, Question], float]


def verify(weights: Mapping[str, float]) -> Scorer:
    """A scorer that returns the weighted sum of verifiers.

    The scorer raises UserError for a record that names no verifier, or whose answer its verifier cannot use.

    Args:
      weights: weight by name of the verifier; `record` stands for the one that each record names.

    Raises:
      ValueError: there is no such verifier.
    """
    for name in weights:
        if name != RECORD and name not in VERIFIERS:
            raise ValueError(f"'{name}' is not a verifier: name some of {', '.join((RECORD, *VERIFIERS))}")

    def score(questions: Sequence[Question], texts: Sequence[str]) -> np.ndarray:
        rewards = [
            sum(weight * _one(name, question, text) for name, weight in weights.items())
            for question, text in zip(questions, texts, strict=True)
        ]
        return np.asarray(rewards, np.float64)

    return score


def checked(scorer: Scorer, questions: Sequence[Question], texts: Sequence[str]) -> np.ndarray:
    """The rewards of answers, float64 `[N]`, checked.

    Raises:
      UserError: the scorer does not return one reward per answer, or a reward is not finite.
    """
    found = np.asarray(scorer(questions, texts), np.float64)
    if found.shape != (len(texts),):
        raise UserError(f"{len(texts)} answers got rewards of shape {list(found.shape)}: a scorer returns one for each")
    wrong = np.flatnonzero(~np.isfinite(found))
    if len(wrong):
        at = int(wrong[0])
        raise UserError(
            f"the reward of an answer to record '{questions[at].id}' is {found[at]}, which is not finite: correct the "
            f"scorer, or remove the record (the answer begins {texts[at][:60]!r})"
        )
    return found


def _one(name: str, question: Question, text: str) -> float:
    wanted = (question.verifier or _usual(question)) if name == RECORD else name
    if wanted not in VERIFIERS:
        told = f"names the verifier '{wanted}'" if wanted else "names no 'verifier', and its 'answer' is not a number"
        raise UserError(
            f"record '{question.id}' {told}: write one of {', '.join(VERIFIERS)} there, or name some in config "
            "'reward.verifiers'"
        )
    try:
        return float(VERIFIERS[wanted](text.rpartition("</think>")[2].strip(), question))
    except (KeyError, TypeError, ValueError) as error:
        told = json.dumps(question.answer, ensure_ascii=False, default=str)[:80]
        raise UserError(
            f"record '{question.id}': verifier '{wanted}' cannot judge by the answer {told} ({error}): see "
            "docs/alignment.md"
        ) from error


def _usual(question: Question) -> str:
    """The verifier of a record that names none: `number` if its answer is one, else empty."""
    given = question.answer
    plain = isinstance(given, (int, float, str)) and not isinstance(given, bool)
    return "number" if plain and answers.number(str(given).rpartition("####")[2], anywhere=True) else ""


def _several(question: Question) -> list[str]:
    found = question.answer if isinstance(question.answer, list) else [question.answer]
    texts = [str(each) for each in found if each is not None and str(each).strip()]
    if not texts:
        raise ValueError("a text is expected")
    return texts


def _forms(question: Question) -> set[str]:
    """The texts that are right, normalised; never the empty one, which an answer of nothing would be."""
    found = {normalised(each) for each in _several(question)} - {""}
    if not found:
        raise ValueError("a text with a letter, digit or sign is expected")
    return found


def _number(text: str, question: Question) -> bool:
    (expected,) = _several(question)
    right = answers.number(expected.rpartition("####")[2], anywhere=True)
    if right is None:
        raise ValueError("a number is expected")
    return answers.same_number(answers.number(text, anywhere=True), right)


def _letter(text: str, question: Question) -> bool:
    (expected,) = _several(question)
    if (right := expected.strip("(). ").upper()) not in tuple("ABCDE"):
        raise ValueError("a letter from A to E is expected")
    return answers.letter(text, "ABCDE") == right


def _exact(text: str, question: Question) -> bool:
    return normalised(text) in _forms(question)


def _contains(text: str, question: Question) -> bool:
    own = normalised(text)
    return any(form in own for form in _forms(question))


def _boxed(text: str, question: Question) -> bool:
    found = answers.boxed(text)
    right = None if question.answer is None else _forms(question)
    return found is not None and (right is None or normalised(found) in right)


def _regex(text: str, question: Question) -> bool:
    try:
        import regex
    except ImportError as error:
        raise UserError(f"the verifier 'regex' needs the package regex: {install('eval')}") from error
    (pattern,) = _several(question)
    try:
        return regex.fullmatch(pattern, text, timeout=_SECONDS) is not None
    except regex.error as error:
        raise ValueError(f"no pattern: {error}") from error
    except TimeoutError as error:
        raise ValueError(f"the pattern takes more than {_SECONDS:g} s for an answer of {len(text)} letters") from error


_UNITS: dict[str, Callable[[str], int]] = {
    "characters": len,
    "words": lambda text: len(text.split()),
    "lines": lambda text: len([line for line in text.splitlines() if line.strip()]),
}


def _length(text: str, question: Question) -> bool:
    limits = question.answer
    if not isinstance(limits, dict) or not {"min", "max"} & limits.keys():
        raise ValueError('{"min": …, "max": …, "unit": …} is expected')
    size = _UNITS[limits.get("unit", "characters")](text)
    low, high = float(limits.get("min", 0)), float(limits.get("max", math.inf))
    if not low <= high:
        raise ValueError("'min' is above 'max'")
    return low <= size <= high


def _json(text: str, question: Question) -> bool:
    body = text.removeprefix("```json").removeprefix("```").removesuffix("```")
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return question.answer is None or (isinstance(found, dict) and set(_several(question)) <= found.keys())


_SCRIPTS = {"ko": ("hangul", "jamo"), "ja": ("hiragana", "katakana", "han"), "zh": ("han",)}


def language_share(text: str, lang: str) -> float | None:
    """The share of a text's letters in a language's scripts (Latin for all but Korean, Japanese and Chinese).

    A text without kana is not Japanese, and its share is 0. None if the text has no letters or `lang` is empty.
    """
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    names = np.asarray(characters.SCRIPTS)[characters.scripts_of(codes)]
    letters = names[~np.isin(names, ("none", "digit"))]
    if not len(letters) or not lang:
        return None
    wanted = _SCRIPTS.get(languages.tag(lang), ("latin",))
    if languages.tag(lang) == "ja" and not np.isin(letters, ("hiragana", "katakana")).any():
        return 0.0
    return float(np.isin(letters, wanted).mean())


def _language(text: str, question: Question) -> float:
    lang = question.lang if question.answer is None or question.verifier != "language" else str(question.answer)
    if not lang:
        raise ValueError("a language is expected, or the record's 'lang'")
    share = language_share(text, lang)
    return float(bool(text)) if share is None else share  # '12' counts as any language


def _ifbench(text: str, question: Question) -> float:
    doc = {**question.answer, "prompt": question.text}
    try:
        followed = instructions.ifbench(doc, [text])["inst_level_strict_acc"]
    except ImportError as error:
        raise UserError("the verifier 'ifbench' needs the package ifbench, which its publishers offer") from error
    return instructions.over_instructions([followed])


VERIFIERS: dict[str, Verifier] = {
    "number": _number,
    "letter": _letter,
    "exact": _exact,
    "contains": _contains,
    "boxed": _boxed,
    "regex": _regex,
    "length": _length,
    "json": _json,
    "language": _language,
    "ifbench": _ifbench,
}
