"""How the command starts: nothing that lies in the current folder, whatever its name, is ever imported."""

import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys

import pytest
from conftest import ROOT

SCRIPT = pathlib.Path(sys.executable).with_name("kanana")
STARTS = {"script": [str(SCRIPT)], "module": [sys.executable, "-m", "kanana_jax"]}
# What Python itself has imported for `-m` before it gives the command its first word.
BEFORE_US = {"contextlib", "types", "warnings", "functools", "collections", "operator", "keyword", "reprlib", "heapq"}
CONFIG = """
from ml_collections import ConfigDict
import helper_beside
def get_config(arg=''):
    return ConfigDict(dict(filters=dict(en=dict(unit=helper_beside.UNIT))))
"""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A folder of files with the names of all modules that there are, each of which tells that it ran."""
    folder = tmp_path_factory.mktemp("hostile")
    installed = set(importlib.metadata.packages_distributions()) - {"kanana_jax"}
    for name in (installed | set(sys.stdlib_module_names) | {"sitecustomize"}) - BEFORE_US:
        if name.isidentifier():
            text = f"open({str(folder / 'RAN')!r}, 'a').write({name + chr(10)!r})\nraise ImportError('{name} of this folder')\n"
            (folder / f"{name}.py").write_text(text, encoding="utf-8")
    (folder / "helper_beside.py").write_text("UNIT = 'word'\n")
    (folder / "mine.py").write_text(CONFIG)
    rows = [
        {"id": str(i), "text": "This is a document of some words. " * 9, "source": "s", "lang": "en"} for i in range(9)
    ]
    (folder / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def _ran(folder, command, **env):
    done = subprocess.run(
        command,
        cwd=folder,
        env={k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | {"JAX_PLATFORMS": "cpu"} | env,
        capture_output=True,
        text=True,
    )
    assert not (folder / "RAN").exists(), (folder / "RAN").read_text()
    return done


@pytest.mark.parametrize("start", STARTS)
def test_a_run_imports_nothing_of_the_current_folder(hostile, start):
    """It starts itself again, reads a recipe, and only then sees that the place will not do."""
    done = _ran(hostile, [*STARTS[start], "run", "--config", "tiny:test", "--workdir", "docs.jsonl/w"])
    assert done.returncode == 1 and "kanana: cannot write docs.jsonl/w" in done.stderr, done.stderr


def test_nor_do_the_workers_of_a_data_job_and_a_config_that_lies_there(hostile, tmp_path):
    command = ["filter", "--config", "mine.py", "--input", "docs.jsonl", "--output", str(tmp_path), "--workers", "2"]
    done = _ran(hostile, [*STARTS["module"], *command])
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "report.json").read_text())["kept"] == 9


def test_nor_does_the_worker_of_a_pod(hostile):
    command = [sys.executable, str(ROOT / "launch/local.py"), "--processes", "1", "--", "--config", "tiny:test"]
    done = _ran(hostile, [*command, "--workdir", "docs.jsonl/w"])
    assert done.returncode == 1 and "docs.jsonl/w" in done.stdout + done.stderr, done.stdout + done.stderr


@pytest.mark.parametrize("start", STARTS)
def test_what_pythonpath_names_is_imported(tmp_path, start):
    """Also where it names the current folder: that is asked for."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/wanted_by_config.py").write_text("raise RuntimeError('found in PYTHONPATH')\n", encoding="utf-8")
    (tmp_path / "c.py").write_text("import wanted_by_config\n", encoding="utf-8")
    command = [*STARTS[start], "filter", "--config", "../c.py", "--input", "x", "--output", "y"]
    assert "found in PYTHONPATH" in _ran(tmp_path / "lib", command, PYTHONPATH=".").stderr
    assert "No module named 'wanted_by_config'" in _ran(tmp_path / "lib", command).stderr
    command[-5] = "c.py"
    assert "found in PYTHONPATH" in _ran(tmp_path, command, PYTHONPATH=str(tmp_path / "lib")).stderr


def test_a_clone_needs_no_installed_package_to_be_started_by_its_path(tmp_path):
    done = _ran(tmp_path, [sys.executable, "-S", "-P", str(ROOT / "kanana_jax/__main__.py"), "--help"])
    assert done.returncode == 0 and "usage: kanana" in done.stdout, done.stderr
