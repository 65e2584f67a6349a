"""What data jobs, evaluations and the observatory look up may lie in a bucket: the results are those of folders."""

import gzip
import json

import pytest
from buckets import BUCKET, gcs, s3

from kanana_jax.cli import main
from kanana_jax.data.read import origins, records
from kanana_jax.errors import ConfigError, UserError
from kanana_jax.files import address_of, local_copy, place
from kanana_jax.files.places import cache_folder

QUESTION = (
    "A farmer has seventeen sheep and buys nine more at the spring market; how many sheep are left on the farm then?"
)
PROSE = "The committee met on {0} to talk about the roof of the library.\nIt will be mended before the {0} comes.\n"
FOOTER = "Copyright of the Garam Daily, all rights reserved"


# Paths of either store: tests/storage/test_bucket_paths.py.
@pytest.fixture(params=["gs", pytest.param("s3", marks=pytest.mark.more)])
def root(request, tmp_path, monkeypatch):
    monkeypatch.setenv("KANANA_JAX_CACHE", str(tmp_path / "cache"))
    request.getfixturevalue("gcs" if request.param == "gs" else "s3")
    return place(f"{request.param}://{BUCKET}/{request.node.name.partition('[')[0]}")


def _written(folder, name, *rows):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _documents(folder):
    """Of them one holds a question, one is another's copy, all end in the same line; the last ones teach."""
    texts = [f"{PROSE.format('abcdefghijkl'[i] * 4)}{QUESTION if i == 3 else ''}\n{FOOTER}" for i in range(12)]
    rows = [{"id": str(i), "text": text, "lang": "en"} for i, text in enumerate([*texts, texts[5]])]
    _written(folder, "docs/web.jsonl", *rows)
    _written(folder, "sets/math.jsonl", {"question": QUESTION, "answer": "22"})


def _ran(*command):
    assert main([str(part) for part in command]) == 0


def test_a_filter_looks_up_what_lies_in_a_bucket(root, tmp_path, monkeypatch):
    config, kept, reports = tmp_path / "filters.py", [], []
    for place_ in (tmp_path, root):
        _documents(place_)
        docs = ("--input", f"{place_}/docs/web.jsonl")
        _ran("contamination", "--input", f"math={place_}/sets/math.jsonl:question", "--output", f"{place_}/evaluation")
        _ran("lines", *docs, "--red", 8, "--yellow", 3, "--output", f"{place_}/lines")
        _ran("dedup", *docs, "--output", f"{place_}/copies")
        config.write_text(
            "from ml_collections import ConfigDict\n"
            "def get_config(arg=''):\n"
            "    c = ConfigDict()\n"
            f"    c.filters = dict(en=dict(contamination='{place_}/evaluation',\n"
            "        rules=dict(contamination=dict(signal='contamination', max=0.0))))\n"
            "    return c\n"
        )
        looked_up = ("--lines", f"{place_}/lines", "--duplicates", f"{place_}/copies")
        command = ("filter", "--config", config, *docs, *looked_up, "--output", f"{place_}/filtered")
        _ran(*command)
        kept.append(gzip.decompress((place_ / "filtered/kept.jsonl.gz").read_bytes()).decode())
        reports.append(json.loads((place_ / "filtered/report.json").read_text(encoding="utf-8")))
    ids = [json.loads(line)["id"] for line in kept[1].splitlines()]
    assert kept[0] == kept[1] and "3" not in ids and len(ids) == 11 and FOOTER not in kept[1]
    assert reports[0]["by_rule"] == reports[1]["by_rule"]
    # Another host, whose cache lies elsewhere, finds the same job: nothing of this host's paths is in it.
    monkeypatch.setenv("KANANA_JAX_CACHE", str(tmp_path / "other"))
    local_copy_cache_cleared()
    _ran(*command)
    again = json.loads((root / "filtered/report.json").read_text(encoding="utf-8"))
    assert again["config_hash"] == reports[1]["config_hash"]


def local_copy_cache_cleared():
    """As in another process."""
    from kanana_jax import files
    from kanana_jax.data.arrays import tables
    from kanana_jax.files import places

    files._copy.cache_clear()
    tables._opened.cache_clear()
    places._real.cache_clear()


def test_staged_documents_are_known_by_their_address(root):
    _documents(root)
    (found,) = records.find(f"{root}/docs")
    assert found.address == f"{root}/docs/web.jsonl" == address_of(found.path) and found.path != found.address
    assert address_of(f"{cache_folder()}/made/x") == f"{cache_folder()}/made/x" and address_of("/docs/a") == "/docs/a"
    (here,) = origins.identify([found])
    elsewhere = origins.Origin("/another/cache/web.jsonl", "", "", here.stamp, here.digest)
    assert origins.difference([here], [here]) == "" and "is new" in origins.difference([elsewhere], [here])
    with pytest.raises(UserError, match=f"{root}/never is not there: check the address"):
        local_copy(f"{root}/never")


def test_quality_models_are_trained_and_asked_in_a_bucket(root, tmp_path, capsys):
    """Labels, pool, and the model itself."""
    told, scores = [], []
    for place_ in (tmp_path, root):
        rows = [(str(i), i % 3 == 0) for i in range(120)]
        text = {
            True: "The theorem says that the sum of angles is two right angles {}.",
            False: "Buy cheap shoes now {}!",
        }
        _written(place_, "pool.jsonl", *({"id": i, "text": text[good].format(i)} for i, good in rows))
        _written(place_, "labels.jsonl", *({"id": i, "label": 5 * good} for i, good in rows))
        (tmp_path / "config.py").write_text(
            "from ml_collections import ConfigDict\n"
            "def get_config(arg=''):\n"
            "    c = ConfigDict()\n"
            f"    c.quality = dict(labels='{place_}/labels.jsonl', classifier=dict(dim=8, buckets=2000, epochs=20),\n"
            f"        loop=dict(pool=('{place_}/pool.jsonl',), seed_documents=30, evaluation_documents=40,\n"
            "                  candidates=10, rounds=1))\n"
            "    return c\n"
        )
        _ran("quality", "train", "--config", tmp_path / "config.py", "--output", f"{place_}/out")
        asked = (f"{place_}/out/round0/model.bin", "--input", f"{place_}/pool.jsonl")
        _ran("quality", "score", *asked, "--output", f"{place_}/scores.jsonl.gz")
        lines = gzip.decompress((place_ / "scores.jsonl.gz").read_bytes()).decode().splitlines()
        scores.append([(row["id"], row["score"]) for row in map(json.loads, lines)])
        capsys.readouterr()
        _ran("quality", "threshold", *asked, "--keep", "0.3")
        told.append(capsys.readouterr().out)
    assert scores[0] == scores[1] and len(scores[0]) == 120 and told[0] == told[1]
    given = ["quality", "train", "--config", str(tmp_path / "config.py"), "--output", str(tmp_path / "new")]
    assert main([*given, "--config.quality.endpoint={'url': 'http://localhost:9/v1', 'model': 'no'}"]) == 2
    assert "where nothing can be appended" in capsys.readouterr().err


def test_thresholds_are_fitted_to_texts_of_a_bucket(root, tmp_path):
    fitted = []
    for place_ in (tmp_path, root):
        for lang, word in (("en", "committee"), ("ko", "위원회")):
            rows = [{"id": str(i), "text": PROSE.format(f"{word} {i}") * (1 + i % 5)} for i in range(210)]
            _written(place_, f"{lang}/good.jsonl", *rows)
        command = ("thresholds", "--english-config", "data/en:unfitted", "--english", f"{place_}/en/*", "--lang", "ko")
        _ran(*command, "--config", "data/ko:unfitted", "--input", f"{place_}/ko/*", "--output", f"{place_}/fitted.json")
        fitted.append(json.loads((place_ / "fitted.json").read_text(encoding="utf-8")))
    assert fitted[0] == fitted[1]


def test_tables_of_scores_are_read_from_a_bucket(root, tmp_path):
    pandas = pytest.importorskip("pandas")
    from kanana_jax.observatory import tables

    _ran("observe", "--template", "--output", root / "template")
    assert sorted(f.name for f in (root / "template").iterdir()) == sorted(
        f.name for f in tables.shipped("korean_template").iterdir()
    )
    read = []
    for place_ in (tmp_path, root):
        for file in tables.shipped().glob("*.csv"):
            (place_ / "tables").mkdir(exist_ok=True)
            (place_ / "tables" / file.name).write_bytes(file.read_bytes())
        read.append(tables.read(place_ / "tables/scores.csv"))
    pandas.testing.assert_frame_equal(read[0].scores, read[1].scores)
    pandas.testing.assert_frame_equal(read[0].models, read[1].models)
    assert main(["observe", f"{root}/tables/none.csv", "--output", str(tmp_path / "x")]) == 2


def test_evaluation_sets_are_read_from_a_bucket(root, tmp_path):
    pytest.importorskip("lm_eval")
    from kanana_jax.evaluation import tasks

    docs = []
    for place_ in (tmp_path / "sets", root / "sets"):
        row = {"question": "Frage?", **{f"choice{i}": f"w{i}" for i in range(5)}, "label": 3}
        for path in tasks.load_yaml(tasks.known()["jcommonsenseqa"], resolve_func=False)["files"].values():
            _written(place_, path, row, {**row, "label": 1})
        loaded = tasks.load(["jcommonsenseqa"], place_)
        (task,) = loaded.manager.load(loaded.specs)["tasks"].values()
        docs.append([(task.fewshot_context(doc, 0), task.doc_to_target(doc)) for doc in task.eval_docs])
    assert docs[0] == docs[1] and [target for _, target in docs[0]] == [3, 1]
    with pytest.raises(ConfigError, match="does not exist: give --data-dir a folder"):
        tasks.load(["jcommonsenseqa"], root / "never")
    assert main(["tasks", "jcommonsenseqa", "--data-dir", f"{root}/sets"]) == 0
