"""Round by round on documents of the microworld: textbooks among news and dialogue."""

import gzip
import json

import numpy as np
import pytest
from conftest import ROOT

from kanana_jax import cli
from kanana_jax import config as config_lib
from kanana_jax.data.quality import ClassifierConfig, QualityConfig, loop, pairs
from kanana_jax.data.quality import labels as labels_lib
from kanana_jax.data.read import records
from kanana_jax.errors import ConfigError, UserError

SMALL = ClassifierConfig(dim=8, buckets=2000, epochs=50, min_count=1, learning_rate=0.5)
KINDS = {"textbook": (40, 4), "news": (500, 1), "dialogue": (500, 0)}


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pool")
    labels = {}
    with (folder / "pool.jsonl").open("w") as file:
        for kind, (count, label) in KINDS.items():
            for record in records.read(f"microworld://{kind}/ko?count={count}", source=""):
                labels[record["id"]] = label
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
    with (folder / "labels.jsonl").open("w") as file:
        file.writelines(json.dumps({"id": i, "label": label}) + "\n" for i, label in labels.items())
    return folder


def _config(pool, **changes):
    values = dict(
        seed_documents=60, evaluation_documents=300, candidates=20, rounds=3, pool=(str(pool / "pool.jsonl"),)
    )
    return loop.LoopConfig(**{**values, **changes})


def _run(pool, output, labels=None, **changes):
    labels = labels or labels_lib.Labels(pool / "labels.jsonl", None)
    return loop.run(_config(pool, **changes), SMALL, labels, output)


def test_rounds_add_the_good_documents_that_they_found(pool, tmp_path):
    report = _run(pool, tmp_path / "a")
    rounds = report["rounds"]
    assert len(rounds) == 3
    for before, after in zip(rounds, rounds[1:]):
        assert after["training"]["good"] == before["training"]["good"] + before["found"]
        assert after["training"]["documents"] == before["training"]["documents"] + before["found"]
        assert before["asked"] == 20
    assert rounds[-1]["average_precision"] >= rounds[0]["average_precision"]
    assert rounds[-1]["average_precision"] > 0.9 and sum(r["found"] for r in rounds) > 5
    assert len(report["shown"]["kept"]) > 5 and len(report["shown"]["dropped"]) == 20
    assert all(x["score"] >= rounds[-1]["threshold"] > y["score"]
               for x, y in zip(report["shown"]["kept"], report["shown"]["dropped"]))  # fmt: skip


def test_the_same_bytes_again_and_after_a_stop(pool, tmp_path):
    first = _run(pool, tmp_path / "a")

    class Stopped(Exception):
        pass

    def stop_at(line):
        if line == "round 1: scoring the pool":
            raise Stopped

    labels = labels_lib.Labels(pool / "labels.jsonl", None)
    with pytest.raises(Stopped):
        loop.run(_config(pool), SMALL, labels, tmp_path / "b", stop_at)
    assert len(json.loads((tmp_path / "b/report.json").read_text())["rounds"]) == 1
    second = _run(pool, tmp_path / "b")
    hashes = [[r["model"]["sha256"] for r in found["rounds"]] for found in (first, second)]
    assert hashes[0] == hashes[1] and len(set(hashes[0])) == 3
    for found in (first, second):
        for r in found["rounds"]:
            r["model"].pop("path")
    assert first == second
    with pytest.raises(ConfigError, match="another config"):
        _run(pool, tmp_path / "b", candidates=21)


def test_no_evaluation_document_is_trained_on_or_asked_about_twice(pool, tmp_path):
    known, asked = labels_lib.read_labels(pool / "labels.jsonl"), []

    def annotator(batch):
        asked.extend(r["id"] for r in batch)
        return [known[r["id"], ""] for r in batch]

    report = _run(pool, tmp_path / "a", labels_lib.Labels(tmp_path / "labels.jsonl", annotator))
    assert len(asked) == len(set(asked)) == 300 + 60 + 2 * 20
    assert report["rounds"][0]["evaluation"]["documents"] == 300
    evaluated, trained = set(asked[:300]), set(asked[300:])
    assert not evaluated & trained


def test_a_pool_without_good_documents_says_so(pool, tmp_path):
    with pytest.raises(UserError, match="are good: a classifier needs both kinds"):
        _run(pool, tmp_path / "a", good_from=5)
    with pytest.raises(UserError, match="fewer than the config samples"):
        _run(pool, tmp_path / "b", evaluation_documents=5000)


def test_pairs_measure_what_they_did_not_train_on(pool, tmp_path):
    config = pairs.PairsConfig(
        good=("microworld://textbook/en?count=80",), other=("microworld://dialogue/en?count=80",), heldout=0.3
    )
    report = pairs.run(config, SMALL, tmp_path / "a")
    (only,) = report["rounds"]
    assert only["training"]["documents"] + only["evaluation"]["documents"] == 160
    assert only["average_precision"] > 0.95
    assert pairs.run(config, SMALL, tmp_path / "a") == report
    with pytest.raises(ConfigError, match="another config"):
        pairs.run(config, ClassifierConfig(), tmp_path / "a")


def test_the_verb_trains_scores_and_finds_thresholds(pool, tmp_path, capsys):
    (tmp_path / "config.py").write_text(
        "from ml_collections import ConfigDict\n"
        "def get_config(arg=''):\n"
        "    c = ConfigDict()\n"
        f"    c.quality = dict(labels={str(pool / 'labels.jsonl')!r}, classifier=dict(dim=8, buckets=2000, epochs=50),\n"
        f"        loop=dict(pool=({str(pool / 'pool.jsonl')!r},), seed_documents=60, evaluation_documents=200,\n"
        "                  candidates=20, rounds=2))\n"
        "    return c\n"
    )
    out = tmp_path / "out"
    assert cli.main(["quality", "train", "--config", str(tmp_path / "config.py"), "--output", str(out)]) == 0
    page = (out / "report.html").read_text()
    assert "average precision" in page and "round 1" in page and "kept (" in page
    model = str(out / "round1/model.bin")
    scores = tmp_path / "scores.jsonl.gz"
    arguments = ["--input", str(pool / "pool.jsonl")]
    assert cli.main(["quality", "score", model, *arguments, "--output", str(scores)]) == 0
    with gzip.open(scores) as file:
        found = [json.loads(line)["score"] for line in file]
    assert len(found) == sum(count for count, _ in KINDS.values())
    capsys.readouterr()
    assert cli.main(["quality", "threshold", model, *arguments, "--keep", "0.04"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["kept"] == pytest.approx(0.04, abs=0.002)
    assert np.mean(np.array(found) >= told["threshold"] - 1e-6) == pytest.approx(0.04, abs=0.002)
    assert cli.main(["quality", "threshold", model, *arguments, "--keep", "1.5"]) == 2


@pytest.mark.parametrize("file", ["edu_ko.py", "pairs_en.py"])
def test_shipped_configs_are_read(file):
    config_lib.build(QualityConfig, config_lib.read_config_file(str(ROOT / "configs/data" / file)).quality, "quality")


@pytest.mark.parametrize(
    "values",
    [
        dict(),
        dict(loop=dict(pool=("a",))),
        dict(loop=dict(pool=("a",)), labels="l", pairs=dict(good=("a",), other=("b",))),
        dict(loop=dict(pool=("a",)), judge=dict(model="m"), endpoint=dict(url="http://x", model="m")),
        dict(pairs=dict(good=("a",), other=("b",), heldout=1.0)),
    ],
)
def test_contradictions_are_refused(values):
    with pytest.raises(ConfigError):
        config_lib.build(QualityConfig, values, "quality")
