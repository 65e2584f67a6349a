"""Data between a judge and a program: what goes in comes out, and what comes out is data."""

import json
import math
import os
import random
import threading
from decimal import Decimal
from fractions import Fraction

import pytest

from kanana_jax.evaluation.confined import wire


def _none(value):
    raise wire.NoData(type(value).__name__)


def _form(value):
    """Kind and value in depth: NaN is NaN, -0.0 is not 0.0, True is not 1, a set has no order."""
    kind = type(value).__name__
    if isinstance(value, (list, tuple)):
        return kind, [_form(v) for v in value]
    if isinstance(value, (set, frozenset)):
        return kind, sorted(map(repr, map(_form, value)))
    if isinstance(value, dict):
        return kind, [(_form(k), _form(v)) for k, v in value.items()]
    return kind, repr(value)


def _value(draw, depth=0, hashable=False):
    leaves = [
        lambda: None,
        lambda: draw.random() < 0.5,
        lambda: draw.choice([0, -1, 1 << 53, -(1 << 53), (1 << 53) - 1, draw.getrandbits(300)]),
        lambda: draw.choice([0.0, -0.0, math.inf, -math.inf, math.nan, 5e-324, draw.random()]),
        lambda: "".join(
            chr(draw.choice([0, 34, 92, 0xD800, 0xDFFF, 0x10FFFF, 0xAC00, 97])) for _ in range(draw.randrange(5))
        ),
        lambda: draw.randbytes(draw.randrange(4)),
        lambda: complex(draw.random(), math.inf),
        lambda: range(draw.randrange(9), 1 << 70, 1 + draw.randrange(3)),
        lambda: Decimal(draw.choice(["1.50", "-0", "Infinity", "1E+9"])),
        lambda: Fraction(draw.randrange(9), 7),
        lambda: draw.choice([int, str, type(None), frozenset]),
    ]
    if depth > 3 or draw.random() < 0.5:
        return draw.choice(leaves)()
    inner = [_value(draw, depth + 1, hashable) for _ in range(draw.randrange(4))]
    keys = [_value(draw, depth + 1, True) for _ in range(draw.randrange(4))]
    kinds = (
        [lambda: tuple(inner)] if hashable else [lambda: inner, lambda: tuple(inner), lambda: dict(zip(keys, inner))]
    )
    kinds += (
        [lambda: frozenset(keys)]
        if hashable
        else [lambda: set(keys), lambda: frozenset(keys), lambda: bytearray(b"\0a")]
    )
    return draw.choice(kinds)()


def test_values_come_back_as_they_were():
    draw = random.Random(5)
    drawn = [_value(draw) for _ in range(int(os.environ.get("KANANA_WIRE", 500)))]
    for value in [*drawn, "\ud83d\ude00", {"\ud83d\ude00": "\U0001f600"}]:
        back = wire.decode(json.loads(json.dumps(wire.encode(value, _none))), _none)
        assert _form(back) == _form(value)


def test_what_comes_in_is_data_or_malformed():
    """Whatever the other side writes: exact built-in types, references, or one kind of error."""
    draw = random.Random(6)
    kinds = [
        "tuple",
        "set",
        "frozenset",
        "dict",
        "str",
        "int",
        "bytes",
        "bytearray",
        "complex",
        "range",
        "type",
        "Decimal",
    ]
    kinds += ["Fraction", "remote", "list", "eval", ""]
    plain = (
        int,
        float,
        str,
        bool,
        type(None),
        list,
        tuple,
        dict,
        set,
        frozenset,
        bytes,
        bytearray,
        complex,
        range,
        type,
    )

    def message(depth=0):
        bodies = [1, -1, 1e400, "0x1f", "zz", "int", "eval", [], {}, None, True, [[1]], [[1, 2]], ["1", "0"], [0, 0, 0]]
        if depth > 3 or draw.random() < 0.3:
            return draw.choice(bodies)
        inner = [message(depth + 1) for _ in range(draw.randrange(4))]
        return draw.choice([inner, {draw.choice(kinds): draw.choice([*bodies, inner])}, {"a": 1, "set": inner}])

    seen = {"value": 0, "malformed": 0}
    for _ in range(int(os.environ.get("KANANA_WIRE", 3000))):
        try:
            found = wire.decode(message(), lambda number: ("reference", number))
        except wire.Malformed:
            seen["malformed"] += 1
            continue
        seen["value"] += 1
        assert type(found) in plain or type(found) in (Decimal, Fraction), found
    assert min(seen.values()) > 300, seen


def test_depth_size_and_the_end_of_a_message_are_limited():
    circle = []
    circle.append(circle)
    deep = []
    for _ in range(wire.DEPTH):
        deep = [deep]
    for value in (circle, deep, {1: circle}, object(), lambda: 1, open):
        with pytest.raises(wire.NoData):
            wire.encode(value, _none)
    read, write = os.pipe()
    with pytest.raises(wire.NoData, match="more than 16 MB"):
        wire.send(write, "x" * wire.MESSAGE_BYTES)
    for data, error in (
        (b"\xff" * 8, wire.Malformed),
        ((1 << 25).to_bytes(8, "big"), wire.Malformed),
        (bytes(7) + b"\x02{]", wire.Malformed),
        ((100000).to_bytes(8, "big") + b"[" * 100000, wire.Malformed),
        ((5000).to_bytes(8, "big") + b"9" * 5000, wire.Malformed),
        (bytes(7) + b"\x05tru", EOFError),
        (b"", EOFError),
    ):
        read, write = os.pipe()
        thread = threading.Thread(target=lambda w=write, d=data: (os.write(w, d), os.close(w)))
        thread.start()
        with pytest.raises(error):
            wire.receive(read)
        os.close(read) if not thread.is_alive() else (os.read(read, 1 << 20), thread.join(), os.close(read))
