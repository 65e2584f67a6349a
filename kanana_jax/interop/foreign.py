"""Reading of untrusted JSON: limited in size and checked by key and type; errors name the file and the key."""

import json
import math
import pathlib
from typing import Any

from kanana_jax.errors import UserError

_MOST_BYTES = 64 << 20  # the index of a model of a million tensors
_MISSING: Any = object()


def read_object(file: pathlib.Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
      UserError: the file cannot be read, is too large, is not JSON, or holds another value than an object.
    """
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise UserError(f"{file} is larger than {_MOST_BYTES >> 20} MB, too large for a file of this kind")
        return parse_object(file.read_bytes(), str(file))
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}): fix the file") from error


def parse_object(text: bytes, where: str) -> dict[str, Any]:
    """Like `read_object`, for bytes in memory; `where` names them in messages."""
    try:
        value = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:150]
        raise UserError(f"{where} is not whole JSON ({reason}): fetch it again") from error
    if not isinstance(value, dict):
        raise UserError(f"{where} holds {short(value)} where an object of keys should be: fetch it again")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {short(next(n for n in found if names.count(n) > 1))} occurs twice")
    return found


def short(value: Any) -> str:
    """A value for an error message, cut to 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def plain(name: str) -> str:
    """An untrusted name for an error message, with line breaks and control characters escaped."""
    return short(name)[1:-1]


class Fields:
    """Typed access to the values of a JSON object. A bool does not count as a number.

    Methods that return a value, except `given`, raise UserError if it is missing or has another type or range.

    Args:
      values: the object.
      where: its file, for messages.
      defaults: values of keys that may be missing.
    """

    def __init__(self, values: dict[str, Any], where: str, defaults: dict[str, Any] | None = None):
        self.values, self.where, self.defaults = values, where, defaults or {}

    def given(self, key: str) -> Any:
        """The value, or None if the key is missing or null."""
        return self.values.get(key)

    def integer(self, key: str, most: int, default: int = _MISSING, *, least: int = 1, null: bool = False) -> int:
        """An integer in `[least, most]`.

        Args:
          default: value of a missing key; without it (and without an entry in `defaults`) the key is required.
          null: whether null also means `default`.
        """
        value = self._value(key, default, null)
        if type(value) is not int:
            raise self.refusal(key, "an integer")
        if not least <= value <= most:
            raise self.refusal(key, f"an integer between {least} and {most}")
        return value

    def number(self, key: str, default: float = _MISSING, *, least: float = 0.0, above: bool = False) -> float:
        """A finite number within float32's range that is at least `least`, or with `above` greater than `least`."""
        value = self._value(key, default, False)
        if type(value) not in (int, float) or not abs(value) <= 1e30 or not math.isfinite(value):
            raise self.refusal(key, "a number")
        if value < least or (above and value == least):
            raise self.refusal(key, f"{'more than' if above else 'at least'} {least:g}")
        return float(value)

    def flag(self, key: str) -> bool:
        """A bool; False for null, and for a missing key that is not in `defaults`."""
        value = self.values.get(key, self.defaults.get(key))
        if value is not None and type(value) is not bool:
            raise self.refusal(key, "true or false")
        return bool(value)

    def table(self, key: str) -> dict[str, Any]:
        """An object; empty if the key is missing or null."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, dict):
            raise self.refusal(key, "an object of keys")
        return value or {}

    def refusal(self, key: str, wanted: str) -> UserError:
        """The error that refuses the value of a key; `wanted` completes the sentence 'it must be …'."""
        return UserError(f"{self.where}: {key} = {short(self.values.get(key))} is not supported; it must be {wanted}")

    def _value(self, key: str, default: Any, null: bool) -> Any:
        fallback = self.defaults.get(key, default)
        value = self.values.get(key, fallback)
        if value is None and null:
            value = default
        if value is _MISSING:
            raise UserError(f"{self.where}: key '{key}' is missing; is this a complete config.json?")
        return value
