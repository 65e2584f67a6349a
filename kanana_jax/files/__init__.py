"""Files and folders on disks and in buckets, written completely or not at all, by one process at a time.

    place(text)                     converts a user's text to a path: a local one, gs://BUCKET/… or s3://BUCKET/…
    stage_down(path)                copies from a bucket to a bounded local cache; returns a local path unchanged
    local_copy(text)                the same for a user's text, once per process
    upload(folder, path, last=(…))  copies a local folder to a bucket; files that mark it as complete are written last
    whole_file(path), whole(path)   a temporary file or folder to write, which becomes `path` at the end
    locked(path)                    holds a lock, so that there is one writer

The libraries for buckets are imported when the first such address is used.
"""

import contextlib
import functools
import os
import pathlib
import shutil
from collections.abc import Callable, Collection, Generator, Sequence

from kanana_jax.errors import UserError
from kanana_jax.files.jsons import load_json, read_json, write_json, write_lines
from kanana_jax.files.locks import LOCK, locked
from kanana_jax.files.places import STORES, address_of, is_remote, place, programs_folder
from kanana_jax.files.whole import as_user_error, cannot_write, scratch, sync, sync_tree, whole, whole_file

__all__ = [
    "LOCK",
    "STORES",
    "address_of",
    "cannot_write",
    "is_remote",
    "load_json",
    "local_copy",
    "locked",
    "mirrored",
    "place",
    "programs_folder",
    "read_json",
    "read_part",
    "remove_tree",
    "scratch",
    "stage_down",
    "sync",
    "sync_tree",
    "as_user_error",
    "upload",
    "upload_file",
    "whole",
    "whole_file",
    "write_json",
    "write_lines",
]


def stage_down(path: pathlib.Path, only: Callable[[str], object] | None = None) -> pathlib.Path:
    """A local path with the content of `path`, which is `path` itself if it is local (`staging.stage_down`)."""
    if not is_remote(path):
        return path
    from kanana_jax.files import staging

    return staging.stage_down(path, only)


def local_copy(text: str | os.PathLike[str]) -> pathlib.Path:
    """A local path for the file or folder that a user has named; an address in a bucket is fetched once per process.

    A local path need not exist.

    Raises:
      ConfigError: see `place`.
      UserError: there is nothing at the address, or see `staging.stage_down`.
    """
    path = place(text)
    return _copy(os.getpid(), path) if is_remote(path) else path


@functools.cache
def _copy(pid: int, path: pathlib.Path) -> pathlib.Path:
    try:
        return stage_down(path)
    except FileNotFoundError as error:
        raise UserError(f"{path} is not there: check the address") from error


def read_part(path: pathlib.Path, start: int, size: int) -> bytes:
    """`size` bytes of a file from byte `start`, fewer at its end; from a bucket, only these bytes are fetched."""
    if is_remote(path):
        return path.read_part(start, size)  # ty: ignore[missing-attribute]
    with path.open("rb") as file:
        file.seek(start)
        return file.read(size)


def upload(folder: pathlib.Path, path: pathlib.Path, last: Sequence[str] = (), keep: Collection[str] = ()) -> None:
    """Uploads a local folder to a bucket, with the files in `last` at the end (`staging.upload`)."""
    from kanana_jax.files import staging

    staging.upload(folder, path, last, keep)


def upload_file(file: pathlib.Path, path: pathlib.Path) -> None:
    """Uploads a local file to a bucket, completely or not at all (`staging.upload_file`)."""
    from kanana_jax.files import staging

    staging.upload_file(file, path)


@contextlib.contextmanager
def mirrored(path: pathlib.Path, last: Sequence[str] = ()) -> Generator[pathlib.Path]:
    """Holds a folder's lock and yields the folder; for one in a bucket, yields a local mirror (`mirror.mirrored`)."""
    if is_remote(path):
        from kanana_jax.files import mirror

        with mirror.mirrored(path, last) as local:
            yield local
    else:
        with locked(path):
            yield path


def remove_tree(path: pathlib.Path) -> None:
    """Removes a folder if it exists; errors of a local disk are ignored."""
    if is_remote(path):
        path.rmtree(missing_ok=True)  # ty: ignore[missing-attribute]
    else:
        shutil.rmtree(path, ignore_errors=True)
