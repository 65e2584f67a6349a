"""A classifier from two sets of documents, as DCLM's (arXiv:2406.11794, §4.4): good text against the web."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

from kanana_jax.config import fingerprint
from kanana_jax.data.quality import annotate, training
from kanana_jax.data.quality.classifier import ClassifierConfig
from kanana_jax.data.read import records
from kanana_jax.data.read.record import Record
from kanana_jax.errors import ConfigError
from kanana_jax.files import load_json, write_json


@dataclasses.dataclass(frozen=True)
class PairsConfig:
    """Two sets.

    Attributes:
      good: `records.read` patterns of documents as they should be (DCLM: instructions and explanations).
      other: of documents as the web has them.
      documents: drawn of each, at most; 0 takes all.
      heldout: share of each that is measured on and never trained on, drawn by a hash of the ids.
      seed: of what is drawn.
    """

    good: tuple[str, ...]
    other: tuple[str, ...]
    documents: int = 100_000
    heldout: float = 0.1
    seed: int = 0

    def __post_init__(self):
        if not self.good or not self.other or not 0 < self.heldout < 1:
            raise ValueError("good and other must name documents, heldout lie between 0 and 1")


def run(
    config: PairsConfig,
    classifier: ClassifierConfig,
    output: pathlib.Path,
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Trains and measures one model; a finished one is not trained again. Writes `model.bin` and `report.json`.

    Raises:
      ConfigError: `output` was begun with another config.
      UserError: one of the sets is empty.
    """
    report_file = output / "report.json"
    digest = fingerprint({"pairs": dataclasses.asdict(config), "classifier": dataclasses.asdict(classifier)})
    if report_file.is_file():
        before = load_json(report_file)
        if before["config_hash"] != digest:
            raise ConfigError(f"{output} was begun with another config: use that, or name another --output")
        return before
    parts: dict[bool, list[training.Example]] = {True: [], False: []}
    for good, patterns in ((True, config.good), (False, config.other)):
        found = _documents(patterns)
        if config.documents:
            found = annotate.sample(found, config.documents, f"pairs {config.seed}")
        for record in found:
            place = annotate.order_of(record["id"], f"heldout {config.seed}") / 2**64
            parts[place < config.heldout].append(training.Example(record, good))
    progress(f"training on {len(parts[False])} documents, measuring on {len(parts[True])}")
    _, report = training.fit(parts[False], parts[True], classifier, output / "model.bin")
    everything = {"config_hash": digest, "rounds": [report]}
    write_json(report_file, everything)
    return everything


def _documents(patterns: tuple[str, ...]) -> Iterator[Record]:
    for pattern in patterns:
        for item in records.read(pattern, source=pathlib.Path(pattern).name.split(".")[0]):
            if isinstance(item, dict):
                yield item
