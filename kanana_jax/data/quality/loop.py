"""The edu filter of Kanana (arXiv:2502.18934, §2.1), trained again and again.

Most documents teach nothing, so a random sample holds few good ones. Each round trains on the labels that there are,
scores the pool, has the best-scored documents labelled that nobody has labelled yet, and adds the good ones among them
to the training set. The paper states neither sizes nor thresholds; here they are config.
"""

import dataclasses
import heapq
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from kanana_jax import languages
from kanana_jax.config import fingerprint
from kanana_jax.data.arrays.characters import normalise
from kanana_jax.data.quality import annotate, training
from kanana_jax.data.quality.classifier import Classifier, ClassifierConfig
from kanana_jax.data.read import records
from kanana_jax.data.read.record import Record
from kanana_jax.errors import ConfigError, UserError
from kanana_jax.files import load_json, write_json

BATCH = 256
SHOWN = 20  # documents on either side of the threshold in the report
EXCERPT = 800


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """The rounds.

    Attributes:
      pool: documents, `records.read` patterns.
      lang: of documents that do not say theirs.
      good_from: label from which a document is good; 3 as FineWeb-Edu.
      seed_documents: drawn at random and labelled before the first round.
      evaluation_documents: drawn at random, labelled, and never trained on: the curves are theirs.
      candidates: best-scored documents that are labelled in each round.
      add_others: whether candidates found not to be good are trained on too; the paper adds the good ones.
      rounds: how many times a model is trained.
      seed: of what is drawn.
    """

    pool: tuple[str, ...]
    lang: str = ""
    good_from: int = 3
    seed_documents: int = 500
    evaluation_documents: int = 500
    candidates: int = 500
    add_others: bool = False
    rounds: int = 3
    seed: int = 0

    def __post_init__(self):
        object.__setattr__(self, "lang", languages.tag(self.lang))
        if min(self.seed_documents, self.evaluation_documents, self.candidates, self.rounds) < 1:
            raise ValueError("seed_documents, evaluation_documents, candidates and rounds must be at least 1")
        if not self.pool:
            raise ValueError("pool names no documents")


def run(
    config: LoopConfig,
    classifier: ClassifierConfig,
    labels: annotate.Labels,
    output: pathlib.Path,
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Runs all rounds; finished ones are skipped. Writes `round<K>/model.bin` and `report.json`.

    Raises:
      ConfigError: `output` was begun with another config.
      UserError: the pool holds too little, or an annotator fails.
    """
    report_file = output / "report.json"
    digest = fingerprint({"loop": dataclasses.asdict(config), "classifier": dataclasses.asdict(classifier)})
    rounds: list[dict[str, Any]] = []
    if report_file.is_file():
        before = load_json(report_file)
        if before["config_hash"] != digest:
            raise ConfigError(f"{output} was begun with another config: use that, or name another --output")
        rounds = before["rounds"]
    output.mkdir(parents=True, exist_ok=True)
    drawn = annotate.sample(
        documents(config), config.evaluation_documents + config.seed_documents, f"quality {config.seed}"
    )
    if len(drawn) <= config.evaluation_documents:
        raise UserError(f"the pool has {len(drawn)} documents: fewer than are to be drawn from it")
    evaluation = _labelled(drawn[: config.evaluation_documents], labels, config)
    examples = _labelled(drawn[config.evaluation_documents :], labels, config)
    taken = {r["id"] for r in drawn}
    for number in range(config.rounds):
        folder = output / f"round{number}"
        done = number < len(rounds)
        if done:
            model = Classifier(training.classifier.QualityModel(**rounds[number]["model"]))
            report = rounds[number]
        else:
            progress(f"round {number}: training on {len(examples)} documents")
            model, report = training.fit(examples, evaluation, classifier, folder / "model.bin")
        last = number + 1 == config.rounds
        if done and last:
            break
        progress(f"round {number}: scoring the pool")
        best, share, shown = _score_pool(documents(config), model, report["threshold"], taken, config)
        found = [] if last else _labelled(best, labels, config)
        if not done:
            good = sum(e.good for e in found)
            report |= {"pool_kept": share, "asked": 0 if last else len(best), "found": good}
            rounds.append(report)
            everything = {"config_hash": digest, "rounds": rounds, "good_from": config.good_from, "shown": shown}
            write_json(report_file, everything)
        taken |= {r["id"] for r in best}
        examples += [e for e in found if e.good or config.add_others]
    return load_json(report_file)


def documents(config: LoopConfig) -> Iterator[Record]:
    """The pool, with broken lines passed over."""
    for pattern in config.pool:
        for item in records.read(pattern, source=pathlib.Path(pattern).name.split(".")[0]):
            if isinstance(item, dict):
                yield item if "lang" in item or not config.lang else {**item, "lang": config.lang}


def _labelled(found: Iterable[Record], labels: annotate.Labels, config: LoopConfig) -> list[training.Example]:
    found = list(found)
    known = labels(found)
    return [training.Example(r, known[r["id"]] >= config.good_from) for r in found if r["id"] in known]


def _score_pool(pool: Iterable[Record], model: Classifier, threshold: float, taken: set[str], config: LoopConfig):
    """The best-scored documents that are not taken, the share of the pool that is kept, and some of each side."""
    best: list[tuple[float, int, str, Record]] = []
    shown: dict[str, list] = {"kept": [], "dropped": []}
    kept = total = 0
    for batch in records.batches(pool, BATCH):
        scores = np.nan_to_num(model([normalise(r["text"]) for r in batch]), nan=-1.0)
        for record, score in zip(batch, scores.tolist()):
            total += 1
            kept += score >= threshold
            order = annotate.order_of(record["id"], "shown")
            side = shown["kept" if score >= threshold else "dropped"]
            entry = (-order, record["id"], {"id": record["id"], "source": record["source"], "score": round(score, 4),
                                            "text": record["text"][:EXCERPT]})  # fmt: skip
            (heapq.heappush if len(side) < SHOWN else heapq.heappushpop)(side, entry)
            if record["id"] not in taken:
                item = (score, annotate.order_of(record["id"], "best"), record["id"], record)
                (heapq.heappush if len(best) < config.candidates else heapq.heappushpop)(best, item)
    ordered = [x[-1] for x in sorted(best, key=lambda x: x[:3], reverse=True)]
    examples = {
        side: [x[-1] for x in sorted(found, key=lambda x: x[:2], reverse=True)] for side, found in shown.items()
    }
    return ordered, kept / max(total, 1), examples
