"""Locks on folders and files, so that only one process at a time writes there."""

import contextlib
import errno
import fcntl
import logging
import os
import pathlib
import re
import shutil
import socket
import time
from collections.abc import Generator, Iterator

from kanana_jax.errors import UserError
from kanana_jax.files.places import is_remote
from kanana_jax.files.whole import as_user_error

log = logging.getLogger("kanana")

LOCK = ".lock"
_LEFT_OVER = re.compile(r"(.+)\.\d+(\.old)?\.partial")
# Errors of file systems that do not support locks; gcsfuse supports them only within one host.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
# Folders of a workdir that hold many files, none written by this package.
_PASSED_OVER = ("checkpoints", "compiled")


@contextlib.contextmanager
def locked(place: pathlib.Path, *, folder: bool = True) -> Generator[None]:
    """Holds an exclusive lock on a folder (created if missing) or file while the block writes to it.

    The kernel releases the lock however the process ends; children do not inherit it. Partial files and folders left by
    a killed process are removed first. In a bucket, the lock is an object, see `bucket_lock`.

    Args:
      folder: whether `place` is a folder.

    Raises:
      UserError: another process holds the lock (the message names host and pid), or the place cannot be written.
    """
    if is_remote(place):
        from kanana_jax.files.bucket_lock import held as bucket_held

        with bucket_held(place / LOCK if folder else place.with_name(f".{place.name}{LOCK}"), place):
            yield
        return
    file = place / LOCK if folder else place.with_name(f".{place.name}{LOCK}")
    held: list[int] = []
    made: list[pathlib.Path] = []
    # A forked child would share the lock, and keep it after this process has died.
    os.register_at_fork(after_in_child=lambda: [os.close(held.pop()) for _ in held[:]])
    try:
        with as_user_error(place):
            made += [parent for parent in (file.parent, *file.parent.parents) if not parent.exists()]
            held.append(_lock(file, place))
            _clear(place, folder)
        yield
    finally:
        for descriptor in held:
            with contextlib.suppress(OSError):
                if os.path.samestat(os.fstat(descriptor), file.stat()):  # false if the whole folder was replaced
                    file.unlink()
        while held:
            os.close(held.pop())
        with contextlib.suppress(OSError):  # removes created folders that the block has left empty
            for parent in made:
                parent.rmdir()


def _lock(file: pathlib.Path, place: pathlib.Path) -> int:
    """Opens and locks the lock's file, writes the owner into it, and returns its descriptor."""
    while True:
        descriptor = _opened(file)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(
                    f"{place} is in use by {_holder(descriptor)}: let it end, or stop it, and run the command again"
                ) from error
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                log.warning("%s: its file system has no locks: make sure that no other process writes there", place)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), file.stat()):
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # the former holder has removed the file in the meantime


def _opened(file: pathlib.Path) -> int:
    tries = 1000
    while True:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            return os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        except (FileNotFoundError, FileExistsError):
            # The former holder may remove a folder that it has created, between the two calls or even during `mkdir`,
            # which then finds the folder once and not again.
            tries -= 1
            if not tries:
                raise


def _holder(descriptor: int) -> str:
    for _ in range(10):
        pid, _, host = os.pread(descriptor, 400, 0).decode("utf-8", "replace").strip().partition(" ")
        if host:
            return f"process {pid} on {host}"
        time.sleep(0.02)  # the holder is just writing its name
    return "another process"


def _clear(place: pathlib.Path, folder: bool) -> None:
    """Removes partial files and folders of killed processes, and restores a folder that was about to be replaced."""
    for path, found in [*_left_over(place, folder)]:
        name, old = found.groups()
        with contextlib.suppress(OSError):
            if old and not path.with_name(name).exists():
                path.rename(path.with_name(name))
            elif path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()


def _left_over(place: pathlib.Path, folder: bool) -> Iterator[tuple[pathlib.Path, re.Match[str]]]:
    above, tops = place.absolute().parent, []
    with contextlib.suppress(PermissionError):  # a parent folder may be accessible without being listable
        tops += [(above, [name]) for name in os.listdir(above) if name.startswith(f"{place.name}.")]
    for root, folders, names in os.walk(place) if folder else ():
        tops.append((pathlib.Path(root), [*folders, *names]))
        folders[:] = [name for name in folders if name not in _PASSED_OVER and not _LEFT_OVER.fullmatch(name)]
    for root, names in tops:
        for name in names:
            found = _LEFT_OVER.fullmatch(name)
            if found and (root != above or found[1] == place.name):
                yield root / name, found
