"""Conversations and preference pairs for answers from documents, made from the documents themselves (Kanana, Figure 6).

DIR/<stage>/blocks/NNNNNN.json   the results of one block of passages; a stopped stage continues after the last
DIR/<stage>/conversations.jsonl  for `configs/sft.py`
DIR/<stage>/pairs.jsonl          for `configs/dpo.py`
DIR/<stage>/rag_data.json        the counts

The writer is the model that the stage starts from, through the sampler of all stages (`inference/rollout.py`), or an
endpoint, whose replies are kept. Random choices in a block depend only on the seed and the block's number, so a resumed
stage writes the same bytes.
"""

import dataclasses
import hashlib
import importlib.util
import json
import logging
import pathlib
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import jax
import numpy as np

from kanana_jax.applications import claims, passages, words
from kanana_jax.applications.grounded_qa import COUNTS, Ground, QaConfig, Write, make
from kanana_jax.data.tokens.chat import encode_chat
from kanana_jax.errors import ConfigError, UserError, install
from kanana_jax.evaluation.grading import JudgeConfig, Replies
from kanana_jax.files import read_json, remove_tree, write_json, write_lines
from kanana_jax.inference.rollout import RolloutConfig, rollout
from kanana_jax.inference.session import Session
from kanana_jax.interop import model_folder
from kanana_jax.stages import rag_data_chapter
from kanana_jax.stages.kind import Context, Kind, StageConfig
from kanana_jax.training.preemption import Preempted, termination

log = logging.getLogger("kanana")
Json = dict[str, Any]
CONVERSATIONS, PAIRS = "conversations.jsonl", "pairs.jsonl"
_BLOCKS, _ABOUT = "blocks", "about.json"
_FREE = ("max_requests", "concurrency", "timeout", "attempts")  # of an endpoint: they do not change its replies


@dataclasses.dataclass(frozen=True, kw_only=True)
class RagDataConfig:
    """The section `rag_data` of a stage.

    Attributes:
      documents: a file, folder or address.
      passages: most passages, drawn by the recipe's seed.
      characters: most characters of a passage.
      qa: settings for questions and answers, and for those kept.
      grounding: `words`: the share of an answer's words found in its passage; `claims`: the share of its claims that
        a judge finds supported. A small model is not a judge.
      rollout: sampling by the stage's model as the writer; one answer each.
      seq_len: tokens of a prompt and its answer together; a longer prompt gets no reply.
      endpoint: the endpoint that writes and judges; None: the model does.
      block: passages that are processed together.
    """

    documents: str
    passages: int = 1000
    characters: int = 600
    qa: QaConfig = QaConfig()
    grounding: Literal["words", "claims"] = "claims"
    rollout: RolloutConfig = RolloutConfig(samples=1)
    seq_len: int = 2048
    endpoint: JudgeConfig | None = None
    block: int = 32

    def __post_init__(self):
        if self.passages < 1 or self.block < 1 or self.characters < 50:
            raise ValueError("passages and block must be at least 1, and characters at least 50")
        if self.rollout.samples != 1:
            raise ValueError("rollout.samples must be 1: one reply to each text")
        if self.rollout.max_new_tokens >= self.seq_len:
            raise ValueError("rollout.max_new_tokens leaves no room for a prompt in seq_len")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RagDataStage(StageConfig):
    """A stage of this kind; it starts from the model that writes."""

    rag_data: RagDataConfig


def check(config: RagDataStage) -> None:
    """Refuses to start where a package is missing.

    Raises:
      UserError: names the package.
    """
    if config.rag_data.grounding == "words":
        for package in ("bm25s", "Stemmer", "kiwipiepy"):
            if importlib.util.find_spec(package) is None:
                raise UserError(f"config 'rag_data.grounding' is 'words', which needs {package}: {install('rag')}")


def run(name: str, config: RagDataStage, context: Context) -> None:
    """Makes the missing blocks, and joins all of them.

    Raises:
      Preempted: asked to stop; whole blocks stay.
      ConfigError: several processes, or rows beyond the model's length.
      UserError: no documents, an endpoint that refuses, or a folder that was started with other values.
    """
    own, folder, found = config.rag_data, context.workdir / name, context.find(config.start)
    if jax.process_count() > 1:
        raise ConfigError(f"stage '{name}' of kind '{config.kind}' runs in one process: start it on one host")
    if own.seq_len > found.architecture.max_seq_len:
        raise ConfigError(
            f"config '{name}.rag_data.seq_len' is {own.seq_len}, beyond the model's {found.architecture.max_seq_len}"
        )
    read = passages.of_folder(own.documents, own.characters)
    order = np.random.default_rng(context.shapes.seed).permutation(len(read.passages))[: own.passages]
    chosen = [read.passages[i] for i in sorted(order.tolist())]
    texts = json.dumps([[p.id, p.searched, *p.questions] for p in read.passages])
    about = json.loads(json.dumps({
        "model": model_folder.fingerprint(found),
        "seed": context.shapes.seed,
        "documents": hashlib.sha256(texts.encode()).hexdigest(),
        **{key: value for key, value in dataclasses.asdict(own).items() if key != "documents"},
    }))  # fmt: skip
    if about["endpoint"]:
        about["endpoint"] = {key: value for key, value in about["endpoint"].items() if key not in _FREE}
    _check_begun(folder, about)
    writer = _Writer(own, str(found.path), folder, context)
    blocks = range(0, len(chosen), own.block)
    with termination() as terminated:
        for number, start in enumerate(blocks):
            file = folder / _BLOCKS / f"{number:06d}.json"
            if file.is_file():
                continue
            if terminated():
                raise Preempted(
                    f"stage '{name}' was stopped after {number} of {len(blocks)} blocks: run the same command "
                    "again to resume"
                )
            log.info("%s: block %d of %d", name, number + 1, len(blocks))
            rng = np.random.default_rng([context.shapes.seed, number])
            made = make(
                chosen[start : start + own.block], read.passages, own.qa, writer.of(number), writer.ground(), rng
            )
            write_json(file, dataclasses.asdict(made), indent=None)
    _finish(folder, len(blocks), {"documents": read.documents, "passages_found": len(read.passages)})


def _check_begun(folder: pathlib.Path, about: Json) -> None:
    """Records the values that determine the blocks, or compares them with those of an earlier start."""
    before = read_json(folder / _ABOUT)
    if before is None:
        write_json(folder / _ABOUT, about)
        return
    if before.get("endpoint"):
        before["endpoint"] = {key: value for key, value in before["endpoint"].items() if key not in _FREE}
    other = sorted(key for key in about.keys() | before.keys() if about.get(key) != before.get(key))
    if other:
        raise UserError(f"{folder} was started with other {' and '.join(other)}: restore them, or delete the folder")


def _finish(folder: pathlib.Path, blocks: int, about: Json) -> None:
    """Joins the blocks into one file of each kind, writes their counts, and deletes the blocks."""
    made = [read_json(folder / _BLOCKS / f"{number:06d}.json") for number in range(blocks)]
    for name, key in ((CONVERSATIONS, "conversations"), (PAIRS, "pairs")):
        write_lines(folder / name, (row for block in made for row in block[key]))
    counts = Counter(dict.fromkeys(COUNTS, 0))
    for block in made:
        counts.update(block["counts"])
    shown = [row for block in made for row in block["pairs"]][: rag_data_chapter.SHOWN]
    write_json(folder / rag_data_chapter.RESULT, {**about, "counts": dict(counts), "shown": shown})
    remove_tree(folder / _BLOCKS)


class _Writer:
    """The model or the endpoint; a model is loaded at its first use.

    Args:
      path: path of the model.
      folder: the stage's folder, which keeps an endpoint's replies.
    """

    def __init__(self, config: RagDataConfig, path: str, folder: pathlib.Path, context: Context):
        self._config, self._path, self._context = config, path, context
        self._session: Session | None = None
        self._replies = None if config.endpoint is None else Replies(config.endpoint, folder / "replies.jsonl")

    def of(self, block: int) -> Write:
        """The writer of a block."""
        if self._replies is not None:
            ask = claims.by_endpoint(self._replies)
            return lambda texts, step, cut: ask(texts)
        return lambda texts, step, cut: self._write(texts, block, step, cut)

    def ground(self) -> Ground:
        """The grounding of answers in their passages."""
        if self._config.grounding == "words":
            return by_words
        ask: claims.Ask
        if self._replies is not None:
            ask = claims.by_endpoint(self._replies)
        else:
            ask = lambda texts: claims.by_model(self._loaded())(texts)  # noqa: E731
        return by_claims(ask)

    def _loaded(self) -> Session:
        if self._session is None:
            devices = list(self._context.shapes.mesh.devices.flat)
            self._session = Session.load(self._path, "float32", devices)
        return self._session

    def _write(self, texts: Sequence[str], block: int, step: int, cut: bool) -> list[str]:
        session, own = self._loaded(), self._config
        ids = [encode_chat(session.tokenizer, [{"role": "user", "content": text}]) for text in texts]
        width = own.seq_len - own.rollout.max_new_tokens
        fits = [i for i, one in enumerate(ids) if len(one) <= width]
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(self._context.shapes.seed), block), step)
        replies, rows = [""] * len(texts), own.block * own.qa.questions
        if not fits:
            return replies
        # Padded to a fixed number of rows, so that one program serves every step.
        prompts = [ids[fits[i % len(fits)]] for i in range(rows)]
        with jax.set_mesh(session.mesh):
            written = rollout(
                session.params,
                session.model,
                prompts,
                own.rollout,
                stop=session.stop_ids,
                tokens=session.tokenizer.vocab_size,
                key=key,
                width=width,
            )
        for i, (answer,) in zip(fits, written):
            if not (answer.ended or cut):
                continue
            new = answer.ids[:-1] if answer.ended else answer.ids
            replies[i] = session.text_of(ids[i], new, strip_thinking=True)
        return replies


def by_words(answers: Sequence[tuple[str, str]]) -> list[float]:
    """The share of an answer's distinct words that its passage has too; 0 for an answer without words."""
    said = words.morphemes([answer for answer, _ in answers])
    held = words.morphemes([text for _, text in answers])
    return [len(set(own) & set(text)) / len(set(own)) if own else 0.0 for own, text in zip(said, held)]


def by_claims(ask: claims.Ask) -> Ground:
    """The share of an answer's claims that a judge finds supported; 0 for an answer without claims."""

    def ground(answers: Sequence[tuple[str, str]]) -> list[float]:
        split = [claims.split(answer) for answer, _ in answers]
        texts = [claims.request(one.text, [text]) for own, (_, text) in zip(split, answers) for one in own]
        replies = iter(ask(texts) if texts else ())
        verdicts = [[claims.verdict(next(replies)) for _ in own] for own in split]
        return [own.count(claims.SUPPORTED) / len(own) if own else 0.0 for own in verdicts]

    return ground


KIND = Kind(
    "rag_data",
    RagDataStage,
    run,
    result=rag_data_chapter.RESULT,
    records=(CONVERSATIONS, PAIRS),
    chapter=rag_data_chapter.CHAPTER,
    check=check,
    free=tuple(f"rag_data.endpoint.{key}" for key in _FREE),
)
