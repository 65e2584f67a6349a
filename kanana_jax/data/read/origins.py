"""Origins of documents, and whether they have changed: by path, size and time, and by contents.

An origin is a file, a folder that is one LaTeX project, or an address (`hf://` …). A document's place is its origin and
its number there: it does not depend on ids, nor on how inputs are named. If its size or time differs, an origin's
bytes are hashed again; only different bytes make it a new origin, so copying or touching files costs no new run.
"""

import concurrent.futures
import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from kanana_jax.data.extract.files import project_files
from kanana_jax.files import address_of, write_json

_THREADS = 4  # that hash files at once
_BLOCK, _AT_ONCE = 4 << 20, 1000


@dataclasses.dataclass(frozen=True, slots=True)
class Origin:
    """A file, a folder of LaTeX, or an address.

    Attributes:
      path: absolute and without symbolic links; or the address.
      name: its path as reached from the path that the user named.
      root: the part of `name` that ids leave out.
      stamp: size and time; empty for an address.
      digest: hash of its contents, or of its name for an address; empty until `identify`.
    """

    path: str
    name: str
    root: str = ""
    stamp: str = ""
    digest: str = ""

    @property
    def is_address(self) -> bool:
        return "://" in self.path

    @property
    def address(self) -> str:
        """Its path, or its address if it was staged from a bucket: the same for every host and cache."""
        return address_of(self.path)

    @property
    def size(self) -> int:
        """Bytes of its file or its project's files, when it was found; 0 for an address."""
        size, colon, _ = self.stamp.partition(":")
        if colon:
            return int(size)
        return 0 if self.is_address else sum(f.stat().st_size for f in project_files(pathlib.Path(self.path)))

    @property
    def row(self) -> tuple[str, str, str]:
        """Content digest of the files."""
        return self.path, self.stamp, self.digest


def from_rows(rows: Iterable[Sequence[str]]) -> list[Origin]:
    """Origins read back from their form in files.

    Raises:
      ValueError: they are something else.
    """
    found = []
    for row in rows:
        if not isinstance(row, (list, tuple)) or len(row) != 3 or not all(isinstance(part, str) for part in row):
            raise ValueError("its list of inputs is damaged")
        found.append(Origin(row[0], row[0], "", row[1], row[2]))
    return found


def save(file: pathlib.Path, found: Sequence[Origin]) -> None:
    """Records the origins that were read, for the next start.

    Raises:
      UserError: the disk is full or not writable.
    """
    rows = [list(origin.row) for origin in found]
    write_json(file, {"origins": rows, "digest": _hash(rows)}, indent=None)


def load(file: pathlib.Path) -> list[Origin]:
    """Origins that an earlier start recorded; empty if unknown or not trustworthy."""
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
        return from_rows(about["origins"]) if about["digest"] == _hash(about["origins"]) else []
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []


def _hash(value: Any) -> str:
    return hashlib.blake2b(repr(value).encode("utf-8", "replace"), digest_size=16).hexdigest()


def stamp_of(path: pathlib.Path) -> str:
    """Size and time of a file, or of a project's files."""
    if path.is_dir():
        return _hash([(f.relative_to(path).as_posix(), stamp_of(f)) for f in project_files(path)])
    about = path.stat()
    return f"{about.st_size}:{about.st_mtime_ns}"


def _digest_of(path: pathlib.Path, tick: Callable[[int], None]) -> str:
    if path.is_dir():
        return _hash([(f.relative_to(path).as_posix(), _digest_of(f, tick)) for f in project_files(path)])
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            tick(len(block))
    return digest.hexdigest()


def identify(
    found: Sequence[Origin], known: Iterable[Origin] = (), tick: Callable[[int], None] = lambda size: None
) -> list[Origin]:
    """Origins with their digests; those with the path, size and time of a known one are not read again.

    Args:
      tick: called with the bytes read, block by block, from several threads.
    """
    before = {origin.path: origin for origin in known}

    def digest(origin: Origin) -> Origin:
        old = before.get(origin.path)
        if origin.digest:
            return origin
        if origin.is_address:
            return dataclasses.replace(origin, digest=_hash(origin.path))
        if old is not None and old.stamp == origin.stamp and old.digest:
            return dataclasses.replace(origin, digest=old.digest)
        return dataclasses.replace(origin, digest=_digest_of(pathlib.Path(origin.path), tick))

    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:  # a future is larger than an origin
        return [one for at in range(0, len(found), _AT_ONCE) for one in pool.map(digest, found[at : at + _AT_ONCE])]


def is_unchanged(origin: Origin) -> bool:
    """Returns whether its size and time are still those found at first."""
    try:
        return origin.is_address or stamp_of(pathlib.Path(origin.path)) == origin.stamp
    except OSError:
        return False


def difference(old: Sequence[Origin], new: Sequence[Origin]) -> str:
    """Difference between the inputs of two runs, as a half-sentence that names the first file; empty if none."""
    before: Mapping[str, Origin] = {origin.address: origin for origin in old}
    now = {origin.address: origin for origin in new}
    for origin in new:
        if origin.address not in before:
            return f"{origin.name} is new"
        if origin.digest != before[origin.address].digest:
            return f"{origin.name} has changed"
    gone = next((origin for origin in old if origin.address not in now), None)
    if gone is not None:
        return f"{gone.address} is gone or no longer named"
    if [origin.address for origin in old] != [origin.address for origin in new]:
        return f"{new[0].name} came later"
    return ""
