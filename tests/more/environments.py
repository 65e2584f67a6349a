"""Checks against other tools, each in an environment of its own (`make check-more`).

A check is one file here, marked `more`. What it needs it asks of `interpreter` or `node`, which make it once, in
`.venv/more/`, or skip the check by the name of what cannot be had.
"""

import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence

import pytest
from conftest import ROOT

PLACE = ROOT / ".venv" / "more"


def python_of(version: str) -> str:
    """A Python of `version` (`3.12`) of this machine: on the path or pyenv's; without one the check is skipped."""
    found = shutil.which(f"python{version}")
    if (
        found and subprocess.run([found, "-c", ""], capture_output=True).returncode == 0
    ):  # pyenv's shims may lead nowhere
        return found
    root = pathlib.Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    for folder in sorted(root.glob(f"versions/{version}.*")):
        return str(folder / "bin" / "python")
    pytest.skip(f"Python {version} is not installed here")


def made(name: str, commands: Sequence[Sequence[str]], folder: pathlib.Path) -> None:
    """Runs the commands that fill `folder`, unless they have been run."""
    done = folder / ".done"
    asked = "\n".join(" ".join(command) for command in commands)
    if done.is_file() and done.read_text() == asked:
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for command in commands:
        try:
            result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        except OSError as error:
            pytest.skip(f"{name} cannot be had: {error}")
        if result.returncode:
            lines = (result.stderr or result.stdout).strip().splitlines() or ["no word"]
            pytest.skip(f"{name} cannot be had: {lines[-1]}")
    done.write_text(asked)


@pytest.fixture(scope="session")
def interpreter() -> Callable[..., str]:
    """`interpreter(name, *requirements, base=PYTHON)`: the Python of an environment that holds them."""

    def make(name: str, *requirements: str, base: str = sys.executable) -> str:
        folder = PLACE / name
        python = str(folder / "bin" / "python")
        install = (python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *requirements)
        made(f"{name} ({', '.join(requirements)})", [(base, "-m", "venv", str(folder)), install], folder)
        return python

    return make


@pytest.fixture(scope="session")
def node() -> Callable[..., pathlib.Path]:
    """`node(name, *packages)`: a folder in which Node.js finds them."""

    def make(name: str, *packages: str) -> pathlib.Path:
        folder = PLACE / name
        made(f"{name} ({', '.join(packages)})", [("npm", "install", "--no-audit", "--no-fund", *packages)], folder)
        return folder

    return make


@pytest.fixture(scope="session")
def clone(tmp_path_factory) -> pathlib.Path:
    """A repository with the files of this working tree as its one commit."""
    folder = tmp_path_factory.mktemp("clone") / "kanana-jax"
    git = ("git", "-c", "user.name=test", "-c", "user.email=test@localhost", "-C")
    listed = subprocess.run([*git, str(ROOT), "ls-files", "-co", "--exclude-standard"], capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("git or the repository is not here")
    for name in filter(lambda name: (ROOT / name).is_file(), listed.stdout.splitlines()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    for command in (("init", "-q"), ("add", "-A"), ("commit", "-q", "-m", "as it is")):
        subprocess.run([*git, str(folder), *command], check=True)
    return folder
