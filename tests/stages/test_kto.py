"""KTO: the loss of each answer alone and its KL by hand; labelled answers learnt beside a base that is the reference."""

import json
import random

import jax
import jax.numpy as jnp
import numpy as np
import own_models
import pytest
from conftest import ROOT, log_softmax

from kanana_jax import config as config_lib
from kanana_jax.data import microworld
from kanana_jax.data.stream import mismatched, packing
from kanana_jax.data.stream.encode import LabelledEncoder, Refused
from kanana_jax.data.tokens.tokenizer import load_tokenizer
from kanana_jax.errors import UserError
from kanana_jax.interop import model_folder
from kanana_jax.losses.kto import KtoConfig
from kanana_jax.models.architecture import Runtime
from kanana_jax.models.model import Model
from kanana_jax.parallel.mesh import MeshConfig, make_mesh
from kanana_jax.recipe import context
from kanana_jax.recipe import run as recipe
from kanana_jax.stages import kto

pytestmark = pytest.mark.usefixtures("no_reports")
ONE = jax.devices()[:1]
T = 192


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return own_models.write(tmp_path_factory.mktemp("base"), "bpe", microworld.World.create(0, 100))


def _line(draw, label):
    a, b = draw.randrange(20), draw.randrange(20)
    answer = f"{a + b}이다." if label else f"글쎄, {a + b + 1}인가?"
    return {"prompt": f"{a} 더하기 {b}는?", "completion": answer, "label": label}


def _record(line):
    turns = [{"role": "user", "content": line["prompt"]}, {"role": "assistant", "content": line["completion"]}]
    return {"id": "1", "messages": turns, "meta": {"label": line["label"]}}


def _loaded(folder):
    found = model_folder.find(folder)
    return Model(found.architecture), model_folder.load_params(found, Runtime(), make_mesh(MeshConfig(), ONE))


def _log_p(model, params, rows):
    """log p of every target, float64, by the whole softmax."""
    hidden, matrix = jax.jit(model)(params, jax.tree.map(jnp.asarray, rows))
    logits = np.asarray(hidden, np.float64) @ np.asarray(matrix, np.float64).T
    return np.take_along_axis(log_softmax(logits), rows.targets[..., None], -1)[..., 0]


def test_the_loss_is_that_of_each_answer_alone_against_the_kl_of_mismatched_ones(base):
    model, params = _loaded(base)
    other, draw = jax.tree.map(lambda x: x * 0.9, params), random.Random(1)
    tokenizer = load_tokenizer(base)
    lines = [_line(draw, i % 3 > 0) for i in range(7)]
    examples = [LabelledEncoder(tokenizer, T)(_record(line)) for line in lines]
    rows = packing.pack(examples, T, whole=True)
    mixed = mismatched.of_batch(rows)
    by_other = [jnp.asarray(_log_p(model, other, each), jnp.float32) for each in (rows, mixed)]
    config = KtoConfig(beta=0.3, desirable=1.5)
    loss = jax.jit(kto.make_loss(model, config=config, chunk=16))
    found = loss(params, kto.KtoRows(rows, mixed, *by_other), jax.random.key(0), None)

    alone = packing.Rows(*map(np.concatenate, zip(*(packing.pack([each], T, whole=True) for each in examples))))
    ratios = ((_log_p(model, params, alone) - _log_p(model, other, alone)) * np.abs(alone.weights)).sum(1)
    moved = (_log_p(model, params, mixed) - _log_p(model, other, mixed)) * mixed.weights
    kl = max(0.0, moved.sum() / sum(row.max() for row in mixed.segment_ids))
    good = np.array([line["label"] for line in lines])
    want = np.where(good, 1.5, 1.0) / (1 + np.exp(0.3 * np.where(good, ratios - kl, kl - ratios)))
    assert mixed.segment_ids.max() > 1 and float(found.weight) == 7
    assert float(found.loss) == pytest.approx(want.sum(), rel=1e-5)
    assert float(found.metrics["kl"]) / 7 == pytest.approx(kl, rel=1e-4, abs=1e-6)
    assert float(found.metrics["desirable"]) == good.sum()
    assert float(found.metrics["reward_undesirable"]) == pytest.approx(0.3 * ratios[~good].sum(), rel=1e-4)


def test_records_that_are_no_labelled_answers_are_counted_or_named(base):
    encode, line = LabelledEncoder(load_tokenizer(base), T), _line(random.Random(0), True)
    with pytest.raises(UserError, match="its label is 'good', not true or false"):
        encode(_record(line | {"label": "good"}))
    assert encode(_record(line | {"completion": " "})) == Refused("empty_answer")
    assert encode(_record(line | {"completion": "말 " * 200})) == Refused("conversation_longer_than_row")
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "뭐?"}]
    longer = {"id": "1", "messages": turns + _record(line)["messages"], "meta": {"label": 0}}
    (whole,), (alone,) = encode(longer), encode(_record(line))
    assert (whole.weights < 0).sum() == (alone.weights > 0).sum()


def test_labelled_answers_and_pairs_are_learnt_beside_a_base_that_is_the_reference(base, tmp_path, monkeypatch):
    file, draw = tmp_path / "answers.jsonl", random.Random(0)
    lines = [_line(draw, i % 2 > 0) for i in range(120)]
    pairs = [{"prompt": "1 더하기 1은?", "chosen": f"{i}.", "rejected": f"글쎄, {i}인가?"} for i in range(40)]
    file.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in [*lines, *pairs]), encoding="utf-8")
    c = config_lib.read_config_file(f"{ROOT / 'configs/kto.py'}:{base},{file}")
    c.sources.pairs.holdout = 0.2
    c.kto.train.update(batch_tokens=4 * T, seq_len=T, tokens=4 * T * 6, eval_every=3, log_every=1)
    c.kto.train.optimizer.learning_rate = 3e-2
    c.kto.train.optimizer.schedule.warmup_steps = 1
    c.kto.lora = dict(rank=4, alpha=8.0, init="a_zero")
    loads, load = [], model_folder.load_params
    monkeypatch.setattr(model_folder, "load_params", lambda *given: loads.append(given[0]) or load(*given))
    recipe.run(c, tmp_path / "run", devices=ONE)
    assert len(loads) == 1  # base and reference are one copy
    found = [json.loads(line) for line in (tmp_path / "run/kto/metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    steps, scores = [line for line in found if "loss" in line], [line for line in found if "score" in line]
    assert steps[0]["loss"] == pytest.approx(0.5, abs=1e-6) and steps[0]["kl"] == 0
    assert steps[-1]["loss"] < 0.45 and steps[-1]["reward_desirable"] > steps[-1]["reward_undesirable"]
    assert scores[-1]["score"]["value"] < scores[0]["score"]["value"] == pytest.approx(0.5, abs=1e-6)
    assert scores[-1]["eval"]["label_accuracy"]["lang/ko"] > 0.8
    parsed, stages = recipe.parse(c)
    shapes = context.shapes(parsed, stages, make_mesh(MeshConfig(), ONE))
    planned = kto.programs("kto", stages["kto"], shapes)
    assert "reference" not in planned.resident and planned.resident["base"] > 0
    c.kto.reference_dtype = "bfloat16"
    parsed, stages = recipe.parse(c)
    planned = kto.programs("kto", stages["kto"], shapes)
    assert planned.resident["reference"] == planned.resident["base"] / 2
