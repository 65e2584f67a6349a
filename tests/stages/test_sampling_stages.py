"""Stages that sample: they learn what is rewarded; ratios are 1, resumed is undisturbed, faults are told."""

import copy
import json
import random
import shutil
import threading
import time

import jax
import numpy as np
import own_models
import pytest
from conftest import ROOT, copied_after, losses

from kanana_jax import config as config_lib
from kanana_jax.data import microworld
from kanana_jax.data.tokens.tokenizer import load_tokenizer
from kanana_jax.errors import ConfigError, UserError
from kanana_jax.evaluation import verifiers
from kanana_jax.inference.rollout import Answer
from kanana_jax.interop import model_folder
from kanana_jax.models import counts, presets
from kanana_jax.models.architecture import Runtime
from kanana_jax.models.cache import empty_cache
from kanana_jax.parallel.mesh import MeshConfig, make_mesh
from kanana_jax.recipe import context
from kanana_jax.recipe import run as recipe
from kanana_jax.stages import KINDS, answer_rows, grpo, online_dpo, sampled
from kanana_jax.stages.orders import Ahead, Orders

pytestmark = pytest.mark.usefixtures("no_reports")
ONE = jax.devices()[:1]
T, NEW, P = 80, 6, 8


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return own_models.write(tmp_path_factory.mktemp("base"), "bpe", microworld.World.create(0, 100))


@pytest.fixture(scope="module")
def config(base, tmp_path_factory):
    """GRPO for answers of few letters, which a new model gives now and then."""
    file, draw = tmp_path_factory.mktemp("prompts") / "prompts.jsonl", random.Random(0)
    lines = []
    for _ in range(200):
        a, b = draw.randrange(5), draw.randrange(5)
        lines.append({"prompt": f"{a} 더하기 {b}는?", "answer": {"max": 4}, "verifier": "length"})
    lines += [{"prompt": "말 " * 80, "answer": 1}] * 9
    file.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines), encoding="utf-8")
    c = config_lib.read_config_file(f"{ROOT / 'configs/online.py'}:{base},{file},grpo")
    c.sources.prompts.holdout = 0.1
    c.online.rollout.update(samples=4, max_new_tokens=NEW)
    c.online.train.update(batch_tokens=P * T, seq_len=T, tokens=P * T * 6, eval_every=0, loss_chunk=64)
    c.online.train.checkpoint.update(every=2)
    c.online.train.optimizer.learning_rate = 1e-2
    c.online.train.optimizer.schedule.warmup_steps = 1
    return c


def _of(config, file, method, **stage):
    """The same with another loss, and without held-out prompts."""
    c = config_lib.read_config_file(f"{ROOT / 'configs/online.py'}:{config.online.start},{file},{method}")
    c.online.train, c.sources = config.online.train.copy_and_resolve_references(), copy.deepcopy(config.sources)
    c.sources.prompts.holdout = 0.0
    c.online.rollout.update(config.online.rollout)
    c.online.update(stage)
    return c


def _lines(workdir, key="loss"):
    found = [json.loads(line) for line in (workdir / "online/metrics.jsonl").read_text().splitlines()]
    return [line for line in found if key in line]


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    """What a crash after step 5 would leave is at `stopped` beside it."""
    workdir = tmp_path_factory.mktemp("grpo") / "run"
    with copied_after(5, workdir, workdir.parent / "stopped"):
        recipe.run(config, workdir, devices=ONE)
    return workdir


def test_reward_rises_and_nothing_is_off_policy(run):
    lines, scores = _lines(run), [line["score"]["value"] for line in _lines(run, "score")]
    assert scores[-1] > scores[0] + 0.3 and scores[-1] > 0.7
    assert [line["staleness"] for line in lines] == [0.0] * 6
    assert all(line["sampling_wait_s"] > 0 for line in lines)
    assert max(line["mismatch"] for line in lines) < 1e-4
    np.testing.assert_allclose([line["ratio"] for line in lines], 1, atol=1e-4)
    assert all(0 <= line[key] <= 1 for line in lines for key in ("ended", "language", "reward", "informative"))
    assert all(1 <= line["answer_tokens"] <= NEW for line in lines)
    rules = json.loads((run / "online/data_report.json").read_text())["sources"]["prompts"]["rules"]
    assert rules["prompt_longer_than_row"]
    answers = json.loads((run / "online/answers.json").read_text())
    rewards = [np.mean([line["reward"] for line in answers[when]]) for when in ("before", "after")]
    assert rewards[1] > rewards[0] and [a["prompt"] for a in answers["before"]] == [
        a["prompt"] for a in answers["after"]
    ]
    page = (run / "report.html").read_text()
    assert "Sampled answers" in page and "the same held-out prompts before and after" in page


def test_a_stage_that_stopped_samples_the_same_again(run, config):
    stopped = run.parent / "stopped"
    assert not (stopped / "online/model").exists()
    recipe.run(config, stopped, devices=ONE)
    assert losses(stopped, "online") == losses(run, "online")
    assert [line["reward"] for line in _lines(stopped)] == [line["reward"] for line in _lines(run)]
    cards, lines = [json.loads((at / "online/model/model.json").read_text()) for at in (run, stopped)], _lines(run)
    assert cards[0]["flops"] == cards[1]["flops"] and cards[0]["flops"]["sampler"] > 0
    assert cards[0]["other_tokens"] == cards[1]["other_tokens"] == {"sampler": lines[-1]["sampler_tokens"]}
    read = lines[-1]["sampler_tokens"] - round(sum(line["answer_tokens"] for line in lines) * P * 4)
    assert read > 0 and read % 4 == 0  # each prompt is read for each of its answers


def test_the_work_of_a_step_by_hand():
    """Each token passes every matrix of the blocks and sees half of the keys; new ones come out of the table."""
    policy = presets.tiny(50, embed_dim=8, mlp_dim=12, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=2)
    critic = presets.tiny(50, embed_dim=4, mlp_dim=6, num_layers=3, num_heads=2, num_kv_heads=1, head_dim=2)
    nothing = np.zeros(0, np.float32)
    lengths = [(3, (2, 5)), (4, (1, 4))]
    questions = [verifiers.Question(str(n), np.ones(n, np.int32), "", "", "", None) for n, _ in lengths]
    answers = [[Answer(np.ones(n, np.int32), nothing, nothing, True) for n in own] for _, own in lengths]
    found = sampled.work(sampled.Sampled(questions, answers, [["", ""]] * 2, None), policy, critic)
    each = [(read, new) for read, own in lengths for new in own]
    wrote = sum(
        (read + new) * 2 * 2 * (8 * 8 + 2 * 8 * 4 + 8 * 8 + 3 * 8 * 12)
        + (read + new) ** 2 / 2 * 2 * 4 * 8
        + new * 2 * 8 * 50
        for read, new in each
    )
    judged = sum(
        (read + new) * 3 * 2 * (4 * 4 + 2 * 4 * 2 + 4 * 4 + 3 * 4 * 6) + (read + new) ** 2 / 2 * 3 * 4 * 4
        for read, new in each
    )
    tokens = 3 + 2 + 3 + 5 + 4 + 1 + 4 + 4
    assert found == {"sampler": {"tokens": tokens, "flops": wrote}, "reward": {"tokens": tokens, "flops": judged}}
    assert set(sampled.work(sampled.Sampled(questions, answers, [], None), policy, None)) == {"sampler"}


def test_two_devices_learn_as_one(run, config, tmp_path):
    """The sampler has a mesh of its own."""
    c = copy.deepcopy(config).unlock()
    c.mesh, c.online.sampler_mesh = dict(data=1, fsdp=2), dict(data=2, fsdp=1)
    recipe.run(c, tmp_path, devices=jax.devices()[:2])
    assert [line["reward"] for line in _lines(tmp_path)] == [line["reward"] for line in _lines(run)]
    np.testing.assert_allclose(losses(tmp_path, "online"), losses(run, "online"), rtol=2e-4, atol=1e-6)


def test_pairs_of_stale_answers(config, tmp_path):
    c = _of(config, config.sources.prompts.path, "", staleness=2)
    c.online.train.optimizer.learning_rate = 3e-3
    recipe.run(c, tmp_path, devices=ONE)
    lines = _lines(tmp_path)
    assert [line["staleness"] for line in lines] == [0, 1, 2, 2, 2, 2]
    assert lines[0]["mismatch"] < 1e-4 < lines[3]["mismatch"]
    assert lines[0]["loss"] == pytest.approx(np.log(2), abs=1e-5) and lines[0]["kl"] < 1e-4 < lines[-1]["kl"]
    assert lines[0]["margin"] == pytest.approx(0, abs=1e-5) and lines[-1]["margin"] != 0
    assert all(line["chosen_tokens"] < line["rejected_tokens"] for line in lines[1:])


def test_a_student_comes_to_its_teacher_with_adapters(run, base, config, tmp_path):
    """A reward model says what its answers are worth."""
    found, critic = model_folder.find(base), tmp_path / "critic"
    params = model_folder.load_params(found, Runtime(), make_mesh(MeshConfig(), ONE))
    head = jax.random.normal(jax.random.key(5), (found.architecture.embed_dim,))
    card, special = model_folder.card(found.architecture), {"eos_token_id": load_tokenizer(base).eos_id}
    model_folder.write(critic, found.architecture, params, card, base.parent / "tokenizer", special, head=head)
    c = _of(config, config.sources.prompts.path, str(run / "online"), lora=dict(rank=4, alpha=8.0))
    c.online.dtype, c.online.rollout.samples = "float32", 2
    c.online.reward = dict(model=str(critic), dtype="float32")
    c.online.train.optimizer.learning_rate = 5e-2
    recipe.run(c, tmp_path / "run", devices=ONE)
    lines = _lines(tmp_path / "run")
    assert lines[0]["divergence"] > 1.5 * lines[-1]["divergence"] > 0
    assert all(np.isfinite(line["reward"]) and line["reward_std"] > 0 for line in lines)
    assert "critic" in json.loads((tmp_path / "run/config.json").read_text())["config"]["online"]["reward"]["model"]


def test_a_teacher_of_another_tokenizer_is_refused(base, config, tmp_path):
    """By what its card says; its words are as many."""
    teacher = shutil.copytree(base, tmp_path / "teacher")
    for file in teacher.glob("*token*"):
        file.unlink()
    card = json.loads((teacher / "model.json").read_text("utf-8")) | {"tokenizer": "0" * 64}
    (teacher / "model.json").write_text(json.dumps(card), encoding="utf-8")
    told = (
        "stage 'online': the teacher was trained with another tokenizer .* set config 'tokenizer.path' to the teacher's"
    )
    with pytest.raises(ConfigError, match=told):
        recipe.run(_of(config, config.sources.prompts.path, str(teacher)), tmp_path / "run", devices=ONE)


def test_orders_are_never_older_than_allowed_and_come_in_order():
    mesh, made = make_mesh(MeshConfig(), ONE), []

    def make(params, asked, key):
        made.append(asked)
        return float(params["w"]), asked, jax.random.key_data(key).tolist()

    for k in (0, 1, 3):
        made.clear()
        orders, ages = Orders(make, mesh, k, 6, "float32"), []
        for step in range(1, 7):
            asked = [f"prompt {i}" for i in range(step, step + k + 1)]
            params = {"w": jax.numpy.float32(step)}
            (weights, what, key), age, _ = orders.take(params, lambda: params, asked, step, jax.random.key(step))
            ages.append(age)
            assert what == f"prompt {step}" and weights == step - age
            assert key == jax.random.key_data(jax.random.fold_in(jax.random.key(step - age), age)).tolist()
        orders.close()
        assert ages == [min(step - 1, k) for step in range(1, 7)]
        assert made == [f"prompt {i}" for i in range(1, 7)]  # each once, the oldest first, none beyond the end


def test_the_wait_for_answers_is_told():
    """At once: as long as writing takes. Ahead: none where they are there, else until they are."""
    mesh, may_end, params = make_mesh(MeshConfig(), ONE), threading.Event(), {"w": jax.numpy.float32(0)}

    def take(orders, step, k):
        return orders.take(params, lambda: params, list(range(k + 1)), step, jax.random.key(0))

    def slow(params, asked, key):
        time.sleep(0.2)

    orders = Orders(slow, mesh, 0, 9, "float32")
    assert take(orders, 1, 0).waited >= 0.2
    orders.close()
    orders = Orders(lambda params, asked, key: asked or may_end.wait(), mesh, 1, 9, "float32")
    threading.Timer(0.2, may_end.set).start()
    assert take(orders, 1, 1).waited > 0.1
    while not orders._open[2][1].done():
        time.sleep(0.01)
    assert take(orders, 2, 1).waited == 0
    orders.close()


def test_a_stream_that_looks_ahead_is_at_its_own_batch():
    class Numbers:
        wait_seconds = filter_seconds = 0.0
        at = 0

        def __next__(self):
            self.at += 1
            return self.at

        def get_state(self):
            return {"0": {"row": self.at}}

        def set_state(self, state):
            self.at = state["0"]["row"]

        def close(self):
            pass

    stream = Ahead(Numbers(), 2)
    assert [next(stream), next(stream)] == [(1, 2, 3), (2, 3, 4)] and stream.get_state() == {"0": {"row": 2}}
    resumed = Ahead(Numbers(), 2)
    resumed.set_state(stream.get_state())
    assert next(resumed) == next(stream) == (3, 4, 5)


def test_the_pair_is_the_best_and_the_worst(config):
    _, stages = recipe.parse(_of(config, config.sources.prompts.path, ""))
    ids = [np.arange(1, 4, dtype=np.int32)] * 2
    answers = [
        [
            sampled.Answer(np.array([10 * i + n], np.int32), np.array([-n], np.float32), np.zeros(1), True)
            for n in range(3)
        ]
        for i in range(2)
    ]
    questions = [sampled.Question(str(i), ids[i], "") for i in range(2)]
    found = sampled.Sampled(questions, answers, [["", "", ""]] * 2, np.array([[0.0, 2, 1], [1, 1, 1]]))
    rows = online_dpo.make_rows(stages["online"], found, (2, 4)).answers
    assert rows.rows.targets[0, :7].tolist() == [2, 3, 1, 1, 2, 3, 0]
    assert rows.rows.weights[0, :8].tolist() == [0, 0, 1, 0, 0, 0, 1, 0]
    assert rows.log_probs[0, 2] == -1 and rows.log_probs[0, 6] == 0
    assert not rows.rows.segment_ids[1].any() and not rows.rows.weights[1].any()
    with pytest.raises(AssertionError):
        answer_rows.answer_rows([[(np.zeros(T, np.int32), answers[0][0])] * 2], T, with_cuts=False)


def test_packed_answers_have_their_own_advantages_and_cut_ones_teach_nothing(config):
    """Token n + 10 of an answer tells which it is; the second of each three was cut off by its length."""
    c = _of(config, config.sources.prompts.path, "grpo")
    c.online.policy.update(unfinished=False, scale=False)
    _, stages = recipe.parse(c)
    zeros, prompts = np.zeros(2, np.float32), [np.arange(1, n, dtype=np.int32) for n in (30, 3)]
    answers = [
        [sampled.Answer(np.full(2, 10 + 3 * i + n, np.int32), zeros, zeros, n != 1) for n in range(3)] for i in range(2)
    ]
    questions = [sampled.Question(str(i), ids, "") for i, ids in enumerate(prompts)]
    rewards = np.array([[3.0, 0, 0], [0, 0, 6]])
    made = grpo.make_rows(stages["online"], sampled.Sampled(questions, answers, [], rewards), (2, 6))
    rows, gains = made.answers.rows, {10: 2.0, 12: -1.0, 13: -2.0, 15: 4.0}
    assert rows.inputs.shape == (2, T) and rows.segment_ids.max(axis=1).sum() == 6
    learnt = rows.weights > 0
    assert sorted(rows.targets[learnt]) == sorted([*gains] * 2)
    assert made.advantages[learnt].tolist() == [gains[token] for token in rows.targets[learnt]]


@pytest.mark.parametrize(
    ("method", "change", "told"),
    [
        ("grpo", dict(staleness=-1), "staleness counts updates: it must be 0 .* not -1"),
        ("grpo", dict(rollout=dict(samples=1)), "rollout.samples must be at least 2, not 1: an answer is compared"),
        (
            "",
            dict(rollout=dict(samples=1)),
            "rollout.samples must be at least 2, not 1: a pair is the best and the worst",
        ),
        ("", dict(rollout=dict(max_new_tokens=T // 2)), "leaves no room for a prompt: .* holds 2 answers"),
        ("grpo", dict(rollout=dict(sampling=dict(temperature=0.0))), "sampling.temperature must be above 0"),
        ("grpo", dict(reward=dict(verifiers=dict(taste=1.0))), "'taste' is not a verifier: name some of record, number"),
        ("grpo", dict(policy=dict(ratio="sequence")), "set policy.average='answer'"),
        ("grpo", dict(reference="x"), "nothing reads the reference: set policy.kl_weight"),
        ("grpo", dict(start="scratch"), "starts from 'scratch'"),
        ("grpo", dict(reward=dict(verifiers=dict())), "nothing distinguishes good answers"),
        ("grpo", dict(reward=dict(unfinished=1.0)), "reward.unfinished is the penalty of an answer cut off: 0 or less, not 1.0"),
    ],
)
def test_what_does_not_fit_is_told(config, method, change, told):
    c = _of(config, config.sources.prompts.path, method).unlock()
    c.online.update(change)
    with pytest.raises(ConfigError, match=told):
        recipe.parse(c)


def test_rewards_that_are_no_numbers_end_the_stage(config, tmp_path, monkeypatch):
    monkeypatch.setitem(verifiers.VERIFIERS, "length", lambda text, question: float("nan"))
    with pytest.raises(UserError, match="the reward of an answer to record '.*' is nan, which is not finite"):
        recipe.run(_of(config, config.sources.prompts.path, "grpo"), tmp_path, devices=ONE)


@pytest.mark.parametrize("method", ["grpo", "", "teacher"])
def test_a_plan_counts_the_sampler(config, base, method):
    c = _of(config, config.sources.prompts.path, str(base) if method == "teacher" else method)
    if method == "grpo":
        c.online.policy.kl_weight = 0.1
    if method == "":
        c.online.reward = dict(model=str(base))
    parsed, stages = recipe.parse(c)
    stage = stages["online"]
    made = KINDS[stage.kind].programs("online", stage, context.shapes(parsed, stages, make_mesh(MeshConfig(), ONE)))
    names = [program.name for program in made.programs]
    before = {"grpo": ["reference"], "": ["reward", "reference"], "teacher": []}[method]
    assert names == ["sampler", *before, "step"]
    assert made.programs[0].arguments["ids"].shape[0] == P * stage.rollout.samples
    rows = jax.tree.leaves(made.step.arguments["batch"])[0].shape[0]
    assert rows == P * (1 if method == "" else stage.rollout.samples)
    assert set(made.others) == ({"teacher"} if method == "teacher" else set(before))
    # Three passes of what is trained and one of the other, over rows of T; every answer written at its longest.
    a, answers = made.model.architecture, P * stage.rollout.samples
    width = made.programs[0].arguments["ids"].shape[1]
    (held,) = made.programs[0].holds.values()
    cache = jax.eval_shape(lambda: empty_cache(a, answers, width + NEW, made.model.runtime.compute_dtype))
    assert held == sum(x.size * x.dtype.itemsize for x in (*cache.k, *cache.v))
    spent = 4 * rows * T * counts.forward_flops_per_token(a, T) + answers * counts.written_flops(a, width, NEW)
    if method == "":
        inputs, lengths = (made.programs[1].arguments[name] for name in ("inputs", "lengths"))
        assert inputs.shape[0] == answers and inputs.shape[1] >= stage.longest_prompt + NEW
        spent += answers * counts.written_flops(a, inputs.shape[1], 0)
        with jax.set_mesh(made.mesh):
            rewards = jax.eval_shape(made.programs[1].function, *made.programs[1].arguments.values())
        assert rewards.size == lengths.size == answers and made.resident["reward"] > 0
    assert made.flops_per_token * P * T == pytest.approx(spent)
    with jax.set_mesh(made.mesh):
        drawn = jax.eval_shape(made.programs[0].function, *made.programs[0].arguments.values())
    assert drawn.log_prob.shape == (P * stage.rollout.samples, NEW)
