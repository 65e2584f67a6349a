"""Trackio."""

from kanana_jax.training.metrics import Line, scalars
from kanana_jax.training.trackers.run import TrackedRun


class Trackio:
    """A run of Trackio, in the local database of `TRACKIO_DIR` unless its environment variables name a Space.

    Runs are identified by name, so the name includes the id. After a kill, the steps since the last checkpoint appear
    twice, with the same figures except for times.
    """

    def __init__(self, run: TrackedRun):
        import trackio

        self._run = trackio.init(
            project=run.project,
            name=f"{run.name} {run.id}",
            group=run.group,
            config=run.config,
            resume="allow",
            embed=False,
            auto_log_cpu=False,
            auto_log_gpu=False,
        )

    def write(self, line: Line) -> None:
        self._run.log({name: value for name, value in scalars(line) if name != "step"}, step=line["step"])

    def close(self) -> None:
        self._run.finish()
