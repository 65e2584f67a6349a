"""Tasks asked while a stage trains: in the metrics and events, and no draw of the training changes."""

import json
import struct

import jax
import pytest
from conftest import losses, stopped_after

pytest.importorskip("lm_eval")

from kanana_jax.errors import ConfigError  # noqa: E402
from kanana_jax.evaluation import run  # noqa: E402
from kanana_jax.evaluation.harness import HarnessModel  # noqa: E402
from kanana_jax.inference.session import Session  # noqa: E402
from kanana_jax.recipe import run as recipe  # noqa: E402

TASKS = dict(names=("microworld", "microworld_arithmetic"), every=3, limit=2, batch_size=8)


def _config(tiny_config, tasks, *overrides):
    config = tiny_config("stages=('stage1',)", *overrides).unlock()  # 12 steps, evaluated every 6
    config.samples = dict(prompts={})
    config.runtime.compute_dtype = "float32"
    if tasks:
        config.stage1.tasks = tasks
    return config


def _evals(workdir):
    rows = [json.loads(line) for line in (workdir / "stage1/metrics.jsonl").read_text().splitlines()]
    return {row["step"]: row["eval"] for row in rows if "eval" in row}


@pytest.fixture(scope="module")
def plain(tiny_config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "w"
    recipe.run(_config(tiny_config, None), workdir, devices=jax.devices()[:1])
    return workdir


def test_tasks_have_a_curve_that_ends_where_the_model_is_and_change_no_draw(plain, tiny_config, tmp_path):
    """Interrupted between two checkpoints, too."""
    config = _config(tiny_config, TASKS)
    with stopped_after(8):
        recipe.run(config, tmp_path, devices=jax.devices()[:1])
    recipe.run(config, tmp_path, devices=jax.devices()[:1])
    assert losses(tmp_path) == losses(plain)
    assert json.loads((tmp_path / "stage1/data_state.json").read_text()) == json.loads(
        (plain / "stage1/data_state.json").read_text()
    )
    with_tasks, without = _evals(tmp_path), _evals(plain)
    assert [*with_tasks] == [0, 3, 6, 9, 12] and [*without] == [6, 12]  # a drawn model has learnt nothing
    for step in without:
        assert with_tasks[step]["bits_per_byte"] == without[step]["bits_per_byte"] and "tasks" not in without[step]
    for found in with_tasks.values():
        tasks = found["tasks"]
        assert 0 <= tasks["microworld"]["acc"] <= 1 and tasks["microworld_fact_transfer_ko"]["acc_stderr"] >= 0
        assert tasks["microworld_arithmetic"]["exact_match"] >= 0
    assert "Tasks evaluated while training" in (tmp_path / "report.html").read_text()
    card = json.loads((tmp_path / "stage1/model/model.json").read_text())
    assert card["evaluation"]["tasks"] == with_tasks[12]["tasks"]
    # The same code as `kanana eval`, so the same figures; and TensorBoard has them.
    session = Session.load(str(tmp_path / "stage1"), devices=jax.devices()[:1])
    found = run.evaluate(HarnessModel(session, batch_size=8), TASKS["names"], limit=2)["results"]
    for name, metrics in with_tasks[12]["tasks"].items():
        for metric, value in metrics.items():
            assert found[name][metric] == pytest.approx(value, abs=1e-6), (name, metric)
    steps = [step for step, _ in _scalars(tmp_path / "stage1/events", "eval/tasks/microworld/acc")]
    assert sorted(set(steps)) == [*with_tasks]


def _scalars(folder, tag):
    """Read from the records themselves: length, checksum, event, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for file in sorted(folder.iterdir()):
        data, at = file.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + length])
            found += [(event.step, v.simple_value) for v in event.summary.value if v.tag == tag]
            at += length + 16
    return found


@pytest.mark.parametrize(
    "tasks, told",
    [
        pytest.param(  # seconds for the harness's whole index; tests/evaluation/test_tasks.py asks it
            *(dict(names=("mikroworld",)), "'mikroworld' is unknown: did you mean 'microworld'"),
            marks=pytest.mark.more,
        ),
        (dict(names=("niilc",), data_dir="nowhere"), "data folder nowhere does not exist"),
        (dict(names=(), every=2), "at least one name"),
        (dict(names=("microworld",), evry=2), "evry"),
    ],
)
def test_what_cannot_be_asked_is_told_before_the_first_step(tiny_config, tmp_path, tasks, told):
    with pytest.raises(ConfigError, match=told):
        recipe.run(_config(tiny_config, tasks), tmp_path, devices=jax.devices()[:1])
    assert not (tmp_path / "stage1/metrics.jsonl").exists()


def test_many_processes_are_told_how(tiny_config, tmp_path, monkeypatch):
    from kanana_jax.evaluation.in_training import TasksConfig, make_ask

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ConfigError, match="needs one process, but there are 2: leave it out"):
        make_ask(TasksConfig(("microworld",)), None, None, None, 0)
