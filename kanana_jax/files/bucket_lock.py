"""The lock of a place in a bucket: an object with owner and time, changed only by conditional writes.

The object is created if there is none, and a thread renews it every minute. It may be taken over if it was not renewed
for ten minutes, or at once if its process ran on this machine and has ended. Each of these steps is one conditional
write, so that only one of several processes succeeds. The hosts' clocks must agree within a few minutes.
"""

import contextlib
import json
import logging
import os
import pathlib
import socket
import threading
import time
import uuid
from collections.abc import Callable, Generator
from typing import Any, cast

from kanana_jax.errors import UserError
from kanana_jax.files.objects import BucketPath, read_version, write_if

log = logging.getLogger("kanana")
RENEW_S, STALE_S = 60.0, 600.0


@contextlib.contextmanager
def held(file: pathlib.Path, place: pathlib.Path, now: Callable[[], float] = time.time) -> Generator[None]:
    """Holds the lock `file` on `place`.

    If this process was suspended or offline for ten minutes and another has taken over the lock, it ends at once with
    exit code 1 and writes nothing more.

    Raises:
      UserError: another process holds the lock; the message names host, process and time of renewal.
    """
    lock = cast(BucketPath, file)
    owner = {"pid": os.getpid(), "host": socket.gethostname(), "machine": _machine(), "id": uuid.uuid4().hex}
    mark = _take(lock, place, owner, now)
    ended = threading.Event()
    marks = [mark]
    thread = threading.Thread(target=_renew, args=(lock, place, owner, marks, ended, now), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with contextlib.suppress(UserError):  # a lock that cannot be deleted becomes stale
            found = read_version(lock)
            if found is not None and found.mark == marks[0]:
                lock.unlink(missing_ok=True)


def _take(lock: BucketPath, place: pathlib.Path, owner: dict[str, Any], now: Callable[[], float]) -> str:
    for _ in range(20):
        before = read_version(lock)
        if before is not None:
            other = _owner(before.content)
            age = now() - other["renewed"]
            if age < STALE_S and not _has_ended(other):
                raise UserError(
                    f"{place} is in use by process {other['pid']} on {other['host']} (renewed {max(0, age):.0f} s "
                    f"ago): let it end, or stop it, and run the command again; the lock of a killed process ends "
                    f"{STALE_S / 60:.0f} minutes after its last renewal (if you are sure, delete {lock})"
                )
            log.warning("%s: taking over the lock of process %s on %s", place, other["pid"], other["host"])
        mark = write_if(lock, _content(owner, now), before and before.mark)
        if mark is not None:
            return mark
    raise UserError(f"{place} is in use: others are taking its lock {lock} at the same time: run the command again")


def _machine() -> str:
    """An id of this machine's boot and process namespace; empty if the system does not provide it."""
    try:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _has_ended(owner: dict[str, Any]) -> bool:
    """Whether a lock's process ran on this machine and has ended."""
    if not owner.get("machine") or owner["machine"] != _machine() or not isinstance(owner["pid"], int):
        return False
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False


def _renew(
    lock: BucketPath,
    place: pathlib.Path,
    owner: dict[str, Any],
    marks: list[str],
    ended: threading.Event,
    now: Callable[[], float],
) -> None:
    last = now()
    while not ended.wait(RENEW_S):
        try:
            mark = write_if(lock, _content(owner, now), marks[0])
            found = read_version(lock) if mark is None else None
        except UserError as error:  # the store does not answer: retry until others may take over the lock
            if now() - last < STALE_S:
                continue
            _end(f"{place}: its lock could not be renewed for {STALE_S / 60:.0f} minutes ({error})")
            return
        if mark is None:
            if found is None or _owner(found.content).get("id") != owner["id"]:
                _end(f"{place}: its lock was taken by another process or deleted")
                return
            mark = found.mark
        marks[0], last = mark, now()


def _end(sentence: str) -> None:
    log.error("%s: this process ends and writes nothing more", sentence)
    logging.shutdown()
    os._exit(1)


def _content(owner: dict[str, Any], now: Callable[[], float]) -> bytes:
    return json.dumps(owner | {"renewed": now()}).encode()


def _owner(content: bytes) -> dict[str, Any]:
    """The contents of a lock; an invalid one counts as stale."""
    found: dict[str, Any] = {"pid": "?", "host": "?", "renewed": 0.0}
    with contextlib.suppress(ValueError):
        value = json.loads(content)
        if isinstance(value, dict) and isinstance(value.get("renewed"), (int, float)):
            found |= value
    return found
