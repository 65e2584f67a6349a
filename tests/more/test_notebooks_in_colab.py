"""Every notebook as Colab runs it: its Python and packages, a running kernel, an empty folder, the install cell as it is.

Git takes the repository's address for a clone of this working tree; nothing else stands between the notebook and pip.
"""

import os
import pathlib
import shutil
import subprocess

import nbformat
import notebook_outputs
import pytest
from conftest import ROOT
from environments import PLACE, clone, interpreter, python_of

from kanana_jax import REPOSITORY

pytestmark = pytest.mark.more
LIST = ROOT / "tests/notebooks/colab.txt"
# What the install cell may replace: nothing that a kernel of Colab has loaded when the cell runs.
REPLACED = {
    "absl-py",
    "flax",
    "grain",
    "jax",
    "jaxlib",
    "optax",
    "orbax-checkpoint",
    "safetensors",
    "sentencepiece",
    "tokenizers",
    "zstandard",
}


def _freeze(python: str) -> dict[str, str]:
    listed = subprocess.run([python, "-m", "pip", "freeze", "--all"], capture_output=True, text=True, check=True).stdout
    return dict(line.split("==") for line in listed.splitlines() if "==" in line)


@pytest.fixture(scope="session")
def colab(interpreter) -> pathlib.Path:
    python = interpreter("colab", "-r", str(LIST), base=python_of("3.12"))
    return pathlib.Path(python).parent.parent


@pytest.fixture
def fresh(colab):
    """A copy of the environment, in which the notebook installs what it wants."""
    folder = PLACE / "colab-used"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(colab, folder, symlinks=True, copy_function=os.link)
    yield str(folder / "bin" / "python")
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def at_the_address(clone) -> dict[str, str]:
    """The environment in which git finds the clone at the repository's address."""
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{clone}.insteadOf",
        "GIT_CONFIG_VALUE_0": REPOSITORY,
    }


@pytest.mark.parametrize("file", notebook_outputs.NOTEBOOKS, ids=lambda file: file.name)
def test_notebook(file, fresh, at_the_address, tmp_path):
    before = _freeze(fresh)
    found = notebook_outputs.execute(file, fresh, tmp_path, at_the_address)
    after = _freeze(fresh)
    changed = {name for name in before if after.get(name) != before[name]}
    print(file.name, {name: (before[name], after.get(name)) for name in sorted(changed)}, set(after) - set(before))
    assert changed <= REPLACED
    assert "kanana-jax" in subprocess.run([fresh, "-m", "pip", "freeze"], capture_output=True, text=True).stdout
    assert not list(notebook_outputs.differences(nbformat.read(file, as_version=4), found, tolerance=0.02))


def test_a_gpu_runtime_gets_the_plugin_of_the_same_jax(fresh, clone):
    """Resolved, not installed: Colab's own plugin, of its own older jax, would leave the GPU idle."""
    import json

    report = PLACE / "colab-gpu.json"
    wanted = f"kanana-jax[cuda12] @ {clone.as_uri()}"
    command = [fresh, "-m", "pip", "install", "-q", "--dry-run", "--report", str(report), wanted, "numpy==2.0.2"]
    subprocess.run(command, check=True)
    found = {p["metadata"]["name"]: p["metadata"]["version"] for p in json.loads(report.read_text())["install"]}
    assert found["jax-cuda12-plugin"] == found["jax"] == found["jaxlib"]
