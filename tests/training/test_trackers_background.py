"""Trackers never stop training: a service that fails is a warning, and the run's id survives a resume."""

import logging
import pathlib
import threading

import pytest

from kanana_jax.config import build
from kanana_jax.errors import ConfigError
from kanana_jax.files import read_json
from kanana_jax.recipe.config import RecipeConfig
from kanana_jax.training import trackers
from kanana_jax.training.trackers.background import InBackground


class _Kept:
    def __init__(self):
        self.lines, self.closed = [], False

    def write(self, line):
        if line["step"] == 13:
            raise SystemExit("no such key")
        self.lines.append(line)

    def close(self):
        self.closed = True


def test_lines_arrive_in_order_on_another_thread():
    kept, threads = _Kept(), []

    def make():
        threads.append(threading.current_thread())
        return kept

    writer = InBackground("kept", make)
    for step in range(10):
        writer.write({"step": step})
    writer.close()
    assert [line["step"] for line in kept.lines] == list(range(10)) and kept.closed
    assert threads[0] is not threading.current_thread()


@pytest.mark.parametrize("where", ["making", "writing"])
def test_a_service_that_fails_is_one_warning(caplog, where):
    kept = _Kept()

    def make():
        if where == "making":
            raise ConnectionError("the service\nis down")
        return kept

    with caplog.at_level(logging.WARNING, "kanana"):
        writer = InBackground("kept", make)
        for step in (1, 13, 14):
            writer.write({"step": step})
        writer.close()
        writer.write({"step": 15})
    told = [record.message for record in caplog.records]
    assert len(told) == 1 and told[0].startswith("kept stopped (") and "\n" not in told[0]
    assert [line["step"] for line in kept.lines] == ([1] if where == "writing" else [])


def test_a_resumed_stage_keeps_its_runs_ids(tmp_path: pathlib.Path, monkeypatch):
    seen = []

    def make(run):
        seen.append(run)
        return _Kept()

    monkeypatch.setattr(trackers, "TRACKERS", {"wandb": make, "mlflow": make})
    for use, step in ((("wandb",), 0), (("wandb", "mlflow"), 40)):
        for writer in trackers.writers(trackers.TrackersConfig(use=use), tmp_path / "stage1", "tiny", {}, step):
            writer.close()
    first, again = (run for run in seen if run.id == read_json(tmp_path / "stage1" / "trackers.json")["wandb"])
    assert (first.from_step, again.from_step, first.name) == (0, 40, "tiny/stage1")
    assert len({run.id for run in seen}) == 2


def test_a_misspelt_and_a_missing_tracker_are_told(monkeypatch):
    values = {"name": "x", "stages": ("a",), "sources": {}}
    with pytest.raises(ConfigError, match="trackers.*'wanb': did you mean 'wandb'"):
        build(RecipeConfig, values | {"trackers": {"use": ("wanb",)}}, "")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"'trackers.use' names 'trackio'.*pip install .kanana-jax\[trackio\]"):
        trackers.check_installed(trackers.TrackersConfig(use=("trackio",)))
