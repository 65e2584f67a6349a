"""A local mirror of a bucket's folder, for jobs that append, sort and rename."""

import contextlib
import pathlib
import shutil
from collections.abc import Generator, Sequence
from typing import Any, cast

from kanana_jax.files.jsons import read_json, write_json
from kanana_jax.files.locks import LOCK, locked
from kanana_jax.files.objects import BucketPath, asking
from kanana_jax.files.places import cache_folder
from kanana_jax.files.staging import upload_file, version_of


@contextlib.contextmanager
def mirrored(path: pathlib.Path, last: Sequence[str] = ()) -> Generator[pathlib.Path]:
    """Holds the lock of a bucket's folder and yields a local copy, which is uploaded at the end.

    The copy is uploaded however the block ends, so that a job that was stopped or has failed can resume on any host. A
    killed job can resume on its own host, where the local folder is kept until it is uploaded; but if another host has
    changed the bucket's folder in the meantime, the local one is discarded.

    Args:
      last: files that record the state of a job; they are deleted first and uploaded last.

    Raises:
      UserError: another process holds the lock, or see `objects.asking`.
    """
    remote = cast(BucketPath, path)
    bucket, key = remote.bucket_and_key
    local = cache_folder() / "mirrors" / remote.scheme / bucket / key / "folder"
    noted = local.with_name("versions.json")
    with locked(local.parent), locked(path):
        _bring_down(remote, local, noted)
        try:
            yield local
        finally:
            _bring_up(local, remote, noted, last)
        shutil.rmtree(local, ignore_errors=True)
        noted.unlink(missing_ok=True)


def _versions(remote: BucketPath) -> dict[str, str]:
    return {name: version_of(facts) for name, facts in remote.objects().items() if name != LOCK}


def _bring_down(remote: BucketPath, local: pathlib.Path, noted: pathlib.Path) -> None:
    there = _versions(remote)
    if not local.is_dir() or read_json(noted) != there:
        shutil.rmtree(local, ignore_errors=True)
        local.mkdir(parents=True)
        for name in there:
            file = local / name
            file.parent.mkdir(parents=True, exist_ok=True)
            with asking(str(remote / name)):
                remote.files.get_file(str(remote / name), str(file))
        write_json(noted, there)


def _bring_up(local: pathlib.Path, remote: BucketPath, noted: pathlib.Path, last: Sequence[str]) -> None:
    there: dict[str, Any] = read_json(noted) or {}
    names = sorted(str(f.relative_to(local)) for f in local.rglob("*") if f.is_file() and f.name != LOCK)
    for name in [*reversed(last), *(name for name in there if name not in names)]:
        if name in there:
            (remote / name).unlink(missing_ok=True)
    for name in [*(name for name in names if name not in last), *(name for name in last if name in names)]:
        upload_file(local / name, remote / name)
    write_json(noted, _versions(remote))
