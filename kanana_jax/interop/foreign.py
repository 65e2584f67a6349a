"""Untrusted JSON: bounded, checked by key and type, each refusal one sentence that names the file and the key."""

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
      UserError: unreadable, too large, not JSON, or another value than an object.
    """
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise UserError(f"{file} is larger than {_MOST_BYTES >> 20} MB, too large for a file of this kind")
        return parse_object(file.read_bytes(), str(file))
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}): fix the file") from error


def parse_object(text: bytes, where: str) -> dict[str, Any]:
    """Like `read_object`, of bytes in memory."""
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
    """A value for an error message."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def plain(name: str) -> str:
    """An untrusted name for an error message: without line ends and control characters."""
    return short(name)[1:-1]


class Fields:
    """Values of an object by key and type; a bool is no number, and a string is neither.

    Args:
      values: the object.
      where: its file, for messages.
      defaults: of keys that may be missing.
    """

    def __init__(self, values: dict[str, Any], where: str, defaults: dict[str, Any] | None = None):
        self.values, self.where, self.defaults = values, where, defaults or {}

    def given(self, key: str) -> Any:
        """The value, or None where the key is missing or null."""
        return self.values.get(key)

    def integer(self, key: str, most: int, default: int = _MISSING, *, least: int = 1, null: bool = False) -> int:
        """An integer in `[least, most]`.

        Args:
          default: of a missing key; without one (and none in `defaults`) the key must be there.
          null: whether null means `default` too.
        """
        value = self._value(key, default, null)
        if type(value) is not int:
            raise self.refusal(key, "an integer")
        if not least <= value <= most:
            raise self.refusal(key, f"an integer between {least} and {most}")
        return value

    def number(self, key: str, default: float = _MISSING, *, least: float = 0.0, above: bool = False) -> float:
        """A finite number of at least `least` (`above`: more than it) that float32 can hold."""
        value = self._value(key, default, False)
        if type(value) not in (int, float) or not abs(value) <= 1e30 or not math.isfinite(value):
            raise self.refusal(key, "a number")
        if value < least or (above and value == least):
            raise self.refusal(key, f"{'more than' if above else 'at least'} {least:g}")
        return float(value)

    def flag(self, key: str) -> bool:
        """A bool; null is False, and a missing one too where `defaults` has none."""
        value = self.values.get(key, self.defaults.get(key))
        if value is not None and type(value) is not bool:
            raise self.refusal(key, "true or false")
        return bool(value)

    def table(self, key: str) -> dict[str, Any]:
        """An object; missing and null are empty."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, dict):
            raise self.refusal(key, "an object of keys")
        return value or {}

    def refusal(self, key: str, wanted: str) -> UserError:
        return UserError(f"{self.where}: {key} = {short(self.values.get(key))} is not supported; it must be {wanted}")

    def _value(self, key: str, default: Any, null: bool) -> Any:
        fallback = self.defaults.get(key, default)
        value = self.values.get(key, fallback)
        if value is None and null:
            value = default
        if value is _MISSING:
            raise UserError(f"{self.where}: key '{key}' is missing; is this a complete config.json?")
        return value
