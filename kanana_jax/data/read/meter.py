"""Progress of the processes of a job: a file in which each writes its own counters, and which anyone may read."""

import contextlib
import dataclasses
import os
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Generator

_CELL = struct.Struct("<QQQ")
_EVERY_S = 1.0


@dataclasses.dataclass(frozen=True)
class Progress:
    """Progress of a job.

    Attributes:
      done, total: bytes of files; `done` is an estimate within a file.
      documents, text_bytes: read so far, without what an earlier start has done.
      seconds: since the job began.
    """

    done: int
    total: int
    documents: int
    text_bytes: int
    seconds: float

    @property
    def share(self) -> float:
        return min(self.done / self.total, 1.0) if self.total else 0.0


Show = Callable[[Progress], None]


def note(file: str, cell: int, done: int, documents: int, text_bytes: int) -> None:
    """Sets the counters of a cell."""
    with contextlib.suppress(OSError):  # the reader is gone, or the disk of temporary files is full
        descriptor = os.open(file, os.O_WRONLY)
        try:
            os.pwrite(descriptor, _CELL.pack(done, documents, text_bytes), cell * _CELL.size)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def metered(total: int, before: int, show: Show) -> Generator[str]:
    """Yields a file for `note`, and calls `show` once per second, and at the end, from a thread.

    Args:
      total: bytes of files of the whole job.
      before: the part of them that an earlier start has done.
    """
    began = time.monotonic()
    ended = threading.Event()
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "meter")
        open(file, "wb").close()

        def tell() -> None:
            with open(file, "rb") as stream:
                data = stream.read()
            cells = list(_CELL.iter_unpack(data[: len(data) // _CELL.size * _CELL.size]))
            done, documents, size = (sum(cell[i] for cell in cells) for i in range(3))
            show(Progress(before + done, total, documents, size, time.monotonic() - began))

        def watch() -> None:
            while not ended.wait(_EVERY_S):
                tell()

        thread = threading.Thread(target=watch, name="progress", daemon=True)
        thread.start()
        try:
            yield file
        finally:
            ended.set()
            thread.join()
            tell()
