"""Schemas drawn at random, and a writer without a mind: it draws any token that a constraint allows."""

import functools
import random

import numpy as np
from hypothesis import strategies as st

from kanana_jax.inference import thinking
from kanana_jax.inference.constrained import Constraint, Vocabulary

NAMES = ("city", "도시", "n", "이름", "값")
_MARK = "\n</parameter>\n"
TEXTS = ("서울", "x", "각", "👍🏽", 'a"b', "\\", "\n")
_SCALARS = st.one_of(
    st.just({"type": "string"}),
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.just({"type": "number"}),
    st.fixed_dictionaries({"type": st.just("string"), "maxLength": st.integers(1, 6)}),
    st.builds(lambda low, more: {"type": "integer", "minimum": low, "maximum": low + more}, *[st.integers(0, 99)] * 2),
    st.lists(st.sampled_from(TEXTS), min_size=1, max_size=3, unique=True).map(lambda v: {"enum": v}),
    st.sampled_from(TEXTS).map(lambda v: {"const": v}),
    st.just({"type": "string", "pattern": "^[가-힣]{1,3}$"}),
    st.just({"type": "string", "format": "date"}),
)


def _object(inner):
    @st.composite
    def drawn(draw):
        properties = draw(st.dictionaries(st.sampled_from(NAMES), inner, max_size=3))
        required = [name for name in properties if draw(st.booleans())]
        return {"type": "object", "properties": properties, "required": required}

    return drawn()


def _grown(inner):
    listed = st.builds(
        lambda items, least: {"type": "array", "items": items, "minItems": least, "maxItems": least + 2},
        inner,
        st.integers(0, 2),
    )
    return st.one_of(_object(inner), listed, st.lists(inner, min_size=1, max_size=2).map(lambda v: {"anyOf": v}))


_TREE = {
    "type": "object",
    "properties": {"tree": {"$ref": "#/$defs/node"}},
    "required": ["tree"],
    "$defs": {
        "node": {
            "type": "object",
            "properties": {"값": {"type": "integer"}, "kids": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
            "required": ["값"],
        }
    },
}
SCHEMAS = st.one_of(_object(st.recursive(_SCALARS, _grown, max_leaves=6)), st.just(_TREE))


def write(constraint: Constraint, vocabulary: Vocabulary, seed: int) -> list[int] | None:
    """Ids of a turn that any token may continue; of tokens that close something, more often one.

    Chance would seldom spell the mark by which texts of Qwen's XML end: it is begun now and then as a whole.

    Returns:
      None: the turn did not end by itself.
    """
    rng, ids, planned = random.Random(seed), [], []
    closers = _closers(vocabulary)
    words = np.zeros(-(-vocabulary.size // 32), np.int32)
    for step in range(3000):
        constraint.allowed(words)
        assert not constraint.error, constraint.error
        may = np.flatnonzero(np.unpackbits(words.view(np.uint8), bitorder="little")[: vocabulary.size]).tolist()
        assert may
        if step == 0:  # chance would not end its thinking
            may = [token for token in may if token != vocabulary.tokenizer.token_id(thinking.OPEN)]
        if any(token in vocabulary.ends for token in may):
            return ids
        hurry = step > 200 or rng.random() < 0.4
        if not planned and hurry and rng.random() < 0.2:
            planned = vocabulary.tokenizer.encode(_MARK).tolist()
        if planned and planned[0] in may:
            token = planned.pop(0)
        else:
            closing = [token for token in may if token in closers]
            token, planned = rng.choice(closing if closing and hurry else may), []
        ids.append(token)
        constraint.take(token)
    return None


@functools.lru_cache(2)
def _closers(vocabulary: Vocabulary) -> frozenset[int]:
    texts = [vocabulary.tokenizer.decode([i]) for i in range(vocabulary.size)]
    return frozenset(i for i, text in enumerate(texts) if text and text in '"}],' + _MARK)
