"""Experiment trackers: writers that send a stage's figures to Weights & Biases, MLflow or Trackio.

A tracker is one file of this folder with a class whose argument is a `TrackedRun`, and one line of `TRACKERS`. Each
stage is one run of the tracker, grouped by the recipe's run. Its id lies in `DIR/<stage>/trackers.json`, so that a
resumed stage continues the same run. Only process 0 writes. The libraries themselves read where and as whom they write:
`WANDB_MODE`, `WANDB_API_KEY`, `MLFLOW_TRACKING_URI`, `TRACKIO_DIR` ….
"""

import dataclasses
import importlib.util
import pathlib
import uuid
from collections.abc import Callable
from typing import Any

from kanana_jax import errors
from kanana_jax.errors import ConfigError
from kanana_jax.files import read_json, write_json
from kanana_jax.training.metrics import Writer
from kanana_jax.training.trackers.background import InBackground
from kanana_jax.training.trackers.run import TrackedRun


def _wandb(run: TrackedRun) -> Writer:
    from kanana_jax.training.trackers.wandb_writer import WeightsAndBiases

    return WeightsAndBiases(run)


def _mlflow(run: TrackedRun) -> Writer:
    from kanana_jax.training.trackers.mlflow_writer import MLflow

    return MLflow(run)


def _trackio(run: TrackedRun) -> Writer:
    from kanana_jax.training.trackers.trackio_writer import Trackio

    return Trackio(run)


# Name in the config, also that of the module and of the package's extra → its writer.
TRACKERS: dict[str, Callable[[TrackedRun], Writer]] = {"wandb": _wandb, "mlflow": _mlflow, "trackio": _trackio}


@dataclasses.dataclass(frozen=True)
class TrackersConfig:
    """The experiment trackers of a run, besides `metrics.jsonl`, TensorBoard and the terminal.

    Attributes:
      use: names in `TRACKERS`.
      project: project (Weights & Biases, Trackio) or experiment (MLflow) that the runs are part of.
    """

    use: tuple[str, ...] = ()
    project: str = "kanana-jax"

    def __post_init__(self):
        for name in self.use:
            if name not in TRACKERS:
                raise ValueError(f"use names '{name}': {errors.nearest(name, list(TRACKERS))}")
        if len(set(self.use)) != len(self.use):
            raise ValueError("use names a tracker twice")


def check_installed(config: TrackersConfig) -> None:
    """Refuses a tracker whose package is missing, before anything is computed.

    Raises:
      ConfigError: with the command that installs it.
    """
    for name in config.use:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(
                f"config 'trackers.use' names '{name}', whose package is not installed: {errors.install(name)}"
            )


def writers(
    config: TrackersConfig, folder: pathlib.Path, group: str, values: dict[str, Any], from_step: int
) -> list[Writer]:
    """The writers of one stage, each on a thread of its own.

    Args:
      folder: the stage's folder.
      group: name of the recipe's run.
      values: config values that the tracker shows.
      from_step: step that the stage resumes from; 0 for a new stage.
    """
    if not config.use:
        return []
    file = folder / "trackers.json"
    known: dict[str, str] = read_json(file) or {}
    ids = {name: known.get(name) or uuid.uuid4().hex[:12] for name in config.use}
    if ids.items() - known.items():
        write_json(file, {**known, **ids})
    runs = {name: TrackedRun(ids[name], config.project, group, folder, values, from_step) for name in config.use}
    return [InBackground(name, lambda name=name: TRACKERS[name](runs[name])) for name in config.use]
