"""Evaluation of grounded question answering: does a model answer, cite, and decline when no passage has the answer?

Documents bring along their questions and answers (`meta.questions`, as `kanana_jax/data/microworld/faq.py` makes them).
Replies are therefore scored by comparing text, without a judge. The setting follows Table 11 of arXiv:2502.18934.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from kanana_jax.applications import passages, quoting, rag
from kanana_jax.applications.passages import Passage
from kanana_jax.data.tokens import chat
from kanana_jax.errors import UserError
from kanana_jax.inference.sampling import SamplingConfig
from kanana_jax.inference.session import Session

Json = dict[str, Any]
LONGEST = 256  # tokens per reply


class Item(NamedTuple):
    """A question with the passages that its prompt quotes.

    Attributes:
      shown: the quoted passages, [1] first.
      right: number of the passage that has the answer; 0: none does.
    """

    question: str
    answer: str
    shown: tuple[Passage, ...]
    right: int


def items(path: str, limit: int) -> list[Item]:
    """Two items per question: one with its passage before or after another document's, one with two others only.

    Args:
      path: documents that bring questions along.
      limit: maximum number of questions.

    Raises:
      UserError: there are fewer than three documents, or none has a question whose answer is in its text.
    """
    found = passages.of_folder(path).passages
    if len({passage.document for passage in found}) < 3:
        raise UserError(
            f"{path} holds fewer than three documents, but two others are quoted beside the one that answers: add some"
        )
    made: list[Item] = []
    for place, passage in enumerate(found):
        if not passage.questions or len(made) == 2 * limit:
            continue
        question, answer = passage.questions[0]
        others = [p for p in (*found[place + 1 :], *found[:place]) if p.document != passage.document]
        others = [p for p in others if answer not in p.searched][:2]
        if len(others) < 2:
            continue
        first = place % 2 == 0
        shown = (passage, others[0]) if first else (others[0], passage)
        made += [Item(question, answer, shown, 1 if first else 2), Item(question, answer, tuple(others), 0)]
    if not made:
        raise UserError(f"{path} holds no document with a question in 'meta.questions' whose answer is in its text")
    return made


def evaluate(
    session: Session, asked: Sequence[Item], *, batch_size: int = 16, max_new_tokens: int = LONGEST
) -> Json:
    """Scores greedy replies against the known answers.

    Returns:
      `{"results", "samples"}`, the samples with a line per item. The results have `n`, the number of questions, and
      four shares of them, each with its standard error under the name plus `_stderr`: with the right passage quoted,
      `answered` (the reply contains the answer), `cited` (it cites that passage and no other) and `refused_wrongly` (it
      says that nothing was found); without that passage, `refused`. `cut` is the number of replies that did not end
      within `max_new_tokens`. A prompt that is too long for the model counts as an empty reply.
    """
    written = _replies(session, asked, batch_size, max_new_tokens)
    replies = [reply for reply, _ in written]
    with_it = [(item, reply) for item, reply in zip(asked, replies, strict=True) if item.right]
    without = [(item, reply) for item, reply in zip(asked, replies, strict=True) if not item.right]
    shares = {
        "answered": [item.answer in quoting.uncited(reply) for item, reply in with_it],
        "cited": [quoting.cited(reply) == (item.right,) for item, reply in with_it],
        "refused": [_refuses(item, reply) for item, reply in without],
        "refused_wrongly": [_refuses(item, reply) for item, reply in with_it],
    }
    found: Json = {"n": len(with_it), "cut": sum(cut for _, cut in written)}
    for name, hits in shares.items():
        share = sum(hits) / len(hits)
        found |= {name: share, f"{name}_stderr": math.sqrt(share * (1 - share) / max(len(hits) - 1, 1))}
    samples = [
        {
            "question": item.question,
            "passages": [passage.text for passage in item.shown],
            "right": item.right,
            "answer": item.answer,
            "reply": reply,
            "cut": cut,
        }
        for item, (reply, cut) in zip(asked, written, strict=True)
    ]
    return {"results": found, "samples": samples}


def _refuses(item: Item, reply: str) -> bool:
    return rag.nothing_found(item.question) in reply


def _replies(session: Session, asked: Sequence[Item], rows: int, new: int) -> list[tuple[str, bool]]:
    """The reply to each item and whether it was cut off, in batches of similar length; empty to a prompt too long."""
    prompts = [
        chat.encode_chat(session.tokenizer, rag.messages(item.question, [(p.place, p.text) for p in item.shown]))
        for item in asked
    ]
    room = session.model.architecture.max_seq_len - new
    order = sorted((i for i, ids in enumerate(prompts) if len(ids) <= room), key=lambda i: len(prompts[i]))
    replies = [("", False)] * len(asked)
    for begin in range(0, len(order), rows):
        chosen = order[begin : begin + rows]
        written = session.continue_ids([prompts[i] for i in chosen], new, SamplingConfig(temperature=0.0), seed=0)
        for i, ids in zip(chosen, written, strict=True):
            replies[i] = session.text_of(prompts[i], ids, strip_thinking=True), len(ids) == new
    return replies
