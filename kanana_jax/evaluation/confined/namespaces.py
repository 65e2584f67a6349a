"""Namespaces of a process's own, and a root folder in them of what Python needs.

The layout follows `user_namespaces(7)`, `pid_namespaces(7)` and `pivot_root(2)`; Linux 5.12 or later (`mount_setattr`).
"""

import contextlib
import ctypes
import os
import sys

NOBODY = 65534
# Constants of Linux's headers. Namespaces: mount, uts, ipc, user, pid, net.
_NEW = 0x20000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
_MS_NOSUID, _MS_NODEV, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 4096, 16384, 1 << 18
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV = 1, 2, 4
_MNT_DETACH, _AT_RECURSIVE, _AT_FDCWD = 2, 0x8000, -100
_SYS_MOUNT_SETATTR = 442  # the same on every architecture
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_SYS_KEYCTL, _JOIN_SESSION_KEYRING = {"x86_64": 250, "aarch64": 219}, 1


class Refused(Exception):
    """This machine does not let the launcher confine anything."""


def call(name: str, *arguments: object) -> int:
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
    call("syscall", _SYS_MOUNT_SETATTR, _AT_FDCWD, path, flags, ctypes.byref(value), ctypes.sizeof(value))


def enter() -> None:
    """Leaves the machine's network, processes, users, mounts, names and keys; the only user that is left is nobody.

    Root becomes an outer user that no other process has, so that limits count and nothing on the machine is owned.
    """
    with contextlib.suppress(Refused):  # the kernel has no keyrings, or another filter takes them: ours does, too
        call("syscall", _SYS_KEYCTL.get(os.uname().machine, -1), _JOIN_SESSION_KEYRING, None)
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
                    write(f"/proc/{launcher}/setgroups", "deny")
                write(f"/proc/{launcher}/uid_map", f"{NOBODY} {user} 1")
                write(f"/proc/{launcher}/gid_map", f"{NOBODY} {group} 1")
                os.write(done, b"1")
                code = 0
        except OSError as error:
            print(f"users cannot be mapped: {error}", file=sys.stderr)
        finally:
            os._exit(code)
    os.close(done)
    try:
        call("unshare", _NEW)
        os.write(go, b"1")
        if not os.read(mapped, 1):
            raise Refused("users cannot be mapped into a namespace")
    finally:
        for end in (ready, go, mapped):
            os.close(end)
        os.waitpid(helper, 0)
    with contextlib.suppress(OSError):  # where this fails, more of the kernel is in reach, and no more than that
        write("/proc/sys/user/max_user_namespaces", "0")
    for name in ("sethostname", "setdomainname"):
        call(name, "sandbox", 7)


def write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def build_root(sources: dict[str, str], scratch_bytes: int) -> None:
    """A root with `sources` (keyed by path inside), read-only, an empty `/tmp` and three devices; nothing else.

    The sources are opened while their owner still can, and mounted through those handles.
    """
    devices = {path: path for path in ("/dev/null", "/dev/zero", "/dev/urandom")}
    handles = {target: os.open(path, os.O_PATH) for target, path in {**sources, **devices}.items()}
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    call("mount", "none", "/", None, _MS_REC | _MS_PRIVATE, None)
    new = "/tmp"
    call("mount", "tmpfs", new, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0755,size=1m")
    for path, handle in handles.items():
        target = new + path
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            os.makedirs(target, exist_ok=True)
        else:
            write(target, "")
        call("mount", f"/proc/self/fd/{handle}", target, None, _MS_BIND | _MS_REC, None)
        # A device that is mounted without devices could not be opened.
        _set_attributes(target, _ATTR_RDONLY | _ATTR_NOSUID | (0 if path in devices else _ATTR_NODEV), True)
        os.close(handle)
    for path in sources:  # libraries that are installed beside Python's own are no business of the program's
        for name in ("site-packages", "dist-packages"):
            if os.path.isdir(f"{new}{path}/{name}"):
                call("mount", "tmpfs", f"{new}{path}/{name}", "tmpfs", 1 | _MS_NOSUID | _MS_NODEV, "size=4k,mode=0755")
    for path in ("/lib", "/lib64"):  # where these are links, what they point to is mounted
        if os.path.islink(path) and not os.path.lexists(new + path):
            os.symlink(os.readlink(path), new + path)
    os.makedirs(new + "/tmp")
    options = f"mode=0700,size={scratch_bytes},nr_inodes=2000"
    call("mount", "tmpfs", new + "/tmp", "tmpfs", _MS_NOSUID | _MS_NODEV, options)
    os.symlink("/tmp", new + "/dev/shm")
    os.chdir(new)
    machine = os.uname().machine
    if machine not in _SYS_PIVOT_ROOT:
        raise Refused(f"pivot_root is not known for {machine}")
    call("syscall", _SYS_PIVOT_ROOT[machine], ".", ".")
    call("umount2", ".", _MNT_DETACH)
    _set_attributes("/", _ATTR_RDONLY, False)
    os.chdir("/tmp")
