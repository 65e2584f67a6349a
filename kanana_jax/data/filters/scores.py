"""What models and look-ups say of documents, beside the signals of their text: only what a config asks for."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from kanana_jax.data.filters import language, pii

QUALITY = "quality."
LANGUAGE, PII = "language", "pii"
Text = Literal["raw", "word", "character"]
LABEL = "__label__"  # fastText's prefix
GOOD = f"{LABEL}good"


@dataclasses.dataclass(frozen=True)
class QualityModel:
    """A trained or a published model, as filters name it.

    Attributes:
      path: `.bin` file of fastText.
      text, max_characters: as in `ClassifierConfig`; they must be those of its training.
      label: the label whose probability is the score; empty: labels are numbers and the score is their expectation.
      sha256: of the file; if given, no other file is read.
    """

    path: str
    text: Text = "word"
    max_characters: int = 4000
    label: str = GOOD
    sha256: str = ""


@functools.lru_cache(8)
def _classifier(model: QualityModel):
    """A model is read once in a process, however many filters it serves; fastText only where one is named."""
    from kanana_jax.data.quality.classifier import Classifier

    return Classifier(model)


class Scorer:
    """Normalised texts → scores by name.

    `language`: share of the text in the language that is wanted. `pii`: personal data. `quality.NAME`: a classifier's.
    """

    def __init__(self, wanted: str, count_pii: bool, quality: Mapping[str, QualityModel]):
        self._language, self._pii, self._quality = wanted, count_pii, dict(quality)
        for model in self._quality.values():
            _classifier(model)
        self.names = names(wanted, count_pii, quality)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """float64 `[N, len(names)]`."""
        columns = {}
        if self._language:
            columns[LANGUAGE] = language.shares(texts, self._language)
        if self._pii:
            columns[PII] = np.array([len(pii.find(text)) for text in texts], np.float64)
        for name, model in self._quality.items():
            columns[QUALITY + name] = _classifier(model)(texts)
        return np.stack([columns[name] for name in self.names], axis=1) if columns else np.zeros((len(texts), 0))


def names(wanted: str, count_pii: bool, quality: Mapping[str, QualityModel]) -> tuple[str, ...]:
    """The scores that a config asks for, in their order."""
    found = ((LANGUAGE,) if wanted else ()) + ((PII,) if count_pii else ())
    return (*found, *(QUALITY + name for name in quality))
