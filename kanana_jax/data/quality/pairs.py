"""A classifier of two sets of documents, good text against the web, as in DCLM (arXiv:2406.11794, §4.4)."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

from kanana_jax.config import fingerprint
from kanana_jax.data.quality import documents, training
from kanana_jax.data.quality.classifier import ClassifierConfig
from kanana_jax.files import load_json, write_json


@dataclasses.dataclass(frozen=True)
class PairsConfig:
    """The two sets.

    Attributes:
      good: `records.read` patterns of good documents (DCLM: instructions and explanations).
      other: `records.read` patterns of ordinary web documents.
      documents: number of documents sampled from each set, at most; 0 takes all.
      heldout: share of each set that is held out for the evaluation, chosen by a hash of the ids.
      seed: seed of the samples.
    """

    good: tuple[str, ...]
    other: tuple[str, ...]
    documents: int = 100_000
    heldout: float = 0.1
    seed: int = 0

    def __post_init__(self):
        if not self.good or not self.other or not 0 < self.heldout < 1:
            raise ValueError("good and other must name documents, and heldout must lie between 0 and 1")


def run(
    config: PairsConfig,
    classifier: ClassifierConfig,
    output: pathlib.Path,
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Trains and evaluates one model, unless already finished. Writes `model.bin` and `report.json`.

    Raises:
      ConfigError: `output` was started with another config, or on other documents.
      UserError: one of the sets is empty.
    """
    report_file = output / "report.json"
    digest = fingerprint({"pairs": dataclasses.asdict(config), "classifier": dataclasses.asdict(classifier)})
    before, known = documents.begun(report_file)
    pools = {True: documents.Pool(config.good, known), False: documents.Pool(config.other, known)}
    everything = documents.Pool((*config.good, *config.other), pools[True].origins + pools[False].origins)
    if before is not None:
        documents.check_same(output, before, known, digest, everything)
        return before
    parts: dict[bool, list[training.Example]] = {True: [], False: []}
    for good, pool in pools.items():
        found = documents.sample(pool, config.documents, f"pairs {config.seed}") if config.documents else pool
        for record in found:
            place = documents.order_of(record["id"], f"heldout {config.seed}") / 2**64
            parts[place < config.heldout].append(training.Example(record, good))
    progress(f"training on {len(parts[False])} documents, measuring on {len(parts[True])}")
    _, report = training.fit(parts[False], parts[True], classifier, output / "model.bin")
    result = {"config_hash": digest, "inputs": [o.row for o in everything.origins], "rounds": [report]}
    write_json(report_file, result)
    return load_json(report_file)
