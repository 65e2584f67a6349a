"""Sections of a config as frozen dataclasses, with one clear sentence for each mistake."""

import dataclasses
import hashlib
import json
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from kanana_jax.errors import ConfigError, nearest

Section = TypeVar("Section")


def build(cls: type[Section], values: Mapping[str, Any] | None, path: str) -> Section:
    """Builds the frozen dataclass `cls` from a mapping (a dict or a `ConfigDict`).

    Nested dataclasses, tuples, optional values and `dict[str, T]` are built in the same way. An int is accepted for
    a float; nothing else is converted. A `__post_init__` may raise `ConfigError` or `ValueError` for values that do
    not fit together.

    Args:
      cls: a dataclass.
      values: the section of the config.
      path: the section's key, for messages (`stage1.optimizer`).

    Raises:
      ConfigError: unknown or missing key, wrong type, or values that the class refuses.
    """
    values = {} if values is None else values
    if not isinstance(values, Mapping) and not hasattr(values, "items"):
        raise ConfigError(f"config '{path}' must be a section of keys, not {values!r}")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in fields_of(cls) if f.init}
    given = dict(values.items())
    for key in given:
        if key not in fields:
            raise ConfigError(f"unknown config key '{join(path, key)}': {nearest(key, list(fields))}")
    built = {}
    for name, field in fields.items():
        if name in given:
            built[name] = convert(hints[name], given[name], join(path, name))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"config key '{join(path, name)}' is missing: set it to a {name_of(hints[name])}")
    try:
        return cls(**built)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"config '{path}': {error}") from error


def mistakes(hint: Any, value: Any, path: str) -> list[str]:
    """Every mistake that `convert` finds in a value, one sentence each; `convert` itself stops at the first.

    For values that are valid one by one but do not fit together there is one sentence per section.
    """
    try:
        convert(hint, value, path)
    except ConfigError as error:
        found = _below(hint, value, path)
        return found or [str(error)]
    return []


def _below(hint: Any, value: Any, path: str) -> list[str]:
    """The mistakes in the parts of a value."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _below([a for a in args if a is not type(None)][-1], value, path)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type) and hasattr(value, "items"):
        hints, found = typing.get_type_hints(hint), []
        fields = {f.name: f for f in fields_of(hint) if f.init}
        for key, part in value.items():
            if key in fields:
                found += mistakes(hints[key], part, join(path, key))
            else:
                found.append(f"unknown config key '{join(path, key)}': {nearest(key, list(fields))}")
        return found
    if origin in (dict, Mapping) and hasattr(value, "items"):
        return [mistake for key, part in value.items() for mistake in mistakes(args[1], part, join(path, key))]
    return []


def fields_of(cls: type) -> tuple[dataclasses.Field[Any], ...]:
    """The fields of a dataclass known only as a type."""
    assert dataclasses.is_dataclass(cls), cls
    return dataclasses.fields(cls)


def join(path: str, key: str) -> str:
    """A key's full path."""
    return f"{path}.{key}" if path else key


def name_of(hint: Any) -> str:
    """A type in words, for messages."""
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(repr(a) for a in typing.get_args(hint))
    return getattr(hint, "__name__", str(hint)) if not typing.get_args(hint) else str(hint)


def convert(hint: Any, value: Any, path: str) -> Any:
    """Converts a value of a config to its type; raises `ConfigError` where it has another."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        choices = [a for a in args if a is not type(None)]
        for choice in choices[:-1]:
            try:
                return convert(choice, value, path)
            except ConfigError:
                continue
        return convert(choices[-1], value, path)
    if origin is typing.Literal:
        if value in args:
            return value
        raise ConfigError(f"config '{path}' is {value!r}, but must be {name_of(hint)}")
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else build(hint, value, path)
    if origin in (tuple, list, Sequence):
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise ConfigError(f"config '{path}' must be a list, not {value!r}")
        if origin is tuple and len(args) > 1 and args[-1] is not Ellipsis:
            if len(value) != len(args):
                raise ConfigError(f"config '{path}' must have {len(args)} values, not {len(value)}")
            return tuple(convert(a, v, f"{path}[{i}]") for i, (a, v) in enumerate(zip(args, value)))
        return tuple(convert(args[0], v, f"{path}[{i}]") for i, v in enumerate(value))
    if origin in (dict, Mapping):
        if not hasattr(value, "items"):
            raise ConfigError(f"config '{path}' must be a section of keys, not {value!r}")
        return {k: convert(args[1], v, join(path, k)) for k, v in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    wrongly_bool = hint in (int, float) and isinstance(value, bool)
    if isinstance(hint, type) and isinstance(value, hint) and not wrongly_bool:
        return value
    raise ConfigError(f"config '{path}' must be of type {name_of(hint)}, not {type(value).__name__} ({value!r})")


def to_dict(config: Any) -> dict[str, Any]:
    """A `ConfigDict` or dataclass as plain, JSON-safe Python."""
    if dataclasses.is_dataclass(config):
        config = dataclasses.asdict(config)
    elif hasattr(config, "to_dict"):
        config = config.to_dict()
    return json.loads(json.dumps(config, ensure_ascii=False))


def fingerprint(config: Any) -> str:
    """A short stable hash of any JSON-safe value or config."""
    text = json.dumps(to_dict(config), sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode("utf-8", "backslashreplace"), digest_size=8).hexdigest()
