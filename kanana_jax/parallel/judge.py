"""The decision whether a run must stop, and which process is the cause: a pure function of the latest reports."""

import dataclasses
import signal
from collections.abc import Mapping

from kanana_jax.parallel import heartbeat

DONE, FAILED, BAD_CONFIG, PREEMPTED = 0, 1, 2, 75


@dataclasses.dataclass(frozen=True)
class WatchConfig:
    """Time limits, in seconds, and the run's secret.

    Attributes:
      timeout: longest silence of a host, and of a process in training.
      stall_timeout: longest time without progress on any host, in training.
      setup_timeout: longest time without progress, and longest silence of a process, outside training (preparing data,
        compiling, writing models).
      join_timeout: longest wait for all processes to report for the first time.
      settle: time from the first failure to the verdict, to collect reports that show which process failed first.
      secret: secret that all watchers of a run share.
    """

    timeout: float = 60.0
    stall_timeout: float = 1800.0
    setup_timeout: float = 4 * 3600.0
    join_timeout: float = 600.0
    settle: float = 2.0
    secret: bytes = dataclasses.field(default=b"", repr=False)

    @property
    def interval(self) -> float:
        """Seconds between two reports."""
        return min(1.0, self.timeout / 5)


@dataclasses.dataclass
class Report:
    """A watcher's latest report on its process. Times are seconds of the judge's clock.

    Attributes:
      host, pid: where the process runs.
      heard: when the report was received.
      beat_age: seconds from the process's last beat to the report; None: it has not sent a beat yet.
      marks: number of marks that it has made; equal in all processes when they are in step.
      step, doing: step and activity of its last mark.
      moved: when a new mark was last reported.
      exit_code: None while the process runs; negative: number of the signal that killed it.
      exited: when its exit was first reported.
      last_line: last line of its output.
    """

    host: str
    pid: int
    heard: float
    beat_age: float | None
    marks: int
    step: int
    doing: str
    moved: float
    exit_code: int | None = None
    exited: float | None = None
    last_line: str = ""

    @property
    def training(self) -> bool:
        return self.doing in heartbeat.TRAINING


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The end of a run: its exit code and the reason."""

    code: int
    text: str


def judge(
    reports: Mapping[int, Report], num_processes: int, began: float, now: float, config: WatchConfig
) -> Verdict | None:
    """Decides whether the run must stop.

    Args:
      reports: latest reports, by process.
      num_processes: number of processes of the run.
      began, now: start of the run and current time, in seconds of the same clock.

    Returns:
      The verdict; None while all is well.
    """
    ended = {i: r for i, r in reports.items() if r.exit_code is not None}
    failed = {i: r for i, r in ended.items() if r.exit_code != DONE}
    if len(ended) == num_processes and not failed:
        return Verdict(DONE, f"all {num_processes} processes are done")
    if failed:
        first = min(now if r.exited is None else r.exited for r in failed.values())
        willing = all(r.exit_code in (DONE, PREEMPTED) for r in ended.values())
        wait = config.timeout if willing else config.settle
        if len(ended) < num_processes and now - first < wait:
            return None
        return _failure(failed, num_processes)
    missing = [i for i in range(num_processes) if i not in reports]
    if missing and now - began > config.join_timeout:
        return Verdict(FAILED, f"process {_names(missing)} of {num_processes} did not come within {now - began:.0f} s")
    running = {i: r for i, r in reports.items() if r.exit_code is None}
    silent = {i: r for i, r in running.items() if now - r.heard > config.timeout}
    if silent:
        worst = max(now - r.heard for r in silent.values())
        return Verdict(
            FAILED,
            f"{_hosts(silent)} not heard from for {worst:.0f} s: the machine, its network or its watcher is gone",
        )
    ages = {i: r.beat_age for i, r in running.items() if r.beat_age is not None}
    stopped = {i: running[i] for i, age in ages.items() if age > _patience(running[i], config)}
    if stopped:
        worst = max(ages[i] for i in stopped)
        return Verdict(
            FAILED,
            f"{_hosts(stopped)} without a sign of life for {worst:.0f} s, although its host responds: "
            "it is stopped or swapped out",
        )
    return _stall(running, now, config) if running and not missing else None


def _patience(report: Report, config: WatchConfig) -> float:
    # Outside training, a library may hold the GIL, and thereby the beats, for a long time.
    return config.timeout if report.training else config.setup_timeout


def _failure(failed: Mapping[int, Report], num_processes: int) -> Verdict:
    """The verdict that names the process that most likely failed first: killed ones before those that gave up."""

    def rank(item):
        code, exited = item[1].exit_code, item[1].exited
        abort = code == -signal.SIGABRT  # how JAX ends a process that has lost the others
        return (3 if abort else 0 if code < 0 else {PREEMPTED: 4, BAD_CONFIG: 1}.get(code, 2)), exited

    order = sorted(failed.items(), key=rank)
    index, report = order[0]
    others = [i for i, _ in order[1:]]
    code = report.exit_code if report.exit_code in (BAD_CONFIG, PREEMPTED) else FAILED
    said = f": {report.last_line}" if report.last_line and code != PREEMPTED else ""
    after = f"; process {_names(sorted(others))} ended after it" if others else ""
    end = _end(report.exit_code or 0)
    return Verdict(code, f"process {index} of {num_processes} ({report.host}) {end}{after}{said}")


def _end(code: int) -> str:
    if code >= 0:
        return "was told to stop and has saved" if code == PREEMPTED else f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = str(-code)
    return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")


def _stall(running: Mapping[int, Report], now: float, config: WatchConfig) -> Verdict | None:
    quiet = now - max(r.moved for r in running.values())
    limit = config.stall_timeout if all(r.training for r in running.values()) else config.setup_timeout
    if quiet <= limit:
        return None
    least, most = (pick(r.marks for r in running.values()) for pick in (min, max))
    behind = {i: r for i, r in running.items() if r.marks == least}
    one = next(iter(behind.values()))
    if least == most:
        who = f"all processes are at step {one.step} ({one.doing})"
    else:
        who = f"{_hosts(behind)} at step {one.step} ({one.doing}) while others are further"
    return Verdict(FAILED, f"no process made progress for {quiet:.0f} s: {who}")


def _names(indices) -> str:
    return ", ".join(str(i) for i in indices)


def _hosts(reports: Mapping[int, Report]) -> str:
    return ", ".join(f"process {i} ({r.host}, pid {r.pid})" for i, r in sorted(reports.items())) + (
        " is" if len(reports) == 1 else " are"
    )
