"""The held-out records that a stage is evaluated on: of the sources that it reads, and of those that no stage reads."""

import own_models
import pytest
from ml_collections import ConfigDict

from kanana_jax.data.microworld import World
from kanana_jax.data.stream.encode import ConversationEncoder, TextEncoder
from kanana_jax.recipe import inputs
from kanana_jax.recipe.config import parse
from kanana_jax.recipe.context import Run

T = 256
FORMS = {
    "sums": "chat-arithmetic/ko",
    "formats": "chat-format/en",
    "unread": "chat-facts/en",
    "news": "news/ko",
    "code": "code/en",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    base = own_models.write(tmp_path_factory.mktemp("base"), "bpe", World.create(0, 100), T)
    train = dict(tokens=4 * T, batch_tokens=4 * T, seq_len=T, optimizer=dict(learning_rate=1e-3))
    stage = dict(kind="sft", start=str(base), train=train, replay=True)
    sources = {
        name: dict(path=f"microworld://{kind}?size=100&count=20", lang=kind[-2:], holdout=0.2)
        for name, kind in FORMS.items()
    }
    config = ConfigDict(
        dict(
            name="x",
            stages=("first", "second", "third"),
            sources=sources,
            tokenizer=dict(path=str(base)),
            first=stage | dict(mixture=dict(sums=1.0, formats=0.0)),
            second=stage | dict(start="first", mixture=dict(formats=0.5, news=0.5)),
            third=stage | dict(kind="pretrain", start="second", mixture=dict(code=1.0)),
        )
    )
    del config.third.replay
    recipe, stages = parse(config)
    workdir = tmp_path_factory.mktemp("run")
    prepared = inputs.prepare_sources(recipe, workdir)
    tokenizer = inputs.tokenizer(recipe, prepared, workdir)
    return Run(recipe, stages, prepared, tokenizer, None, workdir)


def _names(run, stage, encoder):
    return {rows.name for rows in run.heldout(encoder, T, run.stages[stage])}


def test_conversations_of_another_stage_do_not_count(run):
    chats = ConversationEncoder(run.tokenizer, T, replay=True)
    assert _names(run, "first", chats) == {"sums", "unread"}
    assert _names(run, "second", chats) == {"formats", "unread"}


def test_texts_count_alike_in_every_stage(run):
    assert _names(run, "third", TextEncoder(run.tokenizer)) == {"news", "code"}


def test_without_a_stage_all_conversations_count(run):
    chats = ConversationEncoder(run.tokenizer, T)
    assert {rows.name for rows in run.heldout(chats, T)} == {"sums", "formats", "unread"}
