"""Classifiers of good documents: fastText, trained on pairs of sets or in rounds."""

import dataclasses
from typing import Literal

from kanana_jax.data.quality.annotate import EndpointConfig
from kanana_jax.data.quality.classifier import Classifier, ClassifierConfig, QualityModel
from kanana_jax.data.quality.loop import LoopConfig
from kanana_jax.data.quality.pairs import PairsConfig

__all__ = ["Classifier", "ClassifierConfig", "JudgeConfig", "QualityConfig", "QualityModel"]


@dataclasses.dataclass(frozen=True)
class JudgeConfig:
    """A model of one's own as the annotator: any MODEL of the command line that has a chat template."""

    model: str
    max_characters: int = 3000
    max_new_tokens: int = 128
    dtype: Literal["float32", "bfloat16"] = "bfloat16"


@dataclasses.dataclass(frozen=True)
class QualityConfig:
    """The section `quality`: one model from two sets (`pairs`), or round by round from labels (`loop`).

    Attributes:
      labels: file of labels `{"id", "label"}`; new ones are appended. Empty: `labels.jsonl` in the output folder.
      endpoint, judge: who labels documents that have no label; neither: the file is all there is.
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
