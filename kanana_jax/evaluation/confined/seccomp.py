"""The system calls that a confined process may make: a seccomp filter, written by hand for x86-64 and aarch64.

The filter lists what Python and its packages need instead of what is dangerous. Keyrings, io_uring, bpf, perf,
userfaultfd, ptrace, mounts, namespaces, kernel modules, file handles, System V shared memory, memfds, new sockets and
calls of later kernels are not listed, and fail as in a kernel that does not have them (ENOSYS), so that libraries fall
back. A process can neither fork nor execute a program, so the limit of its address space limits the whole program.
Numbers: `asm/unistd_64.h`, `asm-generic/unistd.h`; filters: `seccomp(2)`, `linux/filter.h`.
"""

import ctypes
import errno
import os

# Name, number on x86-64, number on aarch64 (- where it does not exist there).
CALLS = """
    read 0 63; write 1 64; readv 19 65; writev 20 66; pread64 17 67; pwrite64 18 68; preadv 295 69;
    pwritev 296 70; open 2 -; openat 257 56; close 3 57; close_range 436 436; lseek 8 62; stat 4 -; fstat 5 80;
    lstat 6 -; newfstatat 262 79; statx 332 291; access 21 -; faccessat 269 48; faccessat2 439 439;
    getdents64 217 61; readlink 89 -; readlinkat 267 78; getcwd 79 17; chdir 80 49; fchdir 81 50; mkdir 83 -;
    mkdirat 258 34; rmdir 84 -; unlink 87 -; unlinkat 263 35; rename 82 -; renameat 264 38; renameat2 316 276;
    symlink 88 -; symlinkat 266 36; link 86 -; linkat 265 37; truncate 76 45; ftruncate 77 46; fallocate 285 47;
    fadvise64 221 223; chmod 90 -; fchmod 91 52; fchmodat 268 53; utimensat 280 88; umask 95 166; statfs 137 43;
    fstatfs 138 44; fsync 74 82; fdatasync 75 83; flock 73 32; sendfile 40 71; dup 32 23; dup2 33 -; dup3 292 24;
    pipe 22 -; pipe2 293 59;

    poll 7 -; ppoll 271 73; select 23 -; pselect6 270 72; epoll_create 213 -; epoll_create1 291 20;
    epoll_ctl 233 21; epoll_wait 232 -; epoll_pwait 281 22;

    sendto 44 206; recvfrom 45 207; shutdown 48 210; getsockname 51 204; getpeername 52 205; getsockopt 55 209;

    mmap 9 222; mprotect 10 226; munmap 11 215; mremap 25 216; brk 12 214; madvise 28 233; msync 26 227;

    futex 202 98; set_tid_address 218 96; set_robust_list 273 99; rseq 334 293; arch_prctl 158 -; exit 60 93;
    exit_group 231 94; sched_yield 24 124; sched_getaffinity 204 123; gettid 186 178; getpid 39 172;
    getppid 110 173; getpgrp 111 -; getpgid 121 155; getsid 124 156; getuid 102 174; geteuid 107 175;
    getgid 104 176; getegid 108 177; getresuid 118 148; getresgid 120 150; getgroups 115 158; capget 125 90;
    wait4 61 260; waitid 247 95;

    rt_sigaction 13 134; rt_sigprocmask 14 135; rt_sigreturn 15 139; rt_sigpending 127 136;
    rt_sigtimedwait 128 137; rt_sigsuspend 130 133; sigaltstack 131 132; restart_syscall 219 128; kill 62 129;
    tkill 200 130; tgkill 234 131; pause 34 -; alarm 37 -; setitimer 38 103; getitimer 36 102;

    clock_gettime 228 113; clock_getres 229 114; clock_nanosleep 230 115; nanosleep 35 101; gettimeofday 96 169;
    time 201 -; times 100 153; getrusage 98 165; uname 63 160; sysinfo 99 179; getcpu 309 168; getrandom 318 278;
    getrlimit 97 163; setrlimit 160 164; prlimit64 302 261
"""
# Calls that pass only with certain arguments: name, numbers, index of the argument, mask (0: all bits), allowed values.
# The kernel uses 32 bits of each of these arguments, and so does the filter.
_THREAD = 0x100 | 0x800 | 0x10000  # CLONE_VM, CLONE_SIGHAND, CLONE_THREAD
_NAMESPACES = 0x80 | 0x20000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
ARGUMENTS = (
    ("clone", 56, 220, 0, _THREAD | _NAMESPACES, (_THREAD,)),
    # Duplicating, flags, reading a pipe's size; not F_SETPIPE_SZ, F_SETOWN, F_SETSIG, F_NOTIFY, nor locks of ranges,
    # whose number is not limited.
    ("fcntl", 72, 25, 1, 0, (0, 1, 2, 3, 4, 1030, 1032)),
    # TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX.
    ("ioctl", 16, 29, 1, 0, (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)),
    # GET_DUMPABLE, SET_NAME, GET_NAME, GET_SECCOMP, CAPBSET_READ, GET_NO_NEW_PRIVS, SET_VMA (names of memory).
    ("prctl", 157, 167, 0, 0, (3, 15, 16, 21, 23, 39, 0x53564D41)),
    ("socketpair", 53, 199, 0, 0, (1,)),  # AF_UNIX, with which asyncio wakes itself
)
# AUDIT_ARCH in linux/audit.h, and the column of the table.
MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}

_LOAD, _EQUAL, _AND, _RETURN = 0x20, 0x15, 0x54, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_PR_SET_SECCOMP, _MODE_FILTER = 22, 2


def numbers(machine: str) -> dict[str, int]:
    """The numbers of calls that pass with any arguments, by name."""
    column = MACHINES[machine][1]
    rows = [row.split() for row in CALLS.replace("\n", " ").split(";")]
    return {name: int(both[column]) for name, *both in rows if both[column] != "-"}


def _program(machine: str) -> list[tuple[int, int, int, int]]:
    """BPF instructions (code, jump if true, jump if false, value) on `struct seccomp_data`: number, machine, arguments.

    Calls of another machine (32 bits) are refused; those of x32 have bit 30 set, so their numbers are not in the list.
    """
    audit, column = MACHINES[machine]
    made = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, audit), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS), (_LOAD, 0, 0, 0)]
    for number in numbers(machine).values():
        made += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    for _, *both, argument, mask, values in ARGUMENTS:
        look = [(_LOAD, 0, 0, 16 + 8 * argument)] + ([(_AND, 0, 0, mask)] if mask else [])
        for value in values:
            look += [(_EQUAL, 0, 1, value), (_RETURN, 0, 0, _ALLOW)]
        look.append((_RETURN, 0, 0, _ERRNO | errno.EPERM))
        made += [(_EQUAL, 0, len(look), both[column]), *look]
    return [*made, (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]


class _Instruction(ctypes.Structure):
    _fields_ = [
        ("code", ctypes.c_uint16),
        ("true", ctypes.c_uint8),
        ("false", ctypes.c_uint8),
        ("value", ctypes.c_uint32),
    ]


class _Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(_Instruction))]


def install() -> None:
    """Installs the filter for this process, irrevocably; `no_new_privs` must be set.

    Raises:
      OSError: the kernel does not support filters, or there is no table for this machine.
    """
    machine = os.uname().machine
    if machine not in MACHINES:
        raise OSError(errno.ENOSYS, f"system calls of {machine} are not known")
    rows = _program(machine)
    instructions = (_Instruction * len(rows))(*rows)
    found = _Filter(len(rows), instructions)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(found), 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"seccomp: {os.strerror(number)}")
