"""Named arrays in one file that is read without being loaded: safetensors' layout, with a digest of all its bytes.

A single file is replaced atomically, so a concurrent reader sees either the old arrays or the new ones, never a mix.
Layout (https://github.com/huggingface/safetensors#format): 8 bytes for the header's length, the header in JSON, data.
"""

import functools
import hashlib
import json
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from kanana_jax.files import local_copy, whole_file

_DTYPES = {"U8": np.uint8, "U16": np.uint16, "U32": np.uint32, "U64": np.uint64, "I64": np.int64, "F64": np.float64}
_NAMES = {np.dtype(kind): name for name, kind in _DTYPES.items()}
_META, _NO_DIGEST = "__metadata__", "0" * 32
_BLOCK = 1 << 24  # bytes hashed at once
_Reader = TypeVar("_Reader")


def write(path: pathlib.Path, about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """Writes the file atomically; returns its digest. The same contents give the same bytes.

    Args:
      about: further values, JSON-safe.

    Raises:
      UserError: the disk is full or not writable.
    """
    ordered = dict(sorted(arrays.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])))  # keeps all aligned
    header: dict[str, Any] = {_META: {"digest": _NO_DIGEST, "about": json.dumps(about, ensure_ascii=False)}}
    at = 0
    for name, array in ordered.items():
        ends = at + array.nbytes
        header[name] = {"dtype": _NAMES[array.dtype], "shape": list(array.shape), "data_offsets": [at, ends]}
        at = ends
    head = json.dumps(header, ensure_ascii=False).encode()
    head += b" " * (-len(head) % 8)
    size = len(head).to_bytes(8, "little")
    hashed = hashlib.blake2b(size + head, digest_size=16)
    views = [np.ascontiguousarray(array).reshape(-1).view(np.uint8).data for array in ordered.values()]
    for view in views:
        hashed.update(view)
    with whole_file(path) as temporary, temporary.open("wb") as file:
        file.write(size + head.replace(_NO_DIGEST.encode(), hashed.hexdigest().encode(), 1))
        for view in views:
            file.write(view)
    return hashed.hexdigest()


def read(
    path: pathlib.Path, kinds: Mapping[str, tuple[str, int]] | None = None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The stored arrays, memory-mapped and read-only.

    Args:
      kinds: type (`U8` …) and number of axes of each required array.

    Raises:
      OSError: the file cannot be read.
      ValueError: it is not such a file, was changed after it was written, or holds other arrays.
    """
    data = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.zeros(0, np.uint8)
    if len(data) < 8 or int.from_bytes(data[:8].tobytes(), "little") > len(data) - 8:
        raise ValueError("it is truncated or has another format")
    start = 8 + int.from_bytes(data[:8].tobytes(), "little")
    head = data[8:start].tobytes()
    try:
        header = json.loads(head)
        meta = header.pop(_META)
        digest, about = meta["digest"].encode(), json.loads(meta["about"])
        arrays, at = {}, 0
        for name, entry in header.items():
            kind, shape, (begin, end) = np.dtype(_DTYPES[entry["dtype"]]), entry["shape"], entry["data_offsets"]
            if begin != at or end - begin != kind.itemsize * math.prod(shape) or end > len(data) - start:
                raise ValueError("the lengths of its arrays differ from those in its header")
            arrays[name] = data[start + begin : start + end].view(kind).reshape(shape).view(np.ndarray)
            at = end
        if at != len(data) - start:
            raise ValueError("its length differs from the one in its header")
    except (KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise ValueError("its header is broken") from error
    hashed = hashlib.blake2b(data[:8].tobytes() + head.replace(digest, _NO_DIGEST.encode(), 1), digest_size=16)
    for begin in range(start, len(data), _BLOCK):
        hashed.update(data[begin : begin + _BLOCK].data)
    if hashed.hexdigest().encode() != digest:
        raise ValueError("its bytes differ from those that were written")
    if not isinstance(about, dict) or (kinds is not None and kinds_of(arrays) != dict(kinds)):
        raise ValueError("it contains something else")
    return about, arrays


def kinds_of(arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[str, int]]:
    """Type and number of axes of each array, as `read` takes them."""
    return {name: (_NAMES[array.dtype], array.ndim) for name, array in arrays.items()}


def digest_of(path: pathlib.Path) -> str:
    """The digest recorded in a file; empty if it is not such a file."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size)) if size <= path.stat().st_size else {}
        return str(header[_META]["digest"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""


def opened(kind: Callable[[str], _Reader], folder: str, name: str) -> _Reader:
    """`kind(folder)`, made once per process until the bytes of the file `name` in it change.

    A folder in a bucket is staged once per process.
    """
    folder = str(local_copy(folder))
    try:
        about = (pathlib.Path(folder) / name).stat()
    except OSError:
        return kind(folder)
    return _opened(kind, folder, (about.st_ino, about.st_size, about.st_mtime_ns))


@functools.lru_cache(16)
def _opened(kind: Callable[[str], _Reader], folder: str, stamp: tuple[int, ...]) -> _Reader:
    return kind(folder)


def as_bytes(value: Any) -> np.ndarray:
    """JSON as an array, for values too long for `about`."""
    return np.frombuffer(json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace"), np.uint8)


def from_bytes(array: np.ndarray) -> Any:
    """The value of `as_bytes`.

    Raises:
      ValueError: it is not JSON.
    """
    return json.loads(array.tobytes())
