"""Preference optimisation: the loss by hand, packed as alone, a fixed reference; resumed and on eight devices as it ran."""

import copy
import dataclasses
import json
import random

import jax
import jax.numpy as jnp
import numpy as np
import own_models
import pytest
from conftest import ROOT, copied_after, log_softmax, losses

from kanana_jax import config as config_lib
from kanana_jax.data import microworld
from kanana_jax.data.stream import packing
from kanana_jax.data.stream.encode import PairEncoder
from kanana_jax.data.tokens.tokenizer import load_tokenizer
from kanana_jax.errors import ConfigError, UserError
from kanana_jax.interop import model_folder, peft
from kanana_jax.losses.preference import PreferenceConfig
from kanana_jax.models.architecture import Runtime
from kanana_jax.models.lora import LoraConfig
from kanana_jax.models.model import Model
from kanana_jax.parallel.mesh import MeshConfig, make_mesh
from kanana_jax.recipe import context
from kanana_jax.recipe import run as recipe
from kanana_jax.stages import adapters, dpo

pytestmark = pytest.mark.usefixtures("no_reports")
ONE = jax.devices()[:1]
T = 192


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return own_models.write(tmp_path_factory.mktemp("base"), "bpe", microworld.World.create(0, 100))


def _pair(draw):
    a, b = draw.randrange(20), draw.randrange(20)
    return {"prompt": f"{a} 더하기 {b}는?", "chosen": f"{a + b}이다.", "rejected": f"글쎄, {a + b + 1}인가?"}


@pytest.fixture(scope="module")
def config(base, tmp_path_factory):
    file, draw = tmp_path_factory.mktemp("pairs") / "pairs.jsonl", random.Random(0)
    lines = [_pair(draw) for _ in range(200)]
    lines += [
        {"prompt": "?", "chosen": "네.", "rejected": "네."},
        {"prompt": "말 " * 200, "chosen": "네.", "rejected": "뭐"},
    ] * 9
    file.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines))
    c = config_lib.read_config_file(f"{ROOT / 'configs/dpo.py'}:{base},{file}")
    c.sources.pairs.holdout = 0.1
    c.dpo.train.update(batch_tokens=4 * T, seq_len=T, tokens=4 * T * 6, eval_every=3, log_every=1)
    c.dpo.train.checkpoint.update(every=2)
    c.dpo.train.optimizer.learning_rate = 3e-3
    c.dpo.train.optimizer.schedule.warmup_steps = 1
    return c


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    """What a crash after step 5 would leave is at `stopped` beside it."""
    workdir = tmp_path_factory.mktemp("dpo") / "run"
    with copied_after(5, workdir, workdir.parent / "stopped"):
        recipe.run(config, workdir, devices=ONE)
    return workdir


def _lines(workdir):
    return [json.loads(line) for line in (workdir / "dpo/metrics.jsonl").read_text().splitlines()]


def _loaded(folder):
    found = model_folder.find(folder)
    return Model(found.architecture), model_folder.load_params(found, Runtime(), make_mesh(MeshConfig(), ONE))


def _log_p(model, params, rows):
    """log p of every target, float64, by the whole softmax."""
    hidden, matrix = model(params, jax.tree.map(jnp.asarray, rows))
    logits = np.asarray(hidden, np.float64) @ np.asarray(matrix, np.float64).T
    return np.take_along_axis(log_softmax(logits), rows.targets[..., None], -1)[..., 0]


@pytest.fixture(scope="module")
def examples(base):
    encode, draw = PairEncoder(load_tokenizer(base), T), random.Random(1)
    one = [{"role": "user"}, {"role": "assistant"}]
    pairs = [_pair(draw) for _ in range(7)]
    records = [
        {
            "id": "1",
            "prompt": [one[0] | {"content": p["prompt"]}],
            **{key: [one[1] | {"content": p[key]}] for key in ("chosen", "rejected")},
        }
        for p in pairs
    ]
    return [encode(record) for record in records]


def test_the_loss_is_that_of_each_pair_alone(base, examples):
    """Packed, padded and alone; loss and metrics in float64."""
    model, params = _loaded(base)
    other = jax.tree.map(lambda x: x * 0.9, params)
    rows = packing.pack(examples, T, whole=True)
    assert 1 < len(rows.inputs) < len(examples)
    batch = dpo.PairRows(rows, jnp.asarray(_log_p(model, other, rows), jnp.float32))
    found = dpo.make_loss(model, config=PreferenceConfig(beta=0.3), chunk=16)(params, batch, jax.random.key(0), None)
    alone = [packing.pack([[example]], T, whole=True) for pair in examples for example in pair]
    alone = packing.Rows(*map(np.concatenate, zip(*alone)))
    policy, reference = ((_log_p(model, p, alone) * alone.weights).sum(1).reshape(-1, 2) for p in (params, other))
    want, accuracy, log_probs = [], [], []
    for pair, (c, r), (a, b) in zip(examples, policy, reference):
        want.append(np.logaddexp(0, -0.3 * ((c - a) - (r - b))))
        accuracy.append((c - a) > (r - b))
        log_probs.append(c / pair[0].weights.sum())
    assert float(found.weight) == len(examples) and float(found.tokens) == (rows.segment_ids > 0).sum()
    assert float(found.loss) == pytest.approx(sum(want), rel=1e-5)
    assert float(found.metrics["accuracy"]) == sum(accuracy)
    assert float(found.metrics["chosen_log_prob"]) == pytest.approx(sum(log_probs), rel=1e-5)
    lengths = sum(pair[1].weights.sum() for pair in examples)
    assert float(found.metrics["rejected_tokens"]) == lengths
    moved = ((_log_p(model, params, alone) - _log_p(model, other, alone)) ** 2 / 2 * alone.weights).sum(1)
    kl = (moved / alone.weights.sum(1)).reshape(-1, 2).sum(0)
    assert [float(found.metrics[f"kl_{answer}"]) for answer in ("chosen", "rejected")] == pytest.approx(kl, rel=1e-4)


def test_a_run_prefers_what_was_chosen_and_says_what_it_did(run, base):
    lines = [line for line in _lines(run) if "loss" in line]
    assert lines[0]["loss"] == pytest.approx(np.log(2), abs=1e-6) and lines[0]["margin"] == 0
    assert lines[-1]["margin"] > 0.1 and lines[-1]["accuracy"] > 0.9
    scores = [line for line in _lines(run) if "score" in line]
    values = [line["score"]["value"] for line in scores]
    assert values[0] == pytest.approx(np.log(2), abs=1e-6) and values[0] > values[1] > values[2]
    assert scores[-1]["eval"]["preference_accuracy"]["lang/ko"] > 0.9
    rules = json.loads((run / "dpo/data_report.json").read_text())["sources"]["pairs"]["rules"]
    assert rules["identical_answers"] and rules["pair_longer_than_row"]
    assert "Preference loss; lower is better." in (run / "report.html").read_text()


def test_held_out_pairs_by_hand(run, base, config):
    from kanana_jax.data.read import sources

    encode = PairEncoder(load_tokenizer(run / "tokenizer"), T)
    source = config_lib.build(sources.SourceConfig, config.sources.pairs, "pairs")
    held = [encode(json.loads(d)) for d in sources.load_prepared("pairs", source, run / "data").split("heldout")]
    held = [pair for pair in held if isinstance(pair, tuple)]
    rows = packing.pack(held, T, whole=True)
    after, before = (_log_p(*_loaded(folder), rows) for folder in (run / "dpo", base))
    ratios = (after - before) * rows.weights
    h = [
        ratios[row][rows.segment_ids[row] == i].sum() - ratios[row][rows.segment_ids[row] == i + 1].sum()
        for row in range(len(ratios))
        for i in range(1, rows.segment_ids[row].max(), 2)
    ]
    card = json.loads((run / "dpo/model/model.json").read_text())
    want = np.logaddexp(0, -0.1 * np.array(h)).mean()
    assert len(h) == len(held) and card["evaluation"]["preference_loss"]["source/pairs"] == pytest.approx(
        want, rel=1e-4
    )


def test_a_stopped_stage_ends_with_the_same_bits(run, config):
    stopped = run.parent / "stopped"
    assert not (stopped / "dpo/model").exists()
    recipe.run(config, stopped, devices=ONE)
    assert losses(stopped, "dpo") == losses(run, "dpo")
    figures = [[line["eval"] for line in _lines(w) if "eval" in line] for w in (stopped, run)]
    assert figures[0] == figures[1]


@pytest.mark.more  # with adapters, below
def test_eight_devices_train_as_one(run, config, tmp_path):
    config = copy.deepcopy(config)
    config.mesh = dict(data=2, fsdp=2, sequence=1, tensor=2)
    recipe.run(config, tmp_path)
    np.testing.assert_allclose(losses(tmp_path, "dpo"), losses(run, "dpo"), rtol=2e-4)


@pytest.fixture(scope="module")
def with_adapters(config):
    config = copy.deepcopy(config)
    config.dpo.lora = dict(rank=4, alpha=8.0, init="a_zero")
    config.dpo.train.optimizer.learning_rate = 3e-2
    return config


def test_adapters_are_trained_beside_a_frozen_base(with_adapters, base, tmp_path):
    with copied_after(5, tmp_path / "one", tmp_path / "eight"):
        recipe.run(with_adapters, tmp_path / "one", devices=ONE)
    found = [line["loss"] for line in _lines(tmp_path / "one") if "loss" in line]
    assert found[0] == pytest.approx(np.log(2), abs=1e-6) and found[-1] < 0.6 and len(found) == 6
    (_, before), (_, after) = _loaded(base), _loaded(tmp_path / "one/dpo")
    for name in ("embedding", "final_norm"):
        jax.tree.map(np.testing.assert_array_equal, before[name], after[name])
    moved = np.asarray(after["blocks"]["mlp"]["up"] - before["blocks"]["mlp"]["up"], np.float64)
    assert [np.linalg.matrix_rank(layer, tol=1e-5) for layer in moved] == [4, 4]
    scores = [line["score"]["value"] for line in _lines(tmp_path / "one") if "score" in line]
    assert scores[0] == pytest.approx(np.log(2), abs=1e-6) and scores[-1] < scores[0]
    # What it leaves for the peft library is what it trained, and another stage can begin with it.
    left = peft.read(tmp_path / "one/dpo/adapter", model_folder.find(base))
    assert peft.differences(model_folder.find(base), left, model_folder.find(tmp_path / "one/dpo"))[0] < 1e-4
    further = LoraConfig(rank=4, alpha=8.0, adapter=str(tmp_path / "one/dpo/adapter"))
    jax.tree.map(np.testing.assert_array_equal, adapters.given(further, "dpo", model_folder.find(base)), left.params)
    for change, told in (({"rank": 8}, "lora.rank' is 8"), ({"targets": ("q",)}, "lora.targets' must match")):
        with pytest.raises(ConfigError, match=told):
            adapters.given(dataclasses.replace(further, **change), "dpo", model_folder.find(base))
    # Stopped after its fifth step, it goes on from its fourth on eight devices.
    assert not (tmp_path / "eight/dpo/model").exists()
    with_adapters = copy.deepcopy(with_adapters)
    with_adapters.mesh = dict(data=2, fsdp=2, sequence=1, tensor=2)
    recipe.run(with_adapters, tmp_path / "eight")
    np.testing.assert_allclose(losses(tmp_path / "eight", "dpo"), found, rtol=2e-4)


@pytest.mark.more
def test_adapters_of_answers_then_of_pairs_agree_on_one_device_and_on_eight(with_adapters, tmp_path):
    """Twenty steps of each, within 1e-5."""
    c, draw = copy.deepcopy(with_adapters).unlock(), random.Random(2)
    pairs = [_pair(draw) for _ in range(100)]
    lines = [json.dumps({"prompt": p["prompt"], "completion": p["chosen"]}, ensure_ascii=False) for p in pairs]
    (tmp_path / "chat.jsonl").write_text("\n".join(lines), encoding="utf-8")
    c.sources.chat = dict(path=str(tmp_path / "chat.jsonl"), lang="ko", holdout=0.0)
    c.sources.pairs.holdout = 0.0
    c.dpo.train.update(batch_tokens=4 * 96, seq_len=96, tokens=4 * 96 * 20, eval_every=1000)
    c.dpo.train.checkpoint.update(every=1000)
    c.dpo.train.optimizer.learning_rate = 1e-3
    del c.dpo.preference
    c.sft = copy.deepcopy(c.dpo)
    c.sft.kind = "sft"
    del c.sft.mixture
    c.sft.mixture = dict(chat=1.0)
    c.dpo.start, c.stages = "sft", ("sft", "dpo")
    recipe.run(c, tmp_path / "one", devices=ONE)
    c.mesh = dict(data=2, fsdp=2, sequence=1, tensor=2)
    recipe.run(c, tmp_path / "eight")
    for stage in ("sft", "dpo"):
        one, eight = (losses(tmp_path / name, stage) for name in ("one", "eight"))
        np.testing.assert_allclose(eight, one, rtol=0, atol=1e-5)
        assert len(one) == 20 and one[-1] < one[0] - 0.02


def test_a_cached_reference_is_the_live_one_and_is_asked_once(config, run, tmp_path, monkeypatch):
    cached = copy.deepcopy(config).unlock()
    cached.dpo.reference_cache = str(tmp_path / "cache")
    recipe.run(cached, tmp_path / "first", devices=ONE)
    with monkeypatch.context() as patch:  # a second stage asks the reference nothing, nor does its evaluation
        patch.setattr(dpo.Reference, "params", lambda self: pytest.fail("the reference was loaded"))
        recipe.run(cached, tmp_path / "second", devices=ONE)
    figures = [
        [line["score"]["value"] for line in _lines(w) if "score" in line]
        for w in (run, tmp_path / "first", tmp_path / "second")
    ]
    np.testing.assert_allclose(losses(tmp_path / "first", "dpo"), losses(run, "dpo"), rtol=0, atol=1e-5)
    np.testing.assert_allclose(figures[1], figures[0], rtol=0, atol=1e-5)
    assert losses(tmp_path / "second", "dpo") == losses(tmp_path / "first", "dpo") and figures[1] == figures[2]
    files = [path.name for path in (tmp_path / "cache").iterdir()]
    assert len([name for name in files if name.startswith("log_probs-")]) == 1  # the second had nothing to add
    cached.dpo.reference_dtype = "bfloat16"
    with pytest.raises(ConfigError, match=r"'dpo.reference_cache': .* belongs to another reference \(dtype differ\)"):
        recipe.run(cached, tmp_path / "third", devices=ONE)


def test_a_plan_of_adapters_holds_no_moments_of_the_base(with_adapters, config):
    mesh, held = make_mesh(MeshConfig(), ONE), []
    for each in (config, with_adapters):
        parsed, stages = recipe.parse(each)
        held.append(dpo.programs("dpo", stages["dpo"], context.shapes(parsed, stages, mesh)))
    whole, adapters = (programs.resident for programs in held)
    assert adapters["base"] == whole["parameters"] and adapters["optimizer"] < whole["optimizer"] / 3
    assert held[1].flops_per_token < held[0].flops_per_token
    assert "reference" in whole and "reference" not in adapters  # which is the base


def test_a_loss_without_a_reference_runs_none(config, base):
    config = copy.deepcopy(config).unlock()
    parsed, stages = recipe.parse(config)
    mesh = make_mesh(MeshConfig(), ONE)
    planned = dpo.programs("dpo", stages["dpo"], context.shapes(parsed, stages, mesh))
    config.dpo.preference = dict(loss="simpo", beta=2.0, margin=0.5)
    parsed, stages = recipe.parse(config)
    alone = dpo.programs("dpo", stages["dpo"], context.shapes(parsed, stages, mesh))
    assert [program.name for program in planned.programs] == ["reference", "step"]
    assert [program.name for program in alone.programs] == ["step"] and not alone.others
    assert alone.flops_per_token < planned.flops_per_token and planned.resident["reference"] > 0
    config.dpo.reference = str(base)
    with pytest.raises(ConfigError, match="loss 'simpo' reads no reference"):
        recipe.parse(config)


def test_pairs_of_nothing_end_with_a_sentence(config, tmp_path):
    config = copy.deepcopy(config)
    file = tmp_path / "same.jsonl"
    file.write_text(json.dumps({"prompt": "?", "chosen": "네.", "rejected": "네."}) + "\n")
    config.sources.pairs.update(path=str(file), holdout=0.0)
    with pytest.raises(UserError, match="every document of a source is dropped .*identical_answers"):
        recipe.run(config, tmp_path / "run", devices=ONE)
