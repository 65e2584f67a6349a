"""Training and evaluation of one classifier, shared by `loop` and `pairs`."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from kanana_jax.data.arrays.characters import normalise
from kanana_jax.data.quality import classifier, curves
from kanana_jax.data.quality.classifier import ClassifierConfig, QualityModel
from kanana_jax.data.quality.quality_model import GOOD
from kanana_jax.data.read.record import Record
from kanana_jax.errors import UserError

CURVE_POINTS = 200


@dataclasses.dataclass(frozen=True)
class Example:
    """A labelled document."""

    record: Record
    good: bool


def fit(
    examples: Sequence[Example], evaluation: Sequence[Example], config: ClassifierConfig, path: pathlib.Path
) -> tuple[classifier.Classifier, dict[str, Any]]:
    """Trains on `examples`, evaluates on `evaluation`, and writes the model to `path`.

    Returns:
      The classifier and a report: `model` (for a filter's config), `training` and `evaluation` (numbers of documents
      and of good ones), `average_precision`, `best_f1`, `threshold` (of the best F1), `curve`.

    Raises:
      UserError: good documents or others are missing.
    """
    for name, found in (("training", examples), ("evaluation", evaluation)):
        good = sum(e.good for e in found)
        if not 0 < good < len(found):
            raise UserError(
                f"of {len(found)} {name} documents {good} are good: a classifier needs both kinds; label more of them"
            )
    labels = [GOOD if e.good else classifier.OTHER for e in examples]
    digest = classifier.train([normalise(e.record["text"]) for e in examples], labels, config, path)
    model = QualityModel(str(path), config.text, config.max_characters, GOOD, digest)
    trained = classifier.Classifier(model)
    truth = np.array([e.good for e in evaluation])
    scores = trained([normalise(e.record["text"]) for e in evaluation])
    curve = curves.precision_recall(truth, scores)
    threshold, f1 = curve.best_f1()
    precision, recall = curve.at(threshold)
    return trained, {
        "model": dataclasses.asdict(model),
        "training": {"documents": len(examples), "good": sum(e.good for e in examples)},
        "evaluation": {"documents": len(evaluation), "good": int(truth.sum())},
        "average_precision": round(curve.average_precision, 4),
        "threshold": threshold,
        "best_f1": round(f1, 4),
        "precision": round(precision, 4),
        "recall": round(recall, 4),
        "curve": _thinned(curve),
    }


def _thinned(curve: curves.Curve) -> dict[str, list[float]]:
    at = np.unique(np.linspace(0, len(curve.thresholds) - 1, CURVE_POINTS).astype(int))
    return {"precision": curve.precision[at].round(4).tolist(), "recall": curve.recall[at].round(4).tolist()}
