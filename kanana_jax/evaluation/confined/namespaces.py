"""Isolation of a process in new Linux namespaces, with a root folder that holds only what Python needs.

See `user_namespaces(7)`, `pid_namespaces(7)` and `pivot_root(2)`; needs Linux 5.12 or later (`mount_setattr`).
"""

import contextlib
import ctypes
import os
import sys

NOBODY = 65534
# Constants from Linux's headers. Namespaces: mount, uts, ipc, user, pid, net.
_NEW = 0x20000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
_MS_NOSUID, _MS_NODEV, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 4096, 16384, 1 << 18
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV = 1, 2, 4
_MNT_DETACH, _AT_RECURSIVE, _AT_FDCWD = 2, 0x8000, -100
_SYS_MOUNT_SETATTR = 442  # the same on every architecture
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_SYS_KEYCTL, _JOIN_SESSION_KEYRING = {"x86_64": 250, "aarch64": 219}, 1


class Refused(Exception):
    """This machine does not allow the launcher to confine programs."""


def call(name: str, *arguments: object) -> int:
    """Calls a function of the C library.

    Raises:
      Refused: it returns an error.
    """
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
    """Moves this process into namespaces of its own for network, processes, users, mounts, host name and keys.

    The only user inside is nobody. If the caller is root, this is outside a user that no other process has, so that
    limits per user apply and the process owns no file of the machine.

    Raises:
      Refused: the kernel does not allow it.
    """
    with contextlib.suppress(Refused):  # no keyrings in the kernel, or blocked by an outer filter; ours blocks them too
        call("syscall", _SYS_KEYCTL.get(os.uname().machine, -1), _JOIN_SESSION_KEYRING, None)
    root = os.geteuid() == 0
    user = 2_000_000_000 + os.getpid() if root else os.geteuid()
    group = user if root else os.getegid()
    if root:
        os.setgroups([])
    launcher, (ready, go), (mapped, done) = os.getpid(), os.pipe(), os.pipe()
    helper = os.fork()
    if helper == 0:  # stays outside, since only there may a user other than one's own be mapped
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
    with contextlib.suppress(OSError):  # if it fails, only the kernel's attack surface is larger
        write("/proc/sys/user/max_user_namespaces", "0")
    for name in ("sethostname", "setdomainname"):
        call(name, "sandbox", 7)


def write(path: str, text: str) -> None:
    """Writes a text file."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def build_root(sources: dict[str, str], scratch_bytes: int) -> None:
    """Replaces the root folder by one with only `sources` (read-only), an empty `/tmp` and three devices.

    Sources are opened before this process changes its user, and mounted through those handles.

    Args:
      sources: path inside → path on the machine.
      scratch_bytes: size of `/tmp`.

    Raises:
      Refused, OSError: the kernel does not allow it, or a source cannot be opened.
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
        # A device file on a mount with `nodev` could not be opened.
        _set_attributes(target, _ATTR_RDONLY | _ATTR_NOSUID | (0 if path in devices else _ATTR_NODEV), True)
        os.close(handle)
    for path in sources:  # hides packages that are installed in the standard library's folder
        for name in ("site-packages", "dist-packages"):
            if os.path.isdir(f"{new}{path}/{name}"):
                call("mount", "tmpfs", f"{new}{path}/{name}", "tmpfs", 1 | _MS_NOSUID | _MS_NODEV, "size=4k,mode=0755")
    for path in ("/lib", "/lib64"):  # if these are links, their targets are mounted
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
