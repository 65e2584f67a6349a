"""Passages found for a question: by words (BM25), by vectors, or by both.

The two orders are fused by reciprocal ranks, 1 / (60 + rank) (Cormack, Clarke and Büttcher, SIGIR 2009). Ranks say
nothing of how well the best passage fits, so that a passage counts as found only from a least score on: by words the
share of the question's words that it holds, each weighed by its rarity; by vectors the cosine.
"""

import dataclasses
import logging
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from kanana_jax.applications.embedder import Embedder
from kanana_jax.applications.passages import Passage
from kanana_jax.applications.words import Cut, morphemes
from kanana_jax.errors import UserError, install

K = 60  # Cormack et al., §2
_LOOKED_AT = 100  # best passages of each order


class Hit(NamedTuple):
    """A passage that was found.

    Attributes:
      score: by which it is ordered: the sum of reciprocal ranks; nats per token of the question once reranked.
      words: share of the question's words, weighed by rarity, that it holds.
      cosine: of its vector and the question's; 0 without an embedding model.
    """

    passage: Passage
    score: float
    words: float
    cosine: float


class Bm25:
    """Texts as lists of words, ranked by BM25 as Lucene computes it (k1 1.5, b 0.75; bm25s).

    Raises:
      UserError: bm25s is not installed.
    """

    def __init__(self, texts: Sequence[Sequence[str]]):
        try:
            import bm25s
        except ImportError as error:
            raise UserError(f"searching needs bm25s: {install('rag')}") from error
        logging.getLogger("bm25s").setLevel(logging.WARNING)  # it sets its own to DEBUG
        self._held = [frozenset(words) for words in texts]
        frequency: dict[str, int] = {}
        for words in self._held:
            for word in words:
                frequency[word] = frequency.get(word, 0) + 1
        self._frequency = frequency
        self._index = bm25s.BM25(k1=1.5, b=0.75, method="lucene") if frequency else None
        if self._index is not None:
            self._index.index([list(words) for words in texts], show_progress=False)

    def scores(self, words: Sequence[str]) -> np.ndarray:
        """The score of every text for a question's words, float32 `[N]`."""
        known = [word for word in words if word in self._frequency]
        if self._index is None or not known:
            return np.zeros(len(self._held), np.float32)
        return np.asarray(self._index.get_scores(known), np.float32)

    def share(self, words: Sequence[str], place: int) -> float:
        """The share of a question's words that a text holds, each weighed by its rarity.

        The weight is BM25's of a word, ln(1 + (N − n + ½) / (n + ½)), with the n of N texts that hold it; a word of no
        text weighs as one of a single text does.
        """
        count, asked = len(self._held), set(words)
        weight = {w: math.log1p((count - (n := self._frequency.get(w, 1)) + 0.5) / (n + 0.5)) for w in asked}
        whole = sum(weight.values())
        return sum(weight[word] for word in asked & self._held[place]) / whole if whole else 0.0


@dataclasses.dataclass(frozen=True)
class Least:
    """From which score on a passage counts as found, by words or by vectors.

    Attributes:
      words: see `Hit.words`.
      cosine: see `Hit.cosine`; good values differ between models.
    """

    words: float = 0.3
    cosine: float = 0.6

    def __post_init__(self):
        if not 0 < self.words <= 1 or not -1 <= self.cosine <= 1:
            raise ValueError("the least share of words is above 0, at most 1; the least cosine between -1 and 1")


class Retriever:
    """Passages that can be asked for.

    Args:
      embedder: makes vectors of passages and questions; without, words alone decide.
      cut: texts into words.
      vectors: of texts as documents have them, float32 `[N, D]`; default: the embedder's (`saved_vectors`).
    """

    def __init__(
        self,
        passages: Sequence[Passage],
        embedder: Embedder | None = None,
        least: Least = Least(),
        cut: Cut = morphemes,
        vectors: Callable[[Sequence[str]], np.ndarray] | None = None,
    ):
        self._passages, self._embedder, self._least, self._cut = tuple(passages), embedder, least, cut
        searched = [passage.searched for passage in passages]
        self._bm25 = Bm25(cut(searched))
        make = vectors or (None if embedder is None else lambda texts: embedder(texts).values)
        self._vectors_ND = None if make is None else make(searched)

    def find(self, question: str, count: int = 5) -> list[Hit]:
        """The best passages for a question, at most `count`, the best first; empty: none reaches the least score."""
        (words,) = self._cut([question])
        lexical_N = self._bm25.scores(words)
        cosines_N = np.zeros(len(self._passages), np.float32)
        orders = [best(lexical_N, _LOOKED_AT)]
        if self._embedder is not None and self._vectors_ND is not None and question.strip():
            cosines_N = self._vectors_ND @ self._embedder([question], self._embedder.about.instruction).values[0]
            near = best(cosines_N, _LOOKED_AT, -np.inf)
            orders.append(near[cosines_N[near] >= self._least.cosine])
        hits = []
        for place, score in fused(orders).items():
            share, cosine = self._bm25.share(words, place), float(cosines_N[place])
            by_vector = self._embedder is not None and cosine >= self._least.cosine
            if share >= self._least.words or by_vector:
                hits.append(Hit(self._passages[place], score, share, cosine))
        return hits[:count]


def best(scores: np.ndarray, count: int, above: float = 0.0) -> np.ndarray:
    """Places of the highest scores above a bound, the highest first; of equal ones the first."""
    allowed = np.flatnonzero(scores > above)
    if 0 < count < len(allowed):  # sorting a million scores takes longer than making them
        least = np.partition(scores[allowed], -count)[-count]
        allowed = allowed[scores[allowed] >= least]
    return allowed[np.argsort(-scores[allowed], kind="stable")][:count]


def fused(orders: Sequence[np.ndarray]) -> dict[int, float]:
    """The sum of reciprocal ranks of each place in several orders, the highest first."""
    sums: dict[int, float] = {}
    for order in orders:
        for rank, place in enumerate(order.tolist(), 1):
            sums[place] = sums.get(place, 0.0) + 1 / (K + rank)
    return dict(sorted(sums.items(), key=lambda item: (-item[1], item[0])))
