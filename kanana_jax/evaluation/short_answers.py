"""Scores of short answers in published sets that have their own rules."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from kanana_jax.evaluation.metrics import char_f1

Doc = Mapping[str, Any]
_NO_ANSWER = "답 없음"


def normalised(text: str) -> str:
    """Only the letters and digits of a text, without case and width."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", text).casefold())


def klue_mrc(doc: Doc, results: Sequence[str]) -> dict[str, float]:
    """Scores against the best of the answers; for a question without an answer, the right reply is '답 없음'."""
    right = list(doc["answers"]["text"]) or [_NO_ANSWER]
    same = any(normalised(results[0]) == normalised(answer) for answer in right)
    return {"exact_match": float(same), "char_f1": char_f1(results[0], right)}


def kosimpleqa(doc: Doc, results: Sequence[str]) -> dict[str, float]:
    """Whether the text equals the answer or contains it, and its character F1."""
    found, right = normalised(results[0]), normalised(str(doc["answer"]))
    return {
        "exact_match": float(found == right),
        "contains": float(bool(right) and right in found),
        "char_f1": char_f1(results[0], [str(doc["answer"])]),
    }


def ruler_prompt(doc: Doc) -> str:
    """The question, followed by the beginning of its answer if the file has one."""
    return f"{doc['input']}{doc.get('answer_prefix') or ''}"


def ruler(doc: Doc, results: Sequence[str]) -> dict[str, float]:
    """RULER's own score, 0 … 1: `string_match_part` for QA tasks, `string_match_all` for the others."""
    text = re.sub(r"[\x00-\x1f]", "\n", results[0]).casefold()
    held = [str(answer).casefold() in text for answer in doc["outputs"]]
    share = sum(held) / len(held) if held else 0.0
    return {"string_match": float(any(held)) if re.search(r"(?:^|_)qa(?:_|$)", doc["folder"]) else share}
