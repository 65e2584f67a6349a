"""Names in tests and their roles, from the syntax alone; nothing is run."""

import builtins
import sys
from typing import Any

_SYNTAX_TREE = 0x400  # ast.PyCF_ONLY_AST, without what the module costs
# A text of the program's must not become code of its judge's.
_RUNS_TEXT = frozenset({"eval", "exec", "compile", "pickle", "marshal", "ctypes"})


def _nodes(source: str) -> list[Any]:
    found = [compile(source, "<tests>", "exec", _SYNTAX_TREE)]
    for node in found:  # it grows
        for field in node._fields:
            value = getattr(node, field, None)
            found += [v for v in (value if isinstance(value, list) else [value]) if hasattr(v, "_fields")]
    return found


def run_text(source: str) -> bool:
    """Returns whether code is made of a text that is not written there."""
    nodes = _nodes(source)
    written = {
        id(node.func)
        for node in nodes
        if type(node).__name__ == "Call" and all(type(a).__name__ == "Constant" for a in node.args)
    }
    named = [node for node in nodes if type(node).__name__ == "Name" and node.id in _RUNS_TEXT]
    return any(id(node) not in written for node in named)


def of_program(tests: str, solution: str) -> tuple[list[str], str]:
    """Names in tests that are the program's, and imports of modules that tests lean on.

    The program's are those that the solution defines, built-in ones too, and those that nothing does. Modules are the
    solution's imports, and Python's own where a test looks into one.
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
