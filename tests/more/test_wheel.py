"""The wheel in an empty folder: by pip and by uv, on every Python that it names; nothing of the clone is at hand."""

import os
import re
import signal
import subprocess
import sys
import time
import tomllib
import zipfile

import pytest
from conftest import ROOT
from environments import PLACE, clone, interpreter, made, python_of

from kanana_jax import __version__

pytestmark = pytest.mark.more
CLASSIFIERS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
VERSIONS = [found[1] for c in CLASSIFIERS if (found := re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", c))]
ALONE = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "XLA_FLAGS")} | {"JAX_PLATFORMS": "cpu"}


@pytest.fixture(scope="session")
def wheel(clone, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(clone)]
    subprocess.run(build, check=True)
    (file,) = folder.glob("*.whl")
    return file


@pytest.fixture(scope="session")
def uv(interpreter):
    """uv of its own, which takes over nothing of this project."""
    return interpreter("uv", "uv").replace("python", "uv")


def _installed(wheel, version, tool, uv):
    """The folder of commands of an environment into which `tool` has installed the wheel and what it needs."""
    folder = PLACE / f"wheel-{tool}-{version}"
    base, python = python_of(version), str(folder / "bin" / "python")
    if tool == "pip":
        create, install = [base, "-m", "venv", str(folder)], [python, "-m", "pip", "install", "-q"]
    else:
        create = [uv, "venv", "-q", "--allow-existing", "--python", base, str(folder)]
        install = [uv, "pip", "install", "-q", "--python", python]
    # The needs are kept from run to run; the wheel itself is always this working tree's.
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(f"kanana_jax-{__version__}.dist-info/METADATA").decode()
    needs = [
        line.split(": ")[1]
        for line in metadata.splitlines()
        if line.startswith("Requires-Dist") and "extra ==" not in line
    ]
    made(f"{tool} on Python {version}", [create, [*install, "-c", str(ROOT / "constraints.txt"), *needs]], folder)
    again = ["--force-reinstall", "--no-deps"] if tool == "pip" else ["--reinstall-package", "kanana-jax"]
    subprocess.run([*install, *again, str(wheel)], check=True)
    return folder / "bin"


def test_contents(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    source = {
        str(file.relative_to(ROOT / top)): f"{prefix}{file.relative_to(ROOT / top)}"
        for top, prefix in (
            ("kanana_jax", "kanana_jax/"),
            ("configs", "kanana_jax/configs/"),
            ("launch", "kanana_jax/launch/"),
        )
        for file in (ROOT / top).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    # Lists of packages for a cluster's images are no part of the package.
    missing = {path for path in source.values() if path not in names and not path.endswith((".gitignore", "uv.txt"))}
    assert not missing
    licences = {name.split("/")[-1] for name in names if "/licenses/" in name}
    assert licences == {"LICENSE", "NOTICE"} and "kanana_jax/py.typed" in names
    assert not [
        name for name in names if name.split("/")[0] not in ("kanana_jax", f"kanana_jax-{__version__}.dist-info")
    ]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("tool", ["pip", "uv"])
def test_in_an_empty_folder(wheel, uv, tool, version, tmp_path):
    commands = _installed(wheel, version, tool, uv)

    def kanana(*arguments, **options):
        return subprocess.run(
            [commands / "kanana", *arguments], cwd=tmp_path, env=ALONE, capture_output=True, text=True, **options
        )

    where = [commands / "python", "-c", "import kanana_jax; print(kanana_jax.__file__)"]
    assert str(commands.parent) in subprocess.run(where, cwd=tmp_path, env=ALONE, capture_output=True, text=True).stdout
    assert __version__ in kanana("--version").stdout
    run = kanana("run", "--config", "tiny:test", "--workdir", "run")
    assert run.returncode == 0, run.stderr[-2000:]
    assert (tmp_path / "run/report.html").is_file() and (tmp_path / "run/student/model/model.safetensors.index.json").is_file()
    assert "held-out bits per byte" in run.stderr


@pytest.mark.parametrize("version", VERSIONS[:1])
def test_the_demo_starts_and_stops(wheel, uv, version, tmp_path):
    """`--config tiny` trains, and a signal stops it with its work saved."""
    commands = _installed(wheel, version, "uv", uv)
    command = [commands / "kanana", "run", "--config", "tiny:pretrained", "--workdir", "run"]
    process = subprocess.Popen(command, cwd=tmp_path, env=ALONE, stderr=subprocess.PIPE, text=True)
    try:
        end = time.monotonic() + 600
        for line in process.stderr:
            if re.match(r"stage1 step [1-9]", line) or time.monotonic() > end:
                break
        process.send_signal(signal.SIGTERM)
        process.stderr.read()
        assert process.wait(120) == 75
    finally:
        process.kill()
    assert list((tmp_path / "run/stage1/checkpoints").iterdir())
