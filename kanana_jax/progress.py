"""Progress of long work on standard error: a bar on a terminal, occasional lines elsewhere; times and sizes."""

import contextlib
import sys
import time
from collections.abc import Callable, Generator

_EVERY_S = 15.0
# The text next to the bar, and the share that is done; None: unknown.
Update = Callable[[str, float | None], None]


@contextlib.contextmanager
def shown(title: str) -> Generator[Update]:
    """Yields a function that shows progress; it may be called from any thread, as often as needed."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(20), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(title, total=None)
            yield lambda text, share: bar.update(
                task, description=f"{title}  {text}", total=None if share is None else 1.0, completed=share or 0.0
            )
        return
    last = time.monotonic()

    def update(text: str, share: float | None) -> None:
        nonlocal last
        if time.monotonic() - last > _EVERY_S:
            last = time.monotonic()
            done = "" if share is None else f"{share:.0%}  "
            print(f"{title}  {done}{text}", file=sys.stderr, flush=True)

    yield update


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3.4 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def sized(count: float) -> str:
    """`120 B`, `4.5 kB`, `1.2 GB`: bytes in decimal units, to three digits."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
