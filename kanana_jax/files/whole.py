"""Atomic writing of files and folders: completely or not at all."""

import contextlib
import ctypes
import errno
import os
import pathlib
import shutil
import tempfile
from collections.abc import Generator, Sequence

from kanana_jax.errors import UserError
from kanana_jax.files.places import is_remote


@contextlib.contextmanager
def whole_file(path: pathlib.Path) -> Generator[pathlib.Path]:
    """Yields a temporary path, whose file becomes `path` if the block succeeds and is removed otherwise.

    Creates the parent folder. The file is synced to disk before it is renamed, and the name before this returns. For a
    bucket, a local file is written first, and uploaded in one step.

    Raises:
      UserError: the disk is full or not writable.
    """
    if is_remote(path):
        with _object(path) as temporary:
            yield temporary
        return
    temporary = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with as_user_error(path):
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
def whole(path: pathlib.Path, last: Sequence[str] = ()) -> Generator[pathlib.Path]:
    """Yields a new, empty folder, which replaces `path` if the block succeeds and is removed otherwise.

    Args:
      last: files that mark the folder as complete, in the order of writing. In a bucket, where a folder cannot be
        replaced in one step, they are deleted first and written last.

    Raises:
      UserError: the disk is full or not writable.
    """
    if is_remote(path):
        from kanana_jax.files.staging import upload

        with _local(path) as folder:
            yield folder
            upload(folder, path, last)
        return
    partial, old = (path.with_name(f"{path.name}.{os.getpid()}{kind}.partial") for kind in ("", ".old"))
    with as_user_error(path):
        try:
            shutil.rmtree(partial, ignore_errors=True)  # left by a killed process with the same pid
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
    """Yields an empty temporary folder next to `path` (for a bucket, on this machine), which is removed at the end.

    Raises:
      UserError: the disk is full or not writable.
    """
    if is_remote(path):
        with _local(path) as folder:
            yield folder
        return
    folder = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with as_user_error(path):
        try:
            shutil.rmtree(folder, ignore_errors=True)  # left by a killed process with the same pid
            folder.mkdir(parents=True)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _object(path: pathlib.Path) -> Generator[pathlib.Path]:
    """Yields the path of a local file that is uploaded at the end of the block."""
    from kanana_jax.files.staging import upload_file

    with _local(path) as folder:
        yield folder / path.name
        upload_file(folder / path.name, path)


@contextlib.contextmanager
def _local(path: pathlib.Path) -> Generator[pathlib.Path]:
    """Yields an empty local folder with the name of a bucket's, removed at the end; `$TMPDIR` selects the disk."""
    above = tempfile.mkdtemp(prefix="kanana-")
    try:
        folder = pathlib.Path(above, path.name)
        with as_user_error(folder):
            folder.mkdir()
            yield folder
    finally:
        shutil.rmtree(above, ignore_errors=True)


@contextlib.contextmanager
def as_user_error(place: pathlib.Path) -> Generator[None]:
    """Converts an operating system's error in the block, which writes to `place`, to a UserError.

    Raises:
      UserError: the disk is full or read-only, permission is missing, or a file is where a folder is needed.
    """
    try:
        yield
    except (ConnectionError, TimeoutError):
        raise
    except OSError as error:
        raise cannot_write(place, error) from error


def cannot_write(place: pathlib.Path, error: OSError) -> UserError:
    """The UserError for a place that could not be written, with a way out."""
    # Some libraries raise errors without a number, mostly if a disk is full.
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
    """Waits until a file's content or a folder's list of names is on disk; does nothing for a bucket."""
    if is_remote(path):
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems cannot sync a folder.
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


def sync_tree(folder: pathlib.Path) -> None:
    """`sync` for everything in a folder and the folder itself."""
    if is_remote(folder):
        return
    for above, _, names in os.walk(folder):
        for name in names:
            sync(pathlib.Path(above, name))
        sync(pathlib.Path(above))


def _exchange(new: pathlib.Path, old: pathlib.Path) -> bool:
    """Swaps two folders atomically, so that `old` always exists; returns False if the system cannot do that."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    if rename is None or not old.is_dir() or old.is_symlink():
        return False
    at, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE of linux/fs.h
    return rename(at, os.fsencode(new), at, os.fsencode(old), exchange) == 0
