"""Checks against other tools, each in an environment of its own (`make check-more`).

A check is one file here, marked `more`. What it needs it asks of `interpreter` or `node`, which make it once, in
`.venv/more/`, or skip the check by the name of what cannot be had.
"""

import pathlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence

import pytest
from conftest import ROOT

PLACE = ROOT / ".venv" / "more"


def _made(name: str, commands: Sequence[Sequence[str]], folder: pathlib.Path) -> None:
    """Runs the commands that fill `folder`, unless they have been."""
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
    """`interpreter(name, *requirements)`: the Python of an environment that holds them."""

    def make(name: str, *requirements: str) -> str:
        folder = PLACE / name
        python = str(folder / "bin" / "python")
        install = (python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *requirements)
        _made(f"{name} ({', '.join(requirements)})", [(sys.executable, "-m", "venv", str(folder)), install], folder)
        return python

    return make


@pytest.fixture(scope="session")
def node() -> Callable[..., pathlib.Path]:
    """`node(name, *packages)`: a folder in which Node.js finds them."""

    def make(name: str, *packages: str) -> pathlib.Path:
        folder = PLACE / name
        _made(f"{name} ({', '.join(packages)})", [("npm", "install", "--no-audit", "--no-fund", *packages)], folder)
        return folder

    return make
