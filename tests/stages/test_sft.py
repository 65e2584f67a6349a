"""Fine-tuning on conversations: the loss by hand, tokens that are read, its own score; resumed as it ran."""

import copy
import json
import random

import jax
import numpy as np
import pytest
from conftest import ROOT, copied_after, log_softmax, losses

from kanana_jax import config as config_lib
from kanana_jax.data.stream import packing
from kanana_jax.data.stream.encode import ConversationEncoder
from kanana_jax.data.tokens.chat import encode_chat
from kanana_jax.data.tokens.folder import end_ids
from kanana_jax.data.tokens.tokenizer import load_tokenizer
from kanana_jax.errors import ConfigError
from kanana_jax.interop import model_folder
from kanana_jax.models import counts
from kanana_jax.models.architecture import Runtime
from kanana_jax.models.model import Model
from kanana_jax.parallel.mesh import MeshConfig, make_mesh
from kanana_jax.recipe import run as recipe
from kanana_jax.stages import sft

pytestmark = pytest.mark.usefixtures("no_reports")
ONE = jax.devices()[:1]


@pytest.fixture(scope="module")
def base(tiny_config, tmp_path_factory):
    """A model with a vocabulary, four steps old."""
    folder = tmp_path_factory.mktemp("base")
    recipe.run(tiny_config("stages=('stage1',)", "stage1.train.tokens=2048"), folder, devices=ONE)
    return folder / "stage1"


@pytest.fixture(scope="module")
def config(base, tmp_path_factory):
    file, draw = tmp_path_factory.mktemp("chat") / "chat.jsonl", random.Random(0)
    lines = []
    for _ in range(200):
        a, b = draw.randrange(20), draw.randrange(20)
        turns = [{"role": "user", "content": f"{a} 더하기 {b}는?"}, {"role": "assistant", "content": f"{a + b}이다."}]
        lines.append(json.dumps({"messages": turns}, ensure_ascii=False))
    file.write_text("\n".join(lines))
    c = config_lib.read_config_file(f"{ROOT / 'configs/sft.py'}:{base},{file}")
    c.sources.chat.holdout = 0.1
    c.sft.train.update(batch_tokens=512, seq_len=64, tokens=512 * 6, eval_every=3, log_every=1)
    c.sft.train.checkpoint.update(every=2)
    c.sft.train.optimizer.learning_rate = 1e-2
    return c


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    """What a crash after step 5 would leave is at `stopped` beside it."""
    workdir = tmp_path_factory.mktemp("sft") / "run"
    with copied_after(5, workdir, workdir.parent / "stopped"):
        recipe.run(config, workdir, devices=ONE)
    return workdir


def _loaded(folder):
    found = model_folder.find(folder)
    params = model_folder.load_params(found, Runtime(), make_mesh(MeshConfig(), ONE))
    return Model(found.architecture), params


def _nll(model, params, rows):
    """−log p of every target, float64, by the whole softmax."""
    hidden, matrix = model(params, rows)
    logits = np.asarray(hidden, np.float64) @ np.asarray(matrix, np.float64).T
    return -np.take_along_axis(log_softmax(logits), rows.targets[..., None], -1)[..., 0]


def test_the_loss_is_the_mean_over_answers_and_tokens_are_those_that_are_read(base):
    tokenizer = load_tokenizer(base / "model")
    encode, (model, params) = ConversationEncoder(tokenizer), _loaded(base)
    turns = [{"role": "user", "content": "1 더하기 1은?"}, {"role": "assistant", "content": "2이다."}]
    rows = packing.pack([encode({"messages": turns * n}) for n in (1, 2, 1)], 64, whole=True)
    found = sft.make_loss(model, chunk=16)(params, rows, jax.random.key(0), None)
    nll = _nll(model, params, rows)
    assert float(found.loss / found.weight) == pytest.approx((nll * rows.weights).sum() / rows.weights.sum(), rel=1e-5)
    assert float(found.tokens) == (rows.segment_ids > 0).sum() > 2 * float(found.weight) > 0


def test_a_run_learns_and_says_what_it_did(run, base):
    lines = [json.loads(line) for line in (run / "sft/metrics.jsonl").read_text().splitlines()]
    scores = [line["score"]["value"] for line in lines if "score" in line]
    assert [line["step"] for line in lines if "score" in line] == [0, 3, 6] and scores[0] > scores[1] > scores[2]
    card = json.loads((run / "sft/model/model.json").read_text())
    report = json.loads((run / "sft/data_report.json").read_text())["sources"]["chat"]
    # Targets are one fewer per conversation than tokens, and answers a part of them.
    assert card["tokens"] > report["tokens"] > 0 and card["tokens"] < 6 * 512
    a = model_folder.find(base).architecture
    assert card["flops"]["train"] == pytest.approx(counts.train_flops_per_token(a, 64) * card["tokens"])
    assert (
        card["parent"] == str((base / "model").resolve()) and card["evaluation"]["answer_loss"]["lang/ko"] == scores[-1]
    )
    page = (run / "report.html").read_text()
    assert "Answer loss; lower is better." in page


def test_held_out_answers_by_hand(run, config):
    tokenizer, (model, params) = load_tokenizer(run / "tokenizer"), _loaded(run / "sft")
    from kanana_jax.data.read import sources

    source = config_lib.build(sources.SourceConfig, config.sources.chat, "chat")
    prepared = sources.load_prepared("chat", source, run / "data")
    encode = ConversationEncoder(tokenizer)
    rows = packing.pack([encode(json.loads(data)) for data in prepared.split("heldout")], 64, whole=True)
    want = (_nll(model, params, rows) * rows.weights).sum() / rows.weights.sum()
    card = json.loads((run / "sft/model/model.json").read_text())
    assert card["evaluation"]["answer_loss"]["source/chat"] == pytest.approx(want, rel=1e-4)


def test_a_stopped_stage_ends_with_the_same_bits(run, config):
    stopped = run.parent / "stopped"
    assert not (stopped / "sft/model").exists()
    recipe.run(config, stopped, devices=ONE)
    assert losses(stopped, "sft") == losses(run, "sft")
    ends = [json.loads((w / "sft/data_state.json").read_text()) for w in (stopped, run)]
    assert ends[0] == ends[1]


@pytest.mark.more  # rows are those of any text, as in tests/recipe/test_recipe.py
def test_eight_devices_train_as_one(run, config, tmp_path):
    config = copy.deepcopy(config)
    config.mesh = dict(data=2, fsdp=2, sequence=1, tensor=2)
    recipe.run(config, tmp_path)
    np.testing.assert_allclose(losses(tmp_path, "sft"), losses(run, "sft"), rtol=2e-4)


def test_sections_of_other_kinds_are_refused(config):
    config = copy.deepcopy(config).unlock()
    config.sft.distill = dict(teacher="x")
    with pytest.raises(ConfigError, match="kind 'sft' has no section 'distill'"):
        recipe.parse(config)


def test_what_a_folder_says_of_its_chats_comes_out_at_the_end(base, config, tmp_path):
    """Template, settings of generation and every end token of a model from elsewhere: trained, exported."""
    source = tmp_path / "from elsewhere"
    model_folder.transfer(base / "model", source, keep_card=False)
    template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    (source / "chat_template.jinja").write_text(template, encoding="utf-8")
    ends = sorted({*end_ids(source), 7, 9})
    generation = {"eos_token_id": ends, "temperature": 0.6, "top_p": 0.9, "do_sample": True}
    (source / "generation_config.json").write_text(json.dumps(generation), encoding="utf-8")
    config = copy.deepcopy(config)
    config.tokenizer.path = config.sft.start = str(source)
    config.sft.train.tokens = 512
    recipe.run(config, tmp_path / "run", devices=ONE)
    model_folder.transfer(tmp_path / "run/sft", tmp_path / "out", keep_card=False)
    turns = [{"role": "user", "content": "1 더하기 1은?"}]
    for folder in (tmp_path / "run/sft/model", tmp_path / "out"):
        assert (folder / "chat_template.jinja").read_text("utf-8") == template
        assert json.loads((folder / "generation_config.json").read_text("utf-8")) == generation
        assert list(end_ids(folder)) == ends
        tokenizer = load_tokenizer(folder)
        assert tokenizer.decode(encode_chat(tokenizer, turns)).endswith("<user>1 더하기 1은?<assistant>")
        assert tokenizer.fingerprint == load_tokenizer(source).fingerprint
    before, after = _loaded(source)[1], _loaded(tmp_path / "out")[1]
    assert all((x != y).any() for x, y in zip(jax.tree.leaves(before), jax.tree.leaves(after)))
