"""`python -m kanana_jax`, and this file by its path, is `kanana`; nothing in the current folder is ever imported."""

import os
import sys


def _forget_the_start() -> None:
    """Removes the folder that Python puts first in `sys.path`: the current one (`-m`) or the script's own.

    A file `jax.py` or `json.py` there, as a downloaded model folder may well contain, would be run in place of the
    library, here and in child processes, which the environment variable protects. Folders in `PYTHONPATH` stay.
    """
    try:
        here = os.getcwd()
    except OSError:  # a deleted current folder contains nothing
        here = ""
    own = ("", here, os.path.dirname(os.path.realpath(sys.argv[0])))
    if not sys.flags.safe_path and sys.path[:1] and sys.path[0] in own:
        del sys.path[0]
    os.environ["PYTHONSAFEPATH"] = "1"


if __name__ == "__main__":
    _forget_the_start()  # before the first import that could go wrong

import codecs  # noqa: E402
import importlib.util  # noqa: E402
import locale  # noqa: E402
import pathlib  # noqa: E402
import signal  # noqa: E402

_HUGE_PAGES = "glibc.malloc.hugetlb=1"
_STOPS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


def _find_the_package() -> None:
    """Makes this file's folder the package when run by path, from a clone where nothing may be installed."""
    here = pathlib.Path(__file__).absolute().parent
    spec = importlib.util.spec_from_file_location(
        "kanana_jax", here / "__init__.py", submodule_search_locations=[str(here)]
    )
    assert spec is not None and spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules["kanana_jax"] = package
    spec.loader.exec_module(package)


if not __package__ and "kanana_jax" not in sys.modules:
    _find_the_package()


def entry() -> int:
    """The console command.

    Restarts itself with huge pages for large buffers, where the C library supports them: XLA on a CPU takes fresh
    memory at every step, and without them page faults take a fifth of the step. It also restarts in Python's UTF-8
    mode if the locale has another encoding: libraries open files without naming one.
    """
    if __name__ != "__main__":  # the console script, which imports this file
        _forget_the_start()
    changes = {}
    if (
        not sys.flags.utf8_mode
        and os.environ.get("PYTHONUTF8") != "1"
        and codecs.lookup(locale.getencoding()).name != "utf-8"
    ):
        changes["PYTHONUTF8"] = "1"
    known = os.environ.get("GLIBC_TUNABLES", "")
    if (
        sys.platform == "linux"
        and "glibc.malloc.hugetlb" not in known
        and sys.argv[1:2] in (["run"], ["generate"], ["chat"])
    ):
        changes["GLIBC_TUNABLES"] = f"{known}:{_HUGE_PAGES}" if known else _HUGE_PAGES
    if changes:
        os.environ |= changes
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)  # until the new program can answer them
        os.execv(sys.executable, [os.fsencode(sys.executable), *_arguments()])
    from kanana_jax.cli import main, process

    return process.leave(main())


def _arguments() -> list[bytes]:
    """The interpreter's arguments as they were given; a locale's decoder may have lost bytes of them.

    A module found by `-m` is named by its path, since the current folder is no longer searched.
    """
    raw = pathlib.Path("/proc/self/cmdline")
    given = raw.read_bytes().split(b"\0")[1:-1] if raw.is_file() else [os.fsencode(a) for a in sys.orig_argv[1:]]
    ours = len(given) - len(sys.argv) + 1
    if given[ours - 2 : ours] == [b"-m", b"kanana_jax"]:
        given[ours - 2 : ours] = [os.fsencode(__file__)]
    return given


if __name__ == "__main__":
    sys.exit(entry())
