"""Paths in buckets: subclasses of `etils.epath` over gcsfs and s3fs, with time limits and clear errors.

epath itself would use TensorFlow if it is installed, and pass on each library's own errors. Here only fsspec is used,
and listings are not cached, so that objects written by other hosts are seen.
"""

import contextlib
import datetime
import errno
import functools
import io
import logging
import os
import posixpath
import types
from collections.abc import Generator, Iterator
from typing import Any, NamedTuple

from etils.epath.gpath import PosixGPath

from kanana_jax.errors import UserError, install

# Time limits of a silent request, in seconds; both libraries retry a failing one 6 or 8 times within half a minute.
CONNECT_S, READ_S = 10, 60
_SIGN_IN = {"gs": "gcloud auth application-default login", "s3": "aws configure"}
_PACKAGES = {"gs": "gcsfs", "s3": "s3fs"}


# Orbax and JAX use epath too, which would import TensorFlow if it is installed; that takes seconds.
os.environ.setdefault("EPATH_USE_TF", "false")


class Stat(NamedTuple):
    """Attributes of an object, as far as stores have them."""

    st_size: int
    st_mtime: float
    is_directory: bool

    @property
    def st_mtime_ns(self) -> int:
        return int(self.st_mtime * 1e9)


def file_system(scheme: str) -> Any:
    """The fsspec file system for `gs` or `s3`, for this thread.

    Raises:
      UserError: the package gcsfs or s3fs is not installed.
    """
    try:
        if scheme == "gs":
            # Otherwise gcsfs asks for credentials of another service at every start.
            os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
            import aiohttp
            import gcsfs

            logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # it would log tracebacks in addition to our message
            limits = aiohttp.ClientTimeout(sock_connect=CONNECT_S, sock_read=READ_S)
            return gcsfs.GCSFileSystem(requests_timeout=limits, use_listings_cache=False)
        import s3fs

        limits = {"connect_timeout": CONNECT_S, "read_timeout": READ_S, "retries": {"total_max_attempts": 4}}
        files = s3fs.S3FileSystem(config_kwargs=limits, use_listings_cache=False)
        files.retries = 2  # each with botocore's 4 attempts
        return files
    except ImportError as error:
        raise UserError(f"{scheme}:// needs the package {_PACKAGES[scheme]}: {install('cloud')}") from error


@contextlib.contextmanager
def asking(address: str, verb: str = "read") -> Generator[None]:
    """Converts errors of a store's libraries to the errors below; use it around every call of them.

    Args:
      verb: what the block does with `address`, for the message.

    Raises:
      FileNotFoundError, FileExistsError: as on a disk.
      UserError: there is no such bucket, no permission, or no answer after all attempts.
    """
    try:
        yield
    except (UserError, FileExistsError, IsADirectoryError, NotADirectoryError):
        raise
    except FileNotFoundError as error:
        check_bucket(address)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), address) from error
    except Exception as error:
        raise explained(address, verb, error) from error


def explained(address: str, verb: str, error: Exception) -> UserError:
    """The UserError for an error of a store's library."""
    scheme, reason = address.partition(":")[0], (str(error).strip().splitlines() or [""])[0][:200]
    name = type(error).__name__
    refused = isinstance(error, PermissionError) or reason.startswith("Forbidden")
    signed_out = "Credentials" in name or "Credentials" in reason or name in ("RefreshError", "TokenRetrievalError")
    if refused or signed_out or getattr(error, "code", None) in (401, 403):
        return UserError(
            f"no permission to {verb} {address} ({reason or name}): sign in (`{_SIGN_IN[scheme]}`), or give this "
            "account the permission"
        )
    return UserError(
        f"cannot {verb} {address} ({name}{': ' if reason else ''}{reason}): all attempts have failed: check that "
        "the store can be reached, then run the command again"
    )


def check_bucket(address: str) -> None:
    """Checks that a bucket exists, once per process, since a missing bucket looks like a missing object.

    Raises:
      UserError: the bucket does not exist or cannot be listed.
    """
    scheme, _, rest = address.partition("://")
    _is_there(os.getpid(), scheme, rest.partition("/")[0])


@functools.cache
def _is_there(pid: int, scheme: str, bucket: str) -> None:
    files = file_system(scheme)
    try:
        if scheme == "gs":
            files.call("GET", "b/{}/o", bucket, maxResults=1, json_out=True)
        else:
            files.call_s3("list_objects_v2", Bucket=bucket, MaxKeys=1)
    except FileNotFoundError as error:
        raise UserError(f"there is no bucket {scheme}://{bucket}: check its name, or create it") from error
    except Exception as error:
        raise explained(f"{scheme}://{bucket}", "list", error) from error


class BucketPath(PosixGPath):
    """A path at `gs://` or `s3://` with the methods of `pathlib.Path`; see `files.place`."""

    @property
    def address(self) -> str:
        return os.fspath(self)

    @property
    def scheme(self) -> str:
        return self.address.partition(":")[0]

    @property
    def bucket_and_key(self) -> tuple[str, str]:
        bucket, _, key = self.address.partition("://")[2].partition("/")
        return bucket, key

    @property
    def files(self) -> Any:
        return file_system(self.scheme)

    def with_segments(self, *parts: Any) -> "BucketPath":
        return type(self)(*parts)

    def info(self) -> dict[str, Any] | None:
        """fsspec's metadata of an object or folder; None if there is neither."""
        try:
            with asking(self.address):
                return self.files.info(self.address)
        except FileNotFoundError:
            return None

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        return self.info() is not None

    def is_file(self) -> bool:
        found = self.info()
        return found is not None and found["type"] == "file"

    def is_dir(self) -> bool:
        found = self.info()
        return found is not None and found["type"] == "directory"

    def is_symlink(self) -> bool:
        return False

    def stat(self, *, follow_symlinks: bool = True) -> Any:
        """The object's attributes as a `Stat`."""
        found = self.info()
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.address)
        when = found.get("mtime") or found.get("LastModified")
        seconds = when.timestamp() if isinstance(when, datetime.datetime) else float(when or 0)
        return Stat(int(found.get("size") or 0), seconds, found["type"] == "directory")

    def entries(self) -> dict[str, dict[str, Any]]:
        """The direct contents of a folder, by name, with fsspec's metadata, sorted by name."""
        with asking(self.address, "list"):
            found = self.files.ls(self.address, detail=True)
        own = self.address.partition("://")[2].rstrip("/")
        named = {v["name"].rstrip("/"): v for v in found}
        return {posixpath.basename(name): v for name, v in sorted(named.items()) if name != own}

    def iterdir(self) -> Iterator["BucketPath"]:
        yield from (self / name for name in self.entries())

    def glob(self, pattern: str) -> Iterator["BucketPath"]:
        with asking(self.address, "list"):
            names = self.files.glob(posixpath.join(self.address, pattern))
        yield from (type(self)(f"{self.scheme}://{name}") for name in sorted(names))

    def rglob(self, pattern: str) -> Iterator["BucketPath"]:
        return self.glob(f"**/{pattern}")

    def objects(self) -> dict[str, dict[str, Any]]:
        """All objects in a folder and its subfolders, by relative name, with fsspec's metadata."""
        with asking(self.address, "list"):
            found = self.files.find(self.address, detail=True)
        above = self.address.partition("://")[2].rstrip("/") + "/"
        # An object whose name ends in a slash marks a folder.
        return {n.removeprefix(above): v for n, v in sorted(found.items()) if n.startswith(above) and n[-1] != "/"}

    def mkdir(self, mode: int | None = None, parents: bool = False, exist_ok: bool = False) -> None:
        """Does nothing: a folder exists as long as there is an object in it."""

    def rmdir(self) -> None:
        """Does nothing, as `mkdir`."""

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            with asking(self.address, "delete"):
                self.files.rm_file(self.address.partition("://")[2])
        except FileNotFoundError:
            if not missing_ok:
                raise

    def rmtree(self, missing_ok: bool = False) -> None:
        missing = contextlib.suppress(FileNotFoundError) if missing_ok else contextlib.nullcontext()
        with missing, asking(self.address, "delete"):
            self.files.rm(self.address, recursive=True)

    def read_bytes(self) -> bytes:
        with asking(self.address):
            return self.files.cat_file(self.address)

    def read_part(self, start: int, size: int) -> bytes:
        """`size` bytes from byte `start`, fewer at the end of the object."""
        with asking(self.address):
            return self.files.cat_file(self.address, start=start, end=start + size)

    def read_text(self, encoding: str | None = None, errors: str | None = None) -> str:
        return self.read_bytes().decode(encoding or "utf-8", errors or "strict")

    def write_bytes(self, data: Any) -> int:
        with asking(self.address, "write"):
            try:
                self.files.pipe_file(self.address.partition("://")[2], bytes(data))
            except FileNotFoundError:
                check_bucket(self.address)
                raise
        return len(data)

    def write_text(
        self, data: str, encoding: str | None = None, errors: str | None = None, newline: str | None = None
    ) -> int:
        return self.write_bytes(data.encode(encoding or "utf-8", errors or "strict"))

    def open(self, mode: str = "r", buffering: int = -1, encoding: str | None = None, **rest: Any) -> Any:
        """Opens an object as a file: it is read immediately, or written when the file is closed without an error."""
        kind = mode.replace("b", "").replace("t", "")
        if kind not in ("r", "w"):
            raise io.UnsupportedOperation(f"{self.address}: an object is written whole, not opened with mode '{mode}'")
        raw: io.BytesIO = io.BytesIO(self.read_bytes()) if kind == "r" else _Written(self)
        return raw if "b" in mode else _Text(raw, encoding=encoding or "utf-8", **rest)

    def rename(self, target: Any) -> "BucketPath":
        return self.replace(target)

    def replace(self, target: Any) -> "BucketPath":
        """Copies an object and deletes the original; not atomic, since stores have no such operation."""
        target = type(self)(target)
        with asking(self.address, "move"):
            self.files.mv(self.address, target.address, recursive=self.is_dir())
        return target

    def resolve(self, strict: bool = False) -> "BucketPath":
        bucket, key = self.bucket_and_key
        key = posixpath.normpath("/" + key).lstrip("/")
        return type(self)(f"{self.scheme}://{bucket}/{key}".rstrip("/"))

    def absolute(self) -> "BucketPath":
        return self

    def expanduser(self) -> "BucketPath":
        return self

    def samefile(self, other: Any) -> bool:
        return os.fspath(other) == self.address

    def __reduce__(self) -> Any:
        return type(self), (self.address,)


class _Written(io.BytesIO):
    """A buffer that is written to an object when it is closed, unless the block that filled it has failed."""

    def __init__(self, path: BucketPath):
        super().__init__()
        self._path, self.failed = path, False

    def __exit__(self, exc_type: Any, exc_val: Any, exc_tb: types.TracebackType | None) -> None:
        self.failed |= exc_type is not None
        super().__exit__(exc_type, exc_val, exc_tb)

    def close(self) -> None:
        if not self.closed:
            data, failed = self.getvalue(), self.failed
            super().close()
            if not failed:
                self._path.write_bytes(data)


class _Text(io.TextIOWrapper):
    def __exit__(self, exc_type: Any, exc_val: Any, exc_tb: types.TracebackType | None) -> None:
        if exc_type is not None and isinstance(self.buffer, _Written):
            self.buffer.failed = True
        super().__exit__(exc_type, exc_val, exc_tb)


class Version(NamedTuple):
    """An object's content and the mark of its version: the generation in `gs://`, the ETag in `s3://`."""

    content: bytes
    mark: str


def read_version(path: BucketPath) -> Version | None:
    """Reads an object's content and mark; None if it does not exist."""
    bucket, key = path.bucket_and_key
    try:
        with asking(path.address):
            if path.scheme == "gs":
                # The mark is read first: if the content changes in between, a write that expects this mark fails.
                mark = path.files.call("GET", "b/{}/o/{}", bucket, key, json_out=True)["generation"]
                return Version(path.files.cat_file(path.address), str(mark))
            from fsspec.asyn import sync

            answer = path.files.call_s3("get_object", Bucket=bucket, Key=key)
            return Version(sync(path.files.loop, answer["Body"].read), answer["ETag"])
    except FileNotFoundError:
        return None


def write_if(path: BucketPath, content: bytes, mark: str | None) -> str | None:
    """Writes a small object atomically, on the condition that its current version is known.

    Args:
      mark: the mark that the object must have; None: it must not exist.

    Returns:
      The new mark; None if another process was faster.
    """
    bucket, key = path.bucket_and_key
    try:
        with asking(path.address, "write"):
            if path.scheme == "gs":
                answer = path.files.call(
                    "POST",
                    f"{path.files._location}/upload/storage/v1/b/{bucket}/o",
                    uploadType="media",
                    name=key,
                    ifGenerationMatch=mark or "0",
                    data=content,
                    headers={"Content-Type": "application/octet-stream"},
                    json_out=True,
                )
                return str(answer["generation"])
            condition = {"IfMatch": mark} if mark else {"IfNoneMatch": "*"}
            try:
                return path.files.call_s3("put_object", Bucket=bucket, Key=key, Body=content, **condition)["ETag"]
            except OSError as error:
                cause = getattr(error.__cause__, "response", None) or {}
                if cause.get("Error", {}).get("Code") in ("PreconditionFailed", "ConditionalRequestConflict", "412"):
                    raise FileExistsError(path.address) from error
                raise
    except (FileExistsError, FileNotFoundError):
        # An earlier attempt may have succeeded although its answer was lost.
        now = read_version(path)
        return now.mark if now is not None and now.content == content else None
