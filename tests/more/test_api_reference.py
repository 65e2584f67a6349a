"""The API reference is built without a warning, with a page for every public module and an entry for every docstring."""

import html
import subprocess
import sys

import pytest
from conftest import ROOT

pytestmark = pytest.mark.more


def test_every_public_module_has_a_page(tmp_path):
    pytest.importorskip("pdoc", reason="pdoc is not installed here (make docs installs it)")
    built = subprocess.run([sys.executable, ROOT / "docs/api.py", tmp_path], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr[-3000:]
    for file in sorted((ROOT / "kanana_jax").rglob("*.py")):
        path = file.relative_to(ROOT).with_suffix("")
        path = path.parent if path.name == "__init__" else path
        if any(part.startswith("_") for part in path.parts) or "confined" in path.parts:
            continue
        assert (tmp_path / path.with_suffix(".html")).is_file(), path
    page = html.unescape((tmp_path / "kanana_jax/training/schedule.html").read_text(encoding="utf-8"))
    first = (ROOT / "kanana_jax/training/schedule.py").read_text(encoding="utf-8").split('"""')[1].splitlines()[0]
    assert first.split("`")[0].strip() in page
