"""Folders that are written whole or not at all."""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterator

from kanana_jax.errors import UserError


@contextlib.contextmanager
def whole(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a new, empty folder, which takes the place of `path` when the block ends well and else is removed.

    Raises:
      UserError: the disk is full or not writable.
    """
    partial, old = (path.with_name(f"{path.name}.{os.getpid()}.{kind}") for kind in ("partial", "old"))
    try:
        partial.mkdir(parents=True)
        yield partial
        if path.exists():
            path.rename(old)
        partial.rename(path)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        where = error.filename or path
        raise UserError(f"cannot write {path} ({where}: {error.strerror}): free space or fix the folder") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
