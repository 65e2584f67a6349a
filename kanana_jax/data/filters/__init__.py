"""Filters: pure functions of a record and a frozen config that measure a document, judge it and cut it.

`signals.measure` turns a text into numbers, `rules` compares these with thresholds; everything below works on whole
arrays of characters.
"""

from kanana_jax.data.filters.rules import (
    Filter,
    FilterConfig,
    Filters,
    Rule,
    Verdict,
    check_names,
    check_select,
    keep_all,
)

__all__ = ["Filter", "FilterConfig", "Filters", "Rule", "Verdict", "check_names", "check_select", "keep_all"]
