"""`python -m kanana_jax` is `kanana`."""

import codecs
import locale
import os
import pathlib
import sys

from kanana_jax.cli import main

_HUGE_PAGES = "glibc.malloc.hugetlb=1"


def entry() -> int:
    """The console command.

    Starts itself again with huge pages for large buffers, where the C library knows them: XLA on a CPU
    takes fresh memory at every step, and without them a fifth of the step goes into page faults. Likewise in
    Python's UTF-8 mode where the locale is another: libraries open files without a word about the encoding.
    """
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
        # As it was started: `-m` would put the current folder before what is installed.
        os.execv(sys.executable, [os.fsencode(sys.executable), *_arguments()])
    return main()


def _arguments() -> list[bytes]:
    """The interpreter's arguments as they were given; a locale's decoder may have lost bytes of them."""
    given = pathlib.Path("/proc/self/cmdline")
    return given.read_bytes().split(b"\0")[1:-1] if given.is_file() else [os.fsencode(a) for a in sys.orig_argv[1:]]


if __name__ == "__main__":
    sys.exit(entry())
