"""Parallel map over worker processes that leave signals to their parent and do not outlive it."""

import collections
import concurrent.futures
import concurrent.futures.process
import contextlib
import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TypeVar

from kanana_jax.errors import UserError

In = TypeVar("In")
Out = TypeVar("Out")
# Signals that a terminal, a cluster or a service manager sends to every process of a job.
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def ordered(work: Callable[[In], Out], items: Iterator[In], workers: int, ahead: int = 4) -> Iterator[Out]:
    """`map` over worker processes, with results in order.

    Args:
      workers: number of worker processes; 1: this process does the work.
      ahead: number of items per worker that are submitted in advance.

    Raises:
      UserError: a worker was killed.
    """
    if workers == 1:
        yield from map(work, items)
        return
    with _quiet_tracker():
        pool = concurrent.futures.ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin)

    def submit(some: Iterable[In]) -> Iterator[concurrent.futures.Future[Out]]:
        for item in some:
            with _signals_held():  # a new process inherits blocked signals, and then ignores them (`_begin`)
                yield pool.submit(work, item)

    try:
        waiting = collections.deque(submit(itertools.islice(items, ahead * workers)))
        while waiting:
            done = waiting.popleft().result()
            waiting.extend(submit(itertools.islice(items, 1)))
            yield done
        pool.shutdown()
    except concurrent.futures.process.BrokenProcessPool as error:
        raise UserError(
            "a worker process was killed, most likely for lack of memory: use fewer --workers and run the command "
            "again, which resumes"
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


@contextlib.contextmanager
def _quiet_tracker() -> Generator[None]:
    """Silences the warning of Python's resource tracker when it cleans up after a process that ended early."""
    known = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = "ignore:resource_tracker" if known is None else f"{known},ignore:resource_tracker"
    try:
        yield
    finally:
        if known is None:
            del os.environ["PYTHONWARNINGS"]
        else:
            os.environ["PYTHONWARNINGS"] = known


@contextlib.contextmanager
def _signals_held() -> Generator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin() -> None:
    for signum in STOPS:
        signal.signal(signum, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
