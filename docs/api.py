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


def build(folder: pathlib.Path) -> list[str]:
    """Writes a page for every public module of the package and an index with a search; returns pdoc's warnings.

    Raises:
      RuntimeError: a module cannot be imported; the extra `test` brings all that any of them imports.
    """
    pdoc.render.configure(docformat="google", footer_text=PACKAGE)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always", UserWarning)
        pdoc.pdoc(PACKAGE, f"!{EXCEPT}", output_directory=folder)
    place = pathlib.Path(pdoc.__file__).parent
    ours = [str(w.message) for w in seen if place in pathlib.Path(w.filename).parents]
    return [message for message in ours if FOREIGN not in message]


if __name__ == "__main__":
    found = build(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "build/api"))
    sys.exit("\n".join(found) if found else 0)
