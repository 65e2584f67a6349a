"""The program on each host: `kanana run` under a watcher, so that a dead or hung host is named and stops the run.

    python launch/worker.py --chip v5p -- --config configs/kanana/essence_8b.py:/data --workdir /mnt/kanana/run

The other processes are detected on Cloud TPU, GKE and Slurm; elsewhere give --coordinator, --num-processes and
--process-id. Exit codes are those of `kanana run`: 0 done, 1 failed, 2 bad config, 75 stopped on request and saved.
"""

import argparse
import contextlib
import importlib.util
import os
import pathlib
import secrets
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from types import FrameType
from typing import TextIO

ROOT = pathlib.Path(__file__).resolve().parents[1]
if not __package__:  # run as a script from a clone, where nothing may be installed
    __package__ = "launch"
    for name in ("kanana_jax", "launch"):  # by their place: before the libraries in `sys.path`, a clone would hide them
        found = importlib.util.spec_from_file_location(
            name, ROOT / name / "__init__.py", submodule_search_locations=[str(ROOT / name)]
        )
        assert found is not None and found.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(found)
        found.loader.exec_module(sys.modules[name])

import kanana_jax  # noqa: E402
from kanana_jax import files  # noqa: E402
from kanana_jax.errors import ConfigError, UserError  # noqa: E402
from kanana_jax.parallel import heartbeat, line, watch  # noqa: E402

from . import cluster, xla_flags  # noqa: E402


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        place = (
            cluster.given(options.coordinator, options.num_processes, options.process_id)
            if options.coordinator
            else cluster.found(os.environ)
        )
        config = watch.WatchConfig(
            options.timeout,
            options.stall_timeout,
            options.setup_timeout,
            options.join_timeout,
            secret=line.secret_of(os.environ) or (secrets.token_bytes(32) if place.num_processes == 1 else b""),
        )
        if not config.secret:
            raise ConfigError(
                f"{line.SECRET} is not set: give all workers of a run the same random text in the environment, as "
                "`openssl rand -hex 32` prints it, so that no other machine can end the run"
            )
        run = [argument for argument in options.run if argument != "--"]
        env = os.environ | xla_flags.environment(options.chip, os.environ)
        code = Worker(place, config, run, env, options.log).work()
    except UserError as error:
        print(f"worker: {error}", file=sys.stderr)
        code = error.exit_code
    if options.log is not None and options.keep_log and options.log.is_file():
        _keep(options.log, options.keep_log, f"{time.strftime('%Y%m%d-%H%M%S')}-process-{place.process_id}.log")
    if options.result is not None:
        options.result.write_text(f"{code}\n", encoding="utf-8")
    return code


def _keep(log: pathlib.Path, folder: str, name: str) -> None:
    """Copies the log to where it outlives the machine; a failure there does not change how the run has ended."""
    try:
        kept = files.place(folder)  # a folder, or an address
        kept.mkdir(parents=True, exist_ok=True)
        (kept / name).write_bytes(log.read_bytes())
    except Exception as error:  # of whichever library reaches the bucket
        print(f"worker: the log could not be kept in {folder} ({error})", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    default = watch.WatchConfig()
    parser.add_argument("--coordinator", default="", metavar="HOST:PORT", help="process 0; PORT + 1 is the watcher's")
    parser.add_argument("--num-processes", type=int, default=1, metavar="N")
    parser.add_argument("--process-id", type=int, default=0, metavar="I")
    for name, seconds, summary in (
        ("--timeout", default.timeout, "seconds without a sign of life"),
        ("--stall-timeout", default.stall_timeout, "seconds without progress in training"),
        ("--setup-timeout", default.setup_timeout, "seconds without progress outside training"),
        ("--join-timeout", default.join_timeout, "seconds for all processes to join"),
    ):
        parser.add_argument(name, type=float, default=seconds, metavar="S", help=summary)
    parser.add_argument("--chip", default="", choices=("", *xla_flags.CHIPS), help="whose compiler flags are set")
    parser.add_argument("--log", type=pathlib.Path, metavar="FILE", help="a copy of all output")
    parser.add_argument("--keep-log", default="", metavar="DIR", help="where the log goes in the end")
    parser.add_argument("--result", type=pathlib.Path, metavar="FILE", help="gets the exit code in the end")
    parser.add_argument("run", nargs=argparse.REMAINDER, metavar="-- RUN", help="arguments of 'kanana run'")
    return parser


class Worker:
    """The training process of this host, and the line to the others' watchers."""

    def __init__(
        self,
        place: cluster.Place,
        config: watch.WatchConfig,
        run: Sequence[str],
        env: dict[str, str],
        log: pathlib.Path | None,
    ):
        self._place, self._config = place, config
        # By its place, and without the current folder or this file's in its path.
        self._command = [sys.executable, "-P", str(pathlib.Path(kanana_jax.__path__[0]) / "__main__.py"), "run", *run]
        if place.num_processes > 1:
            self._command += ["--coordinator", f"{place.host}:{place.port}"]
            self._command += ["--num-processes", str(place.num_processes), "--process-id", str(place.process_id)]
            self._command += ["--join-timeout", str(int(config.join_timeout))]
        self._env = env
        self._log_file = log
        self._prefix = f"[{place.process_id}] " if place.num_processes > 1 else ""
        self._last_line, self._beat = "", None
        self._marks, self._step, self._doing = 0, 0, heartbeat.OUTSIDE

    def work(self) -> int:
        """Runs until the end or a verdict; returns the exit code."""
        hub = None
        if self._place.process_id == 0:
            # A process that is alone has nobody to hear beyond this machine.
            host = self._place.host if self._place.num_processes > 1 else "localhost"
            hub = watch.Hub(self._place.port + 1, self._place.num_processes, self._config, line.interface_of(host))
        own = "localhost" if hub is not None else self._place.host
        link = watch.Link(own, self._place.port + 1, self._config)
        with contextlib.ExitStack() as stack:
            log = None
            if self._log_file is not None:
                self._log_file.parent.mkdir(parents=True, exist_ok=True)
                log = stack.enter_context(self._log_file.open("w", encoding="utf-8", buffering=1))
            reading, writing = os.pipe()
            child = subprocess.Popen(
                self._command,
                env=self._env | {heartbeat.PIPE: str(writing)},
                pass_fds=(writing,),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
            os.close(writing)
            self._say(f"worker: pid {child.pid} on {socket.gethostname()} is process {self._place.process_id}", log)
            stack.callback(os.close, reading)
            stack.callback(_kill, child)
            pump = threading.Thread(target=self._pump, args=(child, log), daemon=True)
            pump.start()
            self._forward_signals(child)
            verdict = self._watch(child, reading, link, pump)
            _kill(child)
            pump.join(5)
            self._say(f"worker: {verdict.text}", log)
        link.close()
        if hub is not None:
            hub.wait(self._config.timeout)
        return verdict.code

    def _watch(self, child: subprocess.Popen, reading: int, link: watch.Link, pump: threading.Thread) -> watch.Verdict:
        os.set_blocking(reading, False)
        with selectors.DefaultSelector() as selector:
            selector.register(reading, selectors.EVENT_READ)
            reported = 0.0
            while True:
                if selector.select(self._config.interval) and not self._listen(reading):
                    selector.unregister(reading)  # the process and its children have closed the pipe
                code = child.poll()
                now = time.monotonic()
                if code is None and now - reported < self._config.interval:
                    continue
                if code is not None:
                    pump.join(1)  # its last words
                    time.sleep(self._config.interval if now - reported < self._config.interval else 0)
                reported = now
                verdict = link.exchange(self._report(child, code, now))
                if verdict is not None:
                    return verdict

    def _report(self, child: subprocess.Popen, code: int | None, now: float) -> dict:
        return {
            "id": self._place.process_id,
            "host": socket.gethostname(),
            "pid": child.pid,
            "beat_age": None if self._beat is None else now - self._beat,
            "marks": self._marks,
            "step": self._step,
            "doing": self._doing,
            "exit_code": code,
            "last_line": self._last_line if code else "",
        }

    def _listen(self, reading: int) -> bool:
        """Takes in beats and marks; False at the end of the pipe."""
        try:
            data = os.read(reading, 65536)
        except BlockingIOError:
            return True
        for mark in data.decode("ascii", "replace").split("\n"):
            step, _, doing = mark.partition(" ")
            if doing in heartbeat.DOINGS and step.isdigit():
                # One process prepares data for all, and marks are what all make alike.
                marks = self._marks + (doing != heartbeat.PREPARE)
                self._marks, self._step, self._doing = marks, int(step), doing
        if data:
            self._beat = time.monotonic()
        return bool(data)

    def _pump(self, child: subprocess.Popen[str], log: TextIO | None) -> None:
        for text in child.stdout or ():
            self._last_line = text.strip()[:500] or self._last_line
            self._say(text.rstrip("\n"), log)

    def _say(self, text: str, log: TextIO | None) -> None:
        # One write per line: with PYTHONUNBUFFERED, print writes the line's end by itself; workers share the terminal.
        sys.stdout.write(f"{self._prefix}{text}\n")
        sys.stdout.flush()
        if log is not None:
            print(text, file=log)

    def _forward_signals(self, child: subprocess.Popen) -> None:
        """Stopping the watcher stops the run: it saves and ends, and all others with it."""

        def forward(signum: int, frame: FrameType | None) -> None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGTERM)

        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(signum) is not signal.SIG_IGN:  # nohup
                signal.signal(signum, forward)


def _kill(child: subprocess.Popen) -> None:
    """The process and all that it started; a process in a collective hears nothing else."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


if __name__ == "__main__":
    sys.exit(main())
