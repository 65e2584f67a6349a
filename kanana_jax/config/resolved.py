"""The values of a config with its defaults, one per key, and where each comes from."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from kanana_jax.config.sections import join


class Value(NamedTuple):
    """One value of a config.

    Attributes:
      key: its full path, `stage1.train.tokens`.
      value: JSON-safe except for tuples.
      source: `command line`, `file` or `default`.
    """

    key: str
    value: Any
    source: str


def resolved(built: Mapping[str, Any], given: Any, assignments: Sequence[str] = ()) -> list[Value]:
    """Every value of the dataclasses built from a config.

    Args:
      built: a dataclass or plain value for each top-level key.
      given: the `ConfigDict`, after its overrides.
      assignments: the overrides, `a.b=value`.
    """
    changed = {assignment.partition("=")[0] for assignment in assignments}
    return [value for name, part in built.items() for value in _flat(name, part, given, name, changed)]


def _flat(key: str, value: Any, given: Any, name: str, changed: set[str]) -> Iterator[Value]:
    there = hasattr(given, "items") and name in given
    inner = given[name] if there else None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        given_fields = vars(inner) if dataclasses.is_dataclass(inner) else inner
        for field in dataclasses.fields(value):
            if field.init:
                yield from _flat(join(key, field.name), getattr(value, field.name), given_fields, field.name, changed)
    elif isinstance(value, Mapping) and value:
        for inner_name, part in value.items():
            yield from _flat(join(key, inner_name), part, inner, inner_name, changed)
    else:
        overridden = any(key == other or key.startswith(f"{other}.") for other in changed)
        yield Value(key, value, "command line" if overridden else "file" if there else "default")
