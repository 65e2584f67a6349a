"""Who may import whom: docs/architecture.md's table, read from the code's own imports."""

import ast
import pathlib

import pytest
from conftest import ROOT

# A line imports only lines below it; on one line nobody imports a neighbour, but for the pairs of `NEIGHBOURS`.
LAYERS = """
cli
plan
recipe
stages
applications
evaluation surgery inference
training interop
losses
models data
parallel
observatory
report
endpoint progress
config
files
errors languages
"""
NEIGHBOURS = {("evaluation", "inference")}
# Inside `data`, likewise.
DATA = """
stream
filters
dedup
quality
read
extract
microworld tokens
arrays
"""
# What the observatory may know beside itself: it imports no JAX.
OBSERVATORY = {"report", "errors", "config", "files", "languages"}
TENSORFLOW = {"tensorflow", "tensorflow_text", "seqio", "tensorflow_datasets"}


def _levels(table: str) -> dict[str, int]:
    lines = table.split("\n")[::-1]
    return {name: level for level, line in enumerate(lines) for name in line.split()}


def _module(file: pathlib.Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {_module(file): file for file in sorted((ROOT / "kanana_jax").rglob("*.py"))}


def _imports(module: str) -> set[str]:
    """Modules that a file imports anywhere, functions included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(FILES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = names & FILES.keys()
            found |= modules | ({str(node.module)} if len(modules) < len(names) else set())
    return found


IMPORTS = {module: _imports(module) for module in FILES}


def _room(module: str, depth: int) -> str:
    parts = module.split(".")
    return parts[depth] if len(parts) > depth else ""


def test_every_file_is_in_a_room_of_the_table():
    rooms = _levels(LAYERS).keys() | {"", "__main__"}
    assert not [module for module in FILES if _room(module, 1) not in rooms]
    wings = _levels(DATA).keys() | {""}
    assert not [m for m in FILES if m.startswith("kanana_jax.data") and _room(m, 2) not in wings]


@pytest.mark.parametrize("table, depth, root", [(LAYERS, 1, "kanana_jax"), (DATA, 2, "kanana_jax.data")])
def test_imports_go_downwards(table, depth, root):
    levels, wrong = _levels(table), []
    for module, imported in IMPORTS.items():
        mine = _room(module, depth)
        for other in imported if module.startswith(root + ".") and mine in levels else ():
            theirs = _room(other, depth)
            if (
                not other.startswith(root + ".")
                or theirs not in levels
                or theirs == mine
                or (mine, theirs) in NEIGHBOURS
            ):
                continue
            if levels[theirs] >= levels[mine]:
                wrong.append(f"{module} imports {other}")
    assert not wrong


def test_no_files_import_each_other_in_a_circle():
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]):
        assert module not in path, " → ".join((*path[path.index(module) :], module))
        if module not in done:
            for other in IMPORTS[module] & FILES.keys():
                # A package that lists its own modules is their index, and they may name it.
                if not (module.startswith(f"{other}.") and FILES[other].name == "__init__.py"):
                    visit(other, (*path, module))
            done.add(module)

    for module in FILES:
        visit(module, ())


def test_the_observatory_knows_no_jax():
    for module, imported in IMPORTS.items():
        ours = {_room(other, 1) for other in imported if other.startswith("kanana_jax.")}
        if _room(module, 1) == "observatory":
            assert ours <= OBSERVATORY | {"observatory"}, module
            assert not {"jax", "flax", "optax"} & {other.split(".")[0] for other in imported}, module


def test_tensorflow_is_imported_by_seqios_files_alone():
    for module, imported in IMPORTS.items():
        if TENSORFLOW & {other.split(".")[0] for other in imported}:
            assert module.startswith("kanana_jax.data.read.seqio_"), module


def test_no_file_is_long_and_no_function_is():
    """A file is one idea; the one long function is a table of sentences."""
    for module, file in FILES.items():
        text = file.read_text()
        assert text.count("\n") <= 400, module
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name != "fact_sentences":
                assert node.end_lineno - node.lineno <= 80, f"{module}.{node.name}"


def test_configs_and_launch_stand_apart():
    """Configs import each other by the installed name and change no path; nothing in the package imports them."""
    for file in (ROOT / "configs").rglob("*.py"):
        assert "sys.path" not in file.read_text(), file
    for module, imported in IMPORTS.items():
        outside = [other for other in imported if other.startswith(("kanana_jax.configs", "kanana_jax.launch"))]
        assert not outside or _room(module, 1) == "cli", module
