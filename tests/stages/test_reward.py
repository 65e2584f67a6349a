"""Reward models: rewards packed as alone, learnt and calibrated, saved with their head, with adapters, on eight devices."""

import copy
import functools
import json
import random
import types
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import own_models
import pytest
from conftest import ROOT

from kanana_jax import config as config_lib
from kanana_jax.data import microworld
from kanana_jax.data.stream import packing
from kanana_jax.data.stream.encode import PairEncoder, Refused, RewardEncoder
from kanana_jax.data.stream.heldout import HeldoutRows
from kanana_jax.data.tokens.chat import encode_chat
from kanana_jax.data.tokens.tokenizer import load_tokenizer
from kanana_jax.errors import ConfigError, UserError
from kanana_jax.inference.reward_model import RewardModel
from kanana_jax.interop import model_folder
from kanana_jax.losses.reward import RewardLossConfig
from kanana_jax.models import reward as heads
from kanana_jax.models.architecture import Runtime
from kanana_jax.models.model import Model
from kanana_jax.parallel.mesh import MeshConfig, make_mesh
from kanana_jax.parallel.sharding import put_batch, tree_shardings
from kanana_jax.recipe import run as recipe
from kanana_jax.stages import reward

pytestmark = pytest.mark.usefixtures("no_reports")
ONE = jax.devices()[:1]
T = 192


class Asked(NamedTuple):
    ids: np.ndarray


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return own_models.write(tmp_path_factory.mktemp("base"), "bpe", microworld.World.create(0, 100))


def _pair(draw):
    a, b = draw.randrange(20), draw.randrange(20)
    return {
        "prompt": f"{a} 더하기 {b}는?",
        "chosen": f"{a + b}이다.",
        "rejected": f"글쎄, {a + b + 1}인가?",
        "margin": a / 10,
    }


@pytest.fixture(scope="module")
def config(base, tmp_path_factory):
    file, draw = tmp_path_factory.mktemp("pairs") / "pairs.jsonl", random.Random(0)
    file.write_text("\n".join(json.dumps(_pair(draw), ensure_ascii=False) for _ in range(160)), encoding="utf-8")
    c = config_lib.read_config_file(f"{ROOT / 'configs/reward.py'}:{base},{file}")
    c.sources.pairs.holdout = 0.2
    c.reward.train.update(batch_tokens=4 * T, seq_len=T, tokens=4 * T * 6, eval_every=3, log_every=1)
    c.reward.train.checkpoint.update(every=2)
    c.reward.train.optimizer.learning_rate = 1e-2
    c.reward.train.optimizer.schedule.warmup_steps = 1
    return c


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("reward")
    recipe.run(config, workdir, devices=ONE)
    return workdir


def _loaded(folder):
    found = model_folder.find(folder)
    params = model_folder.load_params(found, Runtime(), make_mesh(MeshConfig(), ONE))
    return Model(found.architecture), params


def _record(pair):
    said = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
    turns = {key: [{"role": role, "content": pair[key]}] for key, role in said.items()}
    return {"id": "1", "meta": {"margin": pair["margin"]}, **turns}


def test_the_reward_of_an_answer_is_at_the_symbol_that_ends_it_and_the_same_packed_as_alone(base):
    tokenizer, draw = load_tokenizer(base), random.Random(1)
    pairs = [_pair(draw) for _ in range(7)]
    examples = [RewardEncoder(tokenizer, T, margin=True)(_record(pair)) for pair in pairs]
    model, params = _loaded(base)
    head = np.asarray(np.random.default_rng(0).normal(size=32), np.float32)
    params = {**params, heads.HEAD: jnp.asarray(head)}
    rows = packing.pack(examples, T, whole=True)
    assert 1 < len(rows.inputs) < len(examples)
    found, lengths, margins = reward.rewards(rows, jax.jit(functools.partial(heads.scores, model))(params, rows))
    plain = [example for pair in pairs for example in PairEncoder(tokenizer, T)(_record(pair))]
    ends = [np.flatnonzero(example.weights)[-1] for example in plain]
    assert all(example.tokens[end] in tokenizer.end_ids for example, end in zip(plain, ends))
    alone = [packing.pack([[example]], T, whole=True) for example in plain]
    hidden, _ = jax.jit(model)(heads.without_head(params), packing.Rows(*map(np.concatenate, zip(*alone))))
    states = np.asarray(hidden, np.float64)[np.arange(len(ends)), ends]
    want = zip(states @ head.astype(np.float64), [example.weights.sum() for example in plain])
    there = np.asarray(margins) > 0
    values = np.stack([found.chosen, found.rejected, lengths.chosen, lengths.rejected], -1)[there]
    want = np.array(list(want)).reshape(-1, 2, 2).swapaxes(1, 2).reshape(-1, 4)
    np.testing.assert_allclose(values, want, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(np.asarray(margins)[there] - 1, [pair["margin"] for pair in pairs], rtol=1e-6)


def test_a_pair_of_one_token_too_many_is_refused_and_a_margin_that_is_none_is_named(base):
    tokenizer = load_tokenizer(base)
    record = _record(_pair(random.Random(0)))
    size = sum(len(example.tokens) for example in RewardEncoder(tokenizer, T)(record))
    assert not isinstance(RewardEncoder(tokenizer, size - 1)(record), Refused)
    assert RewardEncoder(tokenizer, size - 2)(record) == Refused("pair_longer_than_row")
    for margin in (-1, "big", True):
        with pytest.raises(UserError, match="record '1': its margin is .*not a number of at least 0"):
            RewardEncoder(tokenizer, T, margin=True)(record | {"meta": {"margin": margin}})


def _lines(workdir):
    return [json.loads(line) for line in (workdir / "reward/metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_run_learns_what_was_chosen_and_says_how_sure_it_is(run, config, base):
    lines = [line for line in _lines(run) if "loss" in line]
    assert lines[0]["loss"] == pytest.approx(np.log(2), abs=1e-6) and lines[0]["accuracy"] == 0
    assert lines[-1]["accuracy"] > 0.9 and lines[-1]["loss"] < 0.5
    figures = json.loads((run / "reward/model/model.json").read_text(encoding="utf-8"))["evaluation"]
    assert figures["reward_accuracy"]["lang/ko"] > 0.9
    assert sum(part["pairs"] for part in figures["calibration"].values()) > 10
    assert figures["reward_accuracy"]["length/below half"] > 0.9
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Reward models" in page and "calibration error" in page and "Preferences" not in page
    model, params = _loaded(run / "reward")
    head = model_folder.load_head(model_folder.find(run / "reward"), Runtime())
    assert head.shape == (32,) and np.any(head)
    with pytest.raises(UserError, match="is not a reward model: it holds no tensor score.weight"):
        model_folder.load_head(model_folder.find(base), Runtime())
    model_folder.transfer(run / "reward", run / "copy", keep_card=True)
    np.testing.assert_array_equal(model_folder.load_head(model_folder.find(run / "copy"), Runtime()), head)


def test_the_figures_of_held_out_pairs_by_hand():
    held = [HeldoutRows(name, lang, None, 1, 1) for name, lang in (("a", "ko"), ("b", "ko"), ("c", "en"))]
    rng = np.random.default_rng(0)
    pairs = [(rng.integers(3), rng.integers(5), rng.uniform(0.5, 1), rng.random() < 0.7) for _ in range(200)]
    sums = np.zeros((3, 5, 5, 4))
    for source, length, confidence, right in pairs:
        sums[source, length, int((confidence - 0.5) * 10)] += [0.5, right, 1, confidence]
    found = reward.figures(held, sums)

    def ece(chosen):
        parts = [[(c, r) for _, _, c, r in chosen if b / 10 <= c - 0.5 < (b + 1) / 10] for b in range(5)]
        errors = [
            len(part) * abs(np.mean([c for c, _ in part]) - np.mean([r for _, r in part])) for part in parts if part
        ]
        return sum(errors) / len(chosen)

    assert found["reward_ece"]["lang/ko"] == pytest.approx(ece([p for p in pairs if p[0] < 2]))
    assert found["reward_ece"]["source/c"] == pytest.approx(ece([p for p in pairs if p[0] == 2]))
    longer = [right for _, length, _, right in pairs if length == 3]
    assert found["reward_accuracy"]["length/longer"] == pytest.approx(np.mean(longer))
    assert found["reward_loss"]["lang/en"] == pytest.approx(0.5)


def test_eight_devices_compute_the_same_loss_and_gradients(base):
    tokenizer, draw = load_tokenizer(base), random.Random(2)
    rows = packing.pack([RewardEncoder(tokenizer, T)(_record(_pair(draw))) for _ in range(20)], T, whole=True)
    rows = jax.tree.map(lambda x: x[:8], rows)
    model, params = _loaded(base)
    params = jax.device_get({**params, heads.HEAD: jnp.ones(32)})
    loss = reward.make_loss(model, config=RewardLossConfig(centring=0.01))

    def run(params, rows):
        found = loss(params, rows, jax.random.key(0), None)
        return found.loss, (found.weight, found.metrics)

    (alone, _), gradient = jax.jit(jax.value_and_grad(run, has_aux=True))(params, rows)
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, sequence=1, tensor=2))
    axes = {**model.logical_axes(), heads.HEAD: heads.AXES}
    with jax.set_mesh(mesh):
        cut = jax.device_put(params, tree_shardings(mesh, axes)), put_batch(mesh, np.arange(8), 8, rows)
        (together, _), of_eight = jax.jit(jax.value_and_grad(run, has_aux=True))(*cut)
    np.testing.assert_allclose(together, alone, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), of_eight, gradient)


def test_a_saved_reward_model_scores_answers_as_in_training(run, base):
    loaded, draw = RewardModel.load(str(run / "reward"), devices=ONE), random.Random(3)
    pairs, tokenizer = [_pair(draw) for _ in range(20)], load_tokenizer(base)
    rows = packing.pack([RewardEncoder(tokenizer, T)(_record(pair)) for pair in pairs], T, whole=True)
    found, _, there = reward.rewards(rows, jax.jit(functools.partial(heads.scores, loaded.model))(loaded.params, rows))
    want = np.stack(found, -1)[np.asarray(there) > 0].reshape(-1)
    asked = [Asked(encode_chat(tokenizer, _record(pair)["prompt"])) for pair in pairs]
    texts = [pair[key] for pair in pairs for key in ("chosen", "rejected")]
    scored = loaded([question for question in asked for _ in range(2)], texts)
    np.testing.assert_allclose(scored, want, rtol=1e-5, atol=1e-5)
    assert loaded.check(tokenizer) is None
    # The last token is found by length: prompts hold the symbol that ends answers too, and padding's id is a token.
    odd = np.array([[5, loaded.end, 7, 9], [loaded.end, 5, 7, 0]], np.int32)
    rows = types.SimpleNamespace(inputs=odd, positions=np.arange(4)[None].repeat(2, 0), segment_ids=np.ones_like(odd))
    last = jax.jit(lambda params: heads.scores(loaded.model, params, rows))(loaded.params)[:, -1]
    np.testing.assert_allclose(loaded.of_tokens([np.arange(3, 40), *odd])[1:], last, rtol=1e-5, atol=1e-5)
    with pytest.raises(UserError, match="513 tokens, beyond the reward model's 512"):
        loaded.of_tokens([np.zeros(513, np.int32)])


def test_adapters_and_head_are_trained_and_a_reward_model_is_trained_further(config, base, run, tmp_path):
    config = copy.deepcopy(config)
    config.reward.lora = dict(rank=4, alpha=8.0)
    config.reward.start = str(run / "reward/model")
    config.reward.reward.margin = True
    recipe.run(config, tmp_path, devices=ONE)
    first = next(line for line in _lines(tmp_path) if "loss" in line)
    assert first["accuracy"] > 0.9  # it begins with the head that was learnt
    before, after = (model_folder.load_head(model_folder.find(f / "reward"), Runtime()) for f in (run, tmp_path))
    assert np.any(before != after)
    (_, old), (_, new) = _loaded(run / "reward"), _loaded(tmp_path / "reward")
    jax.tree.map(np.testing.assert_array_equal, old["embedding"], new["embedding"])
    moved = np.asarray(new["blocks"]["mlp"]["up"] - old["blocks"]["mlp"]["up"], np.float64)
    assert [np.linalg.matrix_rank(layer, tol=1e-5) for layer in moved] == [4, 4]


def test_settings_that_mean_nothing_are_refused(config):
    config = copy.deepcopy(config).unlock()
    config.reward.start = "scratch"
    config.reward.model = dict(preset="tiny")
    with pytest.raises(ConfigError):
        recipe.parse(config)
    with pytest.raises(ValueError, match="centring"):
        RewardLossConfig(centring=-0.1)
