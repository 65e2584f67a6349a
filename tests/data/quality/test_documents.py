"""A label and a score belong to a document, whatever ids repeat; other documents than before are refused by name."""

import gzip
import json
import os
import random

import pytest

from kanana_jax import cli
from kanana_jax.data.quality import ClassifierConfig, loop, pairs
from kanana_jax.data.quality import documents as documents_lib
from kanana_jax.data.quality import labels as labels_lib
from kanana_jax.errors import ConfigError, UserError

SMALL = ClassifierConfig(dim=4, buckets=500, epochs=30, min_count=1, learning_rate=0.5)


def _record(identity, text):
    return {"id": identity, "text": text, "source": "s"}


def _write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_documents_of_one_id_have_labels_of_their_own_and_copies_are_asked_about_once(tmp_path):
    documents = [_record("0", "good text"), _record("0", "bad text"), _record("0", "good text"), _record("1", "x")]
    asked = []

    def annotator(batch):
        asked.extend(r["text"] for r in batch)
        return [4 if "good" in r["text"] else 0 for r in batch]

    assert labels_lib.Labels(tmp_path / "l.jsonl", annotator)(documents) == [4, 0, 4, 0]
    assert asked == ["good text", "bad text", "x"]
    assert labels_lib.Labels(tmp_path / "l.jsonl", annotator)(documents) == [4, 0, 4, 0] and len(asked) == 3


def test_a_label_by_id_alone_means_one_document_or_is_refused(tmp_path):
    file = tmp_path / "l.jsonl"
    _write(file, [{"id": "0", "label": 5}, {"id": "1", "label": 1}])
    known = labels_lib.Labels(file, None)
    assert known([_record("0", "a"), _record("0", "a"), _record("1", "b"), _record("2", "c")]) == [5, 5, 1, None]
    with pytest.raises(UserError, match="l.jsonl gives a label to '1', which several documents"):
        list(known.checked([_record("1", "b"), _record("1", "other")]))
    _, text = documents_lib.key_of(_record("0", "other"))
    _write(file, [{"id": "0", "text": text, "label": 2}])
    assert labels_lib.Labels(file, None)([_record("0", "a"), _record("0", "other")]) == [None, 2]


def test_a_sample_is_what_sorting_everything_gives():
    """Against a sort, with ids that repeat, copies and scores that tie."""
    rng = random.Random(0)
    documents = [_record(str(rng.randrange(40)), f"text {rng.randrange(4)}") for _ in range(400)]
    order = {
        documents_lib.key_of(r): (documents_lib.order_of(r["id"], "s"), documents_lib.key_of(r)) for r in documents
    }
    for count in (0, 1, 7, 90, 1000):
        for _ in range(3):
            rng.shuffle(documents)
            found = [documents_lib.key_of(r) for r in documents_lib.sample(documents, count, "s")]
            assert found == sorted(order, key=order.__getitem__)[:count]


def _pool(folder, count=120):
    """Two shards that each count from 0; every third document is good."""
    folder.mkdir()
    good, bad = ["함수", "변수", "반복문", "자료형", "정렬"], ["할인", "쿠폰", "무료", "배송", "특가"]
    rng, labels = random.Random(1), []
    for shard in "ab":
        rows = []
        for i in range(count):
            words = good if (i + (shard == "b")) % 3 == 0 else bad
            rows.append({"id": str(i), "text": " ".join(rng.choices(words, k=12)) + f" {shard}{i}"})
            key = documents_lib.key_of(rows[-1])
            labels.append({"id": key[0], "text": key[1], "label": 5 if words is good else 0})
        _write(folder / f"{shard}.jsonl", rows)
    _write(folder.parent / "labels.jsonl", labels)


def test_rounds_on_shards_that_each_count_from_zero_and_other_pools(tmp_path):
    _pool(tmp_path / "pool")
    config = loop.LoopConfig(
        (str(tmp_path / "pool/*.jsonl"),), seed_documents=60, evaluation_documents=80, candidates=10, rounds=2
    )

    def run():
        known = labels_lib.Labels(tmp_path / "labels.jsonl", None)
        return loop.run(config, SMALL, known, tmp_path / "out")

    report = run()
    assert report["rounds"][-1]["average_precision"] > 0.95  # half of the labels would be of the other shard's document
    assert report["rounds"][0]["evaluation"]["documents"] == 80 and report["rounds"][0]["found"] == 10
    os.utime(tmp_path / "pool/a.jsonl", ns=(1, 1))
    assert run()["rounds"] == report["rounds"]
    with (tmp_path / "pool/b.jsonl").open("a") as file:
        file.write(json.dumps({"id": "new", "text": "할인"}) + "\n")
    with pytest.raises(ConfigError, match=r"started with other inputs \(.*b.jsonl has changed\)"):
        run()


def test_pairs_on_other_documents_are_refused(tmp_path):
    rows = [{"id": str(i), "text": f"{word} {i}"} for word in ("함수",) for i in range(30)]
    good = _write(tmp_path / "g.jsonl", rows)
    other = _write(tmp_path / "o.jsonl", [{**row, "text": row["text"].replace("함수", "할인")} for row in rows])
    config = pairs.PairsConfig((good,), (other,), heldout=0.3)
    report = pairs.run(config, SMALL, tmp_path / "out")
    assert pairs.run(config, SMALL, tmp_path / "out") == report
    _write(tmp_path / "o.jsonl", [{**row, "text": "할인"} for row in rows])
    with pytest.raises(ConfigError, match=r"other inputs \(.*o.jsonl has changed\)"):
        pairs.run(config, SMALL, tmp_path / "out")
    for damaged in ('{"config_hash": 1, "rounds": []}', '{"config_hash": "a", "rounds": [{}]}', "[]", "{}", ""):
        (tmp_path / "out/report.json").write_text(damaged)
        with pytest.raises(UserError):
            pairs.run(config, SMALL, tmp_path / "out")
    scores = tmp_path / "scores.jsonl.gz"
    arguments = ["quality", "score", str(tmp_path / "out/model.bin"), "--input", good, other, "--output", str(scores)]
    assert cli.main(arguments) == 0
    with gzip.open(scores) as file:
        places = [json.loads(line)["place"] for line in file]
    assert places == [f"{path}:{i + 1}" for path in (good, other) for i in range(30)]
