"""Questions of judged benchmarks as they are published, and a model's answers to them, as items for a judge.

| set | a line of questions | a line of answers |
|---|---|---|
| MT-Bench (en, ja), KoMT-Bench | `question_id`, `category`, `turns`, `reference`? | `question_id`, `choices[0].turns` |
| LogicKor | `id`, `category`, `questions`, `references`? | `id`, `outputs` |
| WildBench | `session_id`, `conversation_input`, `checklist`?, `primary_tag`? | `session_id`, `output` |

Forms of answers may be mixed with any form of questions; `answers`, a list, and `answer`, a text, are read too. Every
turn is an item of its own, `ID/1`, `ID/2` …, asked behind the turns before it with the model's own answers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from kanana_jax.evaluation.grading import Item

_IDS = ("question_id", "session_id", "id")


def key_of(row: Mapping[str, Any]) -> str:
    """The id of a line.

    Raises:
      ValueError: it has none.
    """
    found = next((row[name] for name in _IDS if isinstance(row.get(name), (str, int))), None)
    if found is None:
        raise ValueError(f"has no id: one of {', '.join(_IDS)}")
    return str(found)


def answers_of(row: Mapping[str, Any]) -> list[str]:
    """A model's answers, one for each turn.

    Raises:
      ValueError: there are none, or one is no text.
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
    """The turns of a question, each with its answer, or with two.

    Args:
      references: right answers by turn, in place of the question's own.

    Raises:
      ValueError: a question of another form, or another number of answers than of turns.
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
            raise ValueError(f"question '{key}' has {len(turns)} turns, and {len(given)} answers")
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
        raise ValueError("'conversation_input' is no list of turns")
    texts = _texts([turn.get("content") for turn in turns], "'conversation_input'")
    if len(texts) == 1:
        return texts[0]
    return "\n".join(f"{turn.get('role', 'user')}: {text}" for turn, text in zip(turns, texts))


def _texts(value: Any, what: str) -> list[str]:
    if not isinstance(value, list) or not value or not all(isinstance(text, str) for text in value):
        raise ValueError(f"has no texts as {what}")
    return list(value)
