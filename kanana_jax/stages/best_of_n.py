"""Best-of-N of a trained policy: it answers prompts, and reward models are compared by their choices.

`evaluation/best_of_n.py` has the arithmetic; `kanana best-of-n` and evaluation stages use it through this module.
"""

import collections
import dataclasses
import itertools
import logging
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from kanana_jax.config import to_dict
from kanana_jax.data.read import records
from kanana_jax.data.read.record import Broken, Record
from kanana_jax.data.tokens import chat
from kanana_jax.errors import UserError
from kanana_jax.evaluation import best_of_n
from kanana_jax.evaluation.best_of_n import Point, Selection
from kanana_jax.evaluation.verifiers import RECORD, Question, Scorer, verify
from kanana_jax.files import write_json, write_lines
from kanana_jax.inference.reward_model import RewardModel
from kanana_jax.inference.rollout import RolloutConfig
from kanana_jax.inference.sampling import SamplingConfig
from kanana_jax.inference.session import Session
from kanana_jax.stages.best_of_n_chapter import RESULT
from kanana_jax.stages.kind import Context
from kanana_jax.stages.sampled import answers_of

log = logging.getLogger("kanana")
_AT_ONCE = 64  # answers that a reward model reads at once


@dataclasses.dataclass(frozen=True)
class BestOfNConfig:
    """A policy's answers, among which reward models choose (`evaluation/best_of_n.py`).

    Attributes:
      policy: the stage or folder that answers.
      rewards: stages or folders of reward models; several are compared.
      prompts: name → unseen prompts with `answer` and `verifier`, by which choices are judged.
      limit: prompts per set.
      n: answers to each prompt; the curves show 1, 2, 4 … of them.
      max_new_tokens, temperature: for sampling the answers.
    """

    policy: str
    rewards: tuple[str, ...]
    prompts: dict[str, str]
    limit: int = 50
    n: int = 16
    max_new_tokens: int = 256
    temperature: float = 1.0

    def __post_init__(self):
        if not self.rewards or not self.prompts or min(self.limit, self.n) < 1:
            raise ValueError("best_of_n needs a policy, rewards, prompts, and limit and n of at least 1")
        if len(set(self.rewards)) < len(self.rewards):
            raise ValueError("best_of_n.rewards names a reward model twice")
        self.rollout()  # refuses values that cannot be sampled with

    def rollout(self) -> RolloutConfig:
        """How answers are sampled."""
        return RolloutConfig(self.n, self.max_new_tokens, SamplingConfig(temperature=self.temperature))


def read_prompts(path: str, limit: int = 0) -> list[Record]:
    """The records of a file of prompts.

    Args:
      limit: number of prompts; 0: all.

    Raises:
      UserError: a broken line, a record without a prompt, or no prompts.
    """
    found: list[Record] = []
    for record in records.read(path, source="prompts"):
        if isinstance(record, Broken):
            raise UserError(f"{record.where}: {record.reason}")
        if "prompt" not in record:
            raise UserError(f"{path}: record '{record['id']}' has no 'prompt'")
        found.append(record)
        if len(found) == limit:
            break
    if not found:
        raise UserError(f"{path} has no prompts")
    return found


def questions_of(prompts: list[Record], policy: Session, new: int, longer: str) -> list[Question]:
    """Prompts in the form in which the policy is asked.

    Args:
      new: tokens per answer.
      longer: the option that a user can lower if a prompt does not fit.

    Raises:
      UserError: a prompt leaves no room for its answer.
    """
    found: list[Question] = []
    room = policy.model.architecture.max_seq_len - new
    for record in prompts:
        turns = record["prompt"]
        ids = chat.encode_chat(policy.tokenizer, turns, record.get("tools"))
        if len(ids) > room:
            raise UserError(
                f"record '{record['id']}': {len(ids)} tokens of prompt and {new} new ones exceed the model's length: "
                f"leave it out, or lower {longer}"
            )
        told = record.get("lang", ""), record.get("verifier", ""), record.get("answer")
        found.append(Question(record["id"], ids, turns[-1].get("content") or "", *told))
    return found


class Compared(NamedTuple):
    """The scorers' choices among a policy's answers.

    Attributes:
      ended: whether each answer ended by itself, `[P][N]`.
      ceiling: the curve of a judge that chooses by itself: the upper bound for any scorer under this judge.
    """

    selection: Selection
    ended: list[list[bool]]
    ceiling: list[Point]

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe, without texts and single scores."""
        return self.selection.to_dict() | {"ceiling": [point.to_dict() for point in self.ceiling]}


def compare(
    policy: Session,
    questions: list[Question],
    scorers: Mapping[str, Scorer],
    judge: Scorer,
    config: RolloutConfig,
    sizes: list[int],
    seed: int,
    show: Callable[[int], None] = lambda done: None,
) -> Compared:
    """Samples answers of the policy and lets each scorer choose among them.

    Args:
      sizes: numbers of answers that the curves show.
      show: called with the number of prompts answered so far.
    """
    texts, ended = answers_of(policy, questions, config, seed, show)
    found = best_of_n.best_of_n(questions, lambda _, n: texts, scorers, judge, config.samples, at=sizes)
    return Compared(found, ended, best_of_n.curve(found.judged, found.judged, sizes))


def write_samples(file: pathlib.Path, questions: list[Question], compared: Compared) -> None:
    """A line for each prompt: its answers, the scores of each scorer, and the judge's verdicts."""
    found = compared.selection
    write_lines(
        file,
        (
            {
                "id": question.id,
                "prompt": question.text,
                "answers": list(found.texts[i]),
                "ended": compared.ended[i],
                "scores": {name: own[i].tolist() for name, own in found.scores.items()},
                "judged": found.judged[i].tolist(),
            }
            for i, question in enumerate(questions)
        ),
    )


def write_pairs(file: pathlib.Path, prompts: list[Record], compared: Compared, most: int) -> tuple[int, int]:
    """A line for each preference pair of the policy's own answers, in the format that DPO and reward models read.

    The best scorer decides which answer is better (`best_of_n.preferences`). An answer that was cut off at its longest
    length is not used: as the chosen one it would teach the model to stop there. A pair is named `ID#n`, where n counts
    the pairs of all prompts with this id, so that their names differ.

    Args:
      prompts: the records that were answered.
      most: pairs per prompt.

    Returns:
      The number of pairs, and of prompts that have any.
    """
    found, with_any = compared.selection, 0
    scores, numbers = found.scores[found.best], collections.defaultdict[str, Iterator[int]](itertools.count)
    pairs: list[dict[str, Any]] = []
    for record, texts, own, usable in zip(prompts, found.texts, scores, compared.ended, strict=True):
        kept = best_of_n.preferences(texts, own, usable, most)
        with_any += bool(kept)
        told = {key: record[key] for key in ("prompt", "tools", "lang") if record.get(key)}
        for better, worse in kept:
            id = f"{record['id']}#{next(numbers[record['id']])}"
            pairs.append({"id": id, **told, "chosen": texts[better], "rejected": texts[worse]})
    write_lines(file, pairs)
    return len(pairs), with_any


def measure(name: str, own: BestOfNConfig, context: Context) -> None:
    """Writes a stage's `best_of_n.json`, and the answers next to it.

    Raises:
      ConfigError: a reward model whose tokenizer differs from the policy's.
      UserError: see `read_prompts`, `questions_of`, `RewardModel.load`.
    """
    folder, devices = context.workdir / name, list(context.shapes.mesh.devices.flat)
    policy = Session.load(str(context.find(own.policy).path), "float32", devices)
    key = f"config '{name}.best_of_n.max_new_tokens'"
    questions = [
        question
        for path in own.prompts.values()
        for question in questions_of(read_prompts(path, own.limit), policy, own.max_new_tokens, key)
    ]
    scorers: dict[str, Scorer] = {}
    for reward in own.rewards:
        model = RewardModel.load(str(context.find(reward).path), "float32", devices)
        model.check(policy.tokenizer)
        scorers[reward] = dataclasses.replace(model, batch_size=_AT_ONCE, one_width=True)
    log.info("%s: best of %d of %d prompts, chosen by %s", name, own.n, len(questions), ", ".join(own.rewards))
    judge, at = verify({RECORD: 1.0}), best_of_n.sizes(own.n)
    found = compare(policy, questions, scorers, judge, own.rollout(), at, context.shapes.seed)
    write_samples(folder / "best_of_n.samples.jsonl", questions, found)
    about = {"policy": own.policy, "judge": RECORD}
    write_json(folder / RESULT, about | found.to_dict() | {"settings": to_dict(own)})
