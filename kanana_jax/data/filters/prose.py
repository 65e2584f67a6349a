"""The part of a document that rules apply to: without lines shared by many documents, and without fenced code.

Common lines are removed first, so that no document is dropped for text that is cut anyway. Code stays in the document,
but rules on words, lines and sentences ignore it: good documentation is half brackets and repeated lines.
"""

from collections.abc import Sequence

from kanana_jax.data.arrays.documents import batches, join
from kanana_jax.data.arrays.lines import fenced, split
from kanana_jax.data.arrays.spans import Rest, Span, merged, without

CODE = "code"


def code(texts: Sequence[str]) -> list[tuple[Span, ...]]:
    """The lines of fenced code in normalised texts, including the fences, one span per line."""
    marked = [i for i, text in enumerate(texts) if "```" in text or "~~~" in text]
    spans: list[tuple[Span, ...]] = [()] * len(texts)
    for places in _together(marked, texts):
        documents = join([texts[i] for i in places])
        lines = split(documents)
        inside = fenced(documents, lines).nonzero()[0]
        of = lines.of[inside]
        starts, ends = lines.starts[inside] - documents.starts[of], lines.ends[inside] - documents.starts[of]
        own: list[list[Span]] = [[] for _ in places]
        for document, start, end in zip(of.tolist(), starts.tolist(), ends.tolist()):
            own[document].append((start, end, CODE))
        for i, found in zip(places, own):
            spans[i] = tuple(found)
    return spans


def of(texts: Sequence[str], common: Sequence[tuple[Span, ...]]) -> list[Rest | None]:
    """The prose of normalised texts without `common` lines; None if it is the whole text."""
    return [
        without(text, merged(lines, fences)) if lines or fences else None
        for text, lines, fences in zip(texts, common, code(texts))
    ]


def _together(places: Sequence[int], texts: Sequence[str]) -> list[list[int]]:
    """Places of texts in lists that are joined at once."""
    at, found = 0, []
    for batch in batches([texts[i] for i in places]):
        found.append(list(places[at : at + len(batch)]))
        at += len(batch)
    return found
