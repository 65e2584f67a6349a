"""A local folder in place of a bucket's, for jobs that append, sort and rename."""

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
    """Holds the lock of a bucket's folder and gives a local one with its content, which is brought back at the end.

    It is brought back however the block ends: a job that was stopped or has failed is resumed from there on any host,
    and one that was killed on the host where it ran, whose folder stays until it was brought back. Where the bucket's
    folder was changed meanwhile by another host, that one counts.

    Args:
      last: files that say what state a job is in; they are deleted first and written last.
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
