"""The filter of system calls: its numbers against libseccomp's, its decisions by a machine of our own."""

import ctypes
import errno
import pathlib
import re
import runpy

import pytest

from kanana_jax.evaluation.confined import seccomp

PROBE = pathlib.Path(seccomp.__file__).with_name("probe.py").read_text()
REFUSED = [row.split() for row in re.search(r'REFUSED = """(.*?)"""', PROBE, re.S)[1].replace("\n", " ").split(";")]
COLUMNS = {machine: column for machine, (_, column) in seccomp.MACHINES.items()}


def decide(machine, number, arguments=(0,) * 6, audit=None):
    """What the kernel does with a call: linux/filter.h's machine, as far as the filter uses it."""
    words = {0: number, 4: seccomp.MACHINES[machine][0] if audit is None else audit}
    words |= {16 + 8 * i: a & 0xFFFFFFFF for i, a in enumerate(arguments)}
    program, at, held = seccomp._program(machine), 0, 0
    while True:
        code, true, false, value = program[at]
        at += 1
        if code == 0x20:
            held = words[value]
        elif code == 0x54:
            held &= value
        elif code == 0x15:
            at += true if held == value else false
        else:
            assert code == 0x06
            return "allow" if value == 0x7FFF0000 else errno.errorcode[value ^ 0x00050000]


@pytest.mark.parametrize("machine", COLUMNS)
def test_numbers_are_those_of_libseccomp(machine):
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        pytest.skip("no libseccomp")
    audit, column = seccomp.MACHINES[machine]

    def known(name):
        return library.seccomp_syscall_resolve_name_arch(ctypes.c_uint32(audit), name.encode())

    rows = [row.split() for row in seccomp.CALLS.replace("\n", " ").split(";")] + REFUSED
    rows += [(name, str(x86), str(arm)) for name, x86, arm, *_ in seccomp.ARGUMENTS]
    for name, *both in rows:
        number = known(name)
        assert both[column] == (str(number) if number >= 0 else "-"), name
    assert len({name for name, *_ in rows}) == len(rows), "a call is named twice"


@pytest.mark.parametrize("machine", COLUMNS)
def test_what_is_not_in_the_list_is_not_known(machine):
    named = set(seccomp.numbers(machine).values())
    looked_at = {row[1 + COLUMNS[machine]] for row in seccomp.ARGUMENTS}
    for number in range(1024):
        expected = "allow" if number in named else "EPERM" if number in looked_at else "ENOSYS"
        assert decide(machine, number, (0xDEAD,) * 6) == expected, number
        assert decide(machine, number | 0x40000000) == "ENOSYS", "x32"
        assert decide(machine, number, audit=0x40000003) == "ENOSYS", "i386"
    for name, *both in REFUSED:
        if both[COLUMNS[machine]] != "-":
            assert decide(machine, int(both[COLUMNS[machine]])) == "ENOSYS", name


@pytest.mark.parametrize("machine", COLUMNS)
def test_arguments_are_looked_at(machine):
    number = {row[0]: row[1 + COLUMNS[machine]] for row in seccomp.ARGUMENTS}
    thread = 0x3D0F00  # what glibc's pthread_create asks for
    assert decide(machine, number["clone"], (thread,)) == "allow"
    assert decide(machine, number["clone"], (0x1200011,)) == "EPERM", "fork"
    assert decide(machine, number["clone"], (0x4111,)) == "EPERM", "vfork"
    for flag in (0x80, 0x20000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert decide(machine, number["clone"], (thread | flag,)) == "EPERM", hex(flag)
    assert (
        decide(machine, number["socketpair"], (1,)) == "allow"
        and decide(machine, number["socketpair"], (30,)) == "EPERM"
    )
    assert [decide(machine, number["fcntl"], (0, c)) for c in (3, 1031, 6)] == ["allow", "EPERM", "EPERM"]
    assert [decide(machine, number["ioctl"], (0, c)) for c in (0x5401, 0x5412)] == ["allow", "EPERM"]
    assert [decide(machine, number["prctl"], (c,)) for c in (15, 22, 35, 4)] == ["allow", "EPERM", "EPERM", "EPERM"]


def test_the_probe_finds_everything_where_nothing_is_confined():
    """Run here, without a sandbox, it stops at its first line."""
    with pytest.raises(SystemExit, match="the system call .* is possible"):
        runpy.run_path(str(pathlib.Path(seccomp.__file__).with_name("probe.py")))
