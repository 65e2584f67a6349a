"""Every notebook runs from top to bottom and shows what it promises."""

import os

import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient

# Notebook → how many plots it shows, and a text that it prints.
PROMISES = {
    "01_train_and_generate.ipynb": (2, "Garam Kim"),
    "02_observatory.ipynb": (4, "need local data"),
    "03_data.ipynb": (1, "$F = -2m"),
    "04_prune_and_distill.ipynb": (3, "from scratch"),
}


def test_every_notebook_promises_something():
    assert set(PROMISES) == {p.name for p in (ROOT / "notebooks").glob("*.ipynb")}


@pytest.mark.parametrize("name", PROMISES)
def test_notebook(name, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(ROOT / "notebooks" / name, as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells), "notebooks are kept without outputs"
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(ROOT / "notebooks")}}).execute()
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    plots, text = PROMISES[name]
    assert sum("<svg" in o.get("data", {}).get("text/html", "") for o in outputs) == plots
    assert any(text in o.get("text", "") for o in outputs)
