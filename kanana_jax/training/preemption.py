"""Pre-emption: a run that receives SIGTERM or the cluster's notice saves its state and exits with code 75."""

import contextlib
import signal
from collections.abc import Callable, Generator

import jax

from kanana_jax.errors import UserError


class Preempted(UserError):
    """The run received a request to stop (SIGTERM or the cluster's notice) and has saved its state."""

    exit_code = 75  # EX_TEMPFAIL: run the same command again


@contextlib.contextmanager
def termination() -> Generator[Callable[[], bool]]:
    """Turns SIGTERM into a question that the loop asks after each step.

    With several processes JAX's own pre-emption service listens instead, so that all agree on the step.
    """
    received = []
    if jax.process_count() > 1:
        yield lambda: False
        return
    try:
        previous = signal.signal(signal.SIGTERM, lambda *_: received.append(True))
    except ValueError:  # not the main thread: a notebook or a test
        yield lambda: False
        return
    try:
        yield lambda: bool(received)
    finally:
        signal.signal(signal.SIGTERM, previous)
