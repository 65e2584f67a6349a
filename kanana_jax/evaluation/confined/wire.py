"""The protocol between judge and program: values as JSON, which are only data and cannot run code.

None, bools, ints, floats (NaN and infinities as Python writes them), strings and lists are JSON's own; any other kind
is an object with one key: `{"tuple": [...]}`, `{"dict": [[key, value], ...]}`. Values that are not data are sent as
references to objects that stay where they are. Received values have exact built-in types, so that `==` on them is
Python's own.
"""

import json
import os
import sys
from collections.abc import Callable
from typing import Any

MESSAGE_BYTES = 16 << 20
DEPTH = 200
_PLAIN_INT = 1 << 53
_SEQUENCES = {"tuple": tuple, "set": set, "frozenset": frozenset}
_BYTES = {"bytes": bytes, "bytearray": bytearray}
_BASES = (int, float, complex, str, bytes, bytearray, tuple, list, dict, set, frozenset)
TYPES = {t.__name__: t for t in (*_BASES, bool, object, range, type(None))}


class Malformed(Exception):
    """A message that is not valid in this format."""


class NoData(Exception):
    """A value that is not data, or is too deeply nested or too large."""


def send(handle: int, message: object) -> None:
    """Writes one message.

    Raises:
      NoData: it is longer than `MESSAGE_BYTES`, or nested too deeply.
      OSError: the other side is gone.
    """
    try:
        data = json.dumps(message).encode()
    except RecursionError:
        raise NoData("a value is nested too deeply") from None
    if len(data) > MESSAGE_BYTES:
        raise NoData(f"a value of more than {MESSAGE_BYTES >> 20} MB")
    view = memoryview(len(data).to_bytes(8, "big") + data)
    while view:
        view = view[os.write(handle, view) :]


def receive(handle: int) -> Any:
    """Reads one message.

    Raises:
      EOFError: the other side is gone.
      Malformed: it is not JSON, or too long.
    """
    size = int.from_bytes(_read(handle, 8), "big")
    if size > MESSAGE_BYTES:
        raise Malformed(f"a message of {size} bytes")
    try:
        return json.loads(_read(handle, size))
    except (ValueError, RecursionError) as error:
        raise Malformed(str(error)[:200]) from None


def _read(handle: int, size: int) -> bytes:
    parts = []
    while size:
        part = os.read(handle, min(size, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def encode(value: object, refer: Callable[[object], dict], depth: int = DEPTH) -> Any:
    """A value in the JSON form.

    Args:
      refer: makes a reference, an object with one key, for a value that is not data, or raises `NoData`.
      depth: levels of nesting that are allowed.

    Raises:
      NoData: the value is nested deeper than `DEPTH`, as circular values are.
    """
    if depth == 0:
        raise NoData(f"a value that is nested deeper than {DEPTH}, or in a circle")
    kind = type(value)
    if value is None or kind in (bool, float):
        return value
    if kind is str:
        return value if _whole(value) else {"str": value.encode("utf-8", "surrogatepass").hex()}  # ty: ignore
    if kind is int:
        return value if -_PLAIN_INT < value < _PLAIN_INT else {"int": hex(value)}  # ty: ignore
    if kind is list:
        return [encode(v, refer, depth - 1) for v in value]  # ty: ignore
    if kind in (tuple, set, frozenset):
        return {kind.__name__: [encode(v, refer, depth - 1) for v in value]}  # ty: ignore
    if kind is dict:
        return {"dict": [[encode(k, refer, depth - 1), encode(v, refer, depth - 1)] for k, v in value.items()]}  # ty: ignore
    if kind in (bytes, bytearray):
        return {kind.__name__: value.hex()}  # ty: ignore
    if kind is complex:
        return {"complex": [value.real, value.imag]}  # ty: ignore
    if kind is range:
        return {"range": [encode(v, refer) for v in (value.start, value.stop, value.step)]}  # ty: ignore
    if kind is type and TYPES.get(value.__name__) is value:  # ty: ignore
        return {"type": value.__name__}
    if kind.__module__ == "decimal" and kind.__name__ == "Decimal":
        return {"Decimal": str(value)}
    if kind.__module__ == "fractions" and kind.__name__ == "Fraction":
        return {"Fraction": [encode(v, refer) for v in (value.numerator, value.denominator)]}  # ty: ignore
    return refer(value)


def _whole(text: Any) -> bool:
    """Whether a text survives JSON unchanged; two adjacent surrogates would become one character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def base(value: Any) -> Any:
    """The plain data in an object of a subclass (a namedtuple, a Counter, a NumPy number), or the object itself."""
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        return value.item()
    for kind in _BASES:
        if isinstance(value, kind) and type(value) is not bool:
            return kind(kind.__iter__(value)) if kind in (tuple, list, set, frozenset) else _bare(kind, value)
    return value


def _bare(kind: type, value: Any) -> Any:
    if kind is dict:
        return dict(dict.items(value))
    if kind is str:
        return str.__str__(value)
    if kind in (bytes, bytearray):
        return kind(memoryview(value))
    return (
        complex(value.real, value.imag) if kind is complex else (int.__pos__ if kind is int else float.__pos__)(value)
    )


def decode(message: Any, refer: Callable[[int], Any]) -> Any:
    """The value of a message.

    Args:
      refer: maps the number of a reference to an object.

    Raises:
      Malformed: the message is not a value.
    """
    try:
        return _decode(message, refer)
    except (TypeError, ValueError, ArithmeticError, AttributeError, LookupError, RecursionError) as error:
        raise Malformed(f"{type(error).__name__}: {str(error)[:200]}") from None


def _decode(message: Any, refer: Callable[[int], Any]) -> Any:
    kind = type(message)
    if kind is list:
        return [_decode(m, refer) for m in message]
    if kind is not dict:
        return message
    ((name, body),) = message.items()
    if name in _SEQUENCES:
        return _SEQUENCES[name]([_decode(m, refer) for m in _list(body)])
    if name == "dict":
        return {_decode(k, refer): _decode(v, refer) for k, v in _list(body)}
    if name == "str":
        return bytes.fromhex(body).decode("utf-8", "surrogatepass")
    if name == "int":
        return int(body, 16)
    if name in _BYTES:
        return _BYTES[name].fromhex(body)
    if name == "complex":
        return complex(*map(float, body))
    if name == "range":
        return range(*(_decode(m, refer) for m in _list(body)))
    if name == "type":
        return TYPES[body]
    if name == "remote" and type(body) is int:
        return refer(body)
    if name == "Decimal":
        from decimal import Decimal

        return Decimal(body)
    if name == "Fraction":
        from fractions import Fraction

        return Fraction(*(_decode(m, refer) for m in _list(body)))
    raise Malformed(f"a value of kind {sys.intern(str(name)[:40])}")


def _list(body: Any) -> list:
    if type(body) is not list:
        raise Malformed("a value without parts")
    return body
