"""A writer on a thread of its own, so that a slow or failing service never stops training."""

import logging
import queue
import threading
from collections.abc import Callable

from kanana_jax.training.metrics import Line, Writer

log = logging.getLogger("kanana")

# Lines queued for a slow service; further ones are dropped and counted.
_WAITING = 10_000
# Seconds that a finished stage waits for unsent lines.
_LAST_SECONDS = 120.0


class InBackground:
    """Passes lines to a writer that is made and used on another thread; its first error ends it with a warning.

    Args:
      name: name of the service, for the warning.
      make: makes the writer.
    """

    def __init__(self, name: str, make: Callable[[], Writer]):
        self._name, self._make = name, make
        self._lines: queue.Queue[Line | None] = queue.Queue(_WAITING)
        self._dropped = 0
        self._failed = threading.Event()
        # A daemon: a service that hangs does not keep the process.
        self._thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def write(self, line: Line) -> None:
        if self._failed.is_set():
            return
        try:
            self._lines.put_nowait(dict(line))
        except queue.Full:
            self._dropped += 1

    def close(self) -> None:
        if not self._failed.is_set():
            try:
                self._lines.put(None, timeout=_LAST_SECONDS)
            except queue.Full:
                self._dropped += 1
            self._thread.join(_LAST_SECONDS)
            if self._thread.is_alive():
                log.warning("%s did not take all lines within %d s; metrics.jsonl has them", self._name, _LAST_SECONDS)
        if self._dropped:
            log.warning("%s was too slow and missed %d lines; metrics.jsonl has them", self._name, self._dropped)

    def _work(self) -> None:
        try:
            writer = self._make()
            while (line := self._lines.get()) is not None:
                writer.write(line)
            writer.close()
        except BaseException as error:  # such libraries may raise anything, even SystemExit
            log.warning(
                "%s stopped (%s: %s); training continues, and metrics.jsonl has all figures",
                self._name,
                type(error).__name__,
                " ".join(str(error).split())[:300],
            )
            self._failed.set()
