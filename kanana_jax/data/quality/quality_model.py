"""Reference to a classifier in a filter's config; `data/quality/` trains and runs them."""

import dataclasses
from typing import Literal

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
