"""A folder that all processes of a run write, each some files of it, and that replaces an older one at the end.

On a disk, which the processes share, it lies beside the older one until then. In a bucket each file is put in its place
as soon as it is written, through a folder of the process's own that so holds one at a time; the files that say that
the folder is whole are deleted first and written last.
"""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Collection, Generator, Sequence

from kanana_jax.files import as_user_error, is_remote, scratch, sync, sync_tree, upload, upload_file


class OnDisk:
    """Of a disk.

    Attributes:
      own: where this process writes.
    """

    def __init__(self, folder: pathlib.Path):
        self._folder, self.own = folder, folder.with_name(folder.name + ".partial")

    def begin(self) -> None:
        """Makes room; the first process calls it, before any writes."""
        with as_user_error(self._folder):
            shutil.rmtree(self.own, ignore_errors=True)
            self.own.mkdir(parents=True)

    def written(self, name: str) -> None:
        """Takes over a file of `own`, from the process that wrote it."""

    def finish(self, names: Collection[str]) -> None:
        """Puts the folder in its place; the first process calls it, when `names` were taken over from any process."""
        with as_user_error(self._folder):
            sync_tree(self.own)
            shutil.rmtree(self._folder, ignore_errors=True)
            os.replace(self.own, self._folder)
            sync(self._folder.parent)


class InBucket:
    """Of a bucket; methods and attributes as `OnDisk`'s."""

    def __init__(self, folder: pathlib.Path, own: pathlib.Path, last: Sequence[str]):
        self._folder, self.own, self._last = folder, own, last

    def begin(self) -> None:
        for name in reversed(self._last):
            (self._folder / name).unlink(missing_ok=True)

    def written(self, name: str) -> None:
        upload_file(self.own / name, self._folder / name)
        (self.own / name).unlink()

    def finish(self, names: Collection[str]) -> None:
        upload(self.own, self._folder, self._last, keep=names)


@contextlib.contextmanager
def opened(folder: pathlib.Path, last: Sequence[str]) -> Generator[OnDisk | InBucket]:
    """The way to write `folder`.

    Args:
      last: in a bucket, the files that a reader looks for, in the order of writing.
    """
    if is_remote(folder):
        with scratch(folder) as own:
            yield InBucket(folder, own, last)
    else:
        yield OnDisk(folder)
