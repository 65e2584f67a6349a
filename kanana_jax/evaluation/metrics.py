"""Metrics for answers that the harness does not have. Functions of `(doc, results)` are a task's `process_results`."""

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from kanana_jax.errors import UserError, install
from kanana_jax.evaluation.answers import boxed, number, same_number


def char_f1(answer: str, references: Sequence[str]) -> float:
    """llm-jp-eval's character F1 (`fuzz.token_sort_ratio`), 0 … 1, against the most similar reference.

    Raises:
      UserError: rapidfuzz is not installed.
    """
    try:
        from rapidfuzz import fuzz  # imported here because stages that sample import this module without the extra
    except ImportError as error:
        raise UserError(f"character F1 needs the package rapidfuzz: {install('eval')}") from error
    return max(fuzz.token_sort_ratio(answer.strip(), reference) for reference in references) / 100


def answer_f1(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Character F1 for documents with one `answer`."""
    return {"char_f1": char_f1(results[0], [doc["answer"]])}


def answers_f1(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Character F1 for documents with a list of `answers`."""
    return {"char_f1": char_f1(results[0], doc["answers"])}


def answer_texts_f1(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Character F1 for documents with `answers` in SQuAD's format."""
    return {"char_f1": char_f1(results[0], [answer["text"] for answer in doc["answers"]])}


def boxed_number(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Whether the boxed or stated number equals the answer, or the part of the answer after `####` if it has one."""
    return {"exact_match": float(same_number(number(results[0]), str(doc["answer"]).split("####")[-1]))}


def boxed_formula(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Whether the boxed answer equals the solution's, normalised as in the harness's `hendrycks_math`."""
    from lm_eval.tasks.hendrycks_math.utils import is_equiv

    found = boxed(results[0])
    return {"exact_match": float(found is not None and is_equiv(found, doc["answer"]))}


@functools.cache
def _japanese_words():
    """MeCab with IPADIC, as in sacrebleu's `ja-mecab`."""
    from sacrebleu.tokenizers.tokenizer_ja_mecab import TokenizerJaMecab

    return TokenizerJaMecab()


def rouge2_ja(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """ROUGE-2 F1, over MeCab's words, against the `summary`."""
    found, right = (_pairs(_japanese_words()(text).split()) for text in (results[0], doc["summary"]))
    return {"rouge2": overlap_f1(found, right)}


def _pairs(words: Sequence[str]) -> Counter:
    return Counter(zip(words, words[1:]))


def overlap_f1(found: Counter, right: Counter) -> float:
    """F1 of two multisets; 0 if one is empty."""
    common = (found & right).total()
    return 2 * common / (found.total() + right.total()) if common else 0.0


def bleu_ja(items: Sequence[tuple[str, str]]) -> float:
    """Corpus BLEU of (reference, answer) pairs over MeCab's words, 0 … 100 (sacrebleu, arXiv:1804.08771)."""
    import sacrebleu

    references, answers = zip(*items)
    return sacrebleu.corpus_bleu(list(answers), [list(references)], tokenize="ja-mecab").score
