"""`kanana prepare`: a run on its workdir begins at once, on the same documents and vocabulary."""

import json
import os

import pytest
from conftest import losses

from kanana_jax import cli
from kanana_jax.parallel import chips, heartbeat
from kanana_jax.recipe import inputs
from kanana_jax.recipe import run as recipe

TEXT = {"ko": "오늘은 날씨가 맑고 바람이 시원하다. ", "en": "The library opens at nine and closes at six. "}
SMALL = (
    "stages=('stage1',)",
    "tokenizer.vocab_size=300",
    "tokenizer.train_bytes=20_000",
    "stage1.train.tokens=2_048",
    "stage1.train.batch_tokens=512",
    "stage1.train.seq_len=64",
    "stage1.train.log_every=1",
    "stage1.model.embed_dim=32",
    "stage1.model.mlp_dim=64",
    "stage1.model.num_layers=1",
    "stage1.model.vocab_size=300",
)


@pytest.fixture
def documents(tmp_path):
    for lang, text in TEXT.items():
        (tmp_path / "docs" / lang).mkdir(parents=True)
        for number in range(40):
            (tmp_path / "docs" / lang / f"{number}.v1.txt").write_text(f"{number}. {text * 20}")
    (tmp_path / "docs/ko/x.exe").write_text("x")
    return tmp_path / "docs"


def _arguments(verb, documents, workdir, *more):
    overrides = [f"--config.{assignment}" for assignment in SMALL]
    return [verb, "--config", f"real:{documents}", "--workdir", str(workdir), *overrides, *more]


def test_what_is_prepared_is_not_prepared_again(documents, tmp_path, capsys, caplog, monkeypatch):
    assert cli.main(_arguments("prepare", documents, tmp_path / "w", "--workers", "1")) == 0
    assert "80 documents in" in capsys.readouterr().out
    assert "ko: left out: 1 file (x.exe): of an unknown type" in caplog.text
    files = {file: file.stat().st_mtime_ns for file in (tmp_path / "w").rglob("*.array_record")}
    vocabulary = (tmp_path / "w/tokenizer/tokenizer.json").stat().st_mtime_ns
    assert files and not (tmp_path / "w/config.json").exists()
    assert cli.main(_arguments("prepare", documents, tmp_path / "w")) == 0
    monkeypatch.setattr(inputs.sources, "_convert", None)  # would fail where anything is converted
    monkeypatch.setattr(inputs, "train_tokenizer", None)
    assert cli.main(_arguments("run", documents, tmp_path / "w")) == 0
    assert files == {file: file.stat().st_mtime_ns for file in (tmp_path / "w").rglob("*.array_record")}
    assert vocabulary == (tmp_path / "w/tokenizer/tokenizer.json").stat().st_mtime_ns
    report = json.loads((tmp_path / "w/stage1/data_report.json").read_text())["sources"]["ko"]
    assert report["left_out"] == {"of an unknown type": {"files": 1, "first": ["x.exe"]}}
    assert report["files"]["count"] == 40 and report["heldout_total"] >= 1
    monkeypatch.undo()
    # A run that prepares for itself reads and trains on the same.
    assert cli.main(_arguments("run", documents, tmp_path / "own")) == 0
    assert losses(tmp_path / "own") == losses(tmp_path / "w")


def test_one_document_trains_and_says_that_nothing_is_held_out(tmp_path, caplog):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/a.txt").write_text(TEXT["ko"] * 400)
    assert cli.main(_arguments("run", tmp_path / "docs/a.txt", tmp_path / "w")) == 0
    assert "ko: a single document, so none is held out and this source is not evaluated" in caplog.text
    assert len(losses(tmp_path / "w")) == 4


@pytest.mark.parametrize(
    "more, sentence",
    [
        (["--workers", "-1"], "--workers must be at least 1"),
        (["--config.sedd=1"], "did you mean 'seed'"),
    ],
)
def test_bad_usage_of_prepare(documents, tmp_path, capsys, more, sentence):
    assert cli.main(_arguments("prepare", documents, tmp_path / "w", *more)) == 2
    assert sentence in capsys.readouterr().err and not (tmp_path / "w").exists()


def test_the_watcher_hears_of_every_step_of_a_preparation(tiny_config, tmp_path, monkeypatch):
    reading, writing = os.pipe()
    monkeypatch.setenv(heartbeat.PIPE, str(writing))
    config, _ = recipe.parse(tiny_config("stages=('stage1',)"))
    inputs.prepare(config, tmp_path)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        marks = [line.split() for line in pipe]
    assert marks and all(doing == heartbeat.PREPARE for _, doing in marks)


def test_workers_are_used_where_there_is_much_to_read():
    assert inputs._workers(100, 1 << 20) == 1
    assert inputs._workers(100_000, 1 << 20) == inputs._workers(1, 1 << 33) == chips.cores() >= 1
