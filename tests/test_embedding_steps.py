"""The ablation of LLM2Vec's steps: arms start from one another, parts come in order, none twice, on one set of data."""

import json
import sys

import numpy as np
import pytest
from conftest import ROOT
from test_benchmarks import load

from kanana_jax import config as config_lib
from kanana_jax.errors import ConfigError
from kanana_jax.models import counts
from kanana_jax.recipe import run as recipe

ORDER = [
    *("base", "bidirectional", "mntp", "simcse", "supervised", "supervised_direct", "bm25"),
    *("torch_mntp", "torch_simcse", "torch_supervised"),
]


@pytest.fixture
def steps(monkeypatch, tmp_path):
    """The benchmark, in a folder where the config is and nothing was run."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.chdir(tmp_path)
    for lang, text in (("ko", "문서입니다. " * 60), ("en", "A document. " * 60)):
        folder = tmp_path / "documents" / lang
        folder.mkdir(parents=True)
        (folder / "some.jsonl").write_text("".join(json.dumps({"id": f"{i}", "text": text}) + "\n" for i in range(9)))
    (tmp_path / "triplets.jsonl").write_text(json.dumps(dict(anchor="a", positive="b", negative="c")) + "\n\n")
    return load("embedding_steps")


def config_of(arm):
    return recipe.parse(config_lib.read_config_file(f"{ROOT}/configs/ablations/embedding.py:{arm}"))


def test_arms_start_from_the_step_before_and_differ_in_that_alone(steps):
    steps.prepare("documents", "triplets.jsonl")
    _, base = config_of("base")
    assert counts.parameters(base["stage1"].model) == 5_245_184 and base["stage2"].start == "stage1"
    starts = {
        "mntp": "runs/embedding/base/stage2",
        "simcse": "runs/embedding/mntp-1/mntp",
        "supervised": "runs/embedding/mntp-1/mntp",
        "supervised_direct": "runs/embedding/base/stage2",
    }
    found = {}
    for arm, start in starts.items():
        parsed, stages = config_of(f"{arm},1")
        assert parsed.stages == (arm,) and parsed.seed == 1 and stages[arm].start == start
        assert str(steps.EXPERIMENT.workdir(arm, 1)) == f"runs/embedding/{arm}-1"
        assert parsed.tokenizer.path == "runs/embedding/base/tokenizer"
        found[arm] = stages[arm]
    assert found["mntp"].mixture == found["simcse"].mixture == {"ko": 0.5, "en": 0.5}
    assert found["supervised"].mixture == {"triplets": 1.0} and not found["supervised"].dropout
    assert found["simcse"].longest == found["supervised"].longest == steps.LONGEST
    section, direct = (vars(found[arm]) for arm in ("supervised", "supervised_direct"))
    assert {key for key in section if section[key] != direct[key]} == {"start"}
    with pytest.raises(ConfigError, match="known: base"):
        config_lib.read_config_file(f"{ROOT}/configs/ablations/embedding.py:other")


def test_data_of_another_folder_are_refused(steps):
    steps.prepare("documents", "triplets.jsonl")
    steps.prepare("documents", "triplets.jsonl")
    (line,) = (steps.FOLDER / "data/triplets.jsonl").read_text().splitlines()
    assert json.loads(line)["negative"] == "c"
    with pytest.raises(SystemExit, match="name that folder"):
        steps.prepare("documents/ko", "triplets.jsonl")


def test_parts_come_in_order_and_none_twice(steps, monkeypatch, capsys):
    """A part that fails leaves the lines before it, and the same command begins with that part."""
    (steps.pathlib.Path("pairs.jsonl")).write_text(json.dumps(dict(sentence1="a", sentence2="b", score=1)) + "\n")
    paragraph = dict(context="c", qas=[dict(question="q")])
    (steps.pathlib.Path("squad.json")).write_text(json.dumps(dict(data=[dict(paragraphs=[paragraph])])))
    asked, made, fails = [], [], {("supervised", 0)}

    def figures_of(arm, seed, sets):
        asked.append((arm, seed))
        if (arm, seed) in fails:
            sys.exit(1)
        return {"KorSTS": seed + 0.1234567}

    monkeypatch.setattr(steps, "figures_of", figures_of)
    monkeypatch.setattr(steps.parts, "kanana", made.append)
    command = ["x", "documents", "triplets.jsonl", "--sts", "KorSTS=pairs.jsonl", "--squad", "KorQuAD=squad.json"]
    command += ["--output", "rows.jsonl"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit):
        steps.main()
    assert asked == [(arm, 0) for arm in ORDER[:5]]
    assert made[0].endswith("embedding.py:base --workdir runs/embedding/base")
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["x", "--list", "--output", "rows.jsonl"])
    steps.main()
    listed = [tuple(line.split()) for line in capsys.readouterr().out.splitlines()]
    seconds = [(arm, 1) for arm in ("mntp", "simcse", "supervised", "supervised_direct")]
    expected = [*((arm, 0) for arm in ORDER[4:]), *seconds]
    assert listed == [(arm, str(seed)) for arm, seed in expected]
    fails.clear()
    asked.clear()
    for more in (["--parts", "2"], []):
        monkeypatch.setattr(sys, "argv", command + more)
        steps.main()
    assert asked == expected
    rows = steps.parts.read(steps.pathlib.Path("rows.jsonl"))
    assert [(row["arm"], row["seed"]) for row in rows] == [*((arm, 0) for arm in ORDER), *seconds]
    assert rows[-1]["figures"] == {"KorSTS": 1.12346} and rows[0]["of"] == {"KorSTS": 1, "KorQuAD": 1}


def test_scores_of_vectors_made_by_hand(steps):
    """Cosines in the order of the scores, and of two questions one finds its passage at rank 2, of 1 / log2(3), one at 1."""
    (steps.pathlib.Path("pairs.jsonl")).write_text(
        "".join(
            json.dumps(dict(sentence1="x", sentence2=b, score=s)) + "\n" for b, s in (("x", 5), ("xy", 3), ("y", 0))
        )
    )
    paragraphs = [
        dict(context=context, qas=qas)
        for context, qas in (("x", []), ("y", [dict(question=question) for question in ("xxy", "y")]))
    ]
    (steps.pathlib.Path("squad.json")).write_text(json.dumps(dict(data=[dict(paragraphs=paragraphs)])))
    sets = steps.Sets.read(["STS=pairs.jsonl"], ["SQuAD=squad.json"], 10)

    class Letters:
        """A vector counts letters."""

        class about:
            instruction = ""

        def __call__(self, texts, instruction=None):
            counted = np.array([[text.count("x"), text.count("y")] for text in texts], np.float32)
            self.values = counted / np.linalg.norm(counted, axis=1, keepdims=True)
            return self

    assert steps.scores(Letters(), sets) == pytest.approx({"STS": 1.0, "SQuAD": (1 / np.log2(3) + 1) / 2})
