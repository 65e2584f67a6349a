"""The batch job: the same bytes for any number of workers and stops, counts that add up, errors in one sentence."""

import gzip
import json

import numpy as np
import pytest
from conftest import ROOT
from pyarrow import parquet

from kanana_jax import cli
from kanana_jax import config as config_lib
from kanana_jax.data import filters, microworld
from kanana_jax.data.filters import job, totals
from kanana_jax.data.filters.signals import NAMES
from kanana_jax.errors import ConfigError, UserError

FILES = ("kept.jsonl.gz", "dropped.jsonl.gz", "report.json", "examples.json", "signals.parquet")
CONFIGS = {
    "en": config_lib.build(
        filters.FilterConfig, config_lib.read_config_file(str(ROOT / "configs/data/en.py")).filters.en, "filters.en"
    ),
    "ko": filters.FilterConfig(
        pii=True, rules={"short": filters.Rule("characters", min=120), "hangul": filters.Rule("hangul", min=0.6)}
    ),
}


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    folder = tmp_path_factory.mktemp("documents")
    for kind in ("news", "noise"):
        for lang in ("ko", "en"):
            records = microworld.parse_uri(f"microworld://{kind}/{lang}?count=60&size=100")
            records = [
                {**r, "text": r["text"].replace(" ", " a@b.kr ", 1)} if i % 9 == 0 else r for i, r in enumerate(records)
            ]
            lines = [json.dumps({**r, "source": kind, "lang": lang}, ensure_ascii=False) + "\n" for r in records]
            (folder / f"{kind}.{lang}.jsonl").write_text("".join(lines))
    return folder


def _run(documents, output, **config):
    settings = job.JobConfig(**{"keep_dropped": True, "signals": True, "chunk": 7, "save_every": 3, **config})
    return job.run(CONFIGS, str(documents), output, settings)


def _bytes(folder):
    return {name: (folder / name).read_bytes() for name in FILES}


def _lines(path):
    return [json.loads(line) for line in gzip.open(path, "rt")]


@pytest.fixture(scope="module")
def plain(documents, tmp_path_factory):
    output = tmp_path_factory.mktemp("plain")
    return output, _run(documents, output)


def test_counts_add_up_and_outputs_are_in_input_order(documents, plain):
    output, report = plain
    kept, dropped = _lines(output / "kept.jsonl.gz"), _lines(output / "dropped.jsonl.gz")
    assert report["documents"] == 240 and report["kept"] == len(kept) > 0 and report["dropped"] == len(dropped) > 0
    assert sum(n["first"] for n in report["by_rule"].values()) == len(dropped)
    assert all(n["only"] <= n["first"] <= n["any"] for n in report["by_rule"].values())
    assert sum(s["documents"] for s in report["by_source"].values()) == 240
    for rule, numbers in report["by_rule"].items():
        assert numbers["any"] == sum(rule in d["rules"] for d in dropped)
        assert numbers["only"] == sum(d["rules"] == [rule] for d in dropped)
    assert report["pii"] == {"email": sum("<EMAIL>" in d["text"] for d in kept)} and report["pii"]["email"] > 0
    names = [json.loads(line)["id"] for file in sorted(documents.iterdir()) for line in file.open()]
    for found in (kept, dropped):
        places = [names.index(d["id"]) for d in found]
        assert places == sorted(places)
    table = parquet.read_table(output / "signals.parquet")
    assert table.column_names == ["id", *totals.columns(CONFIGS)] and table.column("id").to_pylist() == names
    judge = filters.Filters(CONFIGS)
    first = json.loads((documents / "news.en.jsonl").open().readline())
    signals = judge.of(first["source"], first["lang"])(first).signals
    assert [table.column(n)[0].as_py() for n in NAMES] == pytest.approx(np.array(signals, np.float32).tolist())


@pytest.mark.parametrize("workers", [2, 8])
def test_any_number_of_workers_writes_the_same_bytes(documents, plain, tmp_path, workers):
    _run(documents, tmp_path, workers=workers)
    assert _bytes(tmp_path) == _bytes(plain[0])


@pytest.mark.parametrize("stops", [(1,), (3,), (5, 9), (2, 2, 34)])
def test_stopped_at_any_chunk_and_gone_on_with_writes_the_same_bytes(documents, plain, tmp_path, stops):
    for stop in stops:
        seen = []

        def progress(*_, seen=seen, stop=stop):
            seen.append(1)
            if len(seen) == stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            job.run(CONFIGS, str(documents), tmp_path, job.JobConfig(1, True, True, chunk=7, save_every=3), progress)
    _run(documents, tmp_path)
    assert _bytes(tmp_path) == _bytes(plain[0])
    before = (tmp_path / "kept.jsonl.gz").stat().st_mtime_ns
    _run(documents, tmp_path)
    assert (tmp_path / "kept.jsonl.gz").stat().st_mtime_ns == before


def test_another_config_is_refused(documents, plain):
    with pytest.raises(ConfigError, match="another config"):
        job.run({}, str(documents), plain[0])


def test_too_many_broken_lines(documents, tmp_path):
    lines = (documents / "news.en.jsonl").read_text().splitlines()
    (tmp_path / "a.jsonl").write_text("\n".join([*lines[:10], "{", *lines[10:]]))
    with pytest.raises(UserError, match=r"1 of 61 lines are broken, the first is .*a.jsonl:11"):
        job.run(CONFIGS, str(tmp_path / "a.jsonl"), tmp_path / "out")
    report = job.run(CONFIGS, str(tmp_path / "a.jsonl"), tmp_path / "out2", job.JobConfig(max_broken_share=0.1))
    assert report["broken_lines"] == 1 and report["documents"] == 60


def test_the_command(documents, tmp_path, capsys):
    """Reports name the spans and hold no script; an unknown override is refused."""
    arguments = ["filter", "--config", str(ROOT / "configs/data/en.py"), "--input", str(documents / "*.en.jsonl")]
    assert cli.main([*arguments, "--output", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<script" not in page and "Rules that are broken together" in page and "alphabetic_words" in page
    assert not (tmp_path / "out" / "dropped.jsonl.gz").exists()
    assert cli.main([*arguments, "--output", str(tmp_path / "b"), "--config.filters.en.untis=word"]) == 2
    assert "did you mean 'unit'" in capsys.readouterr().err
    assert cli.main([*arguments, "--output", str(tmp_path / "b"), "--workers", "0"]) == 2


def test_raw_documents_in_a_legacy_encoding(tmp_path):
    """`.txt` in CP949 is read as such, with a format named or not."""
    (tmp_path / "raw").mkdir()
    text = "오늘은 날씨가 맑고 바람이 시원하다. 그래서 사람들이 공원에 많이 나왔다. " * 5
    (tmp_path / "raw/old.txt").write_bytes(text.encode("cp949"))
    for out, format in (("a", ""), ("b", "text")):
        job.run(
            {"default": filters.FilterConfig()}, str(tmp_path / "raw"), tmp_path / out, job.JobConfig(format=format)
        )
        with gzip.open(tmp_path / out / "kept.jsonl.gz", "rt") as file:
            assert json.loads(file.read())["text"].strip() == text.strip()
