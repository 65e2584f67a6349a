"""Transfer of files between buckets and this machine: a bounded cache for reading, and ordered uploads.

    folder = stage_down(path)                    # the path itself if it is local, else a copy in the cache
    upload(folder, path, last=("model.json",))   # files in `last` are written last and mark the folder as complete

The cache is `$KANANA_JAX_CACHE`, else `~/.cache/kanana-jax/buckets`, and holds at most `$KANANA_JAX_CACHE_GB` gigabytes
(default 200); copies that no process uses are evicted, least recently used first. A copy's path contains its address:
`…/gs/BUCKET/NAME`.
"""

import contextlib
import fcntl
import hashlib
import os
import pathlib
import shutil
from collections.abc import Callable, Collection, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

from kanana_jax.errors import UserError
from kanana_jax.files.objects import BucketPath, asking, check_bucket
from kanana_jax.files.places import cache_folder, is_remote

_AT_ONCE = 8
_HELD: dict[tuple[int, str], int] = {}  # (pid, address) → descriptor of the lock that keeps the copy in the cache


def stage_down(path: pathlib.Path, only: Callable[[str], object] | None = None) -> pathlib.Path:
    """A local path with the content of `path`, a file or folder; objects that have not changed are not fetched again.

    The copy is kept as long as this process lives. A folder that is still being written may be incomplete: check first
    that the file that is written last exists.

    Args:
      only: for a folder, decides by name which objects are fetched; others may or may not be in the copy.

    Raises:
      FileNotFoundError: there is nothing at `path`.
      UserError: the content exceeds the cache, or the disk is full; see also `objects.asking`.
    """
    if not is_remote(path):
        return path
    remote = cast(BucketPath, path)
    bucket, key = remote.bucket_and_key
    local = cache_folder() / remote.scheme / bucket / key
    about = remote.info()
    if about is None:
        raise FileNotFoundError(2, os.strerror(2), remote.address)
    single = about["type"] == "file"
    objects = {"": about} if single else {n: v for n, v in remote.objects().items() if only is None or only(n)}
    for name in objects:
        if ".." in name.split("/"):
            raise UserError(f"{remote}/{name} cannot be a file on this machine: rename that object")
    with _held(remote.address):
        wanted = [(n, facts) for n, facts in objects.items() if not _is_current(local / n if n else local, facts)]
        _make_room(sum(int(facts.get("size") or 0) for _, facts in wanted), remote)
        if not single and local.is_dir():
            for file in [f for f in local.rglob("*") if f.is_file()]:
                name = str(file.relative_to(local))
                if name not in objects and (only is None or only(name)):
                    file.unlink()

        def fetch(item: tuple[str, dict[str, Any]]) -> None:
            name, facts = item
            _fetch(remote / name if name else remote, local / name if name else local, facts)

        if not single:
            local.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(fetch, wanted))
        _mark(remote.address).touch()
    return local


def upload(folder: pathlib.Path, path: pathlib.Path, last: Sequence[str] = (), keep: Collection[str] = ()) -> None:
    """Replaces the contents of `path` by a local folder's files.

    Files in `last` are deleted first and written last, in order. A reader who finds the last one therefore finds all
    files, and an interrupted upload leaves a folder without it.

    Args:
      last: files that mark the folder as complete.
      keep: names of existing objects that are kept; all others that the local folder lacks are deleted.

    Raises:
      UserError: see `objects.asking`.
    """
    remote = cast(BucketPath, path)
    names = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
    before = set(remote.objects())
    for name in reversed(last):
        if name in before:
            (remote / name).unlink(missing_ok=True)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(lambda name: upload_file(folder / name, remote / name), [n for n in names if n not in last]))
        list(
            pool.map(lambda name: (remote / name).unlink(missing_ok=True), before - set(names) - set(last) - set(keep))
        )
    for name in last:
        if name in names:
            upload_file(folder / name, remote / name)


def upload_file(file: pathlib.Path, path: pathlib.PurePath) -> None:
    """Uploads a local file to `path`, completely or not at all."""
    remote = cast(BucketPath, path)
    with asking(remote.address, "write"):
        try:
            remote.files.put_file(str(file), remote.address.partition("://")[2])
        except FileNotFoundError:
            check_bucket(remote.address)
            raise


def cache_limit() -> float:
    """Maximum size of the cache in bytes.

    Raises:
      UserError: `KANANA_JAX_CACHE_GB` is not a number.
    """
    text = os.environ.get("KANANA_JAX_CACHE_GB", "200")
    try:
        return float(text) * 1e9
    except ValueError as error:
        raise UserError(f"KANANA_JAX_CACHE_GB = '{text}' is not a number of gigabytes: set it to one") from error


def version_of(facts: dict[str, Any]) -> str:
    """A text that identifies the version of an object's content, from fsspec's metadata."""
    return f"{facts.get('generation') or facts.get('ETag') or facts.get('mtime')} {facts.get('size')}"


def _note(file: pathlib.Path) -> pathlib.Path:
    name = hashlib.blake2b(os.fsencode(file), digest_size=16).hexdigest()
    return cache_folder() / "versions" / name


def _is_current(file: pathlib.Path, facts: dict[str, Any]) -> bool:
    note = _note(file)
    with contextlib.suppress(OSError):
        return file.is_file() and note.read_text(encoding="utf-8") == version_of(facts)
    return False


def _fetch(remote: BucketPath, file: pathlib.Path, facts: dict[str, Any]) -> None:
    partial = file.with_name(f"{file.name}.{os.getpid()}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.is_dir():
            shutil.rmtree(file)
        with asking(remote.address):
            remote.files.get_file(remote.address, str(partial))
        note = _note(file)
        note.parent.mkdir(parents=True, exist_ok=True)
        note.unlink(missing_ok=True)
        os.replace(partial, file)
        note.write_text(version_of(facts), encoding="utf-8")
    finally:
        partial.unlink(missing_ok=True)


def _mark(address: str) -> pathlib.Path:
    name = hashlib.blake2b(address.encode(), digest_size=16).hexdigest()
    return cache_folder() / "held" / name


@contextlib.contextmanager
def _held(address: str) -> Generator[None]:
    """Lets one process at a time fetch an address, and keeps the copy in the cache until this process ends.

    There are two locks: a shared one, which each process holds for its lifetime to keep the copy, and an exclusive one
    for fetching.
    """
    key, mark = (os.getpid(), address), _mark(address)
    turn = cache_folder() / "turns" / mark.name
    try:
        for file in (mark, turn):
            file.parent.mkdir(parents=True, exist_ok=True)
        while True:
            if key not in _HELD:
                _HELD[key] = os.open(mark, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            fcntl.flock(_HELD[key], fcntl.LOCK_SH)
            if mark.exists() and os.path.samestat(os.fstat(_HELD[key]), mark.stat()):
                break
            os.close(_HELD.pop(key))  # a process that made room has deleted it in the meantime
        os.pwrite(_HELD[key], address.encode(), 0)
        descriptor = os.open(turn, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise UserError(f"cannot write {mark.parent} ({error.strerror}): set KANANA_JAX_CACHE to a folder") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _make_room(needed: int, remote: BucketPath) -> None:
    """Deletes copies that no process uses, least recently used first, until `needed` bytes fit."""
    root, limit = cache_folder(), cache_limit()
    used = sum(file.stat().st_size for scheme in ("gs", "s3") for file in (root / scheme).rglob("*") if file.is_file())
    if used + needed > limit:
        with contextlib.ExitStack() as stack:
            free, kept = _unused(root / "held", stack)
            for address in free:
                if used + needed <= limit or any(_within(address, other) or _within(other, address) for other in kept):
                    continue
                scheme, _, rest = address.partition("://")
                copy = root / scheme / rest
                for file in [copy] if copy.is_file() else [file for file in copy.rglob("*") if file.is_file()]:
                    used -= file.stat().st_size
                    _note(file).unlink(missing_ok=True)
                    file.unlink()
                _mark(address).unlink(missing_ok=True)
    if used + needed > limit:
        raise UserError(
            f"{remote} takes {needed / 1e9:.2f} GB more than {root} may hold ({limit / 1e9:g} GB, "
            f"{used / 1e9:.2f} in use): raise KANANA_JAX_CACHE_GB, or mount the bucket"
        )


def _within(address: str, other: str) -> bool:
    return address == other or address.startswith(f"{other}/")


def _unused(folder: pathlib.Path, stack: contextlib.ExitStack) -> tuple[list[str], list[str]]:
    """The addresses that no process uses, least recently used first and locked until `stack` ends, and those in use."""
    free, kept = [], []
    for mark in sorted(folder.iterdir(), key=lambda mark: mark.stat().st_mtime):
        descriptor = os.open(mark, os.O_RDWR | os.O_CLOEXEC)
        stack.callback(os.close, descriptor)
        address = mark.read_text(encoding="utf-8")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free += [address] if address else []
        except BlockingIOError:
            kept.append(address)
    return free, kept
