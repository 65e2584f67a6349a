"""The engine knows no tokens, bits per byte or whole models: a stage of another unit, score, batch and parameters."""

import dataclasses
import json
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kanana_jax.errors import ConfigError
from kanana_jax.parallel import heartbeat
from kanana_jax.parallel.mesh import MeshConfig, make_mesh
from kanana_jax.training import loop
from kanana_jax.training.checkpoint import CheckpointConfig, Checkpoints
from kanana_jax.training.optimizer import OptimizerConfig
from kanana_jax.training.schedule import ScheduleConfig, make_schedule
from kanana_jax.training.step import LossOutput
from kanana_jax.training.task import Frozen, Questions, Score, Task, TrainConfig

ROWS, WIDTH = 4, 3


class Pairs(NamedTuple):
    x: np.ndarray
    y: np.ndarray


class Drawn(NamedTuple):
    pairs: Pairs
    noise: jax.Array


class Stream:
    """Rows by their place alone."""

    wait_seconds = filter_seconds = 0.0

    def __init__(self, rows):
        self.rows, self.step = rows, 0

    def __next__(self):
        rng = np.random.default_rng(self.step)
        x = rng.normal(size=(ROWS, WIDTH)).astype(np.float32)
        self.step += 1
        return Pairs(x[self.rows], x[self.rows].sum(axis=1))

    def get_state(self):
        return {"0": {"step": self.step}}

    def set_state(self, state):
        self.step = state["0"]["step"]

    def close(self):
        pass


def _loss(params, batch, rng, others):
    """Of 4 pairs, which stand for 70 tokens."""
    error = batch.x @ params["w"] - batch.y
    return LossOutput((error**2).sum(), jnp.float32(ROWS), {"error": jnp.abs(error).sum()}, jnp.float32(70))


def _task(**more):
    w = jnp.zeros(WIDTH)
    given = dict(
        name="pairs",
        loss=_loss,
        make_params=lambda: {"w": w},
        abstract_params={"w": jax.ShapeDtypeStruct(w.shape, w.dtype)},
        logical_axes={"w": ("norm",)},
        stream=Stream,
        flops={"train": 6e3, "teacher": 1e3},
        sizes={},
        fresh=True,
    )
    return Task(**given | more)


def _config(steps, **more):
    optimizer = OptimizerConfig(1e-2, ScheduleConfig("constant", 0))
    return TrainConfig(tokens=steps * ROWS, batch_tokens=ROWS, seq_len=1, optimizer=optimizer, log_every=1, **more)


MESH = make_mesh(MeshConfig(), jax.devices()[:1])


def _lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def _train(task, config, folder, **more):
    return loop.train(task, config, MESH, folder, 0, **more)


def test_tokens_are_not_the_divisor(tmp_path, monkeypatch):
    """MFU and tokens count what was read; the loss is a mean over pairs."""
    monkeypatch.setattr(loop.chips, "peak_flops", lambda device: (2e9, "a chip that is made up"))
    result = _train(_task(), _config(5), tmp_path)
    lines = [line for line in _lines(tmp_path) if "loss" in line]
    assert result.tokens == 5 * 70 and [line["tokens"] for line in lines] == [70, 140, 210, 280, 350]
    first = next(Stream(np.arange(ROWS)))
    assert lines[0]["loss"] == pytest.approx((first.y**2).mean(), rel=1e-6)
    assert lines[0]["error"] == pytest.approx(np.abs(first.y).mean(), rel=1e-6)
    rates = {line["mfu"] / line["tokens_per_s"] for line in lines[1:]}
    assert max(rates) == pytest.approx(min(rates), rel=1e-6)
    assert max(rates) == pytest.approx(7e3 / 2e9, rel=1e-6)


@pytest.mark.parametrize("stop", [None, 7])
def test_the_logged_rate_is_the_one_that_was_applied(tmp_path, stop):
    """Without momentum Adam moves by exactly the rate; refused updates do not move the schedule, also over a restart."""
    seen, bad = {}, {3, 4, 8}

    def prepare(params, batch, step, key):
        seen[step] = np.asarray(params["w"], np.float64)
        return batch._replace(y=batch.y * (np.nan if step in bad else 1.0))

    schedule = ScheduleConfig("cosine", warmup_steps=5, final=0.1)
    optimizer = OptimizerConfig(1e-2, schedule, b1=0.0, b2=0.0, weight_decay=0.0, clip_norm=0.0)
    config = _config(12, checkpoint=CheckpointConfig(every=4))
    config = dataclasses.replace(config, optimizer=optimizer)
    task = _task(make_frozen=lambda: Frozen(None, prepare))
    if stop is not None:
        _train(task, config, tmp_path, stop_at=stop)
    last = _train(task, config, tmp_path)
    seen[13] = np.asarray(last.params["w"], np.float64)
    lines = [line for line in _lines(tmp_path) if "loss" in line]
    assert [line["step"] for line in lines] == [*range(1, 13)] and lines[-1]["skipped"] == len(bad)
    multiple = make_schedule(schedule, config.steps)
    applied = 0
    for line in lines:
        step = line["step"]
        assert line["lr"] == pytest.approx(1e-2 * float(multiple(applied)), rel=1e-6)
        moved = np.abs(seen[step + 1] - seen[step])
        np.testing.assert_allclose(moved, 0.0 if step in bad else line["lr"], rtol=1e-4)
        applied += step not in bad


def _scored(values, name="reward"):
    """An evaluation that says these values, one after another."""
    said = iter(values)
    return lambda params: {name: next(said), "other": 1.0}


@pytest.mark.parametrize("better, values", [("higher", [1.0, 9.0, 2.0]), ("lower", [5.0, -1.0, 4.0])])
@pytest.mark.parametrize("stop", [None, 12])
def test_the_best_checkpoint_is_kept_by_the_stages_own_score(tmp_path, better, values, stop):
    """Evaluated every 8 steps, saved every 6: that of the best evaluation stays, also over a restart."""
    task = _task(
        evaluate=_scored(values if stop is None else [*values[:1], 0.0, *values[1:]]), score=Score("reward", better)
    )
    config = _config(24, eval_every=8, checkpoint=CheckpointConfig(every=6, keep_last=1, keep_best=1))
    if stop is not None:
        _train(task, config, tmp_path, stop_at=stop)
        task = _task(evaluate=_scored(values[1:]), score=Score("reward", better))
    _train(task, config, tmp_path)
    kept = Checkpoints(tmp_path / "checkpoints", config.checkpoint)
    assert kept.steps() == [16, 24]
    kept.close()
    rows = [line["score"] for line in _lines(tmp_path) if "score" in line]
    assert rows[-1] == {"name": "reward", "better": better, "value": values[-1]}


@pytest.mark.parametrize("better, sign", [("lower", 1.0), ("higher", -1.0)])
def test_the_best_evaluation_of_a_stop_is_kept_too(tmp_path, monkeypatch, better, sign):
    """Told to stop at the step of what would be its best evaluation, which is made when the run goes on."""
    config = _config(24, eval_every=8, checkpoint=CheckpointConfig(every=5, keep_last=1, keep_best=1))
    score = Score("reward", better)
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "preempted", lambda self, step: step == 8)
        with pytest.raises(loop.Preempted):
            _train(_task(evaluate=_scored([]), score=score), config, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "preempted", lambda self, step: step == 12)
        with pytest.raises(loop.Preempted):
            _train(_task(evaluate=_scored([1.0 * sign]), score=score), config, tmp_path)
    _train(_task(evaluate=_scored([3.0 * sign, 2.0 * sign]), score=score), config, tmp_path)
    kept = Checkpoints(tmp_path / "checkpoints", config.checkpoint)
    assert kept.steps() == [8, 24]
    kept.close()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_no_number_is_never_the_best(tmp_path, bad):
    config = _config(40, eval_every=8, checkpoint=CheckpointConfig(every=40, keep_last=1, keep_best=1))
    task = _task(evaluate=_scored([bad, 3.0, 5.0, bad, 4.0]), score=Score("reward", "lower"))
    _train(task, config, tmp_path / "kept")
    kept = Checkpoints(tmp_path / "kept/checkpoints", config.checkpoint)
    assert kept.steps() == [16, 40]
    kept.close()
    patient = dataclasses.replace(config, patience=2)
    task = _task(evaluate=_scored([bad, 3.0, bad, 9.0, 1.0]), score=Score("reward", "lower"))
    assert _train(task, patient, tmp_path / "patient").step == 32


def test_a_stage_without_a_better_score_ends_early_and_stays_ended(tmp_path):
    config = _config(100, eval_every=2, patience=2, checkpoint=CheckpointConfig(every=50))
    task = _task(evaluate=_scored([3.0, 2.0, 2.5, 2.0, 0.0]), score=Score("reward", "lower"))
    result = _train(task, config, tmp_path)
    assert result.step == 8 and [line["step"] for line in _lines(tmp_path) if "eval" in line] == [2, 4, 6, 8]
    again = _train(_task(evaluate=_scored([7.0]), score=Score("reward", "lower")), config, tmp_path)
    assert again.step == 8 and again.tokens == result.tokens
    np.testing.assert_array_equal(again.params["w"], result.params["w"])


def test_what_is_prepared_sees_parameters_step_and_key_and_resumes_exactly(tmp_path):
    seen = []

    def prepare(params, batch, step, key):
        seen.append((step, float(params["w"].sum())))
        return Drawn(batch, jax.random.normal(key, (ROWS,)) + params["w"].sum())

    def loss(params, batch, rng, others):
        return _loss(params, batch.pairs._replace(y=batch.pairs.y + batch.noise), rng, others)

    task = _task(loss=loss, make_frozen=lambda: Frozen(None, prepare))
    config = _config(8, checkpoint=CheckpointConfig(every=3))
    whole = _train(task, config, tmp_path / "whole")
    steps, sums = zip(*seen)
    assert steps == tuple(range(1, 9)) and len(set(sums)) == 8  # each time the parameters of that moment
    _train(task, config, tmp_path / "parts", stop_at=3)
    parts = _train(task, config, tmp_path / "parts")
    one, two = ([x["loss"] for x in _lines(tmp_path / name) if "loss" in x] for name in ("whole", "parts"))
    assert one == two
    np.testing.assert_array_equal(whole.params["w"], parts.params["w"])
    other = loop.train(task, config, MESH, tmp_path / "seed", 1)
    assert not np.array_equal(other.params["w"], whole.params["w"])


def test_adapters_are_trained_and_the_whole_model_is_judged_and_returned(tmp_path):
    base, judged = jnp.arange(1.0, WIDTH + 1), []

    def loss(params, batch, rng, others):
        return _loss({"w": params["adapter"] + others["w"]}, batch, rng, None)

    def evaluate(params):
        judged.append(np.asarray(params["w"]))
        return {"reward": 0.0}

    task = _task(
        loss=loss,
        make_params=lambda: {"adapter": jnp.zeros(WIDTH)},
        abstract_params={"adapter": jax.ShapeDtypeStruct((WIDTH,), jnp.float32)},
        logical_axes={"adapter": ("norm",)},
        make_frozen=lambda: Frozen({"w": base}),
        full=lambda params, others: {"w": params["adapter"] + others["w"]},
        evaluate=evaluate,
        score=Score("reward", "higher"),
        fresh=False,
    )
    result = _train(task, _config(4), tmp_path)
    np.testing.assert_array_equal(judged[0], base)  # before the first step the adapter adds nothing
    np.testing.assert_array_equal(judged[-1], result.params["w"])
    assert not np.array_equal(result.params["w"], base)
    state = next((tmp_path / "checkpoints").glob("*/state"))
    assert "adapter" in (state / "_METADATA").read_text() and "['w']" not in (state / "_METADATA").read_text()


def test_told_to_stop_at_the_last_step_a_stage_is_judged_when_it_is_run_again(tmp_path, monkeypatch):
    """Else an older evaluation would be the finished model's."""
    config = _config(4, eval_every=2, checkpoint=CheckpointConfig(every=4))
    whole = _train(_task(evaluate=_scored([1.0, 2.0]), score=Score("reward", "higher")), config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "preempted", lambda self, step: step == 4)
        with pytest.raises(loop.Preempted, match="step 4 of 4"):
            _train(_task(evaluate=_scored([1.0]), score=Score("reward", "higher")), config, tmp_path / "parts")
    again = _train(_task(evaluate=_scored([2.0]), score=Score("reward", "higher")), config, tmp_path / "parts")
    assert again.evaluation == whole.evaluation and again.step == 4


def test_an_evaluation_that_a_stop_left_out_is_made_up_for(tmp_path, monkeypatch):
    """Patience counts the same evaluations, whether a run was stopped at one of them or not, and none of a pause."""
    config = _config(100, eval_every=2, patience=2, checkpoint=CheckpointConfig(every=50))
    values = [3.0, 2.0, 2.5, 2.0, 0.0]
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "preempted", lambda self, step: step == 4)
        with pytest.raises(loop.Preempted):
            _train(_task(evaluate=_scored(values[:1]), score=Score("reward", "lower")), config, tmp_path)
    task = _task(evaluate=_scored([values[1], 9.0]), score=Score("reward", "lower"))
    assert _train(task, config, tmp_path, stop_at=5).step == 5
    result = _train(_task(evaluate=_scored(values[2:]), score=Score("reward", "lower")), config, tmp_path)
    assert result.step == 8
    assert [line["step"] for line in _lines(tmp_path) if "eval" in line] == [2, 4, 5, 6, 8]


def test_an_evaluation_at_the_start_is_one_line_also_after_a_kill_before_the_first_checkpoint(tmp_path):
    def broken(params, batch, rng, others):
        raise RuntimeError("cut off")

    task = _task(evaluate=_scored([1.0]), score=Score("reward", "higher"), fresh=False)
    with pytest.raises(RuntimeError, match="cut off"):
        _train(dataclasses.replace(task, loss=broken), _config(2), tmp_path)
    assert [line["step"] for line in _lines(tmp_path) if "eval" in line] == [0]
    _train(dataclasses.replace(task, evaluate=_scored([1.0, 2.0])), _config(2), tmp_path)
    assert [line["step"] for line in _lines(tmp_path) if "eval" in line] == [0, 2]


def test_patience_without_held_out_documents_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="pairs.train.patience.*holdout"):
        _train(_task(), _config(4, eval_every=2, patience=1), tmp_path)


@pytest.mark.parametrize("every, asked", [(2, [0, 2, 4, 6]), (0, [0, 6])])
def test_benchmarks_are_asked_once_where_patience_ends_a_stage(tmp_path, every, asked):
    config = _config(100, eval_every=2, patience=2, checkpoint=CheckpointConfig(every=50))
    questions = Questions(every, lambda params: {"quiz": {"acc": 0.5}})
    evaluate = _scored([9.0, 3.0, 4.0, 5.0, 5.0])
    _train(_task(evaluate=evaluate, score=Score("reward", "lower"), questions=questions), config, tmp_path)
    assert [line["step"] for line in _lines(tmp_path) if "tasks" in line.get("eval", {})] == asked


def test_a_batch_of_a_new_shape_is_compiled_and_no_part_of_throughput(tmp_path, monkeypatch):
    """Rows double at the fourth of six steps. By a clock on which tracing the loss takes 1,000 s and a look at it 1 s."""
    now, marks = [0.0], []

    def look():
        now[0] += 1
        return now[0]

    def loss(params, batch, rng, others):
        now[0] += 1000
        return _loss(params, batch, rng, others)

    def prepare(params, batch, step, key):
        return jax.tree.map(lambda x: jnp.repeat(x, 2, axis=0), batch) if step >= 4 else batch

    monkeypatch.setattr(loop.time, "perf_counter", look)
    monkeypatch.setattr(heartbeat, "Marks", lambda: lambda *mark: marks.append(mark))
    _train(_task(loss=loss, make_frozen=lambda: Frozen(prepare=prepare)), _config(6), tmp_path)
    timed = [line["step_s"] for line in _lines(tmp_path) if "step_s" in line]
    assert now[0] > 2000 and len(timed) == 5 and max(timed) < 1000
    compiled = [step for step, doing in marks if doing == heartbeat.COMPILE]
    assert compiled == [0, 1, 4] and [step for step, doing in marks if doing == heartbeat.STEP] == [2, 3, 5, 6]
