"""Scores of documents by models and look-ups, besides the signals of their text: only those that a config asks for."""

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from kanana_jax.data.filters import decontamination, pii
from kanana_jax.data.filters.decontamination import Overlap
from kanana_jax.data.quality.quality_model import QualityModel
from kanana_jax.data.read import language

if TYPE_CHECKING:
    from kanana_jax.data.quality.classifier import Classifier

QUALITY = "quality."
LANGUAGE, PII, CONTAMINATION = "language", "pii", "contamination"


@functools.lru_cache(8)
def _classifier(model: QualityModel) -> "Classifier":
    """A model is read once per process, however many filters use it; fastText only if one is named."""
    from kanana_jax.data.quality.classifier import Classifier

    return Classifier(model)


class Scorer:
    """Normalised texts → scores by name.

    `language`: share of the text in the desired language. `pii`: personal data. `contamination`: the largest
    share of an evaluation set in it. `quality.NAME`: a classifier's score.
    """

    def __init__(self, wanted: str, count_pii: bool, evaluation: str, quality: Mapping[str, QualityModel]):
        self._language, self._pii, self._quality = wanted, count_pii, dict(quality)
        self._evaluation = decontamination.opened(evaluation) if evaluation else None
        for model in self._quality.values():
            _classifier(model)
        self.names = names(wanted, count_pii, evaluation, quality)

    def __call__(self, texts: Sequence[str], prose: Sequence[str]) -> tuple[np.ndarray, list[tuple[Overlap, ...]]]:
        """float64 `[N, len(names)]`, and the overlaps of each text with evaluation sets.

        Args:
          prose: the texts without their code, from which the language is identified.
        """
        columns: dict[str, np.ndarray] = {}
        overlaps: list[tuple[Overlap, ...]] = [()] * len(texts)
        if self._evaluation is not None:
            overlaps = self._evaluation.judge(texts)
            columns[CONTAMINATION] = np.array([max((o.share for o in own), default=0.0) for own in overlaps])
        if self._language:
            columns[LANGUAGE] = language.shares(prose, self._language)
        if self._pii:
            columns[PII] = np.array([len(pii.find(text)) for text in texts], np.float64)
        for name, model in self._quality.items():
            columns[QUALITY + name] = _classifier(model)(texts)
        table = np.stack([columns[name] for name in self.names], axis=1) if columns else np.zeros((len(texts), 0))
        return table, overlaps


def names(wanted: str, count_pii: bool, evaluation: str, quality: Mapping[str, QualityModel]) -> tuple[str, ...]:
    """The scores that a config asks for, in order."""
    asked = ((LANGUAGE, wanted), (PII, count_pii), (CONTAMINATION, evaluation))
    return (*(name for name, value in asked if value), *(QUALITY + name for name in quality))
