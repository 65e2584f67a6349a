"""Scores of answers that the harness has no metric for."""

from collections.abc import Mapping, Sequence
from typing import Any

from rapidfuzz import fuzz


def char_f1(answer: str, references: Sequence[str]) -> float:
    """Best likeness of the answer to a reference, 0 … 1: fuzz.token_sort_ratio, llm-jp-eval's character F1."""
    return max(fuzz.token_sort_ratio(answer.strip(), reference) for reference in references) / 100


def answer_f1(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """For documents with one `answer`."""
    return {"char_f1": char_f1(results[0], [doc["answer"]])}


def answers_f1(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """For documents with `answers`."""
    return {"char_f1": char_f1(results[0], doc["answers"])}
