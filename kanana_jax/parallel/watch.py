"""Watching the processes of a run from outside, so that none waits for ever for one that is gone.

A collective that waits for a dead or hanging host cannot be interrupted from inside its process. So each training
process is the child of a watcher (`launch/worker.py`). The watchers tell the one of process 0 every second what their
child does; that one judges (`judge`, a pure function), and all stop their children when it says so. A watcher that
hears nothing from process 0 any more judges so itself.
"""

import contextlib
import dataclasses
import json
import selectors
import signal
import socket
import threading
import time
from collections.abc import Mapping

from kanana_jax.errors import UserError
from kanana_jax.parallel import heartbeat

DONE, FAILED, BAD_CONFIG, PREEMPTED = 0, 1, 2, 75


@dataclasses.dataclass(frozen=True)
class WatchConfig:
    """How long what may last, in seconds.

    Attributes:
      timeout: without a sign of life from a host, or, in training, from its process.
      stall_timeout: in training, without anyone getting on.
      setup_timeout: the same outside of training (preparing data, compiling, writing models).
      join_timeout: until all have come.
      settle: from the first failure to the verdict, so that what failed first can be told from what fell with it.
    """

    timeout: float = 60.0
    stall_timeout: float = 1800.0
    setup_timeout: float = 4 * 3600.0
    join_timeout: float = 600.0
    settle: float = 2.0

    @property
    def interval(self) -> float:
        """Between two reports."""
        return min(1.0, self.timeout / 5)


@dataclasses.dataclass
class Report:
    """The last report of a process by its watcher.

    Attributes:
      host, pid: where it runs.
      heard: when this was received, seconds of the judge's clock.
      beat_age: seconds from the process's last beat to the report; None: it has not begun to beat.
      marks, step, doing: how many marks it has made (the same number in all, in step), and the last.
      moved: when the last mark was heard of, seconds of the judge's clock.
      exit_code: None while it runs; negative: the signal.
      exited: when that was first heard.
      last_line: of its output.
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
    """The run is over: with which exit code, and why."""

    code: int
    text: str


def judge(
    reports: Mapping[int, Report], num_processes: int, began: float, now: float, config: WatchConfig
) -> Verdict | None:
    """Whether the run must stop.

    Args:
      reports: by process.
      began, now: seconds of one clock.

    Returns:
      None as long as all is well.
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
            f"{_hosts(stopped)} without a sign of life for {worst:.0f} s, though its host gives some: "
            "it is stopped or swapped out",
        )
    return _stall(running, now, config) if running and not missing else None


def _patience(report: Report, config: WatchConfig) -> float:
    # Outside of training a library may hold the interpreter, and so the beats, for long.
    return config.timeout if report.training else config.setup_timeout


def _failure(failed: Mapping[int, Report], num_processes: int) -> Verdict:
    """Names the process that failed first: one that was killed before one that gave up because of it."""

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
    return Verdict(FAILED, f"nobody got on for {quiet:.0f} s: {who}")


def _names(indices) -> str:
    return ", ".join(str(i) for i in indices)


def _hosts(reports: Mapping[int, Report]) -> str:
    return ", ".join(f"process {i} ({r.host}, pid {r.pid})" for i, r in sorted(reports.items())) + (
        " is" if len(reports) == 1 else " are"
    )


class Hub:
    """The judge: a thread beside the watcher of process 0 that receives all reports and sends the verdict to all.

    Raises:
      UserError: the port cannot be opened.
    """

    def __init__(self, port: int, num_processes: int, config: WatchConfig):
        self._num, self._config = num_processes, config
        self._reports: dict[int, Report] = {}
        try:
            self._server = socket.create_server(("", port), backlog=num_processes)
        except OSError as error:
            raise UserError(f"the watcher's port {port} cannot be opened ({error.strerror}): name another") from error
        self._thread = threading.Thread(target=self._run, name="hub", daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> None:
        """Until all have been told."""
        self._thread.join(seconds)

    def _run(self) -> None:
        lines: dict[socket.socket, bytes] = {}
        began, verdict, tick = time.monotonic(), None, 0.0
        with selectors.DefaultSelector() as selector, self._server:
            selector.register(self._server, selectors.EVENT_READ)
            while verdict is None or (lines and time.monotonic() < tick + self._config.timeout):
                for key, _ in selector.select(self._config.interval / 2):
                    if key.fileobj is self._server:
                        connection, _ = self._server.accept()
                        connection.setblocking(False)
                        lines[connection] = b""
                        selector.register(connection, selectors.EVENT_READ, data=connection)
                    elif not self._receive(key.data, lines):
                        selector.unregister(key.data)
                        key.data.close()
                        del lines[key.data]
                now = time.monotonic()
                if verdict is None:
                    verdict = judge(self._reports, self._num, began, now, self._config)
                if verdict is not None or now - tick > self._config.interval:
                    answer = {} if verdict is None else dataclasses.asdict(verdict)
                    tick = tick if verdict is not None and tick else now
                    for connection in lines:
                        with contextlib.suppress(OSError):
                            connection.send(json.dumps(answer).encode() + b"\n")
            for connection in lines:
                connection.close()

    def _receive(self, connection: socket.socket, lines: dict[socket.socket, bytes]) -> bool:
        """Takes in what a watcher has sent; False when it has hung up."""
        try:
            data = connection.recv(65536)
        except BlockingIOError:
            return True
        except OSError:
            return False
        *whole, lines[connection] = (lines[connection] + data).split(b"\n")
        for line in whole:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                self._note(json.loads(line))
        return bool(data)

    def _note(self, said: dict) -> None:
        index, now = int(said.pop("id")), time.monotonic()
        before = self._reports.get(index)
        report = Report(heard=now, moved=now, **said)
        if before is not None:
            if before.marks == report.marks:
                report.moved = before.moved
            report.exited = before.exited
        if report.exit_code is not None and report.exited is None:
            report.exited = now
        self._reports[index] = report


class Link:
    """A watcher's line to the judge, mended when it breaks."""

    def __init__(self, host: str, port: int, config: WatchConfig):
        self._address, self._config = (host, port), config
        self._socket: socket.socket | None = None
        self._pending = b""
        self._heard: float | None = None
        self._began = time.monotonic()

    def exchange(self, said: dict) -> Verdict | None:
        """Reports, and returns what has been judged, by the judge or for want of one."""
        now = time.monotonic()
        try:
            line = self._connected()
            line.sendall(json.dumps(said).encode() + b"\n")
            line.setblocking(False)
            while True:
                data = line.recv(65536)
                if not data:
                    raise ConnectionError
                self._heard = now
                *whole, self._pending = (self._pending + data).split(b"\n")
                for text in whole:
                    answer = json.loads(text)
                    if answer:
                        return Verdict(**answer)
        except BlockingIOError:
            self._connected().settimeout(self._config.interval)
        except OSError:
            self.close()
        host = self._address[0]
        if self._heard is None and now - self._began > self._config.join_timeout:
            return Verdict(FAILED, f"process 0 ({host}) did not come within {now - self._began:.0f} s")
        if self._heard is not None and now - self._heard > self._config.timeout:
            text = f"process 0 ({host}) is not heard from for {now - self._heard:.0f} s"
            return Verdict(FAILED, f"{text}: the machine, its network or its watcher is gone")
        return None

    def _connected(self) -> socket.socket:
        if self._socket is None:
            self._socket = socket.create_connection(self._address, timeout=self._config.interval)
            self._socket.settimeout(self._config.interval)
            self._pending = b""
        return self._socket

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
