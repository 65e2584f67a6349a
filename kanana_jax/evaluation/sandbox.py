"""Runs generated code where it can do no harm.

Each program has a process of its own without network, with a root folder that holds Python's standard library and an
empty `/tmp`, with limits on memory, time, files and processes, and it dies with everything that it has started
(`sandbox_launcher.py`). What is promised is checked from inside before the first program; a machine that cannot keep it
gets no programs at all. The border is Linux's own (namespaces, resource limits): a hole in the kernel is a hole in it.
"""

import dataclasses
import functools
import importlib.util
import json
import os
import pathlib
import secrets
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

_LAUNCHER = pathlib.Path(__file__).with_name("sandbox_launcher.py")
_OUTPUT_KEPT = 8192
_PACKAGES = "/packages"  # where they stand inside


@dataclasses.dataclass(frozen=True)
class Limits:
    """Of one program.

    Attributes:
      wall_seconds: until it is ended with all that it has started; more than `cpu_seconds`, so that a machine with
        other work to do changes no verdict.
      cpu_seconds: of a process.
      memory_bytes: address space of a process.
      file_bytes: of a file.
      scratch_bytes: of all files in `/tmp` together.
      processes: at a time, threads included.
      open_files: of a process.
    """

    wall_seconds: float = 30.0
    cpu_seconds: int = 10
    memory_bytes: int = 1 << 30
    file_bytes: int = 16 << 20
    scratch_bytes: int = 32 << 20
    processes: int = 16
    open_files: int = 64


class Outcome(NamedTuple):
    """`passed`: it reached its last line and exit code 0. `why`: in words. `output`: the end of what it printed."""

    passed: bool
    why: str
    output: str


def run(program: str, limits: Limits = Limits(), packages: Sequence[str] = ()) -> Outcome:
    """Runs Python source to its end, confined.

    Args:
      packages: installed here, that it may import beside the standard library.

    Raises:
      UserError: this machine cannot confine it, or a package is not installed.
    """
    check()
    return _launch(program, limits, packages)


def run_all(
    programs: Sequence[str], limits: Limits = Limits(), packages: Sequence[str] = (), workers: int | None = None
) -> list[Outcome]:
    """`run` for many, as many at a time as there are cores (or `workers`)."""
    check()
    with ThreadPoolExecutor(workers or len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(lambda program: _launch(program, limits, packages), programs))


@functools.cache
def check() -> None:
    """Tries from inside what must not be possible, once.

    Raises:
      UserError: something is, or the machine offers no confinement.
    """
    if sys.platform != "linux":
        raise UserError(f"generated code is not run here: its sandbox needs Linux, this is {sys.platform}")
    limits = Limits()
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as server:
        secret = pathlib.Path(folder) / "secret"
        secret.write_text("secret", encoding="utf-8")
        told = {"file": str(secret), "port": server.getsockname()[1], "pid": os.getpid()}
        wanted = {"AS": limits.memory_bytes, "CPU": limits.cpu_seconds, "FSIZE": limits.file_bytes}
        program = f"told, wanted = {told!r}, {wanted!r}\n{_SELF_CHECK}"
        found = _launch(program, limits)
    if not found.passed:
        last = found.output.strip().splitlines()[-1:] or [""]
        raise UserError(f"generated code is not run here: its sandbox is not tight ({found.why}; {last[0]})")


# Runs inside: each line that fails names what is open.
_SELF_CHECK = """
import ctypes, os, resource, socket
def impossible(what, act):
    try:
        act()
    except (OSError, ValueError):
        return
    raise SystemExit(f"{what} is possible")
libc = ctypes.CDLL(None, use_errno=True)
def system(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno())
impossible("reading a file outside", lambda: open(told["file"]))
impossible("reading /etc/passwd", lambda: open("/etc/passwd"))
impossible("reading /proc", lambda: os.listdir("/proc/self"))
impossible("writing to the root folder", lambda: open("/x", "w"))
impossible("writing to the library", lambda: open(os.path.dirname(os.__file__) + "/x", "w"))
impossible("connecting to this machine", lambda: socket.create_connection(("127.0.0.1", told["port"]), 1))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
impossible("sending to the network", lambda: udp.sendto(b"x", ("192.0.2.1", 9)))
impossible("becoming root", lambda: os.setresuid(0, 0, 0))
impossible("mounting", lambda: system("mount", b"none", b"/tmp", b"tmpfs", 0, None))
impossible("signals to processes outside", lambda: told["pid"] > 2 and os.kill(told["pid"], 0))
for name, value in wanted.items():
    if resource.getrlimit(getattr(resource, "RLIMIT_" + name))[1] != value:
        raise SystemExit(f"limit {name} is not set")
if os.getpid() > 9 or os.getuid() == 0 or libc.prctl(39, 0, 0, 0, 0) != 1:
    raise SystemExit("it runs with privileges, or among other processes")
open("/tmp/x", "w").close()
"""


def _launch(program: str, limits: Limits, packages: Sequence[str] = ()) -> Outcome:
    python = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
    token = secrets.token_hex(16)
    request = {
        "program": program,
        "token": token,
        "python": python,
        "sources": {path: path for path in _sources(python)} | _packages(packages),
        "path": [_PACKAGES],
        "limits": dataclasses.asdict(limits),
    }
    process = subprocess.Popen(
        [python, "-I", "-S", "-B", str(_LAUNCHER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={},
        cwd="/",
        start_new_session=True,
    )
    with process:
        report, output = _exchange(process, json.dumps(request).encode(), limits.wall_seconds + 30)
    try:
        told: dict[str, Any] = json.loads(report)
    except ValueError:
        told = {"refused": (output.strip().splitlines() or ["the launcher ended without a report"])[-1]}
    if "refused" in told:
        raise UserError(
            f"generated code is not run here, since it cannot be confined ({told['refused']}): it needs Linux with "
            "user namespaces, or root with the right to make namespaces"
        )
    if told.get("timed_out"):
        return Outcome(False, f"took longer than {limits.wall_seconds:g} s", output)
    if told["finished"] and told["exit"] == 0:
        return Outcome(True, "passed", output)
    if told["exit"] < 0:
        return Outcome(False, f"ended by signal {-told['exit']}", output)
    return Outcome(False, "ended before its last line" if told["exit"] == 0 else f"exit code {told['exit']}", output)


def _exchange(process: subprocess.Popen, request: bytes, seconds: float) -> tuple[str, str]:
    """Sends the request and reads the report and the end of the output, however much there is of it."""
    end = time.monotonic() + seconds
    kept = {"report": b"", "output": b""}
    stdin, stdout, stderr = process.stdin, process.stdout, process.stderr
    if stdin is None or stdout is None or stderr is None:
        raise ValueError("the launcher was started without pipes")
    try:
        stdin.write(request)
        stdin.close()
    except BrokenPipeError:
        pass  # it has said why
    with selectors.DefaultSelector() as selector:
        selector.register(stdout, selectors.EVENT_READ, "report")
        selector.register(stderr, selectors.EVENT_READ, "output")
        while selector.get_map():
            ready = selector.select(max(0.0, end - time.monotonic()))
            if not ready:
                process.kill()  # init dies with the launcher, and with init all others
                raise UserError("the sandbox did not end its program in time: it is ended now, start again")
            for key, _ in ready:
                part = os.read(key.fd, 65536)
                if not part:
                    selector.unregister(key.fileobj)
                kept[key.data] = (kept[key.data] + part)[-_OUTPUT_KEPT:]
    return kept["report"].decode(), kept["output"].decode(errors="replace")


def _sources(python: str) -> list[str]:
    """The files that the interpreter needs to start: itself, the standard library, the system's libraries."""
    libraries = [p for p in ("/lib", "/lib64", "/usr/lib", "/usr/lib64") if not os.path.islink(p)]
    standard = [sysconfig.get_path("stdlib")]
    if sysconfig.get_config_var("Py_ENABLE_SHARED"):
        standard.append(os.path.join(sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("INSTSONAME")))
    return [p for p in (python, *standard, *libraries, "/etc/ld.so.cache") if os.path.exists(p)]


def _packages(names: Sequence[str]) -> dict[str, str]:
    """Folders of installed packages, and of the libraries that wheels keep beside them, by where they stand inside."""
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
