"""Every notebook opens in Colab, runs from top to bottom, and shows again the outputs that are committed with it."""

import re
import sys

import nbformat
import notebook_outputs
import pytest
from conftest import ROOT

from kanana_jax import REPOSITORY

# Notebook → how many plots it shows, and a text that it prints.
PROMISES = {
    "00_tour.ipynb": (1, "distill     from pruned"),
    "01_train_and_generate.ipynb": (2, "Garam Kim"),
    "02_observatory.ipynb": (3, "need local data"),
    "03_data.ipynb": (1, "$F = -2m"),
    "04_prune_and_distill.ipynb": (3, "from scratch"),
    "05_align.ipynb": (3, "loss 0.6931 at the first step"),
}


def _read(name):
    return nbformat.read(ROOT / "notebooks" / name, as_version=4)


def test_every_notebook_promises_something():
    assert set(PROMISES) == {file.name for file in notebook_outputs.NOTEBOOKS}


@pytest.mark.parametrize("name", PROMISES)
def test_badge_address_and_size(name):
    notebook = _read(name)
    path = REPOSITORY.removeprefix("https://github.com")
    address = f"https://colab.research.google.com/github{path}/blob/main/notebooks/{name}"
    assert f"]({address})" in notebook.cells[0].source
    text = (ROOT / "notebooks" / name).read_text()
    assert set(re.findall(r"https://github\.com/[\w./-]+", text)) == {REPOSITORY}
    assert len(text.encode()) < 300_000
    assert not re.search(r"\.\./|pip install -e|/content", text), "a file that Colab does not have"


def test_one_install_cell():
    cells = {re.sub(r"^extras = .*$", "", _read(name).cells[1].source, flags=re.M) for name in PROMISES}
    assert len(cells) == 1 and "%pip install" in cells.pop()


@pytest.mark.parametrize("name", PROMISES)
def test_shows_what_is_committed(name, tmp_path):
    committed = _read(name)
    shown = [
        output for cell in committed.cells if cell.cell_type == "code" for output in notebook_outputs.outputs(cell)
    ]
    plots, text = PROMISES[name]
    assert sum(kind == "image/svg+xml" for kind, _ in shown) == plots
    assert any(text in output for _, output in shown)
    found = notebook_outputs.execute(ROOT / "notebooks" / name, sys.executable, tmp_path)
    assert not list(notebook_outputs.differences(committed, found, tolerance=1e-3))


def test_other_outputs_are_told():
    """The comparison itself: a number, a word, a missing figure, but not a clock's."""
    committed = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x", id="x")])

    def differ(was, now):
        results = []
        for text in (was, now):
            copy = nbformat.from_dict(committed)
            copy = nbformat.reads(nbformat.writes(copy), as_version=4)
            copy.cells[0].outputs = [nbformat.v4.new_output("stream", name="stdout", text=text)] if text else []
            results.append(copy)
        return list(notebook_outputs.differences(*results, tolerance=1e-3))

    assert not differ("loss 6.6833  208 tok/s  ETA 1:33\n", "loss 6.6834  9,208 tok/s  ETA 0:01\n")
    assert differ("loss 6.6833\n", "loss 6.7033\n")
    assert differ("kept 4\n", "kept 5\n")
    assert differ("kept\n", "dropped\n")
    assert differ("kept\n", "")
