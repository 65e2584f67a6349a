"""Files and folders that are written whole or not at all."""

import contextlib
import json
import os
import pathlib
import shutil
from collections.abc import Generator
from typing import Any

from kanana_jax.errors import UserError


def load_json(path: pathlib.Path, kind: type[dict] | type[list] = dict) -> Any:
    """A JSON file's value.

    Args:
      kind: what its outermost value must be.

    Raises:
      UserError: the file is missing, cannot be read, is empty, cut off or no JSON, or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: restore it, or let the command that makes the folder finish") from error
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}): fix the file or its permissions") from error
    except (ValueError, RecursionError) as error:
        state = "is empty" if path.stat().st_size == 0 else f"is not whole JSON ({error})"
        raise UserError(f"{path} {state}: restore it, or delete it and make it again") from error
    if not isinstance(value, kind):
        wanted = "list" if kind is list else "object"
        raise UserError(f"{path} holds no JSON {wanted}: restore it, or delete it and make it again")
    return value


def read_json(path: pathlib.Path, kind: type[dict] | type[list] = dict) -> Any:
    """`load_json`, or None where there is no file."""
    return load_json(path, kind) if path.is_file() else None


def write_json(path: pathlib.Path, value: Any, indent: int | None = 1) -> None:
    """Writes a JSON file whole or not at all.

    Raises:
      UserError: the disk is full or not writable.
    """
    with whole_file(path) as temporary:
        # A path whose name is no UTF-8 has lone surrogates, which only an escape can carry.
        text = json.dumps(value, ensure_ascii=False, indent=indent)
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))


@contextlib.contextmanager
def whole_file(path: pathlib.Path) -> Generator[pathlib.Path]:
    """Gives a place to write to, which becomes `path` when the block ends well and else is removed; makes its folder.

    Raises:
      UserError: the disk is full or not writable.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror}): free space or fix the folder") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def whole(path: pathlib.Path) -> Generator[pathlib.Path]:
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
