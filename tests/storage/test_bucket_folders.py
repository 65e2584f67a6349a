"""Own documents and models in a bucket: what becomes a source, its shards and its config are those of a folder."""

import json

import own_models
import pytest
from buckets import BUCKET, gcs, s3
from conftest import ROOT

from kanana_jax import config as config_lib
from kanana_jax.cli import main
from kanana_jax.data import microworld
from kanana_jax.data.read import folders
from kanana_jax.errors import UserError
from kanana_jax.files import load_json, place
from kanana_jax.interop import model_folder

KOREAN = "이 법은 국민의 안전과 행복을 위하여 필요한 사항을 정함을 목적으로 한다. "
ENGLISH = "The purpose of this Act is to provide for what the people of this country need. "
WORLD = microworld.World.create(0, 300)
FILES = {
    "ko/law/a.txt": KOREAN * 9,
    "ko/web/b.txt": KOREAN * 5,
    "ko/web/c.jsonl": "".join(
        json.dumps(document) + "\n" for document in microworld.documents(WORLD, "news", "ko", 40)
    ),
    "reports/deep/a.md": ENGLISH * 9,
    "images/a.png": "x",
    ".git/config.txt": "x",
    "en[1]/a.txt": ENGLISH,
    "loose.txt": KOREAN * 4,
    "tool.exe": "x",
}


# Paths of either store: tests/storage/test_bucket_paths.py.
@pytest.fixture(params=["gs", pytest.param("s3", marks=pytest.mark.more)])
def root(request, tmp_path, monkeypatch):
    monkeypatch.setenv("KANANA_JAX_CACHE", str(tmp_path / "cache"))
    request.getfixturevalue("gcs" if request.param == "gs" else "s3")
    root = place(f"{request.param}://{BUCKET}/{request.node.name.partition('[')[0]}")
    for folder in (root, tmp_path):
        for name, text in FILES.items():
            file = folder / "docs" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
    return root


def test_a_bucket_has_the_sources_of_a_folder(root, tmp_path, caplog):
    caplog.set_level("INFO", "kanana")
    local = folders.groups(tmp_path / "docs")
    told = caplog.messages[:]
    caplog.clear()
    found = folders.groups(f"{root}/docs")
    assert sorted(found) == ["en_1", "files_ko", "ko_law", "ko_web", "reports"]
    assert {n: (g.lang, g.files, g.bytes, g.among) for n, g in found.items()} == {
        n: (g.lang, g.files, g.bytes, g.among) for n, g in local.items()
    }
    assert {n: g.path.removeprefix(str(root)) for n, g in found.items()} == {
        n: g.path.removeprefix(str(tmp_path)) for n, g in local.items()
    }
    assert caplog.messages == [line.replace(str(tmp_path), str(root)) for line in told] and told
    fetched = {f.name for f in (tmp_path / "cache").rglob("*") if f.suffix in (".txt", ".md", ".png", ".jsonl")}
    assert fetched == {"loose.txt", "a.md", "a.txt"}  # whose language was asked; what has a language's folder was not
    assert folders.groups(f"{root}/docs/loose.txt")["ko"].path == f"{root}/docs/loose.txt"
    for there, sentence in (("gone", "does not exist"), ("docs/images", r"1 file \(a.png\): of an unknown type")):
        with pytest.raises(UserError, match=sentence):
            folders.groups(f"{root}/{there}")


def _told(capsys, *command):
    assert main([str(part) for part in command]) == 0
    return capsys.readouterr().out


def test_documents_of_a_bucket_are_prepared_as_those_of_a_folder(root, tmp_path, capsys):
    """And said by a dry run, which fetches no more than the sample."""
    digests = {}
    for docs, workdir in ((f"{root}/docs", f"{root}/run"), (tmp_path / "docs", tmp_path / "run")):
        given = (
            "--config",
            f"{ROOT}/configs/real.py:{docs}",
            "--workdir",
            workdir,
            "--config.tokenizer.vocab_size=400",
        )
        out = _told(capsys, "run", *given, "--dry-run", "--config.stage1.model.vocab_size=400")
        assert out.count("1 file,") + out.count("1 object,") == 4 and f"{docs}/ko/law" in out
        assert digests or not list((tmp_path / "cache").rglob("b.txt"))
        assert "45 documents" in _told(capsys, "prepare", *given)
        indices = [load_json(file) for file in place(workdir).joinpath("data").glob("*/index.json")]
        digests[workdir] = sorted(index["digest"] for index in indices)
    assert digests[f"{root}/run"] == digests[tmp_path / "run"] and len(set(digests[f"{root}/run"])) == 5


@pytest.mark.parametrize("root", ["gs"], indirect=True)  # the same files reach it from either store
def test_a_model_and_documents_of_a_bucket_are_adapted(root, tmp_path, capsys):
    model = own_models.write(tmp_path, "bpe", WORLD)
    for file in model.iterdir():
        (root / "model" / file.name).write_bytes(file.read_bytes())
    read = lambda *places: config_lib.read_config_file(f"{ROOT}/configs/adapt.py:{','.join(places)}")  # noqa: E731
    remote, local = (read(f"{at}/model", f"{at}/docs/ko", f"{at}/docs/reports") for at in (root, model.parent))
    assert remote.to_json() == local.to_json().replace(str(model.parent), str(root))
    given = f"{ROOT}/configs/adapt.py:{root}/model,{root}/docs"
    short = ("stages=adapted,", "samples.prompts={}", "runtime.compute_dtype=float32", "evaluation.max_bytes=2000")
    train = ("tokens=3000", "seq_len=64", "batch_tokens=512", "accumulate=1", "eval_every=0", "log_every=1")
    changed = [f"--config.{change}" for change in (*short, *(f"adapted.train.{change}" for change in train))]
    command = ("run", "--config", given, "--workdir", root / "run", *changed)
    assert f"{root}/model, " in _told(capsys, *command, "--dry-run")
    assert not list((tmp_path / "cache").rglob("*.safetensors"))  # headers told the dtype
    _told(capsys, *command)
    found = model_folder.find(root / "run/adapted")
    assert found.architecture == model_folder.find(model).architecture and (root / "run/report.html").is_file()
    rows = [json.loads(line) for line in (root / "run/adapted/metrics.jsonl").read_text().splitlines()]
    assert max(row["step"] for row in rows) == 6
