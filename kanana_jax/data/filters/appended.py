"""A file that grows by whole members and resumes after a stop at its last valid member."""

import hashlib
import os
import pathlib
from typing import Any

from kanana_jax.errors import UserError

_BLOCK = 1 << 20
Good = tuple[int, str]  # bytes, and their digest


def digest_of(path: pathlib.Path, size: int) -> Any:
    """The running hash of a file's first `size` bytes, or of all of them if it is shorter.

    Raises:
      OSError: the file cannot be read.
    """
    hashed = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while size > 0 and (block := file.read(min(size, _BLOCK))):
            hashed.update(block)
            size -= len(block)
    return hashed


class Appended:
    """Cuts off everything after the part known to be good.

    Raises:
      UserError: the good part has changed.
    """

    def __init__(self, path: pathlib.Path, good: Good = (0, "")):
        size, digest = good
        self._file = path.open("ab")
        self._hash = digest_of(path, size)
        if size and (self._file.tell() < size or self._hash.hexdigest() != digest):
            self._file.close()
            raise UserError(f"{path} has changed since the job stopped: name another --output")
        self._file.truncate(size)
        self._size = size

    @property
    def good(self) -> Good:
        """The written length."""
        return self._size, self._hash.hexdigest()

    def write(self, data: bytes) -> None:
        """Adds a member."""
        self._file.write(data)
        self._hash.update(data)
        self._size += len(data)

    def sync(self) -> None:
        """Waits until the data are on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes it."""
        self._file.close()
