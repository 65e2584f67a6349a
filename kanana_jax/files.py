"""Files that are written whole or not at all."""

import json
import os
import pathlib
from typing import Any

from kanana_jax.errors import UserError


def write_json(path: pathlib.Path, value: Any, indent: int | None = 1) -> None:
    """Writes a JSON file whole or not at all.

    Raises:
      UserError: the disk is full or not writable.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        temporary.write_text(json.dumps(value, ensure_ascii=False, indent=indent), encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror}): free space or fix the folder") from error
