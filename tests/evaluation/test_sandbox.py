"""What generated code must not be able to do, tried one by one.

Where this machine offers no confinement, each test asserts that nothing is run and that the reason is told.
"""

import ctypes
import os
import pathlib
import signal
import socket
import subprocess
import sys
import textwrap
import time

import pytest

from kanana_jax.errors import UserError
from kanana_jax.evaluation import sandbox

AMPLE = sandbox.Limits(wall_seconds=60.0, cpu_seconds=20)
SHORT = sandbox.Limits(wall_seconds=2.0, cpu_seconds=20)  # for what must be ended


@pytest.fixture
def attempt():
    """Runs a program confined; on a machine that cannot, ends the test after the refusal."""

    def run(program, limits=AMPLE, **options):
        try:
            sandbox.check()
        except UserError as refusal:
            assert "is not run here" in str(refusal)
            with pytest.raises(UserError, match="is not run here"):
                sandbox.run(program, limits)
            pytest.xfail(str(refusal))  # shown, and not taken for a pass
        return sandbox.run(textwrap.dedent(program), limits, **options)

    return run


def _alive(marker: str) -> bool:
    """Whether a thread that has named itself so is there, of whatever namespace."""
    for entry in pathlib.Path("/proc").glob("[0-9]*/task/*/comm"):
        try:
            if entry.read_text().strip() == marker:
                return True
        except OSError:
            continue
    return False


def _named(marker: str) -> str:
    """A program's line that names it."""
    return f"import ctypes; ctypes.CDLL(None).prctl(15, {marker.encode()!r}, 0, 0, 0)"


def test_a_machine_with_namespaces_is_not_refused():
    """Elsewhere a refusal is an expected failure of each test; it is a failure where nothing is missing."""
    can = "import ctypes; raise SystemExit(-ctypes.CDLL(None).unshare(0x7C020000))"  # all that the launcher unshares
    if subprocess.run([sys.executable, "-c", can]).returncode == 0 and os.uname().machine in ("x86_64", "aarch64"):
        sandbox.check()


def test_without_tests_nothing_is_passed(attempt):
    """A process may say of itself what it likes: a verdict is its judge's."""
    right = attempt("import math, re, typing, collections\nassert math.gcd(4, 6) == 2")
    assert right.exit == 0 and not right.passed and right.why == "exit code 0, and there are no tests"
    assert attempt("with open('x', 'w') as f: f.write('a')\nassert open('/tmp/x').read() == 'a'").exit == 0
    wrong = attempt("assert 1 == 2, 'no'")
    assert not wrong.passed and wrong.exit == 1 and "AssertionError: no" in wrong.output


def test_there_is_no_second_process_and_threads_meet_the_limit(attempt):
    for act in (
        "os.fork()",
        "os.posix_spawn('/bin/sh', ['sh'], {})",
        "os.execv('/bin/sh', ['sh'])",
        "os.system('x') and 1/0",
    ):
        found = attempt(f"import os\n{act}")
        assert found.exit == 1 and "Error" in found.output, act
    found = attempt(
        """
        import threading, time
        made = 0
        try:
            while True:
                threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
                made += 1
        except RuntimeError:
            assert 4 <= made < 16, made
        """
    )
    assert found.exit == 0, found


def test_files_outside_are_neither_read_nor_written(attempt, tmp_path):
    kept = tmp_path / "kept"
    kept.write_text("secret")
    tmp_path.chmod(0o777)
    kept.chmod(0o666)
    for act in (
        f"open({str(kept)!r}).read()",
        f"open({str(kept)!r}, 'w').write('changed')",
        f"open({str(tmp_path / 'new')!r}, 'w')",
        "open('/etc/passwd')",
        "open('/new', 'w')",
        "import os; os.remove(os.__file__)",
        "import os; os.listdir('/home')",
        "import os; os.mknod('/tmp/disk', 0o60600, os.makedev(8, 0))",
    ):
        found = attempt(act)
        assert found.exit == 1 and ("Error" in found.output), act
    assert kept.read_text() == "secret" and os.listdir(tmp_path) == ["kept"]


def test_there_is_no_network(attempt):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = attempt(f"import socket\nsocket.create_connection(('127.0.0.1', {port}), 1)")
        assert found.exit == 1 and "OSError" in found.output
        server.settimeout(0.2)
        with pytest.raises(TimeoutError):
            server.accept()


def test_abstract_sockets_of_the_machine_are_not_there(attempt):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0kanana-sandbox-test")
        server.listen()
        found = attempt("import socket\nsocket.socket(socket.AF_UNIX).connect('\\0kanana-sandbox-test')")
    assert found.exit == 1 and "OSError" in found.output


def test_memory_is_limited(attempt):
    found = attempt("x = bytearray(3 << 30)")
    assert found.exit == 1 and "MemoryError" in found.output
    files = attempt("for i in range(100):\n    open(f'{i}', 'wb').write(bytes(1 << 20))")
    assert files.exit == 1 and "No space left" in files.output
    one = attempt("f = open('big', 'wb')\nwhile True: f.write(bytes(1 << 20)); f.flush()")
    assert one.exit and ("too large" in one.output or one.exit == -25)


def test_an_endless_loop_ends(attempt):
    busy = attempt("while True: pass", sandbox.Limits(wall_seconds=60.0, cpu_seconds=1))
    assert busy.exit == -9, "its CPU time is over"
    assert attempt("import time\ntime.sleep(600)", SHORT).why == "took longer than 2 s"
    ignoring = "import signal, time\nfor s in (2, 15, 24): signal.signal(s, signal.SIG_IGN)\nwhile True: time.sleep(1)"
    assert attempt(ignoring, SHORT).why == "took longer than 2 s"


def test_the_parent_cannot_be_killed(attempt):
    found = attempt(
        """
        import os, signal, time
        for sign in (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM):
            os.kill(os.getppid(), sign)
        time.sleep(0.2)
        assert os.getppid() == 1
        try:
            os.kill(-1, signal.SIGKILL)
        except ProcessLookupError:
            pass
        """
    )
    assert found.exit == 0
    for pid in (os.getpid(), os.getppid()):
        assert "ProcessLookupError" in attempt(f"import os\nos.kill({pid}, 9)").output


def test_huge_output_is_dropped(attempt):
    endless = attempt("import os\nwhile True: os.write(1, b'x' * 65536)", SHORT)
    assert not endless.passed and len(endless.output) <= 8192
    assert attempt("print('y' * 50_000_000)\nprint('the end')").output.endswith("the end\n")


def test_nothing_stays_of_a_program_that_is_done(attempt):
    marker = f"left-{time.monotonic_ns() % 10**9}"
    program = (
        f"{_named(marker)}\nimport threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()\nf = abs"
    )
    assert attempt(program, tests=sandbox.Tests("assert f(-1) == 1")).passed and not _alive(marker)
    assert attempt(program, SHORT).exit == 0 and not _alive(marker)


def test_nothing_of_the_environment_leaks_in(attempt, monkeypatch, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("raise SystemExit('taken in')")
    (tmp_path / "usercustomize.py").write_text("raise SystemExit('taken in')")
    (tmp_path / "json.py").write_text("raise SystemExit('taken in')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONSTARTUP", str(tmp_path / "json.py"))
    monkeypatch.setenv("SECRET_TOKEN", "abc")
    monkeypatch.chdir(tmp_path)
    with (tmp_path / "open").open("w") as held:
        os.set_inheritable(held.fileno(), True)
        found = attempt(
            """
            import json, os, sys
            assert not [k for k in os.environ if k not in
                        {"HOME", "TMPDIR", "LANG", "PYTHONHASHSEED", "OPENBLAS_NUM_THREADS", "LC_CTYPE"}], os.environ
            assert "sitecustomize" not in sys.modules and sys.argv == ["program"]
            assert os.getcwd() == "/tmp" and os.listdir(".") == []
            for handle in range(3, 64):
                try:
                    os.fstat(handle)
                except OSError:
                    continue
                raise AssertionError(handle)
            """
        )
    assert found.exit == 0, found.output
    assert "No module named 'numpy'" in attempt("import numpy").output, "nothing is installed inside"
    assert attempt("import numpy as np\nassert np.allclose(np.eye(2) @ [1, 2], [1, 2])", packages=("numpy",)).exit == 0


def test_privileges_are_gone(attempt):
    found = attempt(
        """
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        assert os.getuid() == os.getgid() == 65534 and libc.prctl(39, 0, 0, 0, 0) == 1
        assert all(libc.prctl(23, capability, 0, 0, 0) != 1 for capability in range(64)), "bounding set"
        header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        assert libc.capget(header, data) == 0 and not any(data), list(data)
        assert libc.unshare(0x10000000) == -1, "a user namespace of its own"
        assert libc.ptrace(16, 1, 0, 0) == -1, "tracing init"
        """
    )
    assert found.exit == 0, found.output


def test_programs_run_beside_each_other(attempt):
    attempt("pass")
    programs = [(f"def f(): return {i} % 3", sandbox.Tests("assert f()")) for i in range(9)]
    assert [o.passed for o in sandbox.run_all(programs, AMPLE, workers=3)] == [i % 3 > 0 for i in range(9)]


def test_where_nothing_can_be_confined_nothing_runs(tmp_path):
    """A user namespace that allows no further one, as under many container runtimes."""
    script = textwrap.dedent(
        f"""
        import ctypes, os, sys
        libc = ctypes.CDLL(None)
        getattr(libc, "unshare", int)(0x10000000)
        try:
            open("/proc/sys/user/max_user_namespaces", "w").write("0")
        except OSError:
            pass
        sys.path.insert(0, {str(pathlib.Path(sandbox.__file__).parents[2])!r})
        from kanana_jax.errors import UserError
        from kanana_jax.evaluation import sandbox
        for _ in range(2):
            try:
                sandbox.run("open('{tmp_path}/ran', 'w')")
            except UserError as refusal:
                print(refusal)
        """
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    lines = told.stdout.splitlines()
    assert len(lines) == 2 and all("is not run here" in line for line in lines), told
    assert not list(tmp_path.iterdir())


def test_the_self_check_finds_a_leak(attempt, monkeypatch):
    """A sandbox that lets a file of the machine in is refused."""
    attempt("pass")
    sources = sandbox._sources
    monkeypatch.setattr(sandbox, "_sources", lambda: [*sources(), "/etc/passwd"])
    sandbox.check.cache_clear()
    with pytest.raises(UserError, match="is not secure .*reading /etc/passwd is possible"):
        sandbox.run("pass")
    sandbox.check.cache_clear()


@pytest.mark.parametrize(
    "weak, told",
    [
        ("launcher.seccomp.install = lambda: None", "the system call keyctl is possible"),
        ("launcher.seccomp.CALLS += '; memfd_create 319 279'", "the system call memfd_create is possible"),
        ("launcher._limit = lambda limits: None", "limit AS is not set"),
        (
            "import os; os.uname = lambda u=os.uname(): type('U', (), {'machine': u.machine, 'nodename': %r})",
            "name is possible",
        ),
    ],
)
def test_the_self_check_finds_what_is_not_done(attempt, monkeypatch, weak, told):
    """Each with a launcher that leaves one thing out."""
    attempt("pass")
    weak = weak.replace("%r", repr(os.uname().nodename))
    monkeypatch.setattr(sandbox, "_START", sandbox._START.replace("launcher.main()", f"\n{weak}\nlauncher.main()"))
    sandbox.check.cache_clear()
    with pytest.raises(UserError, match=told):
        sandbox.run("pass")
    sandbox.check.cache_clear()


def test_memory_that_no_process_owns_cannot_be_had(attempt):
    """What is not address space is a file in `/tmp`, the buffer of a descriptor, or nothing."""
    found = attempt(
        """
        import ctypes, fcntl, mmap, os
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.shmget(0, ctypes.c_size_t(1 << 20), 0o1600) == -1 and libc.semget(0, 1, 0o600) == -1
        assert libc.mlock(ctypes.create_string_buffer(4096), ctypes.c_size_t(4096)) == -1
        for act in (lambda: os.memfd_create("m"), lambda: fcntl.fcntl(os.pipe()[1], 1031, 1 << 20),
                    lambda: mmap.mmap(-1, 2 << 30), lambda: fcntl.lockf(1, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 9),
                    lambda: [os.symlink("x" * 4000, f"l{i}") for i in range(2001)], lambda: open("/dev/shm/x", "wb").write(bytes(64 << 20))):
            try:
                act()
            except (OSError, ValueError, AttributeError):
                continue
            raise SystemExit("it could")
        held = 0
        try:
            while True:
                for end in os.pipe():
                    os.set_blocking(end, False)
                while True:
                    try:
                        held += os.write(end, bytes(1 << 16))
                    except BlockingIOError:
                        break
        except OSError:
            assert held <= 64 * (1 << 16), held
        """
    )
    assert found.exit == 0, found


def test_keys_of_the_caller_are_not_there(attempt):
    libc = ctypes.CDLL(None, use_errno=True)
    add, control = {"x86_64": (248, 250), "aarch64": (217, 219)}[os.uname().machine]
    key = libc.syscall(add, b"user", b"kanana-sandbox-test", b"secret", 6, ctypes.c_int(-3))
    try:
        found = attempt(
            f"""
            import ctypes
            libc = ctypes.CDLL(None, use_errno=True)
            assert libc.syscall({control}, 10, ctypes.c_int(-3), b"user", b"kanana-sandbox-test", 0) == -1
            assert libc.syscall({control}, 11, {key}, ctypes.create_string_buffer(9), 9) == -1
            assert ctypes.get_errno() == 38
            """
        )
        assert found.exit == 0, found
    finally:
        libc.syscall(control, 21, key)  # invalidate


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="calls of 32 bits")
def test_calls_of_another_machine_are_not_answered(attempt):
    """`int 0x80` with getpid of i386, and x32's getpid."""
    found = attempt(
        """
        import ctypes, mmap
        code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        code.write(bytes.fromhex("b814000000cd80c3"))
        act = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
        assert act() == -38, act()
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.syscall(39) > 0 and libc.syscall(0x40000000 | 39) == -1 and ctypes.get_errno() == 38
        """
    )
    assert found.exit == 0, found


def test_the_death_of_the_caller_ends_the_program(attempt):
    """The evaluation is killed: nothing of the program goes on."""
    attempt("pass")
    marker = f"orphan-{time.monotonic_ns() % 10**8}"
    program = f"{_named(marker)}\nimport time\ntime.sleep(60)"
    code = f"from kanana_jax.evaluation import sandbox\nsandbox.run({program!r}, sandbox.Limits(wall_seconds=60.0), tests=sandbox.Tests(''))"
    caller = subprocess.Popen([sys.executable, "-c", code], cwd=pathlib.Path(sandbox.__file__).parents[2])
    end = time.monotonic() + 30
    while not _alive(marker) and time.monotonic() < end:
        time.sleep(0.05)
    assert _alive(marker)
    caller.send_signal(signal.SIGKILL)
    caller.wait()
    while _alive(marker) and time.monotonic() < end:
        time.sleep(0.05)
    assert not _alive(marker)
