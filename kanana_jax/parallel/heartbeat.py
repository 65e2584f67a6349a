"""Beats and marks that a training process sends to its watcher: that it lives, and how far it is.

The watcher (`parallel/watch.py`) hands down a pipe. Without one, nothing is sent and nothing costs time.
"""

import os
import threading
import time

PIPE = "KANANA_HEARTBEAT_FD"
BEAT = "beat"
EVERY_S = 1.0
# What a process can be doing. The first three may take long: data are prepared, programs compiled, models written.
OUTSIDE, PREPARE, COMPILE = "outside", "prepare", "compile"
BATCH, STEP, EVALUATE, SAVE = "batch", "step", "evaluate", "save"
TRAINING = (BATCH, STEP, EVALUATE, SAVE)
DOINGS = (OUTSIDE, PREPARE, COMPILE, *TRAINING)


def _write(fd: int, line: str) -> bool:
    """False where the watcher is gone. A line is far below PIPE_BUF, so it arrives whole or not at all."""
    try:
        os.write(fd, f"{line}\n".encode())
    except BlockingIOError:  # a watcher that does not read; it will judge by what it has
        pass
    except OSError:
        return False
    return True


def _pipe() -> int | None:
    fd = os.environ.get(PIPE, "")
    return int(fd) if fd.isdigit() else None


def start() -> None:
    """Beats once a second for as long as this process lives.

    A process whose watcher is gone ends itself: nobody could stop it any more when the others are.
    """
    fd = _pipe()
    if fd is None:
        return
    os.set_blocking(fd, False)

    def beat() -> None:
        while _write(fd, BEAT):
            time.sleep(EVERY_S)
        os._exit(1)

    threading.Thread(target=beat, name="heartbeat", daemon=True).start()


class Preparing:
    """Tells the watcher that data are being prepared, which one process does for all: progress, but no mark."""

    def __init__(self) -> None:
        self._fd, self._count = _pipe(), 0

    def __call__(self) -> None:
        """To be called when something more is done."""
        if self._fd is not None:
            self._count += 1
            _write(self._fd, f"{self._count} {PREPARE}")


class Marks:
    """Tells the watcher what the training loop is at; all processes of a run make the same marks."""

    def __init__(self) -> None:
        self._fd = _pipe()

    def __call__(self, step: int, doing: str) -> None:
        if self._fd is not None:
            _write(self._fd, f"{step} {doing}")
