"""The launcher, which confines one program and its judge; `sandbox.py` starts it as a separate process.

The launcher forks a branch for each of the two. A branch reads only its own request, enters new namespaces with a root
of the few folders that Python needs, and continues as a user that owns nothing:
launcher → branch → init of the process namespace → program (or judge). Program and judge are connected by two pipes and
nothing else. The report (JSON) goes to standard output, printed text to standard error. When init ends, the kernel
kills all processes left in its namespace.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import resource
import select
import signal
import sys
import time
import traceback
from typing import NoReturn

from kanana_jax.evaluation.confined import judge, program, seccomp
from kanana_jax.evaluation.confined.namespaces import Refused, build_root, call, enter, write

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 4, 24, 36, 38
_CAPABILITIES_3 = 0x20080522
# Descriptors of a branch: input from the other branch, output to it, and the report.
_READS, _WRITES, _REPORT = 3, 4, 5


def _limit(limits: dict) -> None:
    for name, value in {
        "AS": limits["memory_bytes"],
        "CPU": limits["cpu_seconds"],
        "FSIZE": limits["file_bytes"],
        "NPROC": limits["threads"] + 2,  # the branch and init belong to the same user
        "NOFILE": limits["open_files"],
        "MEMLOCK": 0,
        "MSGQUEUE": 0,
        "SIGPENDING": 256,
        "CORE": 0,
    }.items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))


def _work(request: dict) -> None:
    """Runs the program or judge in the innermost process, after dropping all privileges."""
    for capability in range(64):
        ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    header, none = (ctypes.c_uint32 * 2)(_CAPABILITIES_3, 0), (ctypes.c_uint32 * 6)()
    call("capset", header, none)
    call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _limit(request["limits"])
    seccomp.install()
    sys.path += request["path"]
    sys.argv = ["program"]
    channel = (_READS, _WRITES)
    if "tests" in request:
        judge.run(request, channel, _REPORT)
    os.closerange(_REPORT if request["judged"] else _READS, _REPORT + 1)
    program.run(request["program"], channel if request["judged"] else None)


def _innermost(request: dict) -> NoReturn:
    code = 1
    try:
        os.setsid()
        _work(request)
        code = 0
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else 0 if ending.code is None else 1
        if code == 1:
            print(ending.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code & 255)


def _init(request: dict, alive: int) -> None:
    """The first process of the namespace: no process in it can kill this one or outlive it.

    Args:
      alive: a pipe that reaches its end when the branch has ended.
    """
    call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    call("prctl", _PR_SET_DUMPABLE, 0, 0, 0, 0)
    if select.select([alive], [], [], 0)[0]:
        os._exit(1)  # the branch ended before the death signal was set
    said, says = os.pipe()
    inner = os.fork()
    if inner == 0:
        os.dup2(says, _REPORT)
        os.closerange(_REPORT + 1, 1 << 20)
        _innermost(request)
    for handle in (says, _READS, _WRITES):
        os.close(handle)
    while True:
        child, status = os.wait()
        if child == inner:
            break
    os.set_blocking(said, False)
    try:
        verdict = os.read(said, 65536)
    except BlockingIOError:
        verdict = b""
    report = {"exit": os.waitstatus_to_exitcode(status), "verdict": verdict.decode()}
    os.write(_REPORT, json.dumps(report).encode())


def _branch(launcher: int, request_file: int, ends: tuple[int, int, int]) -> None:
    """Confines this process and carries out one request."""
    high = [fcntl.fcntl(end, fcntl.F_DUPFD, 100) for end in (*ends, request_file)]
    for place, end in enumerate(high, _READS):
        os.dup2(end, place)
    os.dup2(2, 1)
    os.closerange(_REPORT + 2, 1 << 20)
    with os.fdopen(_REPORT + 1, "rb") as file:  # the other branch's file is closed, so its text is not in memory either
        file.seek(0)
        request = json.load(file)
    _follow(launcher)
    try:
        enter()
        build_root(request["sources"], request["limits"]["scratch_bytes"])
        _follow(launcher)  # again, since the kernel clears the setting when the user changes
    except (Refused, OSError) as error:
        os.write(_REPORT, json.dumps({"refused": str(error)}).encode())
        return
    alive, mine = os.pipe()
    init = os.fork()
    if init == 0:
        os.close(mine)
        try:
            _init(request, alive)
        except BaseException as error:  # noqa: B036
            os.write(_REPORT, json.dumps({"refused": f"no process could be started: {error}"}).encode())
        os._exit(0)
    os.closerange(_READS, alive)
    os.waitpid(init, 0)


def _follow(parent: int) -> None:
    """Makes this process die with its parent, also if the parent is already dead."""
    call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _report(handle: int, end: float) -> dict | None:
    """The report of a branch; None if the branch did not end in time."""
    parts = b""
    while select.select([handle], [], [], max(0.0, end - time.monotonic()))[0]:
        part = os.read(handle, 65536)
        if not part:
            return json.loads(parts) if parts else {"refused": "a process of the sandbox ended without a report"}
        parts += part
    return None


def main() -> None:
    """Entry point. Arguments: the caller's pid, the limit in seconds, descriptors of the requests (judge's last)."""
    caller, seconds, *files = sys.argv[1:]
    _follow(int(caller))
    call("prctl", _PR_SET_SUBREAPER, 1, 0, 0, 0)  # to wait for each init
    with contextlib.suppress(OSError):
        write("/proc/self/oom_score_adj", "1000")  # out of memory, the kernel kills this first
    (asked, asks), (answered, answers) = os.pipe(), os.pipe()
    launcher, branches, reports = os.getpid(), [], []
    for file, (reads, writes) in zip(files, ((asked, answers), (answered, asks))):
        report, reported = os.pipe()
        branch = os.fork()
        if branch == 0:
            try:
                _branch(launcher, int(file), (reads, writes, reported))
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
        os.close(reported)
        branches.append(branch)
        reports.append(report)
    for handle in (asked, asks, answered, answers, *map(int, files)):
        os.close(handle)
    end = time.monotonic() + float(seconds)
    last = _report(reports[-1], end)  # the judge's, if there is one
    found = {"last": last}
    if len(files) == 2 and last is not None:
        done = last.get("verdict") and json.loads(last["verdict"]).get("passed")
        found["program"] = None if done else _report(reports[0], min(end, time.monotonic() + 1.0))
    for branch in branches:
        with contextlib.suppress(ProcessLookupError):
            os.kill(branch, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while True:  # returns when every process of every namespace is gone
            os.wait()
    print(json.dumps(found), flush=True)
