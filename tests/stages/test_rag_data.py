"""Data made of documents by a stage: by a model, stopped and resumed to the byte; by an endpoint; read by other stages."""

import json
import re
import zlib

import jax
import own_models
import pytest
from ml_collections import ConfigDict

pytest.importorskip("bm25s")
pytest.importorskip("kiwipiepy")

from kanana_jax import endpoint
from kanana_jax.data import microworld
from kanana_jax.data.read import records
from kanana_jax.errors import ConfigError, UserError
from kanana_jax.recipe import run as recipe
from kanana_jax.stages import rag_data
from kanana_jax.training.preemption import Preempted

ONE = jax.devices()[:1]
FILES = ("conversations.jsonl", "pairs.jsonl", "rag_data.json")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return own_models.write(tmp_path_factory.mktemp("base"), "bpe", microworld.World.create(0, 100), 1024)


def _config(base, **more):
    own = dict(
        documents="microworld://news/ko?size=100&count=5",
        passages=4,
        characters=100,
        grounding="words",
        block=2,
        qa=dict(questions=1, keep=0.5, prefer=0.5, reject=0.4, distractors=1, unanswerable=0.5),
        rollout=dict(samples=1, max_new_tokens=24),
        seq_len=1024,
    )
    made = dict(kind="rag_data", start=str(base), rag_data=own | more)
    return ConfigDict(dict(name="x", stages=("made",), tokenizer=dict(path=str(base)), sources={}, made=made))


@pytest.fixture
def by_chance(monkeypatch):
    """What a random model writes rests on nothing: its answers are scored by their letters."""
    monkeypatch.setattr(rag_data, "by_words", _by_chance)


def _by_chance(answers):
    return [zlib.crc32(answer.encode()) % 10 / 10 for answer, _ in answers]


@pytest.fixture(scope="module")
def workdir(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rag_data, "by_words", _by_chance)
        recipe.run(_config(base), folder, devices=ONE)
    return folder


def test_a_model_writes_and_counts_add_up(workdir):
    counts = json.loads((workdir / "made/rag_data.json").read_text())["counts"]
    assert counts["passages"] == counts["asked"] == 4
    assert counts["asked"] == sum(counts[n] for n in ("no_question", "repeated", "no_answer", "ungrounded", "kept"))
    assert "Questions and answers made of documents" in (workdir / "report.html").read_text()
    assert not (workdir / "made/blocks").exists()


def test_a_stopped_stage_writes_the_same_bytes(base, workdir, tmp_path, no_reports, by_chance, monkeypatch):
    made = rag_data.make
    calls = []

    def once(*args):
        if calls:
            raise Preempted("stopped")
        calls.append(1)
        return made(*args)

    with monkeypatch.context() as patch, pytest.raises(Preempted):
        patch.setattr(rag_data, "make", once)
        recipe.run(_config(base), tmp_path, devices=ONE)
    assert len(list((tmp_path / "made/blocks").iterdir())) == 1
    recipe.run(_config(base), tmp_path, devices=ONE)
    for name in FILES:
        assert (tmp_path / "made" / name).read_bytes() == (workdir / "made" / name).read_bytes()


def _reply(text):
    """A writer that knows, but for its first answer; and a judge that reads the last digit of a claim."""
    if "[[supported]]" in text:
        return "[[supported]]" if "7일" in text.rsplit("Claim: ", 1)[1] else "[[not mentioned]]"
    if "질문만 쓰십시오" in text:
        return "환불 기간은?"
    if "고친 답만" in text:
        return "환불은 7일 안에 된다."
    return "환불은 9일 안에 된다." if "발췌" in text else "모르지만 30일이다."


def test_an_endpoint_writes_and_judges(base, tmp_path, no_reports, monkeypatch):
    sent = []

    def post(service, path, body, read, **_):
        sent.append(body["messages"][0]["content"])
        return read({"choices": [{"message": {"content": _reply(sent[-1])}}]})

    monkeypatch.setattr(endpoint, "post_json", post)
    (tmp_path / "a.md").write_text(
        "# 안내\n\n## 환불\n\n환불은 7일 안에 된다.\n\n## 배송\n\n이틀 걸린다.", encoding="utf-8"
    )
    asked = dict(url="http://127.0.0.1:1/v1", model="judge")
    config = _config(
        base, documents=str(tmp_path / "a.md"), passages=1, grounding="claims", endpoint=asked, qa=dict(questions=1)
    )
    recipe.run(config, tmp_path / "w", devices=ONE)
    found = json.loads((tmp_path / "w/made/rag_data.json").read_text())["counts"]
    assert (found["kept"], found["refined"], found["pairs"]) == (1, 1, 1)
    (pair,) = records.read(str(tmp_path / "w/made/pairs.jsonl"), source="x")  # as a DPO stage reads them
    assert re.fullmatch(r"환불은 7일 안에 된다\. \[[12]\]", pair["chosen"][0]["content"])
    assert pair["rejected"][0]["content"].startswith("모르지만 30일이다. [")
    first = next(records.read(str(tmp_path / "w/made/conversations.jsonl"), source="x"))
    assert [turn["role"] for turn in first["messages"]] == ["user", "assistant"]
    assert len(sent) == len(set(sent))


@pytest.mark.parametrize(
    "more, error, told",
    [
        ({"seq_len": 4096}, ConfigError, "made.rag_data.seq_len' is 4096, beyond the model's 1024"),
        ({"rollout": dict(samples=2)}, ConfigError, "one reply to each text"),
        ({"documents": "nowhere"}, UserError, "no such file or folder"),
    ],
)
def test_refused(base, tmp_path, more, error, told):
    with pytest.raises(error, match=re.escape(told)):
        recipe.run(_config(base, **more), tmp_path / "w", devices=ONE)


def test_another_start_is_named(base, tmp_path, no_reports, monkeypatch):
    def stop(*_):
        raise Preempted("stopped")

    monkeypatch.setattr(rag_data, "make", stop)
    for characters, error in ((100, Preempted), (120, UserError)):
        with pytest.raises(error, match="stopped|characters"):
            recipe.run(_config(base, characters=characters), tmp_path / "w", devices=ONE)


def test_the_config_takes_an_endpoint_from_the_command_line():
    from conftest import ROOT

    from kanana_jax.config import read_config_file
    from kanana_jax.recipe import config as recipe_config

    config = read_config_file(f"{ROOT}/configs/rag.py:m,docs")
    url, model = "made.rag_data.endpoint.url=http://127.0.0.1:8000/v1", "made.rag_data.endpoint.model=judge"
    recipe_config.override(config, [url, model, "made.rag_data.grounding=words"])
    _, stages = recipe_config.parse(config)
    own = stages["made"].rag_data
    assert (own.endpoint.model, own.grounding, own.documents, stages["made"].start) == ("judge", "words", "docs", "m")
