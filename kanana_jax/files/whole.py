"""Files and folders that are written whole or not at all."""

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
    """Gives a place to write to, which becomes `path` when the block ends well and else is removed; makes its folder.

    The file is on the disk before it has its name, and the name before this returns. An object of a bucket is written
    to a local file first, and put there in one step.

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
    """Gives a new, empty folder, which takes the place of `path` when the block ends well and else is removed.

    Args:
      last: files that a reader looks for, in the order of writing: in a bucket, where folders cannot be exchanged in
        one step, they are deleted first and written last.

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
    """Gives an empty folder beside `path` for what is not kept, which is removed at the end; of a bucket, a local one.

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
            shutil.rmtree(folder, ignore_errors=True)  # of a killed process with the same number
            folder.mkdir(parents=True)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _object(path: pathlib.Path) -> Generator[pathlib.Path]:
    """A local file that is put to a bucket at the end of the block."""
    from kanana_jax.files.staging import upload_file

    with _local(path) as folder:
        yield folder / path.name
        upload_file(folder / path.name, path)


@contextlib.contextmanager
def _local(path: pathlib.Path) -> Generator[pathlib.Path]:
    """An empty local folder with the name of a bucket's, removed at the end; `$TMPDIR` says on which disk."""
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
    """Waits until a file, or a folder's list of names, is on the disk; an object is, once it was put."""
    if is_remote(path):
        return
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
    if is_remote(folder):
        return
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
