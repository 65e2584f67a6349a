"""What `kanana run` needs is what a plain `pip install` brings: no module of its layers imports a package of an extra."""

import importlib.metadata
import json
import re
import subprocess
import sys

from conftest import ROOT

LAYERS = ("models", "losses", "training", "stages", "recipe", "report", "inference", "surgery", "cli")
BLOCK = """
import importlib, json, pathlib, sys
blocked, names = json.loads(sys.stdin.read())
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Refuse())
for name in names:
    try:
        importlib.import_module(name)
    except ImportError as error:
        print(name, error)
"""


def _closure(names):
    """Distributions that these need, without extras."""
    found, left = set(), [*names]
    while left:
        name = re.sub(r"[-_.]+", "-", re.split(r"[\s\[<>=!~;(]", left.pop())[0]).lower()
        if name in found:
            continue
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # of another system
        found.add(name)
        left += [need for need in needs if "extra ==" not in need]
    return found


def test_a_run_imports_no_package_of_an_extra():
    core = [need for need in importlib.metadata.requires("kanana-jax") if "extra ==" not in need]
    installed = importlib.metadata.packages_distributions()
    allowed = _closure(core)
    blocked = [
        module
        for module, owners in installed.items()
        if not {re.sub(r"[-_.]+", "-", owner).lower() for owner in owners} & (allowed | {"kanana-jax"})
    ]
    assert {"rapidfuzz", "lm_eval", "sklearn", "resiliparse"} <= set(blocked)
    names = sorted(
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for layer in LAYERS
        for file in (ROOT / "kanana_jax" / layer).rglob("*.py")
    )
    ran = subprocess.run(
        [sys.executable, "-c", BLOCK],
        input=json.dumps([blocked, names]),
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert not ran.stdout, ran.stdout
