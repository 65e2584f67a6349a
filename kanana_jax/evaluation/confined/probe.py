"""Attempts of forbidden operations from inside the sandbox, for `sandbox.check`, which defines `told` before it.

This file is read as text and run in the sandbox, never imported. If an operation is possible, it prints which one and
ends with exit code 1.
"""

import ctypes
import errno
import os
import resource
import socket

told: dict = globals().get("told", {})
libc = ctypes.CDLL(None, use_errno=True)
machine = {"x86_64": 0, "aarch64": 1}[os.uname().machine]

# Numbers on x86-64 and aarch64, as in `seccomp.py`.
REFUSED = """
    keyctl 250 219; add_key 248 217; request_key 249 218; io_uring_setup 425 425; io_uring_enter 426 426;
    io_uring_register 427 427; bpf 321 280; perf_event_open 298 241; userfaultfd 323 282; ptrace 101 117;
    process_vm_readv 310 270; process_vm_writev 311 271; kcmp 312 272; pidfd_open 434 434; pidfd_getfd 438 438;
    mount 165 40; umount2 166 39; pivot_root 155 41; chroot 161 51; open_tree 428 428; move_mount 429 429;
    fsopen 430 430; mount_setattr 442 442; unshare 272 97; setns 308 268; clone3 435 435; execve 59 221;
    execveat 322 281; kexec_load 246 104; kexec_file_load 320 294; init_module 175 105; finit_module 313 273;
    delete_module 176 106; open_by_handle_at 304 265; name_to_handle_at 303 264; fanotify_init 300 262;
    memfd_create 319 279; memfd_secret 447 447; shmget 29 194; semget 64 190; msgget 68 186; mq_open 240 180;
    mlock 149 228; mlock2 325 284; mlockall 151 230; vmsplice 278 75; splice 275 76; tee 276 77; sendmsg 46 211;
    recvmsg 47 212; setsockopt 54 208; socket 41 198; seccomp 317 277; setuid 105 146; setresuid 117 147;
    capset 126 91; personality 135 92; quotactl 179 60; syslog 103 116; swapon 167 224; reboot 169 142; acct 163 89;
    settimeofday 164 170; clock_settime 227 112; clock_adjtime 305 266; sethostname 170 161; iopl 172 -;
    modify_ldt 154 -; fork 57 -; vfork 58 -; mknodat 259 33; setxattr 188 5; inotify_init1 294 26; io_setup 206 0
"""
for row in REFUSED.replace("\n", " ").split(";"):
    name, *both = row.split()
    if both[machine] == "-":
        continue
    ctypes.set_errno(0)
    # No kernel accepts these arguments: any error but "not known" and "not permitted" shows that a call has passed.
    found = libc.syscall(int(both[machine]), *[ctypes.c_long(-1)] * 6)
    if found >= 0 or ctypes.get_errno() not in (errno.ENOSYS, errno.EPERM):
        raise SystemExit(f"the system call {name} is possible")


def impossible(what, act):
    try:
        act()
    except (OSError, ValueError):
        return
    raise SystemExit(f"{what} is possible")


def opened(path, mode):
    with open(path, mode):
        pass


impossible("reading a file outside", lambda: opened(told["file"], "rb"))
impossible("reading /etc/passwd", lambda: opened("/etc/passwd", "rb"))
impossible("reading /proc", lambda: os.listdir("/proc/self"))
impossible("writing to the root folder", lambda: opened("/x", "wb"))
impossible("writing to the library", lambda: opened(os.path.dirname(os.__file__) + "/x", "wb"))
for family in ("AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK", "AF_PACKET", "AF_ALG", "AF_VSOCK"):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET):
        impossible(f"a socket of {family}", lambda f=family, k=kind: socket.socket(getattr(socket, f), k))
impossible("connecting to this machine", lambda: socket.create_connection(("127.0.0.1", told["port"]), 1))
impossible("becoming root", lambda: os.setresuid(0, 0, 0))
impossible("a second process", os.fork)
impossible("another program", lambda: os.execv("/bin/true", ["true"]))
impossible("a larger pipe", lambda: __import__("fcntl").fcntl(os.pipe()[0], 1031, 1 << 20))
impossible("a lock of a range", lambda: __import__("fcntl").lockf(1, 2))
impossible("typing into a terminal", lambda: __import__("fcntl").ioctl(0, 0x5412, b"x"))
impossible("signals to processes outside", lambda: told["pid"] > 2 and os.kill(told["pid"], 0))
for name, value in told["limits"].items():
    if resource.getrlimit(getattr(resource, "RLIMIT_" + name))[1] != value:
        raise SystemExit(f"limit {name} is not set")
header, held = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
if libc.capget(header, held) != 0 or any(held):
    raise SystemExit("it has capabilities")
if os.uname().nodename == told["host"] and told["host"] != "sandbox":
    raise SystemExit("reading the machine's name is possible")
if os.getpid() > 9 or os.getuid() == 0 or libc.prctl(39, 0, 0, 0, 0) != 1 or libc.prctl(21, 0, 0, 0, 0) != 2:
    raise SystemExit("it runs with privileges, without a filter, or among other processes")
opened("/tmp/x", "wb")
