"""A sandbox that runs generated code without letting it do harm.

Each program is a single process without network access. Its root folder holds only Python's standard library and an
empty `/tmp`; memory, time, files and threads are limited; and it may only make the system calls that Python needs
(`confined/launcher.py`, `seccomp.py`). Its tests run in a second such process, whose questions the program answers and
which it cannot reach otherwise (`confined/judge.py`). Before the first program, these guarantees are tested from
inside; on a machine that cannot give them, no program is run. The isolation is the Linux kernel's: a vulnerability of
the kernel is one of the sandbox.
"""

import contextlib
import dataclasses
import functools
import importlib.util
import json
import os
import pathlib
import selectors
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from kanana_jax.errors import UserError

_PROBE = pathlib.Path(__file__).with_name("confined") / "probe.py"
_ROOT = str(pathlib.Path(__file__).parents[2])
# This package's folder is put last on the path, and only to import the launcher.
_START = (
    f"import sys; sys.path.append({_ROOT!r}); from kanana_jax.evaluation.confined import launcher; "
    "sys.path.pop(); launcher.main()"
)
_ENVIRONMENT = {
    "HOME": "/tmp",
    "TMPDIR": "/tmp",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",  # makes verdicts reproducible
    "OPENBLAS_NUM_THREADS": "1",  # one thread per core would exceed the limit of threads
}
_KEPT = {"report": 1 << 18, "output": 8192}  # last bytes of each stream that are kept
_PACKAGES = "/packages"  # folder of packages inside the sandbox


@dataclasses.dataclass(frozen=True)
class Limits:
    """Resource limits of one program.

    Attributes:
      wall_seconds: elapsed time after which it is killed with everything that it has started; more than `cpu_seconds`,
        so that other load on the machine does not change verdicts.
      cpu_seconds: CPU time of its process, and of its judge's.
      memory_bytes: address space of its process, and of its judge's.
      file_bytes: size of a file.
      scratch_bytes: size of all files in `/tmp` together.
      threads: simultaneous threads. There cannot be a second process.
      open_files: simultaneously open files.
    """

    wall_seconds: float = 30.0
    cpu_seconds: int = 10
    memory_bytes: int = 1 << 30
    file_bytes: int = 16 << 20
    scratch_bytes: int = 32 << 20
    threads: int = 16
    open_files: int = 64


class Outcome(NamedTuple):
    """The result of running one program.

    Attributes:
      passed: whether there were tests and all passed; decided by its judge, never by the program's own process.
      why: the reason, in words.
      output: the end of the printed output, including the judge's traceback.
      exit: exit code of the program's process, negative for a signal; None if its judge ended it. The program itself
        may choose it.
      unjudged: whether the tests need something that cannot be had from outside (an object's value, a text run as
        code).
    """

    passed: bool
    why: str
    output: str
    exit: int | None = None
    unjudged: bool = False


@dataclasses.dataclass(frozen=True)
class Tests:
    """The tests of a program: Python code of the data set, run in a process that the program cannot reach.

    Attributes:
      source: assertions that use names defined by the program.
      prelude: code that is run before them in the same process: helpers of the prompt, which the program cannot
        replace.
      names: names that refer to the program's objects; None: those that `solution` defines or that nothing defines.
      solution: the data set's own program; only its definitions and imports are read, and it is not run.
    """

    source: str
    prelude: str = ""
    names: tuple[str, ...] | None = None
    solution: str = ""


def run(program: str, limits: Limits = Limits(), packages: Sequence[str] = (), tests: Tests | None = None) -> Outcome:
    """Runs Python source in the sandbox, and its tests in a process of their own.

    Without tests, `passed` is False, and `exit` shows how the program ended.

    Args:
      packages: installed packages that the program may import in addition to the standard library.

    Raises:
      UserError: this machine cannot confine the program, or a package is not installed.
    """
    check()
    return _launch(program, limits, packages, tests)


def run_all(
    programs: Sequence[tuple[str, Tests]],
    limits: Limits = Limits(),
    packages: Sequence[str] = (),
    workers: int | None = None,
) -> list[Outcome]:
    """`run` for many programs, in parallel.

    Args:
      programs: pairs of source and tests.
      workers: number of programs that run at the same time; default: the number of cores.

    Raises:
      UserError: see `run`.
    """
    check()
    with ThreadPoolExecutor(workers or len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(lambda both: _launch(both[0], limits, packages, both[1]), programs))


@functools.cache
def check() -> None:
    """Attempts forbidden operations from inside the sandbox (`confined/probe.py`); once per process.

    Raises:
      UserError: one of them is possible, or the machine cannot confine programs.
    """
    if sys.platform != "linux":
        raise UserError(f"generated code is not run here: its sandbox needs Linux, this is {sys.platform}")
    limits = Limits()
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as server:
        secret = pathlib.Path(folder) / "secret"
        secret.write_text("secret", encoding="utf-8")
        told = {
            "file": str(secret),
            "port": server.getsockname()[1],
            "pid": os.getpid(),
            "host": os.uname().nodename,
            "limits": {"AS": limits.memory_bytes, "CPU": limits.cpu_seconds, "FSIZE": limits.file_bytes}
            | {"NOFILE": limits.open_files, "MEMLOCK": 0, "MSGQUEUE": 0, "CORE": 0},
        }
        found = _launch(f"told = {told!r}\n{_PROBE.read_text(encoding='utf-8')}", limits)
    if found.exit != 0:
        last = found.output.strip().splitlines()[-1:] or [""]
        raise UserError(f"generated code is not run here: its sandbox is not secure ({found.why}; {last[0]})")


def _launch(program: str, limits: Limits, packages: Sequence[str] = (), tests: Tests | None = None) -> Outcome:
    python = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
    common = {
        "sources": {path: path for path in _sources()} | _packages(packages),
        "path": [_PACKAGES],
        "limits": dataclasses.asdict(limits),
    }
    requests = [common | {"program": program, "judged": tests is not None}]
    if tests is not None:
        requests.append(common | {**dataclasses.asdict(tests), "tests": tests.source})
    with contextlib.ExitStack() as stack:
        files = []
        for request in requests:  # separate files, so that the program's process never holds the tests
            file = stack.enter_context(tempfile.TemporaryFile())
            file.write(json.dumps(request).encode())
            file.flush()
            files.append(file.fileno())
        process = stack.enter_context(
            subprocess.Popen(
                [python, "-P", "-s", "-S", "-B", "-c", _START, *map(str, (os.getpid(), limits.wall_seconds, *files))],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=files,
                env=_ENVIRONMENT,
                cwd="/",
                start_new_session=True,
            )
        )
        report, output = _exchange(process, limits.wall_seconds + 30)
    return _outcome(report, output, limits)


def _outcome(report: str, output: str, limits: Limits) -> Outcome:
    last_line = (output.strip().splitlines() or ["the launcher ended without a report"])[-1]
    try:
        answer: dict[str, Any] = json.loads(report)
    except ValueError:
        answer = {"last": {"refused": last_line}}
    last: dict[str, Any] | None = answer["last"]
    program: dict[str, Any] | None = answer.get("program")
    refused = [part["refused"] for part in (program, last) if part and "refused" in part]
    if refused:
        raise UserError(
            f"generated code is not run here, since it cannot be confined ({refused[0]}): it needs Linux with "
            "seccomp and user namespaces, or root with the right to make namespaces"
        )
    if last is None:
        return Outcome(False, f"took longer than {limits.wall_seconds:g} s", output)
    if "program" not in answer:
        return Outcome(False, f"{_ending(last['exit'])}, and there are no tests", output, last["exit"])
    ended = None if program is None else program["exit"]
    if not last["verdict"]:
        return Outcome(False, f"its tests ended before their last line, with {_ending(last['exit'])}", output, ended)
    verdict = json.loads(last["verdict"])
    why = verdict["why"]
    if verdict.get("gone") and ended is not None:
        why = f"{why}, with {_ending(ended)}"
    return Outcome(verdict["passed"] is True, why, output, ended, verdict.get("unjudged", False))


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _exchange(process: subprocess.Popen, seconds: float) -> tuple[str, str]:
    """Reads the launcher's streams to their end; returns the report and the last part of the output."""
    end = time.monotonic() + seconds
    kept = {"report": b"", "output": b""}
    stdout, stderr = process.stdout, process.stderr
    if stdout is None or stderr is None:
        raise ValueError("the launcher was started without pipes")
    with selectors.DefaultSelector() as selector:
        selector.register(stdout, selectors.EVENT_READ, "report")
        selector.register(stderr, selectors.EVENT_READ, "output")
        while selector.get_map():
            ready = selector.select(max(0.0, end - time.monotonic()))
            if not ready:
                process.kill()  # branches die with the launcher, inits with branches, and all others with inits
                raise UserError("the sandbox did not end its program in time, so it was killed: run the command again")
            for key, _ in ready:
                part = os.read(key.fd, 65536)
                if not part:
                    selector.unregister(key.fileobj)
                kept[key.data] = (kept[key.data] + part)[-_KEPT[key.data] :]
    return kept["report"].decode(), kept["output"].decode(errors="replace")


def _sources() -> list[str]:
    """Files that a running interpreter may still load: the standard library and the system's libraries."""
    libraries = [p for p in ("/lib", "/lib64", "/usr/lib", "/usr/lib64") if not os.path.islink(p)]
    standard = [sysconfig.get_path("stdlib")]
    if sysconfig.get_config_var("Py_ENABLE_SHARED"):
        standard.append(os.path.join(sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("INSTSONAME")))
    return [p for p in (*standard, *libraries, "/etc/ld.so.cache") if os.path.exists(p)]


def _packages(names: Sequence[str]) -> dict[str, str]:
    """Folders of installed packages and of their wheels' libraries, by path inside the sandbox."""
    found = {}
    for name in names:
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            raise UserError(f"the tests of generated code need the package {name}: pip install {name}")
        folder = pathlib.Path(spec.submodule_search_locations[0])
        for path in (folder, folder.with_name(f"{name}.libs")):
            if path.is_dir():
                found[f"{_PACKAGES}/{path.name}"] = str(path)
    return found
