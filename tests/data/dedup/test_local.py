"""Clusters and verdicts: against scipy, planted copies, several runs against one, and inside the filter."""

import json
import pickle
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_matrix, csgraph

from kanana_jax import cli
from kanana_jax.data import filters, microworld
from kanana_jax.data.arrays import tables
from kanana_jax.data.dedup import clusters, local, verdicts
from kanana_jax.data.dedup.index import DedupConfig
from kanana_jax.data.read import origins, records
from kanana_jax.errors import ConfigError, UserError


@given(st.integers(1, 30), st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=40))
@settings(max_examples=300, deadline=None)
def test_components_are_those_of_scipy(count, pairs):
    pairs = np.array([(a % count, b % count) for a, b in pairs], np.int64).reshape(-1, 2)
    labels = clusters.components(count, [(pairs[:, 0], pairs[:, 1])])
    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), (count, count))
    _, wanted = csgraph.connected_components(graph, directed=False)
    for i in range(count):
        assert labels[i] == np.flatnonzero(wanted == wanted[i]).min()


def test_long_chains_are_joined():
    n = 20_000
    order = np.random.default_rng(0).permutation(n)
    assert (clusters.components(n, [(order[:-1], order[1:])]) == 0).all()


def _words(rng, count):
    return [
        rng.choice("가나다라마바사아자차카타파하") * rng.randint(1, 3) + str(rng.randint(0, 9999)) for _ in range(count)
    ]


def _documents(seed=0):
    """40 originals; exact copies in another case and form, near copies of every 4th, others unlike."""
    rng, found = random.Random(seed), []
    for i in range(40):
        words = _words(rng, 200)
        found.append({"id": f"o{i}", "text": " ".join(words), "lang": "ko", "meta": {"quality": 0.1}})
        if i % 4 == 0:
            copy = list(words)
            copy[100] = "바뀜"
            found.append(
                {
                    "id": f"n{i}",
                    "text": " ".join([*copy, "덧붙인", "말이", "더", "있다"]),
                    "lang": "ko",
                    "meta": {"quality": 0.9},
                }
            )
        if i % 5 == 0:
            found.append({"id": f"e{i}", "text": "  " + "\n".join(words), "lang": "ko"})
    rng.shuffle(found)
    return found


def _write(path, documents):
    path.write_text("".join(json.dumps(d, ensure_ascii=False) + "\n" for d in documents))
    return str(path)


def _placed(path):
    """Records with their places."""
    (origin,) = origins.identify(records.find(path))
    return list(records.documents_of(origin, source="s"))


def _judged(output):
    return {d["id"]: (d["verdict"], d["kept"]) for d in map(json.loads, (output / "duplicates.jsonl").open())}


def test_planted_copies_are_found(tmp_path):
    documents = _documents()
    path = _write(tmp_path / "a.jsonl", documents)
    report = local.run(DedupConfig(), [path], tmp_path / "out")
    assert report["documents"] == len(documents) == 58
    assert (report["kept"], report["exact"] + report["near"]) == (40, 18)
    position = {d["id"]: i for i, d in enumerate(documents)}
    for identity, (verdict, kept) in _judged(tmp_path / "out").items():
        assert identity[1:] == kept[1:] and position[kept] < position[identity]
        same = {identity[0], kept[0]} == {"o", "e"}
        assert verdict == ("exact_duplicate" if same else "near_duplicate")
    look_up = pickle.loads(pickle.dumps(verdicts.Verdicts(tmp_path / "out")))
    judged = _judged(tmp_path / "out")
    assert all(look_up(d) == judged.get(d["id"], (None,))[0] for d in _placed(path))


def test_the_longest_or_the_best_is_kept(tmp_path):
    path = _write(tmp_path / "a.jsonl", _documents())
    local.run(DedupConfig(keep="longest"), [path], tmp_path / "longest")
    assert {kept[0] for i, (_, kept) in _judged(tmp_path / "longest").items() if int(i[1:]) % 4 == 0} == {"n"}
    local.run(DedupConfig(keep="best"), [path], tmp_path / "best")
    assert {kept[0] for i, (_, kept) in _judged(tmp_path / "best").items() if int(i[1:]) % 4 == 0} == {"n"}


@given(st.integers(1, 57), st.sampled_from(["first", "longest", "best"]))
@settings(max_examples=8, deadline=None)
def test_shard_after_shard_gives_what_one_run_gives(tmp_path_factory, cut, keep):
    folder, documents = tmp_path_factory.mktemp("shards"), _documents(1)
    one = _write(folder / "1.jsonl", documents[:cut])
    two = _write(folder / "2.jsonl", documents[cut:])
    config = DedupConfig(keep=keep)
    whole = local.run(config, [one, two], folder / "whole")
    local.run(config, [one], folder / "parts")
    assert local.run(config, [one, two], folder / "parts") == whole
    for name in ("duplicates.jsonl", "report.json", "verdicts.safetensors"):
        assert (folder / "whole" / name).read_bytes() == (folder / "parts" / name).read_bytes()
    assert local.run(config, [two], folder / "parts") == whole


def test_clusters_do_not_depend_on_the_order(tmp_path):
    documents = _documents()
    groups = []
    for seed in (0, 1):
        random.Random(seed).shuffle(documents)
        local.run(DedupConfig(), [_write(tmp_path / f"{seed}.jsonl", documents)], tmp_path / str(seed))
        together = {}
        for identity, (_, kept) in _judged(tmp_path / str(seed)).items():
            together.setdefault(kept, {kept}).add(identity)
        groups.append({frozenset(group) for group in together.values()})
    assert groups[0] == groups[1]


def test_the_noisy_crawl_and_the_inline_filter(tmp_path, capsys):
    """The command, then a filter that drops what it found; languages are judged by their own shingles."""
    found = [r for lang in ("ko", "en", "ja") for r in microworld.parse_uri(f"microworld://news/{lang}?count=60")]
    copies = [{**r, "id": r["id"] + "-copy", "text": r["text"] + "!"} for r in found[::10]]
    path = _write(tmp_path / "a.jsonl", [*found, *copies])
    assert cli.main(["dedup", "--input", path, "--output", str(tmp_path / "out")]) == 0
    assert f"{len(found)} of {len(found) + len(copies)} documents kept" in capsys.readouterr().out
    judge = filters.Filter(filters.FilterConfig(duplicates=str(tmp_path / "out")))
    placed = _placed(path)
    dropped = [r["id"] for r in placed if judge(r).rules]
    assert dropped == [r["id"] for r in copies]
    assert judge(placed[-1]).rules in (("near_duplicate",), ("exact_duplicate",))


def test_empty_and_hostile_texts(tmp_path):
    texts = ["", "!!!", "\u200b\u202e", "a", "a", "\x00", "ㅋ" * 5000, "x " * 5000]
    lines = [json.dumps({"id": str(i), "text": t}) for i, t in enumerate(texts)]
    (tmp_path / "a.jsonl").write_text("\n".join([*lines, "{broken", '{"id": "s", "text": "\\ud800"}']))
    report = local.run(DedupConfig(), [str(tmp_path / "a.jsonl")], tmp_path / "out")
    assert _judged(tmp_path / "out") == {"4": ("exact_duplicate", "3")} and report["documents"] == 7


def test_errors(tmp_path, capsys):
    path = _write(tmp_path / "a.jsonl", _documents()[:3])
    local.run(DedupConfig(), [path], tmp_path / "out")
    with pytest.raises(ConfigError, match="another config"):
        local.run(DedupConfig(keep="longest"), [path], tmp_path / "out")
    with pytest.raises(UserError, match="kanana dedup"):
        filters.Filter(filters.FilterConfig(duplicates=str(tmp_path)))
    (tmp_path / "b.jsonl").write_text("{\n")
    with pytest.raises(UserError, match="no documents"):
        local.run(DedupConfig(), [str(tmp_path / "b.jsonl")], tmp_path / "new")
    for option, value in (("--rows", "0"), ("--threshold", "0"), ("--threshold", "1.2"), ("--threshold", "nan")):
        assert cli.main(["dedup", "--input", path, "--output", str(tmp_path / "c"), option, value]) == 2
        assert option in capsys.readouterr().err
    tables.write(tmp_path / "out/index.safetensors", {"format": 2}, {"bands": np.zeros((1, 14), np.uint64)})
    with pytest.raises(ConfigError, match="older version"):
        local.run(DedupConfig(), [path], tmp_path / "out")
