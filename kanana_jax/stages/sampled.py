"""The answers of one step of a sampling stage: written, decoded and judged, with their figures for the log line."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from kanana_jax.data.stream.encode import fields_of
from kanana_jax.data.stream.packing import Rows
from kanana_jax.data.tokens.tokenizer import Tokenizer, continuation
from kanana_jax.evaluation.verifiers import Question, Scorer, checked, language_share
from kanana_jax.inference.generate import generate
from kanana_jax.inference.prefix import rounded
from kanana_jax.inference.rollout import Answer, RolloutConfig, rollout
from kanana_jax.inference.session import Session
from kanana_jax.models import counts
from kanana_jax.models.architecture import Architecture
from kanana_jax.models.model import Model
from kanana_jax.models.transformer import Params
from kanana_jax.parallel.sharding import tree_shardings
from kanana_jax.training.task import Work

_AT_ONCE = 16  # prompts per measurement batch
_OF_THE_LANGUAGE = 0.5  # least share of letters for an answer to be in its prompt's language


class Sampled(NamedTuple):
    """The answers to the prompts of a step.

    Attributes:
      questions: `P` prompts.
      answers, texts: `N` for each prompt.
      rewards: float64 `[P, N]`; None: there are none.
    """

    questions: Sequence[Question]
    answers: Sequence[Sequence[Answer]]
    texts: Sequence[Sequence[str]]
    rewards: np.ndarray | None


def questions_of(rows: Rows[np.ndarray]) -> list[Question]:
    """The prompts of a `PromptEncoder`'s rows, `[P, T]`."""
    found = []
    for inputs, targets, segments in zip(rows.inputs, rows.targets, rows.segment_ids):
        ids, fields = fields_of(inputs, targets, segments)
        told = fields.get("verifier", ""), fields.get("answer")
        found.append(Question(str(fields["id"]), ids, fields["text"], fields.get("lang", ""), *told))
    return found


@dataclasses.dataclass(frozen=True)
class Sampler:
    """Writes and judges the answers of a stage.

    Attributes:
      mesh: mesh on which answers are written.
      moved: whether parameters come from another mesh.
      ends: ids that end an answer.
      scorer: computes rewards; None: there are none.
      unfinished: added to the reward of an answer that was cut off.
      width: tokens to which prompts are padded.
      rows: answers that are written at once.
    """

    config: RolloutConfig
    model: Model
    mesh: Mesh
    moved: bool
    tokenizer: Tokenizer
    ends: Sequence[int]
    scorer: Scorer | None
    unfinished: float
    width: int
    rows: int

    def move(self, params: Params) -> Params:
        """Parameters as the sampler uses them: on its mesh, in the compute dtype."""
        return self._move(params) if self.moved else params

    @functools.cached_property
    def _move(self) -> Callable[[Params], Params]:
        dtype, axes = self.model.runtime.compute_dtype, self.model.logical_axes()
        cast = functools.partial(jax.tree.map, lambda x: x.astype(dtype))
        return jax.jit(cast, out_shardings=tree_shardings(self.mesh, axes))

    def sample(self, params: Params, questions: Sequence[Question], key: jax.Array) -> Sampled:
        """The answers of a step, sampled on the current mesh."""
        answers = rollout(
            params,
            self.model,
            [question.ids for question in questions],
            self.config,
            stop=self.ends,
            tokens=self.tokenizer.vocab_size,
            key=key,
            width=self.width,
        )
        texts = [[self._text(q, a.ids) for a in group] for q, group in zip(questions, answers)]
        return Sampled(questions, answers, texts, self._judged(questions, answers, texts))

    def greedy(self, params: Params, questions: Sequence[Question]) -> Sampled:
        """One greedy answer to each prompt."""
        most, per_call = self.config.max_new_tokens, self.rows
        answers = []
        for begin in range(0, len(questions), per_call):
            asked = [q.ids for q in questions[begin : begin + per_call]]
            padded = [*asked, *asked[-1:] * (per_call - len(asked))]
            tokens = self.tokenizer.vocab_size
            ids = generate(params, self.model, padded, max_new_tokens=most, stop=self.ends, tokens=tokens)
            nothing = np.zeros(0, np.float32)
            answers += [[Answer(one, nothing, nothing, len(one) < most)] for one in ids[: len(asked)]]
        texts = [[self._text(q, a.ids) for a in group] for q, group in zip(questions, answers)]
        return Sampled(questions, answers, texts, self._judged(questions, answers, texts))

    def _text(self, question: Question, ids: np.ndarray) -> str:
        ended = len(ids) and int(ids[-1]) in self.ends
        return continuation(self.tokenizer, question.ids, ids[:-1] if ended else ids)

    def _judged(self, questions, answers, texts) -> np.ndarray | None:
        if self.scorer is None:
            return None
        flat = [(q, a, t) for q, group, of in zip(questions, answers, texts) for a, t in zip(group, of)]
        rewards = checked(self.scorer, [q for q, _, _ in flat], [t for _, _, t in flat])
        rewards += [0.0 if a.ended else self.unfinished for _, a, _ in flat]
        return rewards.reshape(len(questions), -1)


def figures(found: Sampled) -> dict[str, float]:
    """The figures of a step's answers for the log line, as means over answers.

    `informative` is the share of prompts whose answers differ in reward; `language` the share of answers in their
    prompt's language, among those with letters; `sampled_nll` is −log p of a token when it was sampled, in nats.
    """
    flat = [answer for group in found.answers for answer in group]
    known = _in_language(found)
    drawn = np.concatenate([answer.log_probs for answer in flat])
    rewards = {}
    if found.rewards is not None:
        rewards = {
            "reward": found.rewards.mean(),
            "reward_std": found.rewards.std(axis=1).mean(),
            "informative": (np.ptp(found.rewards, axis=1) > 0).mean(),
        }
    said = {
        **rewards,
        "answer_tokens": np.mean([len(answer.ids) for answer in flat]),
        "ended": np.mean([answer.ended for answer in flat]),
        **({"language": np.mean(known)} if known else {}),
        **({"sampled_nll": -drawn.mean()} if len(drawn) else {}),
    }
    return {name: float(value) for name, value in said.items()}


def work(found: Sampled, policy: Architecture, critic: Architecture | None) -> Work:
    """Tokens and FLOPs (`counts.written_flops`) of a step's answers, including those that nothing is learnt from.

    Args:
      policy: the model that wrote each after its prompt.
      critic: the reward model that read both; None: there is none.
    """
    lengths = [(len(q.ids), len(a.ids)) for q, group in zip(found.questions, found.answers) for a in group]
    tokens = sum(read + new for read, new in lengths)
    spent = {"sampler": {"tokens": tokens, "flops": sum(counts.written_flops(policy, *each) for each in lengths)}}
    if critic is not None:
        flops = sum(counts.written_flops(critic, read + new, 0) for read, new in lengths)
        spent["reward"] = {"tokens": tokens, "flops": flops}
    return spent


def _in_language(found: Sampled) -> list[bool]:
    shares = [language_share(t, q.lang) for q, group in zip(found.questions, found.texts) for t in group]
    return [share >= _OF_THE_LANGUAGE for share in shares if share is not None]


def answers_of(
    session: Session,
    questions: Sequence[Question],
    config: RolloutConfig,
    seed: int,
    show: Callable[[int], None] = lambda done: None,
) -> tuple[list[list[str]], list[list[bool]]]:
    """N answers of a loaded model to each prompt, in the order of the prompts, sampled from the seed.

    Args:
      show: called with the number of prompts answered so far.

    Returns:
      The texts, and whether each answer ended by itself, both `[P][N]`.
    """
    width = rounded(max(len(question.ids) for question in questions))
    sampler = Sampler(
        config,
        session.model,
        session.mesh,
        moved=False,
        tokenizer=session.tokenizer,
        ends=session.stop_ids,
        scorer=None,
        unfinished=0.0,
        width=width,
        rows=_AT_ONCE * config.samples,
    )
    texts: list[list[str]] = []
    ended: list[list[bool]] = []
    with jax.set_mesh(session.mesh):
        for start in range(0, len(questions), _AT_ONCE):
            some = list(questions[start : start + _AT_ONCE])
            asked = some + some[-1:] * (_AT_ONCE - len(some) if start else 0)  # the same program for the last batch
            key = jax.random.fold_in(jax.random.key(seed), start)
            found = sampler.sample(session.params, asked, key)
            texts += [list(own) for own in found.texts[: len(some)]]
            ended += [[answer.ended for answer in own] for own in found.answers[: len(some)]]
            show(len(texts))
    return texts, ended
