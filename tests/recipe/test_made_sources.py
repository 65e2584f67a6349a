"""A source that a stage of the same run writes: later stages read it, stopped or not, and no earlier one sees it."""

import dataclasses
import json

import jax
import own_models
import pytest
from ml_collections import ConfigDict

from kanana_jax.cli import dry_run
from kanana_jax.data import microworld
from kanana_jax.errors import ConfigError, UserError
from kanana_jax.files import write_json
from kanana_jax.recipe import config as recipe_config
from kanana_jax.recipe import rows
from kanana_jax.recipe import run as recipe
from kanana_jax.stages import KINDS, rag_data
from kanana_jax.stages.kind import Kind, StageConfig
from kanana_jax.training.preemption import Preempted

ONE = jax.devices()[:1]
WORLD = microworld.World.create(0, 100)
WRITTEN = 12


def _write(name, config, context):
    """A stage that writes conversations, which no text of the run's other source holds."""
    made = [microworld.document(WORLD, "chat-format", "en", i) for i in range(WRITTEN)]
    folder = context.workdir / name
    folder.mkdir()
    text = "".join(json.dumps({"id": row["id"], "messages": row["messages"]}) + "\n" for row in made)
    (folder / "rows.jsonl").write_text(text, encoding="utf-8")
    (folder / "more.jsonl").write_text("", encoding="utf-8")
    write_json(folder / "done.json", {})


@pytest.fixture(autouse=True, scope="module")
def maker():
    with pytest.MonkeyPatch.context() as patch:
        kind = Kind("maker", StageConfig, _write, result="done.json", records=("rows.jsonl", "more.jsonl"))
        patch.setitem(KINDS, "maker", kind)
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return own_models.write(tmp_path_factory.mktemp("base"), "bpe", WORLD, 256)


def _config(base, **more):
    optimizer = dict(learning_rate=1e-3, schedule=dict(kind="cosine", warmup_steps=1, final=0.1))
    train = dict(tokens=2 * 4 * 256, batch_tokens=4 * 256, seq_len=256, log_every=1, optimizer=optimizer)
    stage = dict(kind="sft", start=str(base), train=train)
    return ConfigDict(
        dict(
            name="x",
            stages=("before", "made", "after"),
            tokenizer=dict(path=str(base)),
            sources=dict(
                chat=dict(path="microworld://chat-arithmetic/ko?size=100&count=20", lang="ko", holdout=0.2),
                documents=dict(path="rows.jsonl", lang="en", made_by="made", holdout=0.2) | more,
            ),
            evaluation=dict(max_bytes=500),
            runtime=dict(scan_layers=True),
            before=stage | dict(mixture=dict(chat=1.0)),
            made=dict(kind="maker", start="before"),
            after=stage | dict(start="before", mixture=dict(chat=0.5, documents=0.5)),
        )
    )


@pytest.fixture(scope="module")
def workdir(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kanana_jax.recipe.run._report", lambda workdir: None)
        recipe.run(_config(base), folder, devices=ONE)
    return folder


def _steps(workdir, stage="after"):
    lines = map(json.loads, (workdir / stage / "metrics.jsonl").read_text().splitlines())
    return [(line["step"], line.get("loss"), line.get("eval")) for line in lines]


def test_a_later_stage_reads_what_a_stage_has_made(workdir):
    report = json.loads((workdir / "after/data_report.json").read_text())["sources"]["documents"]
    held = json.loads(next(workdir.glob("data/documents-*/index.json")).read_text())["heldout"]["documents"]
    assert report["documents_total"] + held == WRITTEN and report["documents"] > 0
    assert {"lang/en", "source/documents"} < set(_steps(workdir)[0][2]["answer_loss"])


def test_an_earlier_stage_does_not_know_it(workdir):
    assert set(_steps(workdir, "before")[-1][2]["answer_loss"]) == {"lang/ko", "source/chat"}
    assert "documents" not in json.loads((workdir / "before/data_report.json").read_text())["sources"]


def test_stopped_behind_it_and_started_again_the_losses_are_the_same(base, workdir, tmp_path, no_reports):
    run = KINDS["sft"].run

    def stop(name, config, context):
        if name == "after":
            raise Preempted("stopped")
        run(name, config, context)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Preempted):
        patch.setitem(KINDS, "sft", dataclasses.replace(KINDS["sft"], run=stop))
        recipe.run(_config(base), tmp_path, devices=ONE)
    recipe.run(_config(base), tmp_path, devices=ONE)  # which finds the maker finished
    assert _steps(tmp_path) == _steps(workdir)
    (folder,), (other,) = (list(place.glob("data/documents-*/index.json")) for place in (tmp_path, workdir))
    assert folder.parent.name == other.parent.name  # wherever the workdir is


def test_its_rows_can_be_shown_once_it_is_there(base, workdir, tmp_path):
    own, stages = recipe_config.parse(_config(base))
    shown, report = rows.first_rows(rows.reading(own, stages, "after", workdir), 4)
    assert shown.inputs.shape == (4, 256) and report["sources"]["documents"]["documents"] > 0
    with pytest.raises(ConfigError, match="'sources.documents' is made by stage 'made', which has not ended"):
        rows.reading(own, stages, "after", tmp_path)
    assert rows.reading(own, stages, "before", tmp_path).run.prepared.keys() == {"chat"}
    assert dry_run._found("documents", own.sources["documents"], tmp_path, None) == "made by stage 'made'"


def test_what_no_stage_reads_may_be_empty(base, tmp_path, no_reports):
    config = _config(base)
    config.sources.more = dict(path="more.jsonl", lang="en", made_by="made")
    recipe.run(config, tmp_path, devices=ONE)
    assert (tmp_path / "made/more.jsonl").read_bytes() == b""
    assert not list(tmp_path.glob("data/more-*"))
    config.after.mixture.more = 0.1
    with pytest.raises(UserError, match=r"source 'more'.*stage 'made' kept none"):
        recipe.run(config, tmp_path / "read", devices=ONE)


@pytest.mark.parametrize(
    "more, told",
    [
        (dict(made_by="mad"), "'sources.documents.made_by' is 'mad', which is not a stage; did you mean 'made'"),
        (dict(path="pairs.json"), "of kind 'maker' does not write: it writes rows.jsonl and more.jsonl"),
        (dict(made_by="before"), "it writes no records"),
    ],
)
def test_refused(base, more, told):
    config = _config(base, **more)
    with pytest.raises(ConfigError, match=told):
        recipe_config.parse(config)
    assert any(told in sentence for sentence in recipe_config.mistakes(config))


def test_a_stage_before_its_maker_is_refused(base):
    config = _config(base)
    config.stages = ("before", "after", "made")
    told = "'after.mixture.documents': stage 'made', which makes its documents, does not come before 'after'"
    with pytest.raises(ConfigError, match=told):
        recipe_config.parse(config)


def test_without_its_maker_the_other_stages_run(base):
    config = _config(base)
    config.stages = ("before",)
    recipe_config.parse(config)
    config.stages = ("before", "after")
    with pytest.raises(ConfigError, match="stage 'made', which makes its documents, does not come before 'after'"):
        recipe_config.parse(config)


def test_data_made_of_documents_are_such_files():
    assert KINDS["rag_data"].records == (rag_data.CONVERSATIONS, rag_data.PAIRS)
