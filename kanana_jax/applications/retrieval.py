"""Retrieval of passages for a question: by words (BM25), by vectors, or by both.

The two rankings are combined by reciprocal rank fusion, 1 / (60 + rank) (Cormack, Clarke and Büttcher, SIGIR 2009). A
rank says nothing about how well the best passage matches, so a passage counts as found only above a threshold: for
words, the share of the question's words that it contains, weighted by rarity; for vectors, the cosine similarity.
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
_LOOKED_AT = 100  # best passages of each ranking


class Hit(NamedTuple):
    """A passage that was found.

    Attributes:
      score: the score that hits are sorted by: the sum of reciprocal ranks; after reranking, the mean log-probability
        of the question, in nats per token.
      words: share of the question's words that the passage contains, weighted by rarity.
      cosine: cosine of the passage's and the question's vectors; 0 without an embedding model.
    """

    passage: Passage
    score: float
    words: float
    cosine: float


class Bm25:
    """A BM25 index of texts given as lists of words, with Lucene's formula (k1 1.5, b 0.75; library bm25s).

    Raises:
      UserError: bm25s is not installed.
    """

    def __init__(self, texts: Sequence[Sequence[str]]):
        try:
            import bm25s
        except ImportError as error:
            raise UserError(f"searching needs bm25s: {install('rag')}") from error
        logging.getLogger("bm25s").setLevel(logging.WARNING)  # the library sets its logger to DEBUG
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
        """The BM25 score of every text for a question's words, float32 `[N]`."""
        known = [word for word in words if word in self._frequency]
        if self._index is None or not known:
            return np.zeros(len(self._held), np.float32)
        return np.asarray(self._index.get_scores(known), np.float32)

    def share(self, words: Sequence[str], place: int) -> float:
        """The share of a question's words that a text contains, weighted by rarity; from 0 to 1.

        The weight of a word is BM25's inverse document frequency, ln(1 + (N − n + ½) / (n + ½)), where n of the N texts
        contain it; a word that is in no text weighs as much as one that is in a single text.

        Args:
          place: index of the text.
        """
        count, asked = len(self._held), set(words)
        weight = {w: math.log1p((count - (n := self._frequency.get(w, 1)) + 0.5) / (n + 0.5)) for w in asked}
        whole = sum(weight.values())
        return sum(weight[word] for word in asked & self._held[place]) / whole if whole else 0.0


@dataclasses.dataclass(frozen=True)
class Least:
    """Thresholds from which a passage counts as found; either suffices.

    Attributes:
      words: lowest share of words (`Hit.words`).
      cosine: lowest cosine (`Hit.cosine`); good values differ between models.
    """

    words: float = 0.3
    cosine: float = 0.6

    def __post_init__(self):
        if not 0 < self.words <= 1 or not -1 <= self.cosine <= 1:
            raise ValueError("the least share of words must be in (0, 1], and the least cosine in [-1, 1]")


class Retriever:
    """A searchable collection of passages.

    Args:
      embedder: embeds passages and questions; without it, retrieval is by words alone.
      cut: splits texts into words.
      vectors: embeds passages, float32 `[N, D]`, for example with a cache (`saved_vectors`); default: `embedder`.

    Raises:
      UserError: a library that the search needs is not installed.
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
        make = vectors or (None if embedder is None else lambda texts: embedder(texts).warned())
        self._vectors_ND = None if make is None else make(searched)

    def find(self, question: str, count: int = 5) -> list[Hit]:
        """At most `count` passages for a question, best first; empty if none reaches a threshold."""
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
    """Indices of the `count` highest scores that exceed `above`, highest first; ties keep their order."""
    allowed = np.flatnonzero(scores > above)
    if 0 < count < len(allowed):  # sorting a million scores takes longer than computing them
        least = np.partition(scores[allowed], -count)[-count]
        allowed = allowed[scores[allowed] >= least]
    return allowed[np.argsort(-scores[allowed], kind="stable")][:count]


def fused(orders: Sequence[np.ndarray]) -> dict[int, float]:
    """Reciprocal rank fusion: the sum of 1 / (K + rank) of each index over several rankings, highest first."""
    sums: dict[int, float] = {}
    for order in orders:
        for rank, place in enumerate(order.tolist(), 1):
            sums[place] = sums.get(place, 0.0) + 1 / (K + rank)
    return dict(sorted(sums.items(), key=lambda item: (-item[1], item[0])))
