"""Own questions (`own_sets.py`) as tasks of the harness: prompts, and scoring of answers.

Multiple choice works as in MMLU and KMMLU: the prompt lists the choices, and the most likely letter is the answer.
Short and free answers are generated. A chat model gets the bare question, and its whole answer after `</think>` counts;
a base model's answer ends with the line, or with the paragraph if the references have several lines.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kanana_jax.errors import UserError, install
from kanana_jax.evaluation.metrics import char_f1
from kanana_jax.evaluation.own_sets import LETTERS, Form, Language, OwnSet, normalised, plain
from kanana_jax.evaluation.rows import as_datasets

Doc = Mapping[str, Any]
METRICS: Mapping[Form, tuple[str, ...]] = {
    "choices": ("acc",),
    "answers": ("exact_match", "char_f1"),
    "reference": ("chrf",),
}
_AROUND: Mapping[Language, tuple[str, str]] = {
    "ko": ("질문: ", "\n답:"),
    "ja": ("質問：", "\n回答："),
    "en": ("Question: ", "\nAnswer:"),
}
# Instructions after the question for chat models, so that the answer has the form that is scored.
_ASKED: Mapping[Form, Mapping[Language, str]] = {
    "choices": {
        "ko": "\n\n정답의 기호 하나만 답하세요.",
        "ja": "\n\n正解の記号を一つだけ答えてください。",
        "en": "\n\nAnswer with the letter of the right choice alone.",
    },
    "answers": {
        "ko": "\n\n답만 짧게 쓰세요.",
        "ja": "\n\n答えだけを短く書いてください。",
        "en": "\n\nGive the answer alone.",
    },
    "reference": {"ko": "", "ja": "", "en": ""},
}
_LEAST, _LEAST_IN_CHAT, _MOST = 32, 256, 1024  # new tokens
_PER_CHARACTER = 2  # tokens; small vocabularies need up to three for a syllable


@dataclasses.dataclass(frozen=True)
class Prompt:
    """The prompt of a question."""

    form: Form
    language: Language
    chat: bool

    def __call__(self, doc: Doc) -> str:
        listed = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, doc.get("choices") or ())]
        text = "\n".join([doc["question"], *listed])
        if self.chat:
            return text + _ASKED[self.form][self.language]
        before, behind = _AROUND[self.language]
        return f"{before}{text}{behind}"


def letters(doc: Doc) -> list[str]:
    """The letters of a question's choices."""
    return list(LETTERS[: len(doc["choices"])])


def right_choice(doc: Doc) -> int:
    """The index of the right choice."""
    return doc["right"]


def first_answer(doc: Doc) -> str:
    """The answer shown in few-shot examples."""
    return doc["answers"][0]


def short_answer(doc: Doc, results: Sequence[str]) -> dict[str, float]:
    """Exact match after normalisation (`own_sets.normalised`) and character F1, both 0 … 1, against the best answer."""
    text = said(results[0])
    right = {normalised(answer) for answer in doc["answers"]}
    likeness = char_f1(plain(text).casefold(), [plain(answer).casefold() for answer in doc["answers"]])
    return {"exact_match": float(normalised(text) in right), "char_f1": likeness}


def free_answer(doc: Doc, results: Sequence[str]) -> dict[str, float]:
    """chrF of one answer (6 characters, β 2; Popović 2015) by sacrebleu, 0 … 100.

    The task's score is the mean over answers instead of chrF of the whole set, so that models can be compared question
    by question.

    Raises:
      UserError: sacrebleu is not installed.
    """
    try:
        import sacrebleu
    except ImportError as error:
        raise UserError(f"chrF needs the package sacrebleu: {install('eval')}") from error
    return {"chrf": sacrebleu.sentence_chrf(plain(said(results[0])), [plain(a) for a in doc["answers"]]).score}


def said(text: str) -> str:
    """An answer without its thinking."""
    return text.rpartition("</think>")[2].strip()


_SCORES: Mapping[Form, Callable[[Doc, Sequence[str]], dict[str, float]]] = {
    "answers": short_answer,
    "reference": free_answer,
}


def task(found: OwnSet, chat: bool) -> dict[str, Any]:
    """The harness's config for a set of own questions.

    The version includes a hash of the rows, so that results on different versions of a file are not compared.

    Args:
      chat: whether prompts are in the model's chat format.
    """
    content = json.dumps(found.rows, ensure_ascii=False, sort_keys=True).encode()
    made: dict[str, Any] = {
        "task": found.name,
        "custom_dataset": functools.partial(as_datasets, {"test": found.rows}),
        "test_split": "test",
        "fewshot_split": "test",  # with --shots, examples are other questions; by default there are none
        "doc_to_text": Prompt(found.form, found.language, chat),
        "target_delimiter": "" if found.language == "ja" else " ",
        "metric_list": [{"metric": m, "aggregation": "mean", "higher_is_better": True} for m in METRICS[found.form]],
        "metadata": {"version": f"1.0-{hashlib.sha256(content).hexdigest()[:8]}"},
    }
    if found.form == "choices":
        return made | {"output_type": "multiple_choice", "doc_to_choice": letters, "doc_to_target": right_choice}
    answers = [answer for row in found.rows for answer in row["answers"]]
    new = max(_LEAST_IN_CHAT if chat else _LEAST, _PER_CHARACTER * max(map(len, answers)))
    ends = [] if chat else [end for end in ("\n", "\n\n", "\n\n\n") if not any(end in answer for answer in answers)]
    return made | {
        "output_type": "generate_until",
        "doc_to_target": first_answer,
        "generation_kwargs": {"until": ends[:1], "do_sample": False, "max_gen_toks": min(new, _MOST)},
        "process_results": _SCORES[found.form],
    }
