"""The plot of scores against training FLOPs: what is averaged, what is left out, where the points are."""

import json
import math
import re
import xml.etree.ElementTree as ElementTree

import pytest

from kanana_jax import cli
from kanana_jax.report import evaluation

MODELS = {"small": (1e20, 0.4, 20.0), "middle": (1e21, 0.5, 30.0), "large": (1e22, 0.7, 50.0)}


def _result(flops, accuracy, chrf, **more):
    facts = {"acc": accuracy, "acc_stderr": 0.03, "n": 200, "parts": 2}
    part = {"acc": 0.9, "acc_stderr": 0.1, "n": 9}
    translation = {"chrf": chrf, "chrf_stderr": 4.0, "n": 50}
    return {
        "results": {"facts": facts, "facts_ko": part, "translation": translation, **more},
        "documents": {},
        "model": {"parameters": 10, "training_flops": flops},
    }


@pytest.fixture
def results():
    return {name: _result(*values) for name, values in MODELS.items()}


def test_the_mean_is_of_whole_tasks_that_all_were_asked(results):
    results["large"] = _result(*MODELS["large"], other={"acc": 0.1, "acc_stderr": 0.1, "n": 3})
    tasks, scores = evaluation.table(results)
    assert tasks == ["facts", "translation"]
    value, error = evaluation.mean(scores["middle"], tasks)
    assert value == pytest.approx((0.5 + 0.3) / 2) and error == pytest.approx(math.hypot(0.03, 0.04) / 2)
    assert evaluation.score({"word_perplexity": 12.0, "n": 3}) is None
    assert evaluation.score({"exact_match,strict-match": 0.25, "exact_match,strict-match_stderr": 0.1}) == (0.25, 0.1)


def _dots(svg):
    """Centres of the points, in the order of the file."""
    places = re.findall(r'<use[^>]*?x="([\d.]+)"[^>]*?y="([\d.]+)"', svg)
    return [(float(x), float(y)) for x, y in places]


def test_points_lie_at_the_logarithm_of_flops(results, tmp_path):
    families = dict.fromkeys(results, "ours")
    out = evaluation.write_plot(results, families, tmp_path / "a" / "plot.svg")
    root = ElementTree.parse(out).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg" and "var(" not in out.read_text()
    (x0, y0), (x1, y1), (x2, y2) = sorted(_dots(out.read_text()))[-3:]
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.05) and x1 > x0, "a decade each"
    assert (y0 - y1) / (y0 - y2) == pytest.approx((0.4 - 0.3) / (0.6 - 0.3), abs=0.02)
    assert {"small", "middle", "large", "mean of 2 tasks"} <= {t.text for t in root.iter() if t.text}


def test_a_page_has_every_task_and_the_figures(results, tmp_path):
    results["unknown"] = _result(None, 0.6, 40.0)
    page = evaluation.write_plot(results, dict.fromkeys(results, "ours"), tmp_path / "plot.html").read_text()
    assert page.count("<svg") == 3 and "unknown" in page and "0.500" in page and "1e+21" in page


def test_the_verb(results, tmp_path, capsys):
    files = []
    for name, value in results.items():
        files.append(tmp_path / "family" / f"{name}.json")
        files[-1].parent.mkdir(exist_ok=True)
        files[-1].write_text(json.dumps(value))
    assert cli.main(["eval", "--plot", str(tmp_path / "plot.html"), *map(str, files)]) == 0
    assert (tmp_path / "plot.html").is_file()
    for arguments, told in (
        (["--plot", str(tmp_path / "plot.png"), *map(str, files)], "must end in .html or .svg"),
        (["--plot", str(tmp_path / "plot.svg")], "needs result files"),
    ):
        assert cli.main(["eval", *arguments]) == 2
        assert told in capsys.readouterr().err
    files[0].write_text(json.dumps({**results["small"], "model": {}}))
    assert cli.main(["eval", "--plot", str(tmp_path / "plot.svg"), str(files[0])]) == 2
    assert "give --training-flops" in capsys.readouterr().err
    files[1].write_text(json.dumps({**results["middle"], "results": {}}))
    assert cli.main(["eval", "--plot", str(tmp_path / "plot.svg"), *map(str, files)]) == 2
    assert "no task in common" in capsys.readouterr().err
