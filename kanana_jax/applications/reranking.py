"""Reranking of passages by how likely a language model finds the question after each of them.

The score is the mean log-probability of the question's tokens given the passage, as in UPR (Sachan et al.,
arXiv:2204.07496, §2.2). It needs no training and no instruction following: any base or chat model of the language does.
"""

from collections.abc import Sequence

import jax
import numpy as np

from kanana_jax.applications.rag import asked_in
from kanana_jax.applications.retrieval import Hit
from kanana_jax.data.tokens.tokenizer import encode_prompt
from kanana_jax.inference.scoring import score
from kanana_jax.inference.session import Session

LOOKED_AT = 20  # passages to rerank


def reranked(session: Session, question: str, hits: Sequence[Hit], batch_size: int = 4) -> list[Hit]:
    """The hits with their new scores, best first; ties keep their order.

    A passage that does not fit into the model's context together with the question is truncated, as in `rag.fitted`.
    A question is truncated to half the context.
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
