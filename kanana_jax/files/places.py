"""Conversion of texts to paths: local ones, or addresses in buckets."""

import functools
import os
import pathlib
import re
from typing import cast

from kanana_jax.errors import ConfigError

_SCHEME = re.compile(r"([a-z][a-z0-9+.\-]*):/")
STORES = ("gs", "s3")


def place(text: str | os.PathLike[str]) -> pathlib.Path:
    """The path that a user has named: a `pathlib.Path`, or for `gs://…` and `s3://…` an object with its methods.

    A path in a bucket reads and writes whole objects (`read_text`, `write_bytes`, `open` with `r` or `w`, `stat`,
    `glob`, `iterdir`, `is_file`, `rglob`, `unlink`, `rmtree`); folders need not be created. This function does not
    contact the bucket. Pass `stage_down(path)` to libraries that open files themselves, and never convert a user's text
    with `pathlib.Path`, which turns `gs://b` into `gs:/b`.

    Raises:
      ConfigError: the address has an unknown scheme or does not name an object in a bucket.
    """
    if isinstance(text, pathlib.PurePath):
        return cast(pathlib.Path, text)
    text = os.fspath(text)
    found = _SCHEME.match(text)
    if found is None:
        return pathlib.Path(text)
    if found[1] not in STORES:
        raise ConfigError(
            f"'{text}' is an address of an unknown kind: name a folder or file, gs://BUCKET/… or "
            "s3://BUCKET/… (anything else can be mounted)"
        )
    key = text[found.end() :].lstrip("/")
    if not key or any(part == ".." for part in key.split("/")):
        raise ConfigError(f"'{text}' names no object in a bucket: give {found[1]}://BUCKET/NAME")
    from kanana_jax.files.objects import BucketPath

    return cast(pathlib.Path, BucketPath(f"{found[1]}://{key}"))


def cache_folder() -> pathlib.Path:
    """The local folder for copies of buckets' objects: `$KANANA_JAX_CACHE`, else a folder in the user's cache."""
    given = os.environ.get("KANANA_JAX_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(given) if given else pathlib.Path(base) / "kanana-jax" / "buckets"


def address_of(path: str) -> str:
    """The address in a bucket of a path in the cache, which is the same on any machine; other paths are unchanged."""
    root = f"{_real(cache_folder())}/"
    scheme, _, key = path.removeprefix(root).partition("/") if path.startswith(root) else ("", "", "")
    return f"{scheme}://{key}" if scheme in STORES and key else path


@functools.cache
def _real(folder: pathlib.Path) -> str:
    return os.path.realpath(folder)


def programs_folder() -> pathlib.Path:
    """The local folder for compiled programs of runs whose workdir is in a bucket."""
    return cache_folder() / "compiled"


def is_remote(path: object) -> bool:
    """Whether a path is in a bucket."""
    return isinstance(path, pathlib.PurePath) and not isinstance(path, pathlib.Path) and hasattr(path, "read_bytes")
