"""Own models through the two commands of the guide: `kanana eval` of each, then `kanana observe` of the results.

`tests/golden/own_models` holds what `kanana eval runs/sweep/NAME --tasks microworld --limit 40` wrote of five models
that were trained for 13 or 25 steps:

    kanana run --config configs/observe/sweep.py --workdir runs/sweep "--config.stages=('s_short_en', 's_short_ko',
      'm_short_en', 'm_short_ko', 'l_short_even')" --config.s_short_en.train.tokens=100000 (and so on, 'ko' and 'even' 50000)
"""

import json
import re
import shutil

import own_models
import pandas as pd
import pytest
from conftest import ROOT

from kanana_jax.cli import main
from kanana_jax.data import microworld

pytest.importorskip("lm_eval")
pytest.importorskip("statsmodels")

MODELS = ("l_short_even", "m_short_en", "m_short_ko", "s_short_en", "s_short_ko")
TASKS = {f"microworld_fact_{kind}_{lang}": lang for kind in ("told", "transfer") for lang in ("en", "ko")}
FAMILIES = "model,family\n" + "".join(f"{name},{name[0]}\n" for name in MODELS)


@pytest.fixture
def results(tmp_path):
    """The golden results, as of the task's present version."""
    shutil.copytree(ROOT / "tests" / "golden" / "own_models", tmp_path / "results")
    task = (ROOT / "kanana_jax/evaluation/tasks/microworld.yaml").read_text()
    (version,) = re.findall(r"version: ([\d.]+)", task)
    for file in (tmp_path / "results").glob("*.json"):
        file.write_text(file.read_text().replace('"version": "1.0"', f'"version": "{version}"'))
    return tmp_path / "results"


def _observe(results, models, capsys):
    """`components.json` and what is said; models: text of models.csv."""
    folder, table = results.parent, results.parent / "models.csv"
    table.write_text(models)
    files = map(str, sorted(results.glob("*.json")))
    capsys.readouterr()
    code = main(["observe", *files, "--models", str(table), "--output", str(folder / "own"), "--draws", "100"])
    told = capsys.readouterr()
    assert code == 0, told.err
    return json.loads((folder / "own" / "components.json").read_text()), told.out


def test_five_models_in_two_commands(results, capsys):
    """Scores, sizes and tokens are the results', families the table's; what so few models cannot show is said."""
    found, said = _observe(results, FAMILIES, capsys)
    files = {name: json.loads((results / f"{name}.json").read_text()) for name in MODELS}
    assert found["families"] == {name: name[0] for name in MODELS}
    assert {task: about["language"] for task, about in found["tasks"].items()} == TASKS
    assert found["params"] == {name: value["model"]["parameters"] for name, value in files.items()}
    table = pd.read_csv(results.parent / "own" / "tables" / "models.csv", index_col="model")
    for name, value in files.items():
        tokens = value["model"]["tokens_by_language"]
        assert table.loc[name, "ko_tokens_b_est"] * 1e9 == pytest.approx(tokens["ko"])
        assert table.loc[name, "tokens_b"] * 1e9 == pytest.approx(tokens["ko"] + tokens["en"])
    scores = pd.read_csv(results.parent / "own" / "tables" / "scores.csv").pivot(
        index="model", columns="task", values="score"
    )
    for task in TASKS:
        assert dict(scores[task]) == pytest.approx({n: v["results"][task]["acc"] for n, v in files.items()})
    # 40 questions of four choices: no model is above chance by what luck allows, 0.25 + 1.64 · √(0.25 · 0.75 / 40) = 0.36,
    # on the told ones, and on the others they are alike.
    assert {v["verdict"] for v in found["verdicts"].values()} == {"tells nothing"} and found["kept"] == []
    first, second, *_ = said.splitlines()
    assert first == (
        "These 5 models do not show what added Korean text does: none of the 4 tasks can be decided, since their scores "
        "are chance or too alike."
    )
    assert (
        second
        == "5 models' scores on 4 tasks have no component that stands out from noise, so none is interpreted."
    )
    assert "mind: 5 models are few" in said and "goes up" not in said and "goes down" not in said
    page = (results.parent / "own" / "report.html").read_text()
    assert first in page and "PC1, PC2, PC3 are not clearly above noise: a law of them is not a finding." in page


def test_a_table_of_models_counts_before_their_results(results, capsys):
    """Tokens in it close a model's budgets, in any language; models without a row keep what their results tell."""
    models = "model,family,params,ko_tokens_b_est\nm_short_en,m,3e5,7\nl_short_even,l,,\n"
    found, said = _observe(results, models, capsys)
    table = pd.read_csv(results.parent / "own" / "tables" / "models.csv", index_col="model")
    assert list(table.index) == list(found["params"]) == list(MODELS)
    assert table.loc["m_short_en", ["params", "ko_tokens_b_est"]].tolist() == [3e5, 7]
    assert table.loc["m_short_en", ["ko_tokens_b_low", "en_tokens_b_est", "tokens_b"]].isna().all()
    assert table.loc["l_short_even", ["params", "ko_tokens_b_est"]].tolist() == [492384, 2.7621e-05]
    words = "models.csv has no row for m_short_ko, s_short_en, s_short_ko: their size and tokens are taken from the results."
    assert f"mind: {words}" in said and found["families"]["s_short_ko"] == "s_short_ko"


def test_a_result_of_today_stands_beside_them(results, capsys):
    """A model from elsewhere, whose tokens are unknown: `kanana eval` of it, and the next `kanana observe` has six."""
    random = own_models.write(results.parent / "random", "bpe", microworld.World.create(0, 400))
    asked = ["--tasks", "microworld", "--limit", "40", "--output", str(results / "random.json")]
    assert main(["eval", str(random), *asked, "--batch-size", "160"]) == 0
    found, said = _observe(results, FAMILIES, capsys)
    value = json.loads((results / "random.json").read_text())
    assert found["params"]["model"] == value["model"]["parameters"] and found["models"] == 6
    assert found["log10_compute"]["ko"]["model"] is None
    assert "models.csv has no row for model:" in said


def test_tasks_on_which_all_models_are_alike_are_named(results, capsys):
    """A table of too few tasks says which tell nothing, and what to do."""
    for file in results.glob("*.json"):
        value = json.loads(file.read_text())
        for task in list(TASKS)[:2]:
            value["results"][task] |= {"acc": 0.0}
        file.write_text(json.dumps(value))
    code = main(["observe", str(results), "--output", str(results.parent / "own")])
    told = capsys.readouterr().err
    assert code == 2 and "has 2 usable tasks of 4" in told
    assert (
        f"{', '.join(list(TASKS)[:2])} do not distinguish models (the same score for every model, or a copy); add tasks" in told
    )
