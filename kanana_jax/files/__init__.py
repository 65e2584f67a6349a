"""Files and folders of this machine and of buckets: written whole or not at all, by one process at a time.

    place(text)                     a path from what a user wrote: a folder, gs://BUCKET/…, s3://BUCKET/…
    stage_down(path)                a local copy, in a bounded cache; a local path is itself
    local_copy(text)                the same of what a user wrote, once per process
    upload(folder, path, last=(…))  a local folder into a bucket, the files that say that it is whole last
    whole_file(path), whole(path)   a place to write to that becomes `path` at the end
    locked(path)                    one writer

Buckets' libraries are imported when the first address is met.
"""

import contextlib
import functools
import os
import pathlib
import shutil
from collections.abc import Callable, Collection, Generator, Sequence

from kanana_jax.errors import UserError
from kanana_jax.files.jsons import load_json, read_json, write_json
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
]


def stage_down(path: pathlib.Path, only: Callable[[str], object] | None = None) -> pathlib.Path:
    """A local path with the content of `path`; the path itself where it is local (`staging.stage_down`)."""
    if not is_remote(path):
        return path
    from kanana_jax.files import staging

    return staging.stage_down(path, only)


def local_copy(text: str | os.PathLike[str]) -> pathlib.Path:
    """The file or folder that a user has named, on this machine: of a bucket's a staged copy, fetched once per process.

    A local path need not exist.

    Raises:
      ConfigError: an address of another kind of store.
      UserError: there is nothing at the address, or the store refuses (`staging.stage_down`).
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
    """`size` bytes of a file from byte `start` on, fewer at its end; of an object no more than these are fetched."""
    if is_remote(path):
        return path.read_part(start, size)  # ty: ignore[missing-attribute]
    with path.open("rb") as file:
        file.seek(start)
        return file.read(size)


def upload(folder: pathlib.Path, path: pathlib.Path, last: Sequence[str] = (), keep: Collection[str] = ()) -> None:
    """Puts a local folder into a bucket, the files in `last` at the end (`staging.upload`)."""
    from kanana_jax.files import staging

    staging.upload(folder, path, last, keep)


def upload_file(file: pathlib.Path, path: pathlib.Path) -> None:
    """Puts a local file to a bucket, whole or not at all (`staging.upload_file`)."""
    from kanana_jax.files import staging

    staging.upload_file(file, path)


@contextlib.contextmanager
def mirrored(path: pathlib.Path, last: Sequence[str] = ()) -> Generator[pathlib.Path]:
    """Holds a folder's lock and gives the folder; of one in a bucket a local one in its place (`mirror.mirrored`)."""
    if is_remote(path):
        from kanana_jax.files import mirror

        with mirror.mirrored(path, last) as local:
            yield local
    else:
        with locked(path):
            yield path


def remove_tree(path: pathlib.Path) -> None:
    """Removes a folder, if it is there, as far as it can be removed."""
    if is_remote(path):
        path.rmtree(missing_ok=True)  # ty: ignore[missing-attribute]
    else:
        shutil.rmtree(path, ignore_errors=True)
