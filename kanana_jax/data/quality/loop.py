"""Kanana's edu filter (arXiv:2502.18934, §2.1): a classifier of educational text, trained in rounds.

Most documents are not educational, so a random sample contains few good ones. Each round trains on the labels so far,
scores the pool, has the best-scored unlabelled documents labelled, and adds the good ones among them to the training
set. The paper states neither sizes nor thresholds; here they are config values.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from kanana_jax import languages
from kanana_jax.config import fingerprint
from kanana_jax.data.arrays.characters import normalise
from kanana_jax.data.quality import documents, training
from kanana_jax.data.quality import labels as labels_lib
from kanana_jax.data.quality.classifier import Classifier, ClassifierConfig
from kanana_jax.data.read import records
from kanana_jax.data.read.record import Record
from kanana_jax.errors import UserError
from kanana_jax.files import load_json, write_json

BATCH = 256
SHOWN = 20  # documents on either side of the threshold in the report
EXCERPT = 800


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """Config of the rounds.

    Attributes:
      pool: the documents, as `records.read` patterns.
      lang: language of documents without one.
      good_from: the least label of a good document; 3 as in FineWeb-Edu.
      seed_documents: number of random documents labelled before the first round.
      evaluation_documents: number of random documents that are labelled and never trained on, for the curves.
      candidates: number of best-scored documents labelled in each round.
      add_others: whether to train on candidates that turn out not to be good as well; the paper adds the good ones.
      rounds: number of rounds.
      seed: seed of the random documents.
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
            raise ValueError("pool must name documents")


def run(
    config: LoopConfig,
    classifier: ClassifierConfig,
    labels: labels_lib.Labels,
    output: pathlib.Path,
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Runs all rounds; finished ones are skipped. Writes `round<K>/model.bin` and `report.json`.

    Raises:
      ConfigError: `output` was started with another config, or on other documents.
      UserError: the pool has too few documents, or an annotator fails.
    """
    report_file = output / "report.json"
    digest = fingerprint({"loop": dataclasses.asdict(config), "classifier": dataclasses.asdict(classifier)})
    before, known = documents.begun(report_file)
    pool = documents.Pool(config.pool, known)
    rounds: list[dict[str, Any]] = []
    if before is not None:
        documents.check_same(output, before, known, digest, pool)
        rounds = before["rounds"]
    count = config.evaluation_documents + config.seed_documents
    drawn = documents.sample(labels.checked(_in_language(pool, config)), count, f"quality {config.seed}")
    if len(drawn) <= config.evaluation_documents:
        raise UserError(f"the pool has {len(drawn)} documents: fewer than the config samples from it")
    evaluation = _labelled(drawn[: config.evaluation_documents], labels, config)
    examples = _labelled(drawn[config.evaluation_documents :], labels, config)
    taken = {documents.key_of(r) for r in drawn}
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
        best, share, shown = _score_pool(_in_language(pool, config), model, report["threshold"], taken, config)
        found = [] if last else _labelled(best, labels, config)
        if not done:
            good = sum(e.good for e in found)
            report |= {"pool_kept": share, "asked": 0 if last else len(best), "found": good}
            rounds.append(report)
            about = {"config_hash": digest, "inputs": [origin.row for origin in pool.origins]}
            write_json(report_file, {**about, "rounds": rounds, "good_from": config.good_from, "shown": shown})
        taken |= {documents.key_of(r) for r in best}
        examples += [e for e in found if e.good or config.add_others]
    return load_json(report_file)


def _in_language(pool: documents.Pool, config: LoopConfig) -> Iterator[Record]:
    return (item if "lang" in item or not config.lang else {**item, "lang": config.lang} for item in pool)


def _labelled(found: Iterable[Record], labels: labels_lib.Labels, config: LoopConfig) -> list[training.Example]:
    found = list(found)
    return [
        training.Example(record, label >= config.good_from)
        for record, label in zip(found, labels(found))
        if label is not None
    ]


def _score_pool(
    pool: Iterable[Record], model: Classifier, threshold: float, taken: set[documents.Key], config: LoopConfig
) -> tuple[list[Record], float, dict[str, list[dict[str, Any]]]]:
    """The best-scored documents that are not in `taken`, the share above the threshold, and examples of both sides."""
    best, shown = documents.Least(config.candidates), {side: documents.Least(SHOWN) for side in ("kept", "dropped")}
    kept = total = 0
    for batch in records.batches(pool, BATCH):
        scores = np.nan_to_num(model([normalise(r["text"]) for r in batch]), nan=-1.0)
        for record, score in zip(batch, scores.tolist()):
            total += 1
            kept += score >= threshold
            about = {key: record[key] for key in ("id", "source")} | {"score": round(score, 4)}
            side = shown["kept" if score >= threshold else "dropped"]
            order = documents.order_of(record["id"], "shown")
            side.add((order,), record, {**about, "text": record["text"][:EXCERPT]})
            if documents.key_of(record) not in taken:
                best.add((-score, -documents.order_of(record["id"], "best")), record, record)
    return best.values(), kept / max(total, 1), {side: found.values() for side, found in shown.items()}
