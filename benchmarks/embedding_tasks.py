"""How good a model's vectors are: similar sentences (Spearman) and passages that answer a question (nDCG@10).

    python benchmarks/embedding_tasks.py runs/embed/contrastive --sts KorSTS=sts-test.tsv --sts JSTS=valid-v1.3.json \\
        --sts KLUE-STS=klue-sts_dev.json --squad ko=KorQuAD_v1.0_dev.json --squad ja=JSQuAD.json --bm25 --output o.json

KorSTS and KLUE-STS are two of the 20 tasks of MTEB(kor, v2), JSTS is one of MTEB's of Japanese; passages of KorQuAD and
JSQuAD are sets of our own with MTEB's metric: none of this is a score of MTEB as a whole. `--mteb` has mteb's own tasks
and scorers judge the same vectors, too (needs `pip install mteb`). Pairs are lines or a list of JSON, or a table
with tabs: `sentence1`, `sentence2`, and `score` or `label`. `--squad` is as in `retrieval.py`, whose words `--bm25`
scores beside the vectors.
"""

import argparse
import csv
import json
import pathlib
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from retrieval import LOOKED_AT, Set, drawn, measured, opened, rank, read, summary
from scipy.stats import spearmanr

from kanana_jax.applications import words
from kanana_jax.applications.embedder import Embedder
from kanana_jax.applications.retrieval import best


class Pairs(NamedTuple):
    """Sentences in twos, with how alike people find them."""

    first: list[str]
    second: list[str]
    scores: list[float]


class Memory:
    """An embedding model that makes the vector of a text once.

    Attributes:
      seconds: spent on vectors.
      made: texts.
    """

    def __init__(self, embedder: Embedder):
        self.embedder, self.seconds, self.made = embedder, 0.0, 0
        self._known: dict[tuple[str | None, str], np.ndarray] = {}

    def __call__(self, texts: Sequence[str], instruction: str | None = None) -> np.ndarray:
        """Vectors of length 1, float32 `[N, D]`."""
        new = [text for text in dict.fromkeys(texts) if (instruction, text) not in self._known]
        start = time.perf_counter()
        if new:
            self._known |= zip(((instruction, text) for text in new), self.embedder(new, instruction).values)
        self.seconds, self.made = self.seconds + time.perf_counter() - start, self.made + len(new)
        return np.stack([self._known[instruction, text] for text in texts])


def pairs_of(file: str, most: int) -> Pairs:
    """The first pairs of a file; 0: all."""
    with opened(file) as stream:
        if file.endswith(".tsv"):
            rows: list[dict[str, Any]] = list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
        else:
            text = stream.read()
            rows = json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines()]
    rows = rows[: most or None]
    return Pairs([row["sentence1"] for row in rows], [row["sentence2"] for row in rows], [_score(row) for row in rows])


def _score(row: dict[str, Any]) -> float:
    given = row["labels"]["label"] if "labels" in row else row["score"] if "score" in row else row["label"]
    return float(given)


def alike(model: Memory, pairs: Pairs) -> dict[str, float]:
    """Spearman's correlation of cosines and scores; no sentence is behind an instruction."""
    cosines = (model(pairs.first) * model(pairs.second)).sum(-1, dtype=np.float64)
    return {"pairs": len(pairs.scores), "cosine_spearman": float(spearmanr(pairs.scores, cosines)[0])}


def found(model: Memory, passages: Set, questions: Sequence[tuple[str, int]]) -> dict[str, float]:
    """nDCG@10 of passages in the order of their cosines with a question behind the model's instruction."""
    passages_ND = model(passages.texts)
    asked_QD = model([question for question, _ in questions], model.embedder.about.instruction)
    orders = (best(cosines_N, LOOKED_AT, -np.inf) for cosines_N in asked_QD @ passages_ND.T)
    ranks = [rank(order.tolist(), right) for order, (_, right) in zip(orders, questions)]
    return {"passages": len(passages.texts), **summary(ranks)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL", help="model, stage or Hugging Face folder")
    parser.add_argument("--sts", action="append", default=[], metavar="TASK=FILE", help="pairs; may be repeated")
    parser.add_argument("--squad", action="append", default=[], metavar="NAME=FILE", help="passages; may be repeated")
    parser.add_argument("--pairs", type=int, default=0, metavar="N", help="of each set, the first; 0: all")
    parser.add_argument("--questions", type=int, default=1000, metavar="N", help="of each set, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-tokens", type=int, default=0, metavar="N", help="of a text")
    parser.add_argument("--bm25", action="store_true", help="words beside vectors")
    parser.add_argument("--mteb", action="store_true", help="scores of mteb beside ours")
    parser.add_argument("--output", type=pathlib.Path, required=True, metavar="FILE.json")
    options = parser.parse_args()
    model = Memory(Embedder.load(options.model, longest=options.max_tokens))
    results: dict[str, Any] = {}
    for name, _, file in (given.partition("=") for given in options.sts):
        pairs = pairs_of(file, options.pairs)
        results[name] = alike(model, pairs)
        if options.mteb:
            import embedding_mteb

            results[name]["mteb"] = embedding_mteb.alike(name, model, pairs)
        print(name, results[name], flush=True)
    for name, _, value in (given.partition("=") for given in options.squad):
        passages = read(value)
        questions = drawn(passages, options.questions, options.seed)
        results[name] = found(model, passages, questions)
        if options.mteb:
            import embedding_mteb

            results[name]["mteb"] = embedding_mteb.found(name, model, passages, questions)
        if options.bm25:
            results[name]["bm25"] = measured(passages, words.morphemes, options.questions, options.seed)
        print(name, results[name], flush=True)
    results["texts"], results["seconds"] = model.made, round(model.seconds, 1)
    options.output.write_text(json.dumps(results, ensure_ascii=False, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
