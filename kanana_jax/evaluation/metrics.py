"""Scores of answers that the harness has no metric for."""

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from kanana_jax.errors import UserError, install
from kanana_jax.evaluation.answers import boxed, number, same_number


def char_f1(answer: str, references: Sequence[str]) -> float:
    """Best likeness of the answer to a reference, 0 … 1: fuzz.token_sort_ratio, llm-jp-eval's character F1.

    Raises:
      UserError: rapidfuzz is not installed.
    """
    try:
        from rapidfuzz import fuzz  # stages that sample read this module's neighbours without the extra
    except ImportError as error:
        raise UserError(f"character F1 needs the package rapidfuzz: {install('eval')}") from error
    return max(fuzz.token_sort_ratio(answer.strip(), reference) for reference in references) / 100


def answer_f1(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """For documents with one `answer`."""
    return {"char_f1": char_f1(results[0], [doc["answer"]])}


def answers_f1(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """For documents with `answers`."""
    return {"char_f1": char_f1(results[0], doc["answers"])}


def answer_texts_f1(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """For documents with `answers` of SQuAD's form."""
    return {"char_f1": char_f1(results[0], [answer["text"] for answer in doc["answers"]])}


def boxed_number(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Returns whether the number that is boxed or stated is the answer (after `####`, where that is there)."""
    return {"exact_match": float(same_number(number(results[0]), str(doc["answer"]).split("####")[-1]))}


def boxed_formula(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Returns whether the boxed answer is the solution's, as the harness's `hendrycks_math` normalises both."""
    from lm_eval.tasks.hendrycks_math.utils import is_equiv

    found = boxed(results[0])
    return {"exact_match": float(found is not None and is_equiv(found, doc["answer"]))}


@functools.cache
def _japanese_words():
    """MeCab with IPADIC, as sacrebleu's `ja-mecab` has it."""
    from sacrebleu.tokenizers.tokenizer_ja_mecab import TokenizerJaMecab

    return TokenizerJaMecab()


def rouge2_ja(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """F1 of pairs of words against the `summary`."""
    found, right = (_pairs(_japanese_words()(text).split()) for text in (results[0], doc["summary"]))
    return {"rouge2": overlap_f1(found, right)}


def _pairs(words: Sequence[str]) -> Counter:
    return Counter(zip(words, words[1:]))


def overlap_f1(found: Counter, right: Counter) -> float:
    """F1 of two bags; 0 where one is empty."""
    common = (found & right).total()
    return 2 * common / (found.total() + right.total()) if common else 0.0


def bleu_ja(items: Sequence[tuple[str, str]]) -> float:
    """Corpus BLEU of (reference, answer) in MeCab's words, 0 … 100 (sacrebleu, arXiv:1804.08771)."""
    import sacrebleu

    references, answers = zip(*items)
    return sacrebleu.corpus_bleu(list(answers), [list(references)], tokenize="ja-mecab").score
