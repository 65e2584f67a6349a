"""Monitoring of a run's processes from outside, so that none waits forever for one that is gone.

A collective that waits for a dead or hanging host cannot be interrupted from inside its process. Each training process
is therefore the child of a watcher (`launch/worker.py`). Every second, the watchers report the state of their children
to the watcher of process 0, which decides (`parallel/judge.py`) whether all of them must stop their children. A watcher
that no longer hears from process 0 stops its child by itself. Watchers share a secret, and messages from anybody else
are ignored (`parallel/line.py`).
"""

import dataclasses
import math
import threading
import time
from typing import Any

from kanana_jax.parallel import heartbeat
from kanana_jax.parallel.judge import BAD_CONFIG, DONE, FAILED, PREEMPTED, Report, Verdict, WatchConfig, judge
from kanana_jax.parallel.line import Line, Listener

__all__ = ["BAD_CONFIG", "DONE", "FAILED", "PREEMPTED", "Hub", "Link", "Report", "Verdict", "WatchConfig", "judge"]
_LONGEST_TEXT = 600


class Hub:
    """A thread in the watcher of process 0 that receives all reports, judges them and sends the verdict to all.

    Args:
      interface: address to listen on; "": all interfaces.

    Raises:
      UserError: the port cannot be opened.
    """

    def __init__(self, port: int, num_processes: int, config: WatchConfig, interface: str = ""):
        self._num, self._config = num_processes, config
        self._reports: dict[int, Report] = {}
        self._lines: dict[int, Line] = {}
        self._listener = Listener(interface, port, config.secret)
        self._thread = threading.Thread(target=self._run, name="hub", daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> None:
        """Waits until all watchers have the verdict, at most `seconds`."""
        self._thread.join(seconds)

    def _run(self) -> None:
        began, verdict, tick = time.monotonic(), None, 0.0
        while verdict is None:
            self._take_in()
            now = time.monotonic()
            verdict = judge(self._reports, self._num, began, now, self._config)
            if now - tick > self._config.interval:
                tick = now
                self._tell({})
        end, reached = time.monotonic() + self._config.timeout, set[Line]()
        while self._listener.known and time.monotonic() < end:  # until all have received it and disconnected
            self._tell(dataclasses.asdict(verdict), reached)
            reached -= self._take_in()  # a watcher that still reports has not received it
        self._listener.close()

    def _tell(self, answer: dict[str, Any], reached: set[Line] | None = None) -> None:
        for line in self._listener.known - (reached or set()):
            self._listener.tell(line, answer)
            if reached is not None:
                reached.add(line)

    def _take_in(self) -> set[Line]:
        """Receives reports; returns the connections that have sent one."""
        heard = set[Line]()
        for line, said in self._listener.poll(self._config.interval / 2):
            now = time.monotonic()
            try:
                index, report = read_report(said, self._num, now)
            except ValueError:
                self._listener.drop(line)
                continue
            before = self._lines.get(index)
            if before is not None and before is not line:
                self._listener.drop(before)  # a stale connection that this watcher has abandoned
            self._lines[index] = line
            heard.add(line)
            self._note(index, report, now)
        return heard

    def _note(self, index: int, report: Report, now: float) -> None:
        before = self._reports.get(index)
        if before is not None:
            if (before.marks, before.step, before.doing) == (report.marks, report.step, report.doing):
                report.moved = before.moved
            report.exited = before.exited
        if report.exit_code is not None and report.exited is None:
            report.exited = now
        self._reports[index] = report


def read_report(said: Any, num_processes: int, now: float) -> tuple[int, Report]:
    """Parses a watcher's report; returns the index of its process and the report.

    Raises:
      ValueError: a key is missing or unknown, or a value has another type or is out of bounds.
    """
    names = {"id", "host", "pid", "beat_age", "marks", "step", "doing", "exit_code", "last_line"}
    if not isinstance(said, dict) or said.keys() != names:
        raise ValueError("not the keys of a report")
    index = _whole(said["id"], 0, num_processes - 1)
    age, code = said["beat_age"], said["exit_code"]
    if age is not None and (type(age) not in (int, float) or not math.isfinite(age) or age < 0):
        raise ValueError("no age")
    if said["doing"] not in heartbeat.DOINGS:
        raise ValueError("nothing that a process does")
    return index, Report(
        host=_text(said["host"]),
        pid=_whole(said["pid"], 0, 2**32),
        heard=now,
        beat_age=None if age is None else float(age),
        marks=_whole(said["marks"], 0, 2**62),
        step=_whole(said["step"], 0, 2**62),
        doing=said["doing"],
        moved=now,
        exit_code=None if code is None else _whole(code, -64, 255),
        last_line=_text(said["last_line"]),
    )


def _whole(value: Any, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"no whole number from {least} to {most}")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > _LONGEST_TEXT:
        raise ValueError(f"no text of {_LONGEST_TEXT} characters at most")
    return "".join(c if c.isprintable() else " " for c in value)


class Link:
    """A watcher's connection to the judge, re-opened when it breaks."""

    def __init__(self, host: str, port: int, config: WatchConfig):
        self._address, self._config = (host, port), config
        self._line: Line | None = None
        self._heard: float | None = None
        self._began = time.monotonic()

    def exchange(self, said: dict[str, Any]) -> Verdict | None:
        """Sends a report; returns the verdict if there is one, from the hub or because the hub cannot be reached."""
        now = time.monotonic()
        try:
            if self._line is None:
                self._line = Line.connect(self._address, self._config.secret, self._config.interval)
            self._line.send(said)
            for answer in self._answers(self._line):
                self._heard = now
                if answer:
                    return Verdict(_whole(answer["code"], 0, 255), str(answer["text"]))
        except (OSError, ValueError, KeyError, TypeError):
            self.close()
        host = self._address[0]
        if self._heard is None and now - self._began > self._config.join_timeout:
            return Verdict(
                FAILED,
                f"process 0 ({host}) did not come within {now - self._began:.0f} s, or has another KANANA_SECRET",
            )
        if self._heard is not None and now - self._heard > self._config.timeout:
            text = f"process 0 ({host}) is not heard from for {now - self._heard:.0f} s"
            return Verdict(FAILED, f"{text}: the machine, its network or its watcher is gone")
        return None

    def _answers(self, line: Line) -> list[Any]:
        """All messages that have arrived."""
        found: list[Any] = []
        line.socket.setblocking(False)
        try:
            while True:
                found += line.receive()
        except BlockingIOError:
            line.socket.settimeout(self._config.interval)
            return found
        except OSError:  # messages that arrived before the connection broke still count
            if not any(found):
                raise
            return found

    def close(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None
