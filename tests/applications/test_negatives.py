"""Hard negatives: by loops over cosines in float64, with repeated anchors and texts, and by the verb."""

import dataclasses
import json

import jax
import numpy as np
import own_models
import pytest

from kanana_jax import cli
from kanana_jax.applications.embedder import Embedder
from kanana_jax.applications.negatives import MineConfig, mine, pairs_of
from kanana_jax.data import microworld
from kanana_jax.data.read import records
from kanana_jax.errors import UserError

RECORDS = [
    *({"id": str(i), "anchor": f"{i % 9}의 짝은?", "positive": f"{i % 9}의 짝은 {i}이다."} for i in range(12)),
    {"id": "given", "anchor": "도서관은 어디?", "positive": "도서관은 가람시에 있다.", "negatives": ["3의 짝은 3이다.", "모른다."]},
    {"id": "many", "anchor": "A?", "positive": "B.", "negatives": ["c", "d", "e", "f"]},
]  # fmt: skip
TEXTS = ["가람시에 새 도서관이 생겼다.", "3의 짝은 3이다.", "3의 짝은?", "A library opened."]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return own_models.write(tmp_path_factory.mktemp("base"), "bpe", microworld.World.create(0, 100))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    file = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    lines = [*map(json.dumps, RECORDS), json.dumps({"text": "no pair"}), json.dumps({"anchor": " ", "positive": "b"})]
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


def _by_hand(embedder, config):
    passages = list(dict.fromkeys([*(r["positive"] for r in RECORDS), *TEXTS]))
    vectors = {text: embedder([text]).values[0].astype(np.float64) for text in passages}
    for record in RECORDS:
        own = embedder([record["anchor"]], "질문:\n").values[0].astype(np.float64)
        limit = config.below * (own @ vectors[record["positive"]])
        given = record.get("negatives", [])
        never = {r["positive"] for r in RECORDS if r["anchor"] == record["anchor"]} | {record["anchor"], *given}
        near = sorted(
            (-(own @ vectors[text]), text) for text in passages if text not in never and own @ vectors[text] <= limit
        )
        wanted = max(config.negatives - len(given), 0)
        yield [*given, *(text for _, text in near[config.skip : config.skip + wanted])]


@pytest.mark.parametrize("config", [MineConfig(below=0.99), MineConfig(negatives=3, below=0.97, skip=2)])
def test_negatives_are_the_nearest_that_are_allowed(folder, pairs, config, monkeypatch):
    monkeypatch.setattr("kanana_jax.applications.negatives._MOST_COSINES", 60)  # a few anchors at a time
    embedder = dataclasses.replace(Embedder.load(str(folder), devices=jax.devices()[:1]), batch_tokens=64)
    found = pairs_of(records.read(str(pairs), source="pairs"))
    assert found.left_out == 2
    got = list(mine(embedder, found.records, TEXTS, config, "질문:\n"))
    assert [one["negatives"] for one in got] == list(_by_hand(embedder, config))
    assert [one["id"] for one in got] == [r["id"] for r in RECORDS]
    assert any(len(one["negatives"]) == config.negatives for one in got)
    with pytest.raises(UserError, match="no record has an 'anchor'"):
        next(mine(embedder, [], TEXTS, config))


def test_the_verb_writes_pairs_that_are_read_again(folder, pairs, tmp_path, capsys):
    out, texts = tmp_path / "mined.jsonl", tmp_path / "texts.jsonl"
    texts.write_text("\n".join(json.dumps({"text": text}) for text in TEXTS), encoding="utf-8")
    command = ["mine", str(folder), str(pairs), "--texts", str(texts), "--output", str(out)]
    assert cli.main([*command, "--negatives", "2"]) == 0
    assert "14 pairs, " in (told := capsys.readouterr().out) and "2 records without an anchor" in told
    again = pairs_of(records.read(str(out), source="pairs")).records
    assert [r["anchor"] for r in again] == [r["anchor"] for r in RECORDS]
    assert len(again[0]["negatives"]) <= 2 and again[-1]["negatives"] == ["c", "d", "e", "f"]
    first = out.read_bytes()
    for _ in range(2):  # with vectors that are made, and with those that are kept
        assert cli.main([*command, "--negatives", "2", "--vectors", str(tmp_path / "kept")]) == 0
        assert out.read_bytes() == first and (tmp_path / "kept/000000.npy").is_file()
    assert cli.main([*command, "--below", "2"]) == 2
    assert cli.main(["mine", str(folder), str(pairs), "--output", str(pairs)]) == 2
