"""A folder that all processes of a run write together and that finally replaces an older version.

On a shared disk, the new folder is built next to the old one. In a bucket, each process writes a file to a local
scratch folder, uploads it at once and deletes the local copy. The files that mark the folder as complete are deleted
first and uploaded last.
"""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Collection, Generator, Sequence

from kanana_jax.files import as_user_error, is_remote, scratch, sync, sync_tree, upload, upload_file


class OnDisk:
    """A folder on a disk that all processes share.

    Attributes:
      own: folder into which this process writes.
    """

    def __init__(self, folder: pathlib.Path):
        self._folder, self.own = folder, folder.with_name(folder.name + ".partial")

    def begin(self) -> None:
        """Creates the new folder; the first process calls it before any process writes."""
        with as_user_error(self._folder):
            shutil.rmtree(self.own, ignore_errors=True)
            self.own.mkdir(parents=True)

    def written(self, name: str) -> None:
        """Publishes a file of `own`; called by the process that wrote it. Nothing to do on a disk."""

    def finish(self, names: Collection[str]) -> None:
        """Puts the folder in its place; the first process calls it once all processes have published `names`."""
        with as_user_error(self._folder):
            sync_tree(self.own)
            shutil.rmtree(self._folder, ignore_errors=True)
            os.replace(self.own, self._folder)
            sync(self._folder.parent)


class InBucket:
    """A folder in a bucket, with the methods and attributes of `OnDisk`."""

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
    """Opens `folder` for writing by all processes.

    Args:
      last: in a bucket, the files that mark the folder as complete, in the order in which they are written.
    """
    if is_remote(folder):
        with scratch(folder) as own:
            yield InBucket(folder, own, last)
    else:
        yield OnDisk(folder)
