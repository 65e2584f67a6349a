"""Analysis of the names in tests, from the syntax tree; nothing is run."""

import builtins
import sys
from typing import Any

_SYNTAX_TREE = 0x400  # ast.PyCF_ONLY_AST, without the cost of importing ast
# The judge must not run a text from the program as code.
_RUNS_TEXT = frozenset({"eval", "exec", "compile", "pickle", "marshal", "ctypes"})


def _nodes(source: str) -> list[Any]:
    found = [compile(source, "<tests>", "exec", _SYNTAX_TREE)]
    for node in found:  # the list grows while it is traversed
        for field in node._fields:
            value = getattr(node, field, None)
            found += [v for v in (value if isinstance(value, list) else [value]) if hasattr(v, "_fields")]
    return found


def run_text(source: str) -> bool:
    """Whether the source runs a text as code that is not a literal in the source."""
    nodes = _nodes(source)
    written = {
        id(node.func)
        for node in nodes
        if type(node).__name__ == "Call" and all(type(a).__name__ == "Constant" for a in node.args)
    }
    named = [node for node in nodes if type(node).__name__ == "Name" and node.id in _RUNS_TEXT]
    return any(id(node) not in written for node in named)


def of_program(tests: str, solution: str) -> tuple[list[str], str]:
    """The names in tests that refer to the program's objects, and the import statements that the tests need.

    A name refers to the program if the solution defines it, even if it is also a built-in, or if nothing defines it.
    Imports are those of the solution that the tests use, and standard modules of which the tests use an attribute.
    """
    bound, used, modules = set(), set(), set()
    for node in _nodes(tests):
        kind = type(node).__name__
        if kind == "Name":
            (used if type(node.ctx).__name__ == "Load" else bound).add(node.id)
        elif kind == "Attribute" and type(node.value).__name__ == "Name":
            modules.add(node.value.id)
        elif kind in ("FunctionDef", "ClassDef"):
            bound.add(node.name)
        elif kind == "arg":
            bound.add(node.arg)
        elif kind == "alias":
            bound.add((node.asname or node.name).split(".")[0])
    defined, imports = set(), []
    for node in _nodes(solution)[0].body:
        kind = type(node).__name__
        if kind in ("FunctionDef", "ClassDef"):
            defined.add(node.name)
        elif kind in ("Import", "ImportFrom"):
            binds = {(a.asname or a.name).split(".")[0] for a in node.names}
            if binds & (used - bound):
                bound |= binds
                imports.append("\n".join(solution.splitlines()[node.lineno - 1 : node.end_lineno]))
    free = {name for name in used - bound - defined if not hasattr(builtins, name)}
    modules &= free & sys.stdlib_module_names
    imports += [f"import {name}" for name in sorted(modules)]
    free -= modules
    return sorted((used & defined) | free), "\n".join(imports)
