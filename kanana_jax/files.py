"""Files and folders that are written whole or not at all, by one process at a time."""

import contextlib
import ctypes
import errno
import fcntl
import json
import logging
import os
import pathlib
import re
import shutil
import socket
import time
from collections.abc import Generator, Iterator
from typing import Any

from kanana_jax.errors import UserError

log = logging.getLogger("kanana")

LOCK = ".lock"
_LEFT_OVER = re.compile(r"(.+)\.\d+(\.old)?\.partial")
# What file systems answer that know no locks; gcsfuse has them on one host only.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
# Folders of a workdir with many files and none of this module's.
_PASSED_OVER = ("checkpoints", "compiled")


class _Object(dict):
    """A file's JSON object: a key that is asked for and lacks is told with the file's name."""

    path: pathlib.Path

    def __missing__(self, key: Any) -> Any:
        raise UserError(f"{self.path} lacks '{key}': restore it, or delete it and make it again")


def load_json(path: pathlib.Path, kind: type[dict] | type[list] = dict) -> Any:
    """A JSON file's value.

    Args:
      kind: what its outermost value must be.

    Raises:
      UserError: the file is missing, cannot be read, is empty, cut off or no JSON, or holds something else; later,
        when a key of an object is asked for that it lacks.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: restore it, or let the command that makes the folder finish") from error
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}): fix the file or its permissions") from error
    except (ValueError, RecursionError) as error:
        state = "is empty" if path.stat().st_size == 0 else f"is not whole JSON ({error})"
        raise UserError(f"{path} {state}: restore it, or delete it and make it again") from error
    if not isinstance(value, kind):
        wanted = "list" if kind is list else "object"
        raise UserError(f"{path} holds no JSON {wanted}: restore it, or delete it and make it again")
    if isinstance(value, dict):
        value = _Object(value)
        value.path = path
    return value


def read_json(path: pathlib.Path, kind: type[dict] | type[list] = dict) -> Any:
    """`load_json`, or None where there is no file."""
    return load_json(path, kind) if path.is_file() else None


def write_json(path: pathlib.Path, value: Any, indent: int | None = 1) -> None:
    """Writes a JSON file whole or not at all.

    Raises:
      UserError: the disk is full or not writable.
    """
    with whole_file(path) as temporary:
        # A path whose name is no UTF-8 has lone surrogates, which only an escape can carry.
        text = json.dumps(value, ensure_ascii=False, indent=indent)
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))


@contextlib.contextmanager
def whole_file(path: pathlib.Path) -> Generator[pathlib.Path]:
    """Gives a place to write to, which becomes `path` when the block ends well and else is removed; makes its folder.

    The file is on the disk before it has its name, and the name before this returns.

    Raises:
      UserError: the disk is full or not writable.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with told(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            sync(temporary)
            os.replace(temporary, path)
            sync(path.parent)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def whole(path: pathlib.Path) -> Generator[pathlib.Path]:
    """Gives a new, empty folder, which takes the place of `path` when the block ends well and else is removed.

    Raises:
      UserError: the disk is full or not writable.
    """
    partial, old = (path.with_name(f"{path.name}.{os.getpid()}{kind}.partial") for kind in ("", ".old"))
    with told(path):
        try:
            shutil.rmtree(partial, ignore_errors=True)  # of a killed process with the same number
            partial.mkdir(parents=True)
            yield partial
            sync_tree(partial)
            if not _exchange(partial, path):
                if path.exists():
                    path.rename(old)
                partial.rename(path)
                shutil.rmtree(old, ignore_errors=True)
            sync(path.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def scratch(path: pathlib.Path) -> Generator[pathlib.Path]:
    """Gives an empty folder beside `path` for what is not kept, which is removed at the end.

    Raises:
      UserError: the disk is full or not writable.
    """
    folder = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with told(path):
        try:
            shutil.rmtree(folder, ignore_errors=True)  # of a killed process with the same number
            folder.mkdir(parents=True)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def told(place: pathlib.Path) -> Generator[None]:
    """Turns an operating system's error in the block into a sentence about `place`, which is written there.

    Raises:
      UserError: the disk is full, read-only, of somebody else, or a name on the way is a file's.
    """
    try:
        yield
    except (ConnectionError, TimeoutError):
        raise
    except OSError as error:
        raise cannot_write(place, error) from error


def cannot_write(place: pathlib.Path, error: OSError) -> UserError:
    """The sentence about a place that could not be written, with the way out."""
    # Libraries raise errors without a number, mostly where a disk is full.
    reason = error.strerror or (str(error).strip().splitlines() or ["unknown error"])[0]
    other = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else ""
    where = f"{other}: " if other and not other.startswith(os.fspath(place)) else ""
    way_out = _WAYS_OUT.get(error.errno or 0, "free space or fix the folder")
    return UserError(f"cannot write {place} ({where}{reason}): {way_out}")


_WAYS_OUT = {
    errno.ENOSPC: "free space, then run the command again",
    errno.EDQUOT: "free space or raise the quota, then run the command again",
    errno.EFBIG: "raise the limit on the size of files, then run the command again",
    errno.EROFS: "name a place on a disk that can be written",
    errno.EACCES: "name a place where you may write, or change its permissions",
    errno.EPERM: "name a place where you may write, or change its permissions",
    errno.ENOTDIR: "a file stands where a folder is needed, name another place",
    errno.EEXIST: "a file stands where a folder is needed, name another place",
    errno.EISDIR: "a folder stands where a file is needed, name another place",
    errno.ENAMETOOLONG: "name a shorter place",
}


def sync(path: pathlib.Path) -> None:
    """Waits until a file, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF):  # of a folder, on some
            raise
    finally:
        os.close(descriptor)


def sync_tree(folder: pathlib.Path) -> None:
    """`sync` of everything in a folder, and of itself."""
    for above, _, names in os.walk(folder):
        for name in names:
            sync(pathlib.Path(above, name))
        sync(pathlib.Path(above))


def _exchange(new: pathlib.Path, old: pathlib.Path) -> bool:
    """Swaps two folders in one step, so that a kill leaves one of them; False where that cannot be done."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    if rename is None or not old.is_dir() or old.is_symlink():
        return False
    at, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE of linux/fs.h
    return rename(at, os.fsencode(new), at, os.fsencode(old), exchange) == 0


@contextlib.contextmanager
def locked(place: pathlib.Path, *, folder: bool = True) -> Generator[None]:
    """Holds a lock on a folder (made if missing) or a file that the block writes; kept by one process at a time.

    The kernel drops it when the process ends, however that happens; children do not inherit it. What a killed
    process left half-written is removed first.

    Raises:
      UserError: another process holds it (names host and pid), or the place cannot be written.
    """
    file = place / LOCK if folder else place.with_name(f".{place.name}{LOCK}")
    held: list[int] = []
    made: list[pathlib.Path] = []
    # A forked child shares the lock's description, and would keep it after this process has died.
    os.register_at_fork(after_in_child=lambda: [os.close(held.pop()) for _ in held[:]])
    try:
        with told(place):
            made += [parent for parent in (file.parent, *file.parent.parents) if not parent.exists()]
            held.append(_lock(file, place))
            _clear(place, folder)
        yield
    finally:
        for descriptor in held:
            with contextlib.suppress(OSError):
                if os.path.samestat(os.fstat(descriptor), file.stat()):  # else its folder was replaced as a whole
                    file.unlink()
        while held:
            os.close(held.pop())
        with contextlib.suppress(OSError):  # folders that the block has put nothing into
            for parent in made:
                parent.rmdir()


def _lock(file: pathlib.Path, place: pathlib.Path) -> int:
    """A descriptor of the lock's file, which holds the lock and says whose it is."""
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
                log.warning("%s: its file system knows no locks; see that no other process writes there", place)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), file.stat()):
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # who held it has removed the file meanwhile


def _opened(file: pathlib.Path) -> int:
    for _ in range(1000):
        # Who held the lock may remove the folder that it made, here or between the two calls.
        with contextlib.suppress(FileNotFoundError):
            file.parent.mkdir(parents=True, exist_ok=True)
            return os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(file.parent))


def _holder(descriptor: int) -> str:
    for _ in range(10):
        pid, _, host = os.pread(descriptor, 400, 0).decode("utf-8", "replace").strip().partition(" ")
        if host:
            return f"process {pid} on {host}"
        time.sleep(0.02)  # it is just writing its name
    return "another process"


def _clear(place: pathlib.Path, folder: bool) -> None:
    """Removes what killed processes left half-written, and puts back what was about to be replaced."""
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
    with contextlib.suppress(PermissionError):  # a folder may be passed through and not listed
        tops += [(above, [name]) for name in os.listdir(above) if name.startswith(f"{place.name}.")]
    for root, folders, names in os.walk(place) if folder else ():
        tops.append((pathlib.Path(root), [*folders, *names]))
        folders[:] = [name for name in folders if name not in _PASSED_OVER and not _LEFT_OVER.fullmatch(name)]
    for root, names in tops:
        for name in names:
            found = _LEFT_OVER.fullmatch(name)
            if found and (root != above or found[1] == place.name):
                yield root / name, found
