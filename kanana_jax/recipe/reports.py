"""The report of a run: written when a stage ends, every few minutes while one trains, and by `kanana report`."""

import dataclasses
import logging
import pathlib
import time

from kanana_jax.stages import KINDS, chapters
from kanana_jax.training.metrics import Line

log = logging.getLogger("kanana")


@dataclasses.dataclass(frozen=True)
class ReportConfig:
    """Options of `report.html`.

    Attributes:
      every_minutes: minutes between updates while a stage trains; 0: written only when a stage ends.
      price: price of one device for an hour, in your currency; 0: unknown, and no cost is shown.
    """

    every_minutes: float = 5.0
    price: float = 0.0

    def __post_init__(self):
        if self.every_minutes < 0 or self.price < 0:
            raise ValueError("every_minutes and price must not be negative")


def write_report(workdir: pathlib.Path) -> pathlib.Path:
    """Writes `DIR/report.html` (`report/run.py`)."""
    from kanana_jax.report.run import write_run_report

    return write_run_report(workdir, chapters(), {kind.name: kind.result for kind in KINDS.values()})


class WhileTraining:
    """A metrics writer that ignores the lines themselves and rewrites the report every few minutes."""

    def __init__(self, workdir: pathlib.Path, seconds: float):
        self._workdir, self._seconds, self._last = workdir, seconds, time.monotonic()

    def write(self, line: Line) -> None:
        del line
        if time.monotonic() - self._last >= self._seconds:
            write_report(self._workdir)
            self._last = time.monotonic()

    def close(self) -> None:
        pass
