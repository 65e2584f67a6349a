"""The process of a verb as its shell sees it: text streams in any locale, signals, exit codes."""

import contextlib
import io
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator
from types import FrameType

from kanana_jax.errors import Stopped

CODES = {signal.SIGTERM: 75, signal.SIGHUP: 75, signal.SIGINT: 130}
# Native code (a compiler, a trainer of vocabularies) may hold the interpreter so long before the process ends without
# it; and cleaning up may take so long once it has come back.
GRACE_S, UNWIND_S = 5.0, 10.0
# A signal that comes again within this time is the same one by another way: a service manager and the watcher.
SAME_S = 1.0
CLOSED_PIPE = 128 + signal.SIGPIPE


def set_up_streams() -> None:
    """Pipes and files carry UTF-8; a terminal keeps its encoding. What it cannot show is escaped, never an error."""
    for stream, errors in ((sys.stdin, "replace"), (sys.stdout, "backslashreplace"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            keeps = stream.isatty() or "PYTHONIOENCODING" in os.environ
            stream.reconfigure(encoding=stream.encoding if keeps else "utf-8", errors=errors)


def say(sentence: str) -> None:
    """Tells a sentence on stderr, if there is anybody to read it."""
    with contextlib.suppress(OSError, ValueError):
        print(f"kanana: {sentence}", file=sys.stderr, flush=True)


def sentence_of(signum: int) -> str:
    if signum == signal.SIGINT:
        return "interrupted; run the same command again to resume"
    name = signal.Signals(signum).name
    return f"told to stop ({name}); finished work is saved: run the same command again to resume"


@contextlib.contextmanager
def stoppable() -> Generator[Callable[[], Stopped | None]]:
    """Signals end the block by `Stopped`, or the process where the block does not end in time or is told twice.

    Gives a function that says whether that has happened: a library in between may have made a fault of it.

    Everything that a verb writes can be resumed after a SIGKILL, so ending at once loses what a kill would. A training
    loop takes over the signal while it has more than that to lose (`training/preemption.py`).
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    told: list[Stopped] = []

    def stop(signum: int, frame: FrameType | None) -> None:
        if not told:
            told.append(Stopped(signum, sentence_of(signum)))
            raise told[0]

    # A signal that was ignored when the command started stays so: nohup.
    before = {s: signal.signal(s, stop) for s in CODES if signal.getsignal(s) is not signal.SIG_IGN}
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    watch = threading.Thread(target=_watch, args=(reading, stop, lambda: bool(told)), name="signals", daemon=True)
    watch.start()
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, CODES)  # a command that starts itself again holds them back
        yield lambda: told[0] if told else None
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        signal.set_wakeup_fd(wakeup)
        os.close(writing)


def _watch(reading: int, handler: Callable, reached: Callable[[], bool]) -> None:
    """Ends the process that was told to stop and does not: twice, or held by native code."""
    first, since, deadline = 0, 0.0, None
    while True:
        ready, _, _ = select.select(
            [reading], [], [], None if deadline is None else max(0.0, deadline - time.monotonic())
        )
        now = time.monotonic()
        if not ready:
            taken_over = signal.getsignal(first) is not handler
            if taken_over or (reached() and now < since + UNWIND_S):
                deadline = None if taken_over else since + UNWIND_S
                continue
            end(first)
        data = os.read(reading, 64)
        if not data:
            os.close(reading)
            return
        for signum in data:
            if signum not in CODES:
                continue
            if not first:
                first, since, deadline = signum, now, now + GRACE_S
            elif signum == signal.SIGINT or now > since + SAME_S:
                end(first)


def end(signum: int) -> None:
    """Ends the process and its workers at once."""
    say(sentence_of(signum))
    _end_workers()
    os._exit(CODES[signal.Signals(signum)])


def leave(code: int) -> int:
    """The exit code, once nobody waits for threads that still compile or read after a signal.

    Processes of one run leave together, by the way of JAX.
    """
    jax = sys.modules.get("jax")
    if code in CODES.values() and (jax is None or jax.process_count() == 1):
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        _end_workers()
        os._exit(code)
    return code


def _end_workers() -> None:
    """They would end by themselves, but for those that have only begun to begin."""
    multiprocessing = sys.modules.get("multiprocessing")
    for worker in multiprocessing.active_children() if multiprocessing is not None else ():
        worker.kill()


def flush_output() -> int:
    """Flushes standard output; reports a failure, such as a full disk, and returns its exit code.

    Raises:
      BrokenPipeError: nobody reads it any more.
    """
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else it is tried again at the exit
        say(f"cannot write the output ({error.strerror}): free space, or send it elsewhere")
        return 1
    return 0


def is_closed_pipe() -> bool:
    """Returns whether the reader of standard output is gone (`| head`); nothing more is written there then."""
    if sys.stdout is None:
        return False
    asked = select.poll()
    try:
        asked.register(sys.stdout.fileno(), 0)
    except (OSError, ValueError):  # a test's or a notebook's
        return False
    if not any(event & select.POLLERR for _, event in asked.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True
