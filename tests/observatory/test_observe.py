"""The verb: files of the contract, a page that stands alone, and 'observational, not causal' on everything it writes."""

import ast
import contextlib
import csv
import html.parser
import io
import json
import re
import subprocess
import sys

import pytest
from conftest import ROOT

from kanana_jax.cli import main

pytest_plugins = ["observatory_fixtures"]
ARGUMENTS = ("--draws", "200", "--plan", "base=Llama-3-8B,ja_tokens=100e9")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert main(["observe", "--output", str(folder), *ARGUMENTS]) == 0
    (folder / "stdout").write_text(said.getvalue())
    return folder


def test_components_json_is_the_contract(folder):
    found = json.loads((folder / "components.json").read_text())
    assert {
        "explained_variance_ratio",
        "loadings",
        "scores",
        "correlations",
        "parallel_analysis",
        "fits",
        "verdicts",
    } <= set(found)
    fit = found["fits"][0]
    assert {
        "component",
        "language",
        "n",
        "r",
        "r2",
        "slope_per_decade",
        "intercept",
        "ci95_family",
        "ci95_naive",
        "lofo_rmse",
    } <= set(fit)
    assert found["loadings"]["PC1"]["MMLU"] > 0 and found["scores"]["PC1"]["meta-llama/Llama-2-7b-hf"] < 0
    assert found["correlations"]["MMLU"]["MMLU"] == pytest.approx(1)
    assert found["verdicts"]["NIILC"]["verdict"] == "needs local data"


def test_every_output_says_observational(folder):
    assert "not causal" in json.loads((folder / "components.json").read_text())["evidence"]
    files = sorted(folder.glob("*.csv"))
    assert {"fits.csv", "verdicts.csv", "plan.csv", "token_ledger.csv", "provenance.csv", "correlations.csv"} <= {
        f.name for f in files
    }
    for file in files:
        with file.open() as rows:
            assert all("not causal" in row["evidence"] for row in csv.DictReader(rows)), file
    plots = sorted((folder / "plots").glob("*.svg"))
    assert {p.stem for p in plots} >= {"correlations", "biplot", "scree", "general", "local", "transfer"}
    for plot in plots:
        assert "observational, not causal" in plot.read_text() and "var(--" not in plot.read_text()
    page = (folder / "report.html").read_text()
    assert page.count("bservational, not causal") > 10
    assert "not causal" in (folder / "stdout").read_text()


def test_provenance_of_every_cell(folder):
    with (folder / "provenance.csv").open() as rows:
        cells = list(csv.DictReader(rows))
    assert len(cells) == 35 * 19 and all("eb85b98" in c["source"] for c in cells)


class _Balance(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attributes):
        assert tag != "script"
        if tag not in ("meta", "br", "hr", "img", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_stands_alone_and_answers_first(folder):
    page = (folder / "report.html").read_text()
    parser = _Balance()
    parser.feed(page)
    assert not parser.open
    assert not re.search(r"""(src|href)=["'](?!#)|url\((?!#)|https?://""", page)
    titles = re.findall(r"<h2[^>]*>([^<]+)", page)
    assert titles[0] == "The answer" and titles[1] == "The plan"
    first = page[page.index("The answer</h2>") :]
    first = first[: first.index("<h2", 20)]
    assert first.count('<p class="plain">') == 4 and "pilot" in first and "Llama 3 70B as it is" in first
    before = page[: page.index("The answer</h2>")]
    assert '<p class="answer">100 billion Japanese tokens on Llama 3 8B: NIILC 0.40 → ' in before
    overall = page[page.index("Over all models</h2>") :]
    assert overall[: overall.index("<h2", 20)].count("95% by family") >= 3


def test_the_same_bytes_twice(folder, tmp_path):
    assert main(["observe", "--output", str(tmp_path), *ARGUMENTS]) == 0
    for name in ("report.html", "fits.csv", "plots/biplot.svg"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere/scores.csv"], "nowhere/scores.csv does not exist"),
        (["--models", "models.csv"], "name it first"),
        (["--target", "NIILC=0.5"], "--target needs --plan"),
        (["--language", "ko"], "--language 'ko' has no task"),
        (["--draws", "3"], "at least 100"),
        (["--flops-cutoff", "2"], "quantile between 0 and 1"),
    ],
)
def test_bad_usage_is_one_sentence(arguments, words, tmp_path, capsys):
    assert main(["observe", *arguments, "--output", str(tmp_path / "x")]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1 and not (tmp_path / "x").exists()


def test_active_parameters_change_the_law(shipped):
    from kanana_jax.observatory.study import Options, run

    total, active = (run(shipped, Options(draws=100, active_params=a)) for a in (False, True))
    slope = lambda r: next(f for f in r["fits"] if (f["component"], f["language"]) == ("PC2", "ja"))["slope_per_decade"]  # noqa: E731
    assert slope(total) != slope(active)


def test_active_parameters_are_those_of_the_plan_too(shipped):
    from kanana_jax.observatory import budgets, planner

    assert planner.parse("base=Mixtral-8x7B-v0.1", shipped, "ja").params == 47e9
    assert planner.parse("base=Mixtral-8x7B-v0.1", budgets.of_active(shipped), "ja").params == 13e9


def test_no_jax_and_nothing_above_it():
    """`kanana_jax.observatory` imports itself, `report`, `files`, `languages` and errors; loading it loads no JAX."""
    known = tuple(f"kanana_jax.{name}" for name in ("observatory", "errors", "files", "report", "languages"))
    for file in sorted((ROOT / "kanana_jax/observatory").glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            names = (
                [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else [a.name for a in getattr(node, "names", [])]
            )
            for name in names if isinstance(node, (ast.Import, ast.ImportFrom)) else []:
                if name.startswith("kanana_jax"):
                    assert name.startswith(known), (file, name)
    code = "import sys, kanana_jax.observatory.study, kanana_jax.report.observatory; print('jax' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_without_the_extra_it_says_what_to_install(tmp_path):
    code = (
        "import sys; sys.modules['statsmodels'] = None; from kanana_jax.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "observe", "--output", str(tmp_path / "x")]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 1 and "[observatory]" in found.stderr and found.stderr.count("\n") == 1


def test_tables_ship_with_the_package():
    shipped = {p.name for p in (ROOT / "kanana_jax/observatory/tables").glob("*/*")}
    assert shipped == {"scores.csv", "models.csv", "tasks.csv", "README.md"}
    assert '"kanana_jax.observatory": ["tables/*/*"]' in (ROOT / "setup.py").read_text()
