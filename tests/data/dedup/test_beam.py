"""Beam's verdicts are those of the local path, to the byte."""

import json
import random

import pytest

from kanana_jax.data.dedup import local
from kanana_jax.data.dedup.index import DedupConfig
from kanana_jax.errors import UserError
from kanana_jax.files import locked

pytest.importorskip("apache_beam")
from kanana_jax.data.dedup import beam  # noqa: E402
from kanana_jax.data.dedup.minhash import MinHashConfig  # noqa: E402


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Three files, two of one name, ids that repeat or are missing; texts that drift step by step make long chains."""
    folder, rng, found = tmp_path_factory.mktemp("shards"), random.Random(0), []
    for family in range(12):
        words = [f"w{rng.randint(0, 10**6)}" for _ in range(150)]
        for step in range(rng.randint(1, 14)):
            text = " ".join(words) if rng.random() < 0.8 else "\n".join(words)
            identity = [{"id": f"{family}-{step}"}, {"id": str(step)}, {}][step % 3]
            found.append({**identity, "text": text, "lang": "en", "meta": {"quality": rng.random()}})
            for _ in range(rng.randint(0, 9)):
                words[rng.randrange(150)] = f"w{rng.randint(0, 10**6)}"
    rng.shuffle(found)
    for i, name in enumerate(("a/0.jsonl", "b/0.jsonl", "c.jsonl")):
        lines = [json.dumps(d) + "\n" for d in found[i::3]]
        lines.insert(2, "{broken\n" if i == 1 else "\n")
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("".join(lines))
    return folder


@pytest.mark.parametrize("compared", [1024, 3])  # also where a band holds too many to be compared in pairs
def test_verdicts_are_those_of_the_local_path(shards, tmp_path, monkeypatch, compared):
    monkeypatch.setattr(beam, "_COMPARED", compared)
    config = DedupConfig(MinHashConfig(bands=6, rows=4), keep="best")
    inputs = [str(shards / "b"), str(shards / "*/*.jsonl"), str(shards)]
    wanted = local.run(config, inputs, tmp_path / "local")
    with locked(tmp_path / "beam"):  # as the verb holds it
        assert beam.run(config, inputs, tmp_path / "beam", rounds=3) == wanted
    assert wanted["near"] > 10 and wanted["exact"] > 0 and max(map(int, wanted["clusters"])) > 3
    assert wanted["kept"] > 20  # of twelve families: what has drifted far is another document
    for name in ("duplicates.jsonl", "report.json", "verdicts.safetensors"):
        assert (tmp_path / "local" / name).read_bytes() == (tmp_path / "beam" / name).read_bytes()


def test_stars_join_any_graph():
    """The two steps, run in plain Python on a long chain, end in stars within the default rounds."""
    chain = [(i + 1, i) for i in random.Random(1).sample(range(60), 60)]
    edges = set(chain)
    for _ in range(6):
        for step, both in ((beam._large_star, True), (beam._small_star, False)):
            groups = {}
            for a, b in edges:
                for x, y in ((a, b), (b, a)) if both else ((max(a, b), min(a, b)),):
                    groups.setdefault(x, []).append(y)
            edges = {edge for group in groups.items() for edge in step(group)}
    assert edges == {(i, 0) for i in range(1, 61)}


def test_too_few_rounds_are_an_error(shards, tmp_path):
    (tmp_path / "chain").mkdir()
    words, lines = [f"w{i}" for i in range(40)], []
    for step in range(40):  # each shares most with the next, little with those far away
        lines.append(json.dumps({"id": str(step), "text": " ".join(words[step:] + [f"x{i}" for i in range(step)])}))
    (tmp_path / "chain/a.jsonl").write_text("\n".join(lines))
    with pytest.raises(Exception, match="raise rounds"):
        beam.run(DedupConfig(MinHashConfig(40, 2)), [str(tmp_path / "chain")], tmp_path / "out", rounds=0)


def test_an_output_in_use(shards, tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(UserError, match="not empty"):
        beam.run(DedupConfig(), [str(shards)], tmp_path)
