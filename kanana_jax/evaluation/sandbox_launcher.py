"""Confines one program; started by `sandbox.py` as a process of its own, with the standard library and nothing else.

Reads a request (JSON) from its standard input, builds a root of the few folders that Python needs in namespaces of its
own, and runs the program there as a user that owns nothing: launcher → init of the process namespace → program. The
report (JSON) goes to standard output, what the program prints to standard error. When init ends, the kernel ends every
process that the program has left. Linux 5.12 or later (`mount_setattr`); the layout follows `user_namespaces(7)`,
`pid_namespaces(7)` and `pivot_root(2)`.
"""

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys

NOBODY = 65534
# Constants of Linux's headers. Namespaces: mount, uts, ipc, user, pid, net.
_NEW = 0x20000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
_MS_NOSUID, _MS_NODEV, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 4096, 16384, 1 << 18
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV = 1, 2, 4
_MNT_DETACH, _AT_RECURSIVE, _AT_FDCWD = 2, 0x8000, -100
_SYS_MOUNT_SETATTR = 442  # the same on every architecture
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 4, 24, 38

# What the program's own interpreter runs. The token is written where the program's last line has been reached, so that
# a program which ends early, in whatever way, has not passed.
_DRIVER = """
import json, os, sys
with os.fdopen(0, "rb", closefd=False) as file:
    request = json.load(file)
os.close(0)
os.open("/dev/null", os.O_RDONLY)
sys.path += request["path"]
sys.argv = ["program"]
space = {"__name__": "__main__", "__builtins__": __builtins__}
exec(compile(request["program"], "<program>", "exec"), space)
os.write(3, request["token"].encode())
"""


class Refused(Exception):
    """This machine does not let the launcher confine anything."""


def _call(name: str, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    values = [a.encode() if isinstance(a, str) else a for a in arguments]
    found = getattr(libc, name)(*values)
    if found < 0:
        number = ctypes.get_errno()
        shown = " ".join(str(a) for a in arguments[:3] if a is not None)
        raise Refused(f"{name} {shown}: {os.strerror(number)}")
    return found


def _set_attributes(path: str, attributes: int, recursive: bool) -> None:
    value = (ctypes.c_uint64 * 4)(attributes, 0, 0, 0)
    flags = _AT_RECURSIVE if recursive else 0
    _call("syscall", _SYS_MOUNT_SETATTR, _AT_FDCWD, path, flags, ctypes.byref(value), ctypes.sizeof(value))


def _enter_namespaces() -> None:
    """Leaves the machine's network, processes, users and mounts; the only user that is left is nobody.

    Root becomes an outer user that no other process has, so that limits count and nothing on the machine is owned.
    """
    root = os.geteuid() == 0
    user = 2_000_000_000 + os.getpid() if root else os.geteuid()
    group = user if root else os.getegid()
    if root:
        os.setgroups([])
    launcher, (ready, go), (mapped, done) = os.getpid(), os.pipe(), os.pipe()
    helper = os.fork()
    if helper == 0:  # stays outside: there alone may another user than oneself be mapped
        code = 1
        try:
            os.close(go)
            if os.read(ready, 1):
                if not root:
                    _write(f"/proc/{launcher}/setgroups", "deny")
                _write(f"/proc/{launcher}/uid_map", f"{NOBODY} {user} 1")
                _write(f"/proc/{launcher}/gid_map", f"{NOBODY} {group} 1")
                os.write(done, b"1")
                code = 0
        except OSError as error:
            print(f"users cannot be mapped: {error}", file=sys.stderr)
        finally:
            os._exit(code)
    os.close(done)
    try:
        _call("unshare", _NEW)
        os.write(go, b"1")
        if not os.read(mapped, 1):
            raise Refused("users cannot be mapped into a namespace")
    finally:
        for end in (ready, go, mapped):
            os.close(end)
        os.waitpid(helper, 0)


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def _build_root(sources: dict[str, str], scratch_bytes: int) -> None:
    """A root of `sources` (by where they are to stand), read-only, an empty `/tmp` and three devices; nothing else.

    The sources are opened while their owner still can, and mounted through those handles.
    """
    devices = {path: path for path in ("/dev/null", "/dev/zero", "/dev/urandom")}
    handles = {target: os.open(path, os.O_PATH) for target, path in {**sources, **devices}.items()}
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    _call("mount", "none", "/", None, _MS_REC | _MS_PRIVATE, None)
    new = "/tmp"
    _call("mount", "tmpfs", new, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0755,size=1m")
    for path, handle in handles.items():
        target = new + path
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            os.makedirs(target, exist_ok=True)
        else:
            _write(target, "")
        _call("mount", f"/proc/self/fd/{handle}", target, None, _MS_BIND | _MS_REC, None)
        # A device that is mounted without devices could not be opened.
        _set_attributes(target, _ATTR_RDONLY | _ATTR_NOSUID | (0 if path in devices else _ATTR_NODEV), True)
        os.close(handle)
    for path in sources:  # libraries that are installed beside Python's own are no business of the program's
        for name in ("site-packages", "dist-packages"):
            if os.path.isdir(f"{new}{path}/{name}"):
                _call("mount", "tmpfs", f"{new}{path}/{name}", "tmpfs", 1 | _MS_NOSUID | _MS_NODEV, "size=4k,mode=0755")
    for path in ("/lib", "/lib64"):  # where these are links, what they point to is mounted
        if os.path.islink(path) and not os.path.lexists(new + path):
            os.symlink(os.readlink(path), new + path)
    os.makedirs(new + "/tmp")
    options = f"mode=0700,size={scratch_bytes},nr_inodes=10000"
    _call("mount", "tmpfs", new + "/tmp", "tmpfs", _MS_NOSUID | _MS_NODEV, options)
    os.symlink("/tmp", new + "/dev/shm")
    os.chdir(new)
    machine = os.uname().machine
    if machine not in _SYS_PIVOT_ROOT:
        raise Refused(f"pivot_root is not known for {machine}")
    _call("syscall", _SYS_PIVOT_ROOT[machine], ".", ".")
    _call("umount2", ".", _MNT_DETACH)
    _set_attributes("/", _ATTR_RDONLY, False)
    os.chdir("/tmp")


def _limit(limits: dict) -> None:
    for name, value in {
        "AS": limits["memory_bytes"],
        "CPU": limits["cpu_seconds"],
        "FSIZE": limits["file_bytes"],
        "NPROC": limits["processes"] + 2,  # the launcher and init are the same user's
        "NOFILE": limits["open_files"],
        "CORE": 0,
    }.items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))


def _program(request: dict, control: int, token: int) -> None:
    os.setsid()
    os.dup2(control, 0)
    os.dup2(2, 1)
    os.dup2(token, 3)
    os.closerange(4, 1024)
    for capability in range(64):
        ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _limit(request["limits"])
    environment = {"HOME": "/tmp", "TMPDIR": "/tmp", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0"}
    environment["OPENBLAS_NUM_THREADS"] = "1"  # a thread per core would meet the limit of processes
    os.execve(request["python"], [request["python"], "-I", "-S", "-B", "-c", _DRIVER], environment)


def _init(request: dict) -> dict:
    """The first process of its namespace: nothing in it can end this one, and nothing in it outlives this one."""
    _call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    _call("prctl", _PR_SET_DUMPABLE, 0, 0, 0, 0)
    (control, write_control), (read_token, token) = os.pipe(), os.pipe()
    program = os.fork()
    if program == 0:
        try:
            os.close(1)  # the report's
            os.close(write_control)
            _program(request, control, token)
        except BaseException as error:  # noqa: B036
            print(f"the program's interpreter did not start: {error}", file=sys.stderr)
        finally:
            os._exit(127)
    os.close(control)
    os.close(token)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    try:
        with os.fdopen(write_control, "wb") as file:
            file.write(json.dumps({k: request[k] for k in ("program", "path", "token")}).encode())
    except BrokenPipeError:
        pass
    while True:
        child, status = os.wait()
        if child == program:
            break
    os.set_blocking(read_token, False)
    try:
        said = os.read(read_token, 4096)
    except BlockingIOError:
        said = b""
    return {"exit": os.waitstatus_to_exitcode(status), "finished": said == request["token"].encode()}


def main() -> None:
    _call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    request = json.load(sys.stdin.buffer)
    with contextlib.suppress(OSError):
        _write("/proc/self/oom_score_adj", "1000")  # where the machine's memory ends, this is what it is taken from
    try:
        _enter_namespaces()
        with contextlib.suppress(
            OSError
        ):  # where this fails, more of the kernel is within its reach, and no more than that
            _write("/proc/sys/user/max_user_namespaces", "0")  # the program needs none of its own
        _build_root(request["sources"], request["limits"]["scratch_bytes"])
    except (Refused, OSError) as error:
        print(json.dumps({"refused": str(error)}), flush=True)
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    init = os.fork()
    if init == 0:
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
            report = _init(request)
        except BaseException as error:  # noqa: B036
            report = {"refused": f"no process could be started: {error}"}
        print(json.dumps(report), flush=True)
        os._exit(0)
    if signal.sigtimedwait({signal.SIGCHLD}, request["limits"]["wall_seconds"]) is None:
        os.kill(init, signal.SIGKILL)
        os.waitpid(init, 0)  # returns when every process of the namespace is gone
        print(json.dumps({"timed_out": True}), flush=True)
        return
    os.waitpid(init, 0)


if __name__ == "__main__":
    main()
