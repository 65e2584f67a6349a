"""A correction for asking about many tasks at once.

Benjamini and Hochberg (1995): of the findings that survive, at most a twentieth are false on average; where nothing is
to be found at all, a false finding occurs in one table of twenty. Holm's correction, which keeps that promise for every
single finding, would leave nothing of nineteen tasks with four families. The tests are dependent, but mostly
positively, for which the procedure holds too (Benjamini and Yekutieli 2001).
"""

import math
from collections.abc import Hashable, Mapping
from typing import TypeVar

from scipy import stats

LEVEL = 0.05
Key = TypeVar("Key", bound=Hashable)


def adjusted(p: Mapping[Key, float | None]) -> dict[Key, float]:
    """p-values corrected for their number; tests without one (None, NaN) are left out."""
    known = {key: min(1.0, max(0.0, value)) for key, value in p.items() if value is not None and math.isfinite(value)}
    return dict(zip(known, map(float, stats.false_discovery_control(list(known.values()))))) if known else {}
