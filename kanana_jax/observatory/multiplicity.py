"""Correction of p-values for testing many tasks at once.

The procedure of Benjamini and Hochberg (1995) controls the false discovery rate: of the findings that survive, at most
5% are false on average; if there is nothing to find, a false finding occurs in one of twenty tables. Holm's correction,
which bounds the chance of any false finding, would leave no findings for nineteen tasks with four families. The tests
are dependent, but mostly positively, for which the procedure also holds (Benjamini and Yekutieli 2001).
"""

import math
from collections.abc import Hashable, Mapping
from typing import TypeVar

from scipy import stats

LEVEL = 0.05
Key = TypeVar("Key", bound=Hashable)


def adjusted(p: Mapping[Key, float | None]) -> dict[Key, float]:
    """p-values corrected for the number of tests; tests without a p-value (None, NaN) are left out."""
    known = {key: min(1.0, max(0.0, value)) for key, value in p.items() if value is not None and math.isfinite(value)}
    return dict(zip(known, map(float, stats.false_discovery_control(list(known.values()))))) if known else {}
