"""Licence, metadata, addresses and installs: said once, and true."""

import ast
import re
import subprocess
import tomllib

import pytest
import yaml
from conftest import ROOT

from kanana_jax import AUTHORS, REPOSITORY, __version__
from kanana_jax.errors import install

TEXTS = (".py", ".md", ".toml", ".cff", ".yml", ".yaml", ".ipynb", ".txt", ".sbatch", "")


def _files():
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    names = listed.stdout.splitlines() if listed.returncode == 0 else [str(p) for p in ROOT.rglob("*")]
    return [ROOT / n for n in names if (ROOT / n).suffix in TEXTS and (ROOT / n).is_file() and ".venv" not in n]


def _setup():
    """The constants of setup.py, which is not run."""
    tree = ast.parse((ROOT / "setup.py").read_text())
    names = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id.isupper():
            try:
                names[node.targets[0].id] = eval(compile(ast.Expression(node.value), "setup", "eval"), dict(names))
            except Exception:
                continue
    return names


def test_one_address_and_one_name():
    for file in _files():
        if file.parts[len(ROOT.parts)] in ("build", "dist"):
            continue
        text = file.read_text(encoding="utf-8", errors="replace")
        for found in re.findall(r"https?://[\w.]+/[\w-]+/kanana-jax\b", text):
            assert found == REPOSITORY, file
    assert f"Copyright 2026 {AUTHORS}" in (ROOT / "NOTICE").read_text()
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["authors"] == [{"name": AUTHORS}] and citation["repository-code"] == REPOSITORY
    assert str(citation["version"]) == __version__
    told = " ".join(str(r) for r in citation["references"])
    assert "2502.18934" in told and "2412.14471" in told


def test_licence_and_its_notices():
    assert "Apache License" in (ROOT / "LICENSE").read_text()[:200]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["license"] == "Apache-2.0" and all((ROOT / f).is_file() for f in project["license-files"])
    notice = (ROOT / "NOTICE").read_text()
    for path in re.findall(r"^(kanana_jax/\S+)$", notice, re.M):
        assert (ROOT / path).is_file(), path
    for table in sorted((ROOT / "kanana_jax/observatory/tables").glob("*/README.md")):
        if "MIT licence" in table.read_text():
            assert f"kanana_jax/observatory/tables/{table.parent.name}/" in notice


def test_metadata_are_said_once():
    """What pyproject calls dynamic stands in setup.py; the rest does not."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (call,) = [
        n
        for n in ast.walk(ast.parse((ROOT / "setup.py").read_text()))
        if getattr(getattr(n, "func", None), "id", "") == "setup"
    ]
    said = {keyword.arg for keyword in call.keywords}
    assert {"version", "author", "url", "install_requires", "extras_require", "entry_points"} <= said
    assert not said & {"name", "description", "long_description", "license", "classifiers", "python_requires"}
    assert {"version", "dependencies", "optional-dependencies", "scripts"} <= set(project["dynamic"])


def test_every_install_that_a_text_names_exists():
    extras = _setup()["EXTRAS"]
    for file in _files():
        text = file.read_text(encoding="utf-8", errors="replace")
        named = re.findall(r"(?:kanana-jax|-e ['\"]?\.)\[([\w,]+)\]", text) + re.findall(r"\binstall\('(\w+)'\)", text)
        for extra in (one for group in named for one in group.split(",")):
            assert extra in extras, f"{file}: the extra '{extra}'"
    assert REPOSITORY in install("eval")


def test_all_holds_every_extra_but_accelerators_tensorflow_and_tests():
    extras = _setup()["EXTRAS"]
    for name in set(extras) - {"all", "tpu", "cuda", "cuda12", "seqio", "test", "docs", "parity"}:
        assert set(extras[name]) <= set(extras["all"]), name


@pytest.mark.parametrize("file", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda f: f.name)
def test_workflows(file):
    made = yaml.safe_load(file.read_text())
    if "jobs" not in made:
        return
    commands = [step["run"] for job in made["jobs"].values() for step in job["steps"] if "run" in step]
    assert any(".ci/run" in c for c in commands)
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    for target in re.findall(r"make ([\w-]+)", "\n".join(commands)):
        assert target in targets
    assert made["jobs"]["all"]["strategy"]["matrix"]["python"] == ["3.11", "3.12"]
