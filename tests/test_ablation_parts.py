"""The annealing ablation: slices are a partition, every arm trains a step. Parts of an ablation: in order, none twice."""

import dataclasses
import json
import sys

import jax
import numpy as np
import pytest
from conftest import ROOT
from test_benchmarks import load

from kanana_jax import config as config_lib
from kanana_jax.data import microworld
from kanana_jax.data.quality import classifier
from kanana_jax.data.quality.quality_model import GOOD, LABEL
from kanana_jax.recipe import run as recipe

MODEL = "runs/filtering_model/model.bin"


def config_of(name):
    return config_lib.read_config_file(f"{ROOT}/configs/ablations/{name}")


def test_every_score_is_in_one_slice():
    """The bounds of each arm's filter, over scores 0 … 1; `whole` has no filter."""
    for lang in ("ko", "en"):
        found = []
        for arm in ("top", "next", "rest"):
            rule = config_of(f"annealing.py:{arm},0").filters[f"{lang}_web"].rules.score
            scores = np.linspace(0, 1, 1001)
            found.append((scores >= rule.get("min", 0.0)) & (scores <= rule.get("max", 1.0)))
        assert (np.sum(found, axis=0) == 1).all()
        top, middle, rest = (scores[kept].mean() for kept in found)
        assert top > middle > rest
    assert not config_of("annealing.py:whole,0").filters
    assert set(config_of("annealing.py:top_ko,0").filters) == {"ko_web"}
    assert set(config_of("annealing.py:top_en,0").filters) == {"en_web"}


def shrunk(config, stage):
    """A step of 128 tokens by a model of two small layers, from few documents."""
    for source in config.sources.values():
        source.path = source.path.replace("count=16000", "count=400").replace("count=24000", "count=100")
        source.path = source.path.replace("count=300", "count=30")
    config.evaluation.update(max_bytes=500, batch_size=8)
    config[stage].train.update(tokens=128, batch_tokens=128, seq_len=32, eval_every=0)
    if "model" in config[stage]:
        config.tokenizer.update(vocab_size=300, train_bytes=20_000)
        config[stage].model.update(vocab_size=300, embed_dim=16, mlp_dim=32, num_layers=2, num_heads=2, head_dim=8)
    return config


@pytest.fixture(scope="module")
def annealed(tmp_path_factory):
    """A folder with a classifier and stage 1 of a step; and the experiment."""
    folder = tmp_path_factory.mktemp("annealing")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        texts, labels = [], []
        for kind, label in (("news", GOOD), ("textbook", GOOD), ("web", f"{LABEL}other")):
            for lang in ("ko", "en"):
                found = [d["text"] for d in microworld.parse_uri(f"microworld://{kind}/{lang}?count=300&start=80000")]
                texts, labels = texts + found, labels + [label] * len(found)
        training = config_of("filtering.py:model").quality.classifier
        training = classifier.ClassifierConfig(**training.to_dict() | dict(dim=8, buckets=20_000, epochs=10))
        (folder / MODEL).parent.mkdir(parents=True)
        classifier.train(texts, labels, training, folder / MODEL)
        recipe.run(
            shrunk(config_of("annealing.py:stage1"), "stage1"),
            folder / "runs/annealing/stage1",
            devices=jax.devices()[:1],
        )
    parts = load("parts").EXPERIMENTS["annealing"]
    return folder, parts


def train(annealed, arm, monkeypatch):
    folder, parts = annealed
    monkeypatch.chdir(folder)
    recipe.run(shrunk(config_of(f"annealing.py:{arm},0"), "annealed"), parts.workdir(arm, 0), devices=jax.devices()[:1])
    return folder / parts.workdir(arm, 0)


@pytest.mark.parametrize(
    "arm",
    [
        *("whole", "next", "top_ko"),
        *(pytest.param(arm, marks=pytest.mark.more) for arm in ("top", "rest", "top_en")),  # other bounds of the same
    ],
)
def test_an_arm_trains_a_step_on_its_slice(annealed, arm, monkeypatch):
    workdir = train(annealed, arm, monkeypatch)
    first = json.loads((annealed[0] / "runs/annealing/stage1/stage1/model/model.json").read_text())
    filtered = dict(whole=(), top_ko=("ko",), top_en=("en",))
    card = json.loads((workdir / "annealed/model/model.json").read_text())
    assert card["parameters"] == first["parameters"] and card["tokens"] == 128
    read = json.loads((workdir / "annealed/data_report.json").read_text())["sources"]
    for lang in ("ko", "en"):
        pages = read[f"{lang}_web"]
        judged = lang in filtered.get(arm, ("ko", "en"))
        assert pages["kept"] > 0 and pages["unjudged"] == (0 if judged else pages["documents"])


def test_a_finished_part_is_a_line_of_what_its_model_says(annealed, monkeypatch):
    folder, parts = annealed
    train(annealed, "next", monkeypatch)  # or finds it trained
    row = load("parts").row_of(dataclasses.replace(parts, folder=str(folder / parts.folder)), "next", 0)
    said = json.loads((folder / "runs/annealing/next-0/annealed/model/model.json").read_text())["evaluation"]
    assert row["arm"] == "next" and row["seed"] == 0 and row["tokens"] == 128
    assert row["bits_per_byte"] == pytest.approx(said["bits_per_byte"], abs=1e-5)


def test_first_seeds_come_first_and_no_part_twice(tmp_path):
    parts = load("parts")
    file = tmp_path / "rows.jsonl"
    assert parts.read(file) == []
    experiment = parts.Experiment("x.py:{arm},{seed}", "runs/x", ("a", "b"), (), seeds=(0, 1))
    done = []
    for expected in (("a", 0), ("b", 0), ("a", 1), ("b", 1)):
        left = parts.remaining(experiment, parts.read(file))
        assert left[0] == expected and len(left) == 4 - len(done)
        done.append(dict(arm=left[0][0], seed=left[0][1]))
        file.write_text("".join(json.dumps(row) + "\n" for row in done))
    assert parts.remaining(experiment, parts.read(file)) == []


def test_parts_of_every_experiment_are_configs_whose_last_stage_counts():
    for name, experiment in load("parts").EXPERIMENTS.items():
        assert len({experiment.workdir(arm, seed) for arm in experiment.arms for seed in experiment.seeds}) == (
            len(experiment.arms) * len(experiment.seeds)
        )
        for arm in experiment.arms:
            parsed, stages = recipe.parse(config_of(experiment.config.format(arm=arm, seed=1)))
            assert parsed.seed == 1
            trained = [stage for stage, section in stages.items() if hasattr(section, "train")]
            assert trained[-1:] == [parsed.stages[-1]] or stages[parsed.stages[-1]].kind == "merge"
            assert len(trained) == 1 or name in ("alignment", "adaptation")


def test_the_papers_ratio_is_a_tenth_of_the_tokens():
    teacher = recipe.parse(config_of("small.py"))[1]["stage1"].train
    pruned = recipe.parse(config_of("pruning.py:pruned_kd_10-0"))[1]["pruned_kd_10"].train
    for arm, rate in (("scratch_ce_100", 1.0), ("scratch_ce_100_lower", 0.5)):
        fresh = recipe.parse(config_of(f"pruning.py:{arm}-0"))[1][arm].train
        assert fresh.tokens == teacher.tokens == 10 * pruned.tokens
        assert fresh.optimizer.learning_rate == rate * pruned.optimizer.learning_rate


def test_arms_are_compared_from_a_file_of_lines(tmp_path, monkeypatch, capsys):
    """Two seeds 0.10 and 0.14 apart: 0.12 ± 12.706 · 0.02 (t of one degree of freedom, sd / √2)."""
    rows = [("a", 0, 1.0), ("b", 0, 1.10), ("a", 1, 2.0), ("b", 1, 2.14), ("b", 2, 9.0)]
    lines = [dict(arm=arm, seed=seed, bits_per_byte={"lang/ko": bits}) for arm, seed, bits in rows]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    arguments = ["arms.py", str(tmp_path / "rows.jsonl"), "--metric", "lang/ko", "--against", "a"]
    monkeypatch.setattr(sys, "argv", arguments)
    load("arms").main()
    base, other = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert base["seeds"] == 2 and base["mean"] == 1.5 and other["seeds"] == 3
    assert other["minus a"] == pytest.approx(0.12) and other["ci95 of it"] == pytest.approx(12.706 * 0.02, abs=1e-3)
