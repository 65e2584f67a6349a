"""Training data for grounded question answering, generated from passages (Kanana, Figure 6).

passage → question → answer from the passage → grounding score → kept, or rewritten and then kept or dropped → a
conversation for fine-tuning. The best grounded answers also give preference pairs: the rejected answer is one that the
writer gave without seeing the passage and that the passage does not support (arXiv:2502.18934, §4.2). Prompts are those
of `kanana rag`, with distractors around the right passage. Some conversations have only distractors, and their answer
says that nothing was found.
"""

import collections
import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from kanana_jax.applications import quoting, rag
from kanana_jax.applications.passages import Passage
from kanana_jax.evaluation import own_sets

Json = dict[str, Any]
# Prompts, the number of the step that sends them, and whether a reply that ran out of tokens may count (an endpoint's
# never does) → replies; an empty reply: none.
Write = Callable[[Sequence[str], int, bool], list[str]]
# (answer, passage) pairs → how well each answer is grounded in its passage, from 0 to 1.
Ground = Callable[[Sequence[tuple[str, str]]], list[float]]
COUNTS = (
    "passages",
    "asked",
    "given",
    "no_question",
    "repeated",
    "no_answer",
    "ungrounded",
    "kept",
    "refined",
    "unanswerable",
    "pairs",
    "negatives_grounded",
)
_LONGEST_QUESTION = 300  # characters
_OPENING = re.compile(
    r"^\s{0,10}(?:[-*\"'“「]|\d{1,2}[.)]|질문\s?\d?:|質問\s?\d?[:：]|Question\s?\d?:|Q\d?[.:])\s{0,10}"
)


class _Words(NamedTuple):
    """Templates of the writer's prompts in one language."""

    question: str
    again: str
    alone: str


_WORDS = {
    "ko": _Words(
        "다음 글만 읽고 답할 수 있는 질문을 한국어로 하나 쓰십시오. 글을 보지 않은 사람도 이해할 수 있어야 합니다. "
        "질문만 쓰십시오. ({number}/{count}번째 질문: 다른 질문과 다른 내용을 물으십시오.)\n\n{text}",
        "{prompt}\n\n앞서 쓴 답: {answer}\n\n이 답에는 발췌에 없는 내용이 있습니다. 어느 부분인지 살피고, 발췌에 있는 "
        "내용만으로 답을 다시 쓰십시오. 고친 답만 쓰십시오.",
        "질문에 한국어로 짧게 답하십시오.\n\n질문: {question}",
    ),
    "ja": _Words(
        "次の文章だけから答えられる質問を日本語で一つ書いてください。文章を見ていない人にも分かるように書いてください。"
        "質問だけを書いてください。（{number}/{count}番目：ほかの質問とは別の内容を尋ねてください。）\n\n{text}",
        "{prompt}\n\n先に書いた答え: {answer}\n\nこの答えには抜粋にない内容があります。どの部分かを確かめ、抜粋にある"
        "内容だけで答えを書き直してください。直した答えだけを書いてください。",
        "質問に日本語で短く答えてください。\n\n質問: {question}",
    ),
    "en": _Words(
        "Write one question in English that the following text alone answers, and that a reader who has not seen the "
        "text understands. Write only the question. (Number {number} of {count}: ask about another point than the "
        "others.)\n\n{text}",
        "{prompt}\n\nEarlier answer: {answer}\n\nThis answer says things that the excerpt does not. See which, and "
        "answer again from the excerpt alone. Write only the new answer.",
        "Answer the question briefly in English.\n\nQuestion: {question}",
    ),
}


@dataclasses.dataclass(frozen=True)
class QaConfig:
    """Settings of data generation; grounding scores are from 0 to 1.

    Attributes:
      questions: number of questions per passage; those that its document brings along come first, with their answers.
      keep: lowest grounding of an answer to train on; the paper keeps answers rated 9 of 10.
      refine: number of times that an answer below `keep` is rewritten.
      prefer: lowest grounding of a preferred answer; the paper requires 10 of 10.
      reject: highest grounding of a rejected answer.
      distractors: number of other passages per prompt, from other documents if there are enough.
      unanswerable: share of kept questions that are also asked with distractors only.
    """

    questions: int = 2
    keep: float = 0.9
    refine: int = 1
    prefer: float = 1.0
    reject: float = 0.5
    distractors: int = 2
    unanswerable: float = 0.1

    def __post_init__(self):
        if self.questions < 1 or min(self.refine, self.distractors) < 0:
            raise ValueError("questions must be at least 1, refine and distractors at least 0")
        if not 0 <= self.reject < self.keep <= self.prefer <= 1 or not 0 <= self.unanswerable <= 1:
            raise ValueError("0 ≤ reject < keep ≤ prefer ≤ 1 must hold, and unanswerable must be a share")
        if self.unanswerable and not self.distractors:
            raise ValueError("conversations without an answer are made of distractors: set some, or unanswerable=0")


@dataclasses.dataclass(frozen=True)
class Made:
    """The generated data.

    Attributes:
      conversations: `{"id", "messages"}`.
      pairs: `{"id", "prompt", "chosen", "rejected"}`.
      counts: by `COUNTS`. `asked` is the sum of `no_question`, `repeated`, `no_answer`, `ungrounded` and `kept`; it
        includes `given`, and `kept` includes `refined`.
    """

    conversations: tuple[Json, ...]
    pairs: tuple[Json, ...]
    counts: dict[str, int]


@dataclasses.dataclass(frozen=True)
class _Draft:
    """A question with its answer."""

    id: str
    passage: Passage
    question: str
    answer: str = ""
    score: float = 0.0
    refined: bool = False

    @property
    def prompt(self) -> str:
        return _prompt(self.question, [self.passage])


def make(
    passages: Sequence[Passage],
    others: Sequence[Passage],
    config: QaConfig,
    write: Write,
    ground: Ground,
    rng: np.random.Generator,
) -> Made:
    """Generates conversations and preference pairs from passages.

    Args:
      others: passages from which distractors are sampled.
      write: generates text.
      ground: scores how well an answer is grounded in its passage.
      rng: samples the distractors and the place of the right passage among them.
    """
    counts = collections.Counter(dict.fromkeys(COUNTS, 0))
    drafts = _answered(_asked(passages, config, write, counts), config, write, ground, counts)
    kept = [draft for draft in drafts if draft.score >= config.keep]
    counts["ungrounded"] += len(drafts) - len(kept)
    counts["kept"] += len(kept)
    counts["refined"] += sum(draft.refined for draft in kept)
    rejected = _rejected(kept, config, write, ground, counts)
    conversations, pairs = list[Json](), list[Json]()
    for draft in kept:
        beside = _drawn(others, draft, config.distractors, rng)
        place = int(rng.integers(len(beside) + 1))
        shown = [*beside[:place], draft.passage, *beside[place:]]
        prompt = {"role": "user", "content": _prompt(draft.question, shown)}
        answer = {"role": "assistant", "content": f"{draft.answer} [{place + 1}]"}
        conversations.append({"id": draft.id, "messages": [prompt, answer]})
        if draft.id in rejected:
            other = {"role": "assistant", "content": f"{rejected[draft.id]} [{place + 1}]"}
            pairs.append({"id": draft.id, "prompt": [prompt], "chosen": [answer], "rejected": [other]})
        if rng.random() < config.unanswerable and beside:
            nothing = {"role": "assistant", "content": rag.nothing_found(draft.question)}
            asked = {"role": "user", "content": _prompt(draft.question, beside)}
            conversations.append({"id": f"{draft.id}/nothing", "messages": [asked, nothing]})
            counts["unanswerable"] += 1
    counts["pairs"] += len(pairs)
    return Made(tuple(conversations), tuple(pairs), dict(counts))


def question_of(reply: str) -> str:
    """The question in a reply: its first line with letters, without list markers; empty if there is none."""
    lines = (_OPENING.sub("", line).strip(" \t\"'”」*") for line in reply.splitlines())
    found = next((line for line in lines if any(letter.isalnum() for letter in line)), "")
    return found if len(found) <= _LONGEST_QUESTION else ""


def _asked(passages: Sequence[Passage], config: QaConfig, write: Write, counts: collections.Counter) -> list[_Draft]:
    """Questions for passages; those that the documents bring along have their answers, the generated ones have none."""
    given = [
        _Draft(f"{passage.id}/{number}", passage, question, answer)
        for passage in passages
        for number, (question, answer) in enumerate(passage.questions[: config.questions], 1)
    ]
    slots = [
        (passage, number) for passage in passages for number in range(len(passage.questions) + 1, config.questions + 1)
    ]
    texts = [
        _WORDS[own_sets.language([passage.text])].question.format(
            number=number, count=config.questions, text=passage.searched
        )
        for passage, number in slots
    ]
    counts["passages"] += len(passages)
    counts["asked"] += len(given) + len(slots)
    counts["given"] += len(given)
    drafts, seen = given, {(draft.passage.id, draft.question) for draft in given}
    for (passage, number), reply in zip(slots, write(texts, 0, False), strict=True):
        question = question_of(reply)
        if not question:
            counts["no_question"] += 1
        elif (passage.id, question) in seen:
            counts["repeated"] += 1
        else:
            seen.add((passage.id, question))
            drafts.append(_Draft(f"{passage.id}/{number}", passage, question))
    return drafts


def _answered(
    drafts: Sequence[_Draft], config: QaConfig, write: Write, ground: Ground, counts: collections.Counter
) -> list[_Draft]:
    """The questions that got an answer, each with its best grounded one."""
    answered = [draft for draft in drafts if draft.answer]
    open = [draft for draft in drafts if not draft.answer]
    for draft, reply in zip(open, write([draft.prompt for draft in open], 1, False), strict=True):
        answer = quoting.uncited(reply)
        if not answer or rag.nothing_found(draft.question) in answer:
            counts["no_answer"] += 1
        else:
            answered.append(dataclasses.replace(draft, answer=answer))
    scores = ground([(draft.answer, draft.passage.searched) for draft in answered])
    answered = [dataclasses.replace(draft, score=score) for draft, score in zip(answered, scores, strict=True)]
    for round in range(config.refine):
        weak = [i for i, draft in enumerate(answered) if draft.score < config.keep]
        texts = [
            _WORDS[rag.language_of(draft.question)].again.format(prompt=draft.prompt, answer=draft.answer)
            for draft in (answered[i] for i in weak)
        ]
        replies = [quoting.uncited(reply) for reply in write(texts, 2 + round, False)]
        scores = ground([(reply, answered[i].passage.searched) for i, reply in zip(weak, replies, strict=True)])
        for i, reply, score in zip(weak, replies, scores, strict=True):
            if reply and score > answered[i].score:
                answered[i] = dataclasses.replace(answered[i], answer=reply, score=score, refined=True)
    return answered


def _rejected(
    kept: Sequence[_Draft], config: QaConfig, write: Write, ground: Ground, counts: collections.Counter
) -> dict[str, str]:
    """Ungrounded answers, by id, written without the passage for questions whose kept answer is grounded best."""
    best = [draft for draft in kept if draft.score >= config.prefer]
    texts = [_WORDS[rag.language_of(draft.question)].alone.format(question=draft.question) for draft in best]
    replies = [quoting.uncited(reply) for reply in write(texts, 2 + config.refine, True)]
    scores = ground([(reply, draft.passage.searched) for reply, draft in zip(replies, best, strict=True)])
    found = {}
    for draft, reply, score in zip(best, replies, scores, strict=True):
        if reply and score <= config.reject:
            found[draft.id] = reply
        else:
            counts["negatives_grounded"] += 1
    return found


def _prompt(question: str, passages: Sequence[Passage]) -> str:
    """The prompt of `kanana rag`."""
    (turn,) = rag.messages(question, [(passage.place, passage.text) for passage in passages])
    return turn["content"]


def _drawn(others: Sequence[Passage], draft: _Draft, count: int, rng: np.random.Generator) -> list[Passage]:
    """Randomly sampled other passages without the answer, from other documents if there are enough."""
    passage = draft.passage
    wrong = [other for other in others if draft.answer not in other.searched]
    apart = [other for other in wrong if other.document != passage.document]
    near = [other for other in wrong if other.document == passage.document and other.id != passage.id]
    pool = apart if len(apart) >= count else [*apart, *near]
    return [pool[i] for i in rng.permutation(len(pool))[:count].tolist()]
