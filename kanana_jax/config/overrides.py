"""Changes to a config from the command line: `a.b=value`, read by the type that the key has in the dataclasses."""

import ast
import dataclasses
import decimal
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kanana_jax.config.sections import convert, fields_of, join, name_of
from kanana_jax.errors import ConfigError, nearest

# A config → the types of its top-level keys, which may depend on its values (stages, by their kind).
Schema = Callable[[Any], Mapping[str, Any]]

_NUMBER = re.compile(r"([+-]?(?:\d[\d_]*(?:\.[\d_]*)?|\.\d[\d_]*)(?:[eE][+-]?\d{1,3})?)([kKMBGT]?)", re.ASCII)
_POWERS = {"": 0, "k": 3, "K": 3, "M": 6, "B": 9, "G": 9, "T": 12}
_NONE = ("none", "None", "null")
_UNKNOWN = object()


def schema_of(cls: type) -> Schema:
    """The schema of a config that is one dataclass."""
    hints = _hints(cls)
    return lambda config: hints


def override(config: Any, assignments: Sequence[str], schema: Schema) -> None:
    """Applies `a.b=value` assignments to a `ConfigDict` in place.

    Every key of the dataclasses can be set, whether the config mentions it or not; missing sections are created.
    Numbers may be written `20M`, `1e9` or `20_000_000`; lists `a,b`, `[1, 2]` or `(1, 2)`; an optional value `none`; a
    mapping as a Python literal, which replaces it.

    Raises:
      ConfigError: malformed assignment, unknown key, or a value of the wrong type.
    """
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigError(f"override '--config.{assignment}' needs a value: --config.{key}=VALUE")
        names = key.split(".")
        _set(config, names, parse(_type_of(names, schema(config)), text, key))


def _type_of(names: Sequence[str], hints: Mapping[str, Any]) -> Any:
    """The type of a key.

    Raises:
      ConfigError: there is no such key, or it is a section.
    """
    seen, hint = "", None
    for i, name in enumerate(names):
        if i:
            hints = _keys(hint, name, seen)
        if name not in hints:
            raise ConfigError(f"unknown config key '{join(seen, name)}': {nearest(name, list(hints))}")
        seen, hint = join(seen, name), hints[name]
    return hint


def _keys(hint: Any, name: str, path: str) -> Mapping[str, Any]:
    """The types of the keys in a section; in a mapping, any `name` is a key."""
    for choice in _choices(hint):
        if dataclasses.is_dataclass(choice):
            return _hints(choice)
        if typing.get_origin(choice) in (dict, Mapping):
            return {name: typing.get_args(choice)[1]}
    raise ConfigError(f"config '{path}' is of type {name_of(hint)} and has no key '{name}'")


def _hints(cls: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in fields_of(cls) if field.init}


def _choices(hint: Any) -> list[Any]:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [choice for choice in typing.get_args(hint) if choice is not type(None)]
    return [hint]


def _set(config: Any, names: Sequence[str], value: Any) -> None:
    from ml_collections import ConfigDict

    section = config
    for name in names[:-1]:
        inner = section.get(name)
        if not isinstance(inner, ConfigDict):
            inner = ConfigDict(dataclasses.asdict(inner) if dataclasses.is_dataclass(inner) else dict(inner or {}))
            _put(section, name, inner)
            inner = section[name]
        section = inner
    _put(section, names[-1], value)


def _put(section: Any, name: str, value: Any) -> None:
    with section.unlocked(), section.ignore_type():
        if name in section:  # a value of another kind cannot be assigned over a section
            del section[name]
        section[name] = value


def parse(hint: Any, text: str, path: str) -> Any:
    """The value of type `hint` that a text stands for.

    Raises:
      ConfigError: the text is not a value of that type, or the key is a section.
    """
    optional = hint is not _choices(hint)[0] and type(None) in typing.get_args(hint)
    if optional and text in _NONE:
        return None
    choices = sorted(_choices(hint), key=lambda choice: choice is str)  # any text is a valid `str`
    if str in choices and not text.startswith(("[", "(")):
        choices = [choice for choice in choices if not _is_list(choice)]
    for choice in choices:
        value = _one(choice, text, path)
        if value is not _UNKNOWN:
            return value
    raise ConfigError(f"config '{path}' must be of type {name_of(hint)}, not {text!r}")


def _one(hint: Any, text: str, path: str) -> Any:
    """The value of a type that is not a union; `_UNKNOWN` if the text is not one."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return _literal(text, text)
    if hint is str:
        return _unquoted(text)
    if hint is bool:
        return {"true": True, "false": False}.get(text.lower(), _UNKNOWN)
    if hint in (int, float):
        return _number(hint, text)
    if origin is typing.Literal:
        return next((arg for arg in args if str(arg) == _unquoted(text)), _UNKNOWN)
    if _is_list(hint):
        items = _items(text)
        return tuple(_item(_element(args, i), item, f"{path}[{i}]") for i, item in enumerate(items))
    literal = _literal(text, None)
    if not isinstance(literal, dict):
        if dataclasses.is_dataclass(hint):
            raise ConfigError(f"config '{path}' is a section: set one of its keys ({', '.join(_hints(hint))})")
        return _UNKNOWN
    if origin in (dict, Mapping):
        convert(hint, literal, path)
    return literal


def _is_list(hint: Any) -> bool:
    return typing.get_origin(hint) in (tuple, list, Sequence)


def _number(hint: type, text: str) -> int | float | object:
    found = _NUMBER.fullmatch(text)
    if found is None:
        return float(text) if hint is float and text in ("inf", "-inf") else _UNKNOWN
    value = decimal.Decimal(found[1].replace("_", "")).scaleb(_POWERS[found[2]])
    if hint is float:
        return float(value)
    return int(value) if abs(value) < 1 << 63 and value == value.to_integral_value() else _UNKNOWN


def _items(text: str) -> Sequence[Any]:
    """The values of a list, kept as text where it is not a Python literal."""
    value = _literal(text, None)
    if isinstance(value, (tuple, list)):
        return value
    inner = text.strip()
    if inner[:1] + inner[-1:] in ("()", "[]"):
        inner = inner[1:-1]
    return [item.strip() for item in inner.split(",") if item.strip()]


def _item(hint: Any, item: Any, path: str) -> Any:
    return parse(hint, item, path) if isinstance(item, str) else convert(hint, item, path)


def _element(args: Sequence[Any], index: int) -> Any:
    """The type of the values in a tuple or list."""
    return args[0] if len(args) == 1 or args[-1] is Ellipsis else args[min(index, len(args) - 1)]


def _literal(text: str, otherwise: Any) -> Any:
    try:
        return ast.literal_eval({"true": "True", "false": "False"}.get(text, text))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return otherwise


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text
