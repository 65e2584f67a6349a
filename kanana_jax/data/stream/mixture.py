"""Assignment of rows to sources: pure index arithmetic, no state."""

from collections.abc import Mapping, Sequence

import numpy as np

from kanana_jax.errors import ConfigError, nearest

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio


def normalised(weights: Mapping[str, float], sources: Sequence[str], path: str) -> dict[str, float]:
    """Shares that sum to 1, by name, so the order in a config does not affect rows; sources with weight 0 are left out.

    Raises:
      ConfigError: unknown source, negative weight, or nothing left.
    """
    for name, weight in weights.items():
        if name not in sources:
            raise ConfigError(f"config '{path}.{name}' names an unknown source: {nearest(name, list(sources))}")
        if weight < 0:
            raise ConfigError(f"config '{path}.{name}' is {weight}; weights must not be negative")
    total = sum(weights.values())
    if total <= 0:
        raise ConfigError(f"config '{path}' gives no source a weight above 0")
    return {name: weight / total for name, weight in sorted(weights.items()) if weight > 0}


def source_of_row(row: int | np.ndarray, shares: Sequence[float]) -> np.ndarray:
    """The source index of global row(s).

    Row `g` takes the point `frac(g / φ)` of [0, 1) (a Kronecker sequence with the golden ratio: any
    run of rows meets the shares with a discrepancy of O(log n / n)), cut at the cumulated shares.
    """
    with np.errstate(over="ignore"):
        point = (np.asarray(row, np.uint64) * _GOLDEN).astype(np.float64) / 2.0**64
    edges = np.cumsum(np.asarray(shares, np.float64))
    return np.minimum(np.searchsorted(edges, point, side="right"), len(edges) - 1)
