"""Passages in the order in which a language model expects the question after them.

The mean log-probability of the question's tokens given a passage, as in UPR (Sachan et al., arXiv:2204.07496, §2.2):
no training, no prompt that must be answered, and any base or chat model of the language will do.
"""

from collections.abc import Sequence

import jax
import numpy as np

from kanana_jax.applications.rag import asked_in
from kanana_jax.applications.retrieval import Hit
from kanana_jax.data.tokens.tokenizer import encode_prompt
from kanana_jax.inference.scoring import score
from kanana_jax.inference.session import Session

LOOKED_AT = 20  # passages that are put in order anew


def reranked(session: Session, question: str, hits: Sequence[Hit], batch_size: int = 4) -> list[Hit]:
    """The hits with the new order's score, the best first; of equal ones the first.

    A passage that is too long for the model beside the question counts by its beginning, as an answer's prompt has it.
    """
    tokenizer, longest = session.tokenizer, session.model.architecture.max_seq_len
    word, asked = (np.asarray(tokenizer.encode(t), np.int32) for t in (f"\n\n{asked_in(question)}:", f" {question}"))
    asked = asked[: longest // 2]
    if not len(asked) or not hits:
        return list(hits)
    room = max(1, longest + 1 - len(word) - len(asked))  # the last token of a row is not read
    texts = [encode_prompt(tokenizer, hit.passage.searched)[:room] for hit in hits]
    requests = [(np.concatenate([text, word]), asked) for text in texts]
    with jax.set_mesh(session.mesh):
        scores = score(session.params, session.model, requests, batch_size=batch_size)
    found = [hit._replace(score=one.log_likelihood / len(asked)) for hit, one in zip(hits, scores, strict=True)]
    return sorted(found, key=lambda hit: -hit.score)
