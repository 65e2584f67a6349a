"""Reading and writing of JSON files, with errors that name the file."""

import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from kanana_jax.errors import UserError
from kanana_jax.files.whole import whole_file


class _Object(dict):
    """A JSON object from a file; asking for a missing key raises UserError with the file's name."""

    path: pathlib.Path

    def __missing__(self, key: Any) -> Any:
        raise UserError(f"{self.path} lacks '{key}': restore it, or delete it and make it again")


def load_json(path: pathlib.Path, kind: type[Any] = dict) -> Any:
    """Reads a JSON file.

    Args:
      kind: required type of its outermost value: dict, list, or object for any.

    Raises:
      UserError: the file is missing, cannot be read, is empty, truncated or not JSON, or holds another type. The
        returned dict also raises it for a missing key.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: restore it, or let the command that makes the folder finish") from error
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}): fix the file or its permissions") from error
    except (ValueError, RecursionError) as error:
        state = "is empty" if path.stat().st_size == 0 else f"is not whole JSON ({error})"
        raise UserError(f"{path} {state}: restore it, or delete it and make it again") from error
    if not isinstance(value, kind):
        wanted = "list" if kind is list else "object"
        raise UserError(f"{path} contains no JSON {wanted}: restore it, or delete it and make it again")
    if isinstance(value, dict):
        value = _Object(value)
        value.path = path
    return value


def read_json(path: pathlib.Path, kind: type[dict] | type[list] = dict) -> Any:
    """Like `load_json`, but returns None if there is no file."""
    return load_json(path, kind) if path.is_file() else None


def write_json(path: pathlib.Path, value: Any, indent: int | None = 1) -> None:
    """Writes a JSON file completely or not at all.

    Raises:
      UserError: the disk is full or not writable.
    """
    with whole_file(path) as temporary:
        # A path that is not valid UTF-8 contains lone surrogates, which must be escaped.
        text = json.dumps(value, ensure_ascii=False, indent=indent)
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))


def write_lines(path: pathlib.Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Writes JSON lines completely or not at all.

    Raises:
      UserError: the disk is full or not writable.
    """
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", errors="backslashreplace") as stream:
        for line in lines:  # a lone surrogate is escaped
            stream.write(json.dumps(line, ensure_ascii=False) + "\n")
