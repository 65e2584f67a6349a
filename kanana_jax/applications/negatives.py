"""Mining of hard negatives: passages close to an anchor in an embedding model's space that are not its positives.

A passage almost as close as the positive may be another right answer, and is excluded (NV-Retriever, arXiv:2407.15831,
§4, `TopK-PercPos`: at most 95% of the positive's cosine).
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from kanana_jax.applications.embedder import Embedder
from kanana_jax.data.read.record import Broken, Record
from kanana_jax.errors import UserError

_MOST_COSINES = 1 << 25  # held in memory at a time


@dataclasses.dataclass(frozen=True)
class MineConfig:
    """Which passages become negatives.

    Attributes:
      negatives: number per anchor, including those that its record already has.
      below: highest cosine of a negative, as a share of the positive's cosine.
      skip: number of closest passages under that limit to exclude as well.
    """

    negatives: int = 4
    below: float = 0.95
    skip: int = 0

    def __post_init__(self):
        if self.negatives < 1 or self.skip < 0 or not 0 < self.below <= 1:
            raise ValueError("negatives must be at least 1, skip at least 0, and below a share above 0 and at most 1")


class Pairs(NamedTuple):
    """Records of text pairs, and the number of records that were left out.

    Attributes:
      records: records with `anchor`, `positive` and `negatives`.
      left_out: number of records that are broken, or whose anchor or positive is missing or empty.
    """

    records: list[Record]
    left_out: int


def pairs_of(found: Iterable[Record | Broken]) -> Pairs:
    """The pairs among the records that `records.read` yields."""
    everything = list(found)
    pairs = [
        one for one in everything
        if not isinstance(one, Broken) and "anchor" in one and one["anchor"].strip() and one["positive"].strip()
    ]  # fmt: skip
    return Pairs(pairs, len(everything) - len(pairs))


def mine(
    embedder: Embedder,
    pairs: Sequence[Record],
    texts: Iterable[str],
    config: MineConfig,
    instruction: str = "",
    vectors: Callable[[Sequence[str]], np.ndarray] | None = None,
) -> Iterator[dict[str, Any]]:
    """Yields the pairs with negatives: first those that they have, then the closest passages allowed, closest first.

    Candidates are the positives of all pairs and `texts`, without duplicates; their vectors are held in memory. If
    several pairs share an anchor, none of their positives becomes a negative of that anchor.

    Args:
      texts: further candidates.
      instruction: text prepended to anchors.
      vectors: embeds passages, float32 `[M, D]`, for example with a cache (`saved_vectors`); default: `embedder`.

    Raises:
      UserError: there is no pair.
    """
    if not pairs:
        raise UserError("no record has an 'anchor' and a 'positive': there is nothing to find negatives for")
    passages = list(dict.fromkeys([*(pair["positive"] for pair in pairs), *(text for text in texts if text.strip())]))
    place = {text: i for i, text in enumerate(passages)}
    answers: dict[str, set[int]] = {}
    for pair in pairs:
        answers.setdefault(pair["anchor"], set()).add(place[pair["positive"]])
    passages_MD = embedder(passages).warned() if vectors is None else vectors(passages)
    block = max(_MOST_COSINES // len(passages), 1)
    for start in range(0, len(pairs), block):
        part = pairs[start : start + block]
        cosines_NM = embedder([pair["anchor"] for pair in part], instruction).values @ passages_MD.T
        for pair, cosines_M in zip(part, cosines_NM):
            near = cosines_M[place[pair["positive"]]]
            most = near - (1 - config.below) * abs(near)
            given = list(dict.fromkeys(text for text in pair["negatives"] if text.strip()))
            known = [place[text] for text in (pair["anchor"], *given) if text in place]
            cosines_M[[*answers[pair["anchor"]], *known]] = np.inf
            wanted = max(config.negatives - len(given), 0)
            found = _nearest(cosines_M, most, config.skip + wanted)[config.skip :]
            kept = {key: value for key, value in pair.items() if key not in ("text", "source")}  # added by the reader
            yield {**kept, "negatives": [*given, *(passages[i] for i in found)]}


def _nearest(cosines: np.ndarray, most: float, count: int) -> np.ndarray:
    """Indices of the `count` highest cosines that are at most `most`, highest first; ties keep their order."""
    allowed = np.flatnonzero(cosines <= most)
    if 0 < count < len(allowed):
        least = np.partition(cosines[allowed], -count)[-count]
        allowed = allowed[cosines[allowed] >= least]
    return allowed[np.argsort(-cosines[allowed], kind="stable")][:count]
