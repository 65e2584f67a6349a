"""fastText classifiers of document quality, trained on two sets of documents or in rounds of labelling."""

import dataclasses
from typing import Literal

from kanana_jax.data.quality.annotate import EndpointConfig
from kanana_jax.data.quality.classifier import Classifier, ClassifierConfig, QualityModel
from kanana_jax.data.quality.loop import LoopConfig
from kanana_jax.data.quality.pairs import PairsConfig

__all__ = ["Classifier", "ClassifierConfig", "JudgeConfig", "QualityConfig", "QualityModel"]


@dataclasses.dataclass(frozen=True)
class JudgeConfig:
    """A local model as the annotator: any MODEL of the command line with a chat template.

    Attributes:
      max_characters: characters of a document that are shown to the model.
    """

    model: str
    max_characters: int = 3000
    max_new_tokens: int = 128
    dtype: Literal["float32", "bfloat16"] = "bfloat16"


@dataclasses.dataclass(frozen=True)
class QualityConfig:
    """The config section `quality`: one classifier from two sets (`pairs`), or rounds of labelling (`loop`).

    Attributes:
      labels: file of labels `{"id", "label"}`, to which new labels are appended; default: `labels.jsonl` in the output
        folder.
      endpoint, judge: the annotator of documents without a label; with neither, only labels in the file are used.
    """

    classifier: ClassifierConfig = ClassifierConfig()
    pairs: PairsConfig | None = None
    loop: LoopConfig | None = None
    labels: str = ""
    endpoint: EndpointConfig | None = None
    judge: JudgeConfig | None = None

    @property
    def documents(self) -> tuple[str, ...]:
        """The documents to read."""
        return (*self.pairs.good, *self.pairs.other) if self.pairs else self.loop.pool if self.loop else ()

    def __post_init__(self):
        if (self.pairs is None) == (self.loop is None):
            raise ValueError("set either pairs or loop")
        if self.endpoint is not None and self.judge is not None:
            raise ValueError("set either endpoint or judge")
        if self.loop is not None and not (self.labels or self.endpoint or self.judge):
            raise ValueError("loop needs labels, an endpoint or a judge")
