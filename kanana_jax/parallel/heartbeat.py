"""Heartbeats and progress marks that a training process sends to its watcher.

The watcher (`parallel/watch.py`) passes a pipe to the process. Without a pipe, nothing is sent.
"""

import os
import threading
import time

PIPE = "KANANA_HEARTBEAT_FD"
BEAT = "beat"
EVERY_S = 1.0
# The activities of a process. The first three may take long: preparing data, compiling programs, writing models.
OUTSIDE, PREPARE, COMPILE = "outside", "prepare", "compile"
BATCH, STEP, EVALUATE, SAVE = "batch", "step", "evaluate", "save"
TRAINING = (BATCH, STEP, EVALUATE, SAVE)
DOINGS = (OUTSIDE, PREPARE, COMPILE, *TRAINING)


def _write(fd: int, line: str) -> bool:
    """Sends a line; returns False if the watcher is gone. Lines are shorter than PIPE_BUF, so they are never split."""
    try:
        os.write(fd, f"{line}\n".encode())
    except BlockingIOError:  # the pipe is full because the watcher does not read: drop the line
        pass
    except OSError:
        return False
    return True


def _pipe() -> int | None:
    fd = os.environ.get(PIPE, "")
    return int(fd) if fd.isdigit() else None


def start() -> None:
    """Starts a thread that sends a beat every second for as long as this process lives.

    If the watcher is gone, the process ends itself, since nobody could stop it together with the others.
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
    """Reports progress while one process prepares data for all; unlike `Marks`, other processes do not do the same."""

    def __init__(self) -> None:
        self._fd, self._count = _pipe(), 0

    def __call__(self) -> None:
        """Reports that another piece of work is done."""
        if self._fd is not None:
            self._count += 1
            _write(self._fd, f"{self._count} {PREPARE}")


class Marks:
    """Reports each step and activity of the training loop; all processes of a run make the same marks."""

    def __init__(self) -> None:
        self._fd = _pipe()

    def __call__(self, step: int, doing: str) -> None:
        if self._fd is not None:
            _write(self._fd, f"{step} {doing}")
