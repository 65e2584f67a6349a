"""A filter config's reference to a quality classifier; `data/quality/` trains and runs them."""

import dataclasses
from typing import Literal

Text = Literal["raw", "word", "character"]
LABEL = "__label__"  # fastText's prefix
GOOD = f"{LABEL}good"


@dataclasses.dataclass(frozen=True)
class QualityModel:
    """A reference to a trained or published model.

    Attributes:
      path: fastText's `.bin` file.
      text, max_characters: as in `ClassifierConfig`; must equal those used in training.
      label: the label whose probability is the score; empty if labels are numbers, whose expectation is the score.
      sha256: hash of the file; if given, other files are refused.
    """

    path: str
    text: Text = "word"
    max_characters: int = 4000
    label: str = GOOD
    sha256: str = ""
