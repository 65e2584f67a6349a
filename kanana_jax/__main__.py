"""`python -m kanana_jax` is `kanana`."""

import os
import sys

from kanana_jax.cli import main

_HUGE_PAGES = "glibc.malloc.hugetlb=1"


def entry() -> int:
    """The console command.

    Starts itself again with huge pages for large buffers, where the C library knows them: XLA on a CPU
    takes fresh memory at every step, and without them a fifth of the step goes into page faults.
    """
    known = os.environ.get("GLIBC_TUNABLES", "")
    if (
        sys.platform == "linux"
        and "glibc.malloc.hugetlb" not in known
        and sys.argv[1:2] in (["run"], ["generate"], ["chat"])
    ):
        os.environ["GLIBC_TUNABLES"] = f"{known}:{_HUGE_PAGES}" if known else _HUGE_PAGES
        # As it was started: `-m` would put the current folder before what is installed.
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    return main()


if __name__ == "__main__":
    sys.exit(entry())
