"""Every regular expression of the package takes linear time, on text that was made from the pattern itself.

From each pattern's own tree: what leads up to a repetition, the repetition over and over, and an end that fails. At the
full length a quadratic pattern would take minutes, which the guard ends; nothing is asserted about time. A text is tried
at a fifth of it first: where that is so quick that the square of five would not reach the guard, it is not tried again.
"""

import ast
import collections
import functools
import os
import pathlib
import random
import re
import time
from re import _constants as sre
from re import _parser

import pytest
from conftest import ROOT, Slow, guard

LENGTH = int(os.environ.get("KANANA_PATTERN_LENGTH", "100000"))
GUARD = 10  # seconds of the processor for a text; linear ones take milliseconds
SHORTER = 5
QUICK = GUARD / SHORTER**2 / 8  # eight times less than a quadratic one may take: clocks and caches differ
TAILS = ("", "x", "\0", "x" * 300)
# Of our own drawings, in which all text is escaped: no tag in it is open.
SAFE = {r"<metadata>.*?</metadata>|<style.*?</style>"}
ANCHORED = {"match", "fullmatch"}
METHODS = {"match", "fullmatch", "search", "sub", "subn", "split", "findall", "finditer"}


def _literal(node: ast.AST, constants: dict[str, ast.AST]) -> str | bytes | None:
    """A pattern's text where it is written out, joined by `+`, or an f-string (whose holes are constants, or words)."""
    if isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_hole(part, constants) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        parts = [_literal(side, constants) for side in (node.left, node.right)]
        return None if None in parts else parts[0] + parts[1]
    if isinstance(node, ast.Name) and node.id in constants:
        return _literal(constants[node.id], {k: v for k, v in constants.items() if k != node.id})
    return None


def _hole(part: ast.AST, constants: dict[str, ast.AST]) -> str:
    text = part.value if isinstance(part, ast.Constant) else _literal(getattr(part, "value", part), constants)
    return text if isinstance(text, str) else "word"


@functools.cache
def _nodes(file: pathlib.Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))


def _constants(nodes: tuple[ast.AST, ...]) -> dict[str, ast.AST]:
    found = {}
    for node in nodes:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    found[target.id] = node.value
                elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                    found |= {t.id: v for t, v in zip(target.elts, node.value.elts) if isinstance(t, ast.Name)}
        elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name) and node.target.id in found:
            found[node.target.id] = ast.BinOp(found[node.target.id], node.op, node.value)
    return found


def _uses_elsewhere() -> dict[str, dict[str, set[str]]]:
    """Module → a pattern's name → the methods by which others use it as `module.NAME.match`; any use as a value is all."""
    found = collections.defaultdict(lambda: collections.defaultdict(set))
    for file in sorted((ROOT / "kanana_jax").rglob("*.py")):
        nodes = _nodes(file)
        modules = {
            alias.asname or alias.name: alias.name
            for node in nodes
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        called = {id(node.value): node.attr for node in nodes if isinstance(node, ast.Attribute)}
        for node in nodes:
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
                method = called.get(id(node), "search")
                found[modules[node.value.id]][node.attr].add(method if method in METHODS else "search")
    return found


def _patterns(file: pathlib.Path, elsewhere: dict[str, dict[str, set[str]]]):
    """Pattern, flags, and by which methods it is tried if only at one place."""
    nodes = _nodes(file)
    constants = _constants(nodes)
    uses = collections.defaultdict(set)
    for node in nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.attr in METHODS:
            uses[node.value.id].add(node.attr)
    for name, methods in elsewhere.get(file.stem, {}).items():
        uses[name] |= methods
    names = {id(value): name for name, value in constants.items()}
    for node in nodes:
        called = node.func if isinstance(node, ast.Call) else None
        if not (isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name) and called.value.id == "re"):
            continue
        pattern = _literal(node.args[0], constants) if node.args else None
        if pattern is None or called.attr not in METHODS | {"compile"}:
            continue
        methods = {called.attr} if called.attr != "compile" else uses.get(names.get(id(node), ""), {"search"})
        # A flag may stand in any place; all names of flags are told by themselves.
        flags = re.NOFLAG
        for argument in [*node.args[1:], *(k.value for k in node.keywords if k.arg == "flags")]:
            for part in ast.walk(argument):
                if isinstance(part, ast.Attribute) and isinstance(getattr(re, part.attr, None), re.RegexFlag):
                    flags |= getattr(re, part.attr)
        yield pattern, flags, methods if methods <= ANCHORED else {"search"}


@functools.cache
def _all():
    found, elsewhere = {}, _uses_elsewhere()
    for folder in ("kanana_jax", "launch", "configs"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            for pattern, flags, methods in _patterns(file, elsewhere):
                key = (pattern, int(flags))
                if pattern not in SAFE:
                    found[key] = (str(file.relative_to(ROOT)), found.get(key, ("", set()))[1] | methods)
    return [(file, pattern, flags, methods) for (pattern, flags), (file, methods) in found.items()]


def _one(items, rng: random.Random) -> str:
    """A character of a class."""
    if items[0][0] is sre.NEGATE:
        taken = [items[1:]]
        for c in "axA1 .-_가\t\n{<\"'":
            if not any(_holds(item, c) for item in taken[0]):
                return c
        return "\u2603"
    kind, value = rng.choice(items)
    if kind is sre.LITERAL:
        return chr(value)
    if kind is sre.RANGE:
        return chr(value[0])
    return {sre.CATEGORY_DIGIT: "1", sre.CATEGORY_SPACE: " ", sre.CATEGORY_WORD: "a"}.get(value, "!")


def _holds(item, c: str) -> bool:
    kind, value = item
    if kind is sre.LITERAL:
        return ord(c) == value
    if kind is sre.RANGE:
        return value[0] <= ord(c) <= value[1]
    test = {sre.CATEGORY_DIGIT: str.isdigit, sre.CATEGORY_SPACE: str.isspace, sre.CATEGORY_WORD: str.isalnum}.get(value)
    return test is not None and test(c)


class _Pumped(Exception):
    """The text up to the repetition, and what it repeats."""


def _write(tree, rng: random.Random, out: list[str], pump: int, seen: list[int]) -> None:
    """A text that the pattern matches, up to its `pump`-th unbounded repetition."""
    for kind, value in tree:
        if kind is sre.LITERAL:
            out.append(chr(value))
        elif kind is sre.NOT_LITERAL:
            out.append("a" if value != ord("a") else "b")
        elif kind is sre.ANY:
            out.append("a")
        elif kind is sre.IN:
            out.append(_one(value, rng))
        elif kind is sre.BRANCH:
            _write(rng.choice(value[1]), rng, out, pump, seen)
        elif kind is sre.SUBPATTERN:
            _write(value[3], rng, out, pump, seen)
        elif kind in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT):
            low, high, item = value
            if high >= 1000:
                seen[0] += 1
                if seen[0] == pump:
                    unit: list[str] = []
                    _write(item, rng, unit, 0, [0])
                    raise _Pumped("".join(out), "".join(unit) or " ")
            for _ in range(min(low, 40) or (high > 0 and rng.random() < 0.5)):
                _write(item, rng, out, pump, seen)


def _texts(pattern: str | bytes, flags: int):
    """Makers of hostile texts for a pattern, by their length."""
    text = pattern.decode("latin-1") if isinstance(pattern, bytes) else pattern
    tree = _parser.parse(text, flags & ~re.UNICODE)
    rng, found = random.Random(text.encode("utf-8", "surrogatepass")), set()
    for pump in range(1, 9):
        for _ in range(3):
            try:
                _write(tree, rng, [], pump, [0])
            except _Pumped as pumped:
                found.add(pumped.args)
    for prefix, unit in sorted(found):
        for tail in TAILS:
            yield lambda length: prefix + unit * (length // len(unit)) + tail
            yield lambda length: (prefix + unit) * (length // len(prefix + unit)) + tail


def test_the_patterns_of_the_package_are_found():
    assert len(_all()) > 180 and sum(any(True for _ in _texts(p, f)) for _, p, f, _ in _all()) > 80


@pytest.mark.parametrize("part", range(8))
def test_patterns_are_linear(part):
    for file, pattern, flags, methods in _all()[part::8]:
        compiled = re.compile(pattern, flags)
        for make in _texts(pattern, flags):
            try:
                if _seconds(compiled, methods, make(LENGTH // SHORTER)) > QUICK:
                    _seconds(compiled, methods, make(LENGTH))
            except Slow:
                text = make(LENGTH)
                pytest.fail(f"{file}: {pattern!r} takes more than linear time on {text[:40]!r} … {text[-10:]!r}")


def _seconds(compiled: re.Pattern, methods: set[str], text: str, at_most: int = GUARD) -> float:
    """Of the processor."""
    subject = text.encode("utf-8", "surrogatepass") if isinstance(compiled.pattern, bytes) else text
    start = time.process_time()
    with guard(at_most):
        for method in sorted(methods & ANCHORED):
            getattr(compiled, method)(subject)
        if "search" in methods:
            collections.deque(compiled.finditer(subject), 0)
    return time.process_time() - start


@pytest.mark.parametrize("pattern, linear", [(r"(a+)+b", False), (r"a+b", False), (r"a++|b", True)])
def test_the_shorter_text_tells_what_to_try_again(pattern, linear):
    compiled, text = re.compile(pattern), "a" * (LENGTH // SHORTER) + "x"
    try:
        quick = _seconds(compiled, {"search"}, text, at_most=1) <= QUICK
    except Slow:
        quick = False
    assert quick == linear
