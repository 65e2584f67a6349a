"""Every piece of shell in `launch/`, through shellcheck: scripts, what is sent to hosts, and what a template runs."""

import pathlib
import re
import subprocess
import sys

import pytest
import yaml
from conftest import ROOT

sys.path.insert(0, str(ROOT))
from kanana_jax.launch import gcloud  # noqa: E402

SHELLCHECK = pathlib.Path(sys.executable).with_name("shellcheck")
JOB = gcloud.Job(
    "n", "", "", "v5p-8", "my bucket", "runs/w", "configs/c.py:a b", ("--config.a=(1, 2)",), "0123", slices=2
)


def _scripts():
    return {
        str(file.relative_to(ROOT)): file.read_text()
        for file in sorted((ROOT / "launch").rglob("*"))
        if _is_shell(file)
    }


def _is_shell(file):
    return (
        file.is_file()
        and file.suffix != ".pyc"
        and (
            file.suffix in (".sh", ".sbatch")
            or re.match(r"#!.*\b(ba|da|k)?sh\b", file.read_text().split("\n", 1)[0]) is not None
        )
    )


def _sent():
    made = {"setup": gcloud.setup(JOB), "start": gcloud.start(JOB), "result": gcloud.result(), "stop": gcloud.stop()}
    return {f"gcloud.{name}": f"#!/bin/bash\n{text}\n" for name, text in (made | {"logs": gcloud.logs(7)}).items()}


def _templates():
    """Shell that containers are told to run: `sh -c …` of a JobSet, and RUN of a Dockerfile."""
    found = {}
    for file in sorted((ROOT / "launch").rglob("*.yaml")):
        for words in _commands(list(yaml.safe_load_all(file.read_text()))):
            if pathlib.Path(words[0]).name in ("sh", "bash") and "-c" in words[1:2]:
                found[f"{file.name} {words[2][:20]}"] = f"#!/bin/bash\n{words[2]}\n"
    for file in sorted((ROOT / "launch").rglob("Dockerfile")):
        text = file.read_text().replace("\\\n", " ")
        arguments = "".join(f"{name}={value}\n" for name, value in re.findall(r"^ARG (\w+)=(.*)$", text, re.M))
        for i, line in enumerate(re.findall(r"^RUN (.+)$", text, re.M)):
            found[f"{file.name} {i}"] = f"#!/bin/sh\n{arguments}{line}\n"
    return found


def _commands(node):
    if isinstance(node, list):
        for child in node:
            yield from _commands(child)
    elif isinstance(node, dict):
        for key, child in node.items():
            if key == "command" and child:
                yield child + node.get("args", [])
            else:
                yield from _commands(child)


PIECES = _scripts() | _sent() | _templates()


def test_the_pieces_are_found():
    assert "launch/slurm/train.sbatch" in PIECES and "Dockerfile 0" in PIECES and len(_sent()) == 5


@pytest.mark.parametrize("name", PIECES)
def test_shellcheck_finds_nothing(name, tmp_path):
    file = tmp_path / "piece"
    file.write_text(PIECES[name])
    found = subprocess.run([SHELLCHECK, "--format=gcc", str(file)], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr
