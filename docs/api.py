"""The API reference from docstrings: `python docs/api.py [FOLDER]` (`make docs`, extra `docs`) fills FOLDER.

Exit code 1 after a warning: an annotation that cannot be resolved, a docstring that cannot be read.
"""

import pathlib
import sys
import warnings

import pdoc

PACKAGE = "kanana_jax"
# Programs that the sandbox of generated code starts: to import one is to run it.
EXCEPT = "kanana_jax.evaluation.confined"
# Optax's `OptState` is an alias that names itself, which cannot be resolved from here.
FOREIGN = "Import of ArrayTree failed"


def modules() -> list[str]:
    """Names of all public modules, also of those that their package does not export."""
    root = pathlib.Path(__file__).resolve().parents[1]
    files = sorted((root / PACKAGE).rglob("*.py"))
    parts = [file.relative_to(root).with_suffix("").parts for file in files]
    names = {".".join(p[:-1] if p[-1] == "__init__" else p) for p in parts if not any(_private(name) for name in p)}
    return sorted(name for name in names if not f"{name}.".startswith(f"{EXCEPT}."))


def _private(name: str) -> bool:
    return name.startswith("_") and name != "__init__"


def build(folder: pathlib.Path) -> list[str]:
    """Writes a page for every public module of the package and an index with a search; returns pdoc's warnings.

    Raises:
      RuntimeError: a module cannot be imported; the extra `test` brings all that any of them imports.
    """
    pdoc.render.configure(docformat="google", footer_text=PACKAGE)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always", UserWarning)
        specs, listed = [], {EXCEPT}
        for name in modules():  # a spec stands for what its package exports, too
            if name not in listed:
                specs.append(name)
                listed |= set(pdoc.extract.walk_specs([name, f"!{EXCEPT}"]))
        pdoc.pdoc(*specs, f"!{EXCEPT}", output_directory=folder)
    place = pathlib.Path(pdoc.__file__).parent
    ours = [str(w.message) for w in seen if place in pathlib.Path(w.filename).parents]
    return [message for message in ours if FOREIGN not in message]


if __name__ == "__main__":
    found = build(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "build/api"))
    sys.exit("\n".join(found) if found else 0)
