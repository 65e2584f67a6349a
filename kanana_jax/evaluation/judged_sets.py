"""Conversion of judged benchmarks, in their published formats, and of a model's answers to items for a judge.

| set | fields of a question | fields of an answer |
|---|---|---|
| MT-Bench (en, ja), KoMT-Bench | `question_id`, `category`, `turns`, `reference`? | `question_id`, `choices[0].turns` |
| LogicKor | `id`, `category`, `questions`, `references`? | `id`, `outputs` |
| WildBench | `session_id`, `conversation_input`, `checklist`?, `primary_tag`? | `session_id`, `output` |

Any format of answers may be combined with any format of questions; `answers` (a list) and `answer` (a text) are read
too. Every turn becomes an item, `ID/1`, `ID/2` …, shown after the earlier turns with the model's own answers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from kanana_jax.evaluation.grading import Item

_IDS = ("question_id", "session_id", "id")


def key_of(row: Mapping[str, Any]) -> str:
    """The id of a question or of its answers.

    Raises:
      ValueError: the row has no id.
    """
    found = next((row[name] for name in _IDS if isinstance(row.get(name), (str, int))), None)
    if found is None:
        raise ValueError(f"has no id: one of {', '.join(_IDS)}")
    return str(found)


def answers_of(row: Mapping[str, Any]) -> list[str]:
    """A model's answers, one per turn.

    Raises:
      ValueError: there are none, or one is not a text.
    """
    found: Any = next((row[name] for name in ("outputs", "output", "answers", "answer") if name in row), None)
    choices = row.get("choices")
    if found is None and isinstance(choices, list) and choices and isinstance(choices[0], dict):
        found = choices[0].get("turns")
    return _texts([found] if isinstance(found, str) else found, "answers (choices, outputs, output, answers or answer)")


def items(
    question: Mapping[str, Any],
    answers: Sequence[str],
    others: Sequence[str] | None = None,
    references: Sequence[str] = (),
) -> list[Item]:
    """The turns of a question, each with one answer to rate or two to compare.

    Args:
      answers: answers by turn.
      others: answers of another model by turn, to compare with; None: `answers` are rated.
      references: right answers by turn, instead of the question's own.

    Raises:
      ValueError: the question has an unknown format, or the number of answers is not that of turns.
    """
    key, asked, told = key_of(question), "", ""
    if "conversation_input" in question:
        turns = [_conversation(question["conversation_input"])]
        checklist = question.get("checklist") or []
        told = "\n".join(f"- {point}" for point in _texts(checklist, "checklist")) if checklist else ""
    else:
        name = "turns" if "turns" in question else "questions"
        turns = _texts(question.get(name), "'turns', 'questions' or 'conversation_input'")
    for given in (answers, others):
        if given is not None and len(given) != len(turns):
            raise ValueError(f"question '{key}' has {len(turns)} turns, but {len(given)} answers")
    own = list(references) or question.get("reference") or question.get("references") or []
    own = [own] if isinstance(own, str) else own
    category = question.get("category") or question.get("primary_tag") or ""
    found, before = [], ""
    for number, (turn, answer) in enumerate(zip(turns, answers)):
        asked = f"{before}user: {turn}" if len(turns) > 1 else turn
        reference = own[number] if number < len(own) and isinstance(own[number], str) else ""
        other = None if others is None else others[number]
        found.append(Item(f"{key}/{number + 1}", asked, answer, other, reference, str(category), told))
        before = f"{asked}\nassistant: {answer}\n"
    return found


def _conversation(turns: Any) -> str:
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, dict) for turn in turns):
        raise ValueError("'conversation_input' is not a list of turns")
    texts = _texts([turn.get("content") for turn in turns], "'conversation_input'")
    if len(texts) == 1:
        return texts[0]
    return "\n".join(f"{turn.get('role', 'user')}: {text}" for turn, text in zip(turns, texts))


def _texts(value: Any, what: str) -> list[str]:
    if not isinstance(value, list) or not value or not all(isinstance(text, str) for text in value):
        raise ValueError(f"has no list of texts as {what}")
    return list(value)
