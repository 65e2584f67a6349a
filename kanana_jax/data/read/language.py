"""Language identification: CLD2 (Compact Language Detector 2), a naive Bayes over scripts and quads, 10-50 MB/s a core.

It returns the share of a text in each of up to three languages. A rule asks for a share of the one that is wanted, so
that documentation full of English code is still Korean.
"""

import re
from collections.abc import Sequence

import numpy as np

from kanana_jax import languages
from kanana_jax.errors import UserError, install

# CLD2 refuses what is not for interchange: control characters and Unicode's noncharacters.
_REFUSED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufdd0-\ufdef\ufffe\uffff\U0001fffe\U0001ffff]")


def detect(text: str) -> dict[str, float]:
    """Language code → share of the letters, in descending order; letters in no known language are left out.

    Raises:
      UserError: pycld2 is not installed.
    """
    try:
        import pycld2
    except ImportError as error:
        raise UserError(
            f"the filter's `language` needs CLD2: {install('filters')}, or remove it from the config"
        ) from error
    try:
        found = pycld2.detect(text, bestEffort=True)
    except pycld2.error:
        clean = "".join(" " if ord(c) & 0xFFFE == 0xFFFE else c for c in _REFUSED.sub(" ", text))
        found = pycld2.detect(clean, bestEffort=True)
    shares: dict[str, float] = {}
    for _, code, percent, _ in reversed(found[2]):
        if code != "un":  # Hebrew is `iw` to it, and Chinese has two codes
            shares[languages.tag(code)] = shares.get(languages.tag(code), 0.0) + percent / 100
    return shares


def shares(texts: Sequence[str], lang: str) -> np.ndarray:
    """Share of each normalised text in a language (a tag: `ko`, `jpn_Jpan`, `en`, `zh` …), `[N]` in [0, 1]."""
    wanted = languages.tag(lang)
    return np.array([detect(text).get(wanted, 0.0) for text in texts])
