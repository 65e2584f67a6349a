"""Filters: pure functions of a record and a frozen config that give a reason to drop it, or None."""

from collections.abc import Callable, Mapping
from typing import Any

from kanana_jax.config import ConfigError, build, nearest
from kanana_jax.data.filters.length import LengthConfig, length
from kanana_jax.data.records import Record

Filter = Callable[[Record], str | None]

RULES: dict[str, tuple[type, Callable[[Record, Any], str | None]]] = {"length": (LengthConfig, length)}


def make_filter(config: Mapping[str, Any], path: str) -> Filter:
    """One filter from a config section `{rule: {threshold: value}}`; rules act in the order given.

    Raises:
      ConfigError: unknown rule or threshold.
    """
    steps = []
    for name, values in config.items():
        if name not in RULES:
            raise ConfigError(f"config '{path}.{name}' is no filter: {nearest(name, list(RULES))}")
        cls, rule = RULES[name]
        steps.append((rule, build(cls, values, f"{path}.{name}")))
    return _Cascade(tuple(steps))


class _Cascade:
    """Picklable, so that worker processes can have it."""

    def __init__(self, steps):
        self._steps = steps

    def __call__(self, record: Record) -> str | None:
        for rule, config in self._steps:
            reason = rule(record, config)
            if reason is not None:
                return reason
        return None
