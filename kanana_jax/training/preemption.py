"""Pre-emption: a run that receives SIGTERM or the cluster's notice saves its state and exits with code 75."""

import contextlib
import signal
import threading
from collections.abc import Callable, Generator
from typing import Any

import jax

from kanana_jax.errors import UserError


class Preempted(UserError):
    """The run received a request to stop (SIGTERM or the cluster's notice) and has saved its state."""

    exit_code = 75  # EX_TEMPFAIL: run the same command again


@contextlib.contextmanager
def termination() -> Generator[Callable[[], bool]]:
    """Turns SIGTERM and SIGHUP into a question that the loop asks after each step.

    It takes over the signals only when first asked: until a step is done, ending at once loses nothing. With several
    processes, JAX's own pre-emption service listens instead, so that all agree on the step.
    """
    received: list[int] = []
    previous: dict[int, Any] = {}

    def asked_to_stop() -> bool:
        if not previous:
            for signum in (signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(signum) is not signal.SIG_IGN:
                    previous[signum] = signal.signal(signum, lambda number, frame: received.append(number))
        return bool(received)

    if jax.process_count() > 1 or threading.current_thread() is not threading.main_thread():  # a notebook or a test
        yield lambda: False
        return
    try:
        yield asked_to_stop
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
