"""Documents point at files that are there, and comments and docstrings too."""

import re

import pytest
from conftest import ROOT

# `training/loop.py`, `docs/plan.md`, `tests/plan`: in backticks, in a link, or in a table's cell.
_PATH = re.compile(r"(?<![\w./{*<-])((?:[\w-]+/)+[\w-]+(?:\.\w+)?)(?![\w/*<{])(?:#[\w-]+)?")
_PLACES = ("", "kanana_jax/", "kanana_jax/data/", "docs/", "kanana_jax/data/filters/")
_OURS = ("kanana_jax", "configs", "launch", "tests", "benchmarks", "docs", "notebooks")
ROOMS = {d.name for d in (ROOT / "kanana_jax").iterdir() if d.is_dir()} | set(_OURS)
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SOURCES = [f for top in ("kanana_jax", "configs", "launch", "benchmarks") for f in sorted((ROOT / top).rglob("*.py"))]


def _missing(text: str) -> set[str]:
    found = set()
    for path in _PATH.findall(text):
        top, named = path.split("/")[0], path.endswith((".py", ".md", ".yaml", ".ipynb"))
        if (
            top in ROOMS
            and (named or top in ("tests", "kanana_jax"))
            and not any((ROOT / place / path).exists() for place in _PLACES)
        ):
            found.add(path)
    return found


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: file.name)
def test_documents_point_at_files(file):
    assert not _missing(file.read_text())


def test_links_between_documents_lead_somewhere():
    for file in DOCUMENTS:
        for target, anchor in re.findall(r"\]\(([^)#:\s]+\.md)?(#[\w-]+)?\)", file.read_text()):
            other = file.parent / target if target else file
            assert other.is_file(), f"{file.name} → {target}"
            titles = re.findall(r"^#+ (.+)$", other.read_text(), re.M)
            slugs = {"#" + re.sub(r"[^\w\s-]", "", title).strip().lower().replace(" ", "-") for title in titles}
            assert not anchor or anchor in slugs, f"{file.name} → {target}{anchor}"


def test_code_points_at_files():
    wrong = {str(file.relative_to(ROOT)): paths for file in SOURCES if (paths := _missing(file.read_text()))}
    assert not wrong
