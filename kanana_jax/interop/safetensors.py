"""Reading and writing of sharded safetensors, with one tensor or one layer in memory at a time.

The format is described at https://huggingface.co/docs/safetensors. A file's header is checked before anything else is
done with it. Files written here also hold a checksum of each tensor in the header's metadata; other tools ignore it.
"""

import json
import math
import pathlib
from typing import Any, NamedTuple

import ml_dtypes  # noqa: F401  names bfloat16 for NumPy
import numpy as np
from safetensors import SafetensorError, safe_open

from kanana_jax.errors import UserError
from kanana_jax.files import read_part, write_json
from kanana_jax.interop.foreign import parse_object, plain, read_object, short

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
_BITS = {"F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16, "U16": 16}
_BITS |= {"F8_E4M3": 8, "F8_E5M2": 8, "I8": 8, "U8": 8, "BOOL": 8}
_SUMS = "sum64"
_MOST_HEADER = 32 << 20  # bytes; a tensor takes about a hundred


def is_weights(name: str) -> bool:
    """Whether `Reader` may read the file of this name in a folder."""
    return "/" not in name and (name == INDEX or name.endswith(".safetensors"))


class Entry(NamedTuple):
    """A tensor as the header of its file describes it.

    Attributes:
      file: name of the file.
      dtype: safetensors' name of the dtype (`F32`, `BF16`).
      shape: shape of the tensor.
      sum64: checksum of its bytes, see `_sum64`; None in files of other tools.
    """

    file: str
    dtype: str
    shape: tuple[int, ...]
    sum64: int | None


class Reader:
    """Access by name to the tensors of one or more safetensors files; headers are read at once, tensors on demand.

    As in transformers, `model.safetensors` is used alone if it exists, otherwise the files that the index names.
    Nothing is unpickled, and no file outside the folder is read.

    Args:
      only: name of the only file to read; empty: as above.

    Attributes:
      entries: all tensors of the files, by name.

    Raises:
      UserError: there is no safetensors file, the index or a header is damaged, a file is missing or truncated, or a
        tensor is in two files.
    """

    def __init__(self, folder: pathlib.Path, only: str = ""):
        self.folder = folder
        placed = {} if only else self._placed()
        self.entries: dict[str, Entry] = {}
        for file in sorted(set(placed.values())) if placed else [only or SINGLE]:
            for name, entry in _header(self.folder / file).items():
                if name in self.entries:
                    raise UserError(f"{self.folder}: {plain(name)} is both in {self.entries[name].file} and in {file}")
                if placed and name not in placed:
                    raise UserError(f"{self.folder / file} holds the tensor {plain(name)}, which {INDEX} does not name")
                self.entries[name] = entry
        for name, file in placed.items():
            if name not in self.entries or self.entries[name].file != file:
                raise UserError(f"{self.folder / file} lacks the tensor {plain(name)} that the index places there")

    def _placed(self) -> dict[str, str]:
        """The file of each tensor according to the index; empty if there is a single file."""
        index = self.folder / INDEX
        if (self.folder / SINGLE).is_file():
            return {}
        if not index.is_file():
            pickled = [file for kind in ("*.bin", "*.pt", "*.pth") for file in self.folder.glob(kind)]
            hint = "; pickled weights are never loaded: convert them to safetensors" if pickled else ""
            others = any(self.folder.glob("*.safetensors"))
            missing = f"neither {SINGLE} nor {INDEX}: fetch it again" if others else "no .safetensors file"
            raise UserError(f"{self.folder} has {missing}{hint}")
        placed = read_object(index).get("weight_map")
        if not isinstance(placed, dict) or not placed or not all(isinstance(file, str) for file in placed.values()):
            raise UserError(
                f"{index} is not a safetensors index (weight_map is {short(placed)}): fetch the folder again"
            )
        for file in sorted(set(placed.values())):
            if not file or pathlib.PurePath(file).name != file or "\\" in file or "\0" in file or file == "..":
                raise UserError(f"{index} names {short(file)}, which is outside this folder: it is not read")
            if not (self.folder / file).is_file():
                raise UserError(f"{index} names {plain(file)}, which is missing: fetch the folder again")
        return placed

    def read(self, name: str) -> np.ndarray:
        """Reads a tensor, in its own dtype.

        Raises:
          UserError: the file was changed or truncated since its header was read, or the checksum does not match.
        """
        path, noted = self.folder / self.entries[name].file, self.entries[name].sum64
        try:
            with safe_open(path, framework="numpy") as opened:
                value = opened.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise _broken(path, str(error)) from error
        if noted is not None and noted != _sum64(value):
            raise UserError(f"{path}: the bytes of {plain(name)} are not those that were written: fetch it again")
        return value


def _sum64(x: np.ndarray) -> int:
    """A checksum in one pass: the sum of an array's bytes as 64-bit words modulo 2⁶⁴; any changed byte changes it."""
    raw = np.ascontiguousarray(x).reshape(-1).view(np.uint8)
    whole = len(raw) // 8 * 8
    words = raw[:whole].view("<u8").sum(dtype=np.uint64)
    return (int(words) + int.from_bytes(raw[whole:].tobytes(), "little")) % 2**64


def _broken(path: pathlib.Path, what: str) -> UserError:
    reason = " ".join(what.split())[:200]
    return UserError(f"{path} is truncated or not a safetensors file ({reason}): fetch it again")


def _header(path: pathlib.Path) -> dict[str, Entry]:
    """The tensors of a file, checked to cover every byte of its data exactly once.

    Raises:
      UserError: the file is truncated, or its header is invalid.
    """
    try:
        size = path.stat().st_size
        length = int.from_bytes(read_part(path, 0, 8), "little")
        if size < 10 or length > size - 8 or length > _MOST_HEADER:
            raise _broken(path, f"it has {size} bytes, but gives {length} as the size of its header")
        text = read_part(path, 8, length)
    except OSError as error:
        raise _broken(path, error.strerror or str(error)) from error
    tensors = parse_object(text, f"{path}: its header")
    sums = _sums(tensors.pop("__metadata__", None), f"{path}: its sums")
    entries, parts = {}, []
    for name, said in tensors.items():
        entry, part = _entry(path, name, said)
        entries[name] = entry._replace(sum64=sums.get(name))
        parts.append(part)
    end = 0
    for first, last in sorted(parts):
        if first != end:
            raise _broken(path, f"the data of its tensors overlap or leave a gap at byte {end}")
        end = last
    if end != size - 8 - length:
        raise _broken(path, f"its tensors take {end} bytes, but {size - 8 - length} are there")
    return entries


def _sums(metadata: Any, where: str) -> dict[str, int]:
    """The checksums that `save` has recorded, by tensor."""
    text = metadata.get(_SUMS) if isinstance(metadata, dict) else None
    sums = parse_object(text.encode(), where) if isinstance(text, str) else {}
    return {name: value for name, value in sums.items() if type(value) is int}


def _entry(path: pathlib.Path, name: str, said: Any) -> tuple[Entry, tuple[int, int]]:
    wrong = _broken(path, f"its header says {short(said)} of {short(name)}")
    if not isinstance(said, dict) or not isinstance(dtype := said.get("dtype"), str):
        raise wrong
    shape, offsets = (_sizes(said.get(key)) for key in ("shape", "data_offsets"))
    if shape is None or offsets is None or len(offsets) != 2 or len(shape) > 32:
        raise wrong
    first, last = offsets
    if last < first or (dtype in _BITS and (last - first) * 8 != math.prod(shape) * _BITS[dtype]):
        raise _broken(path, f"{short(name)} of shape {short(shape)} cannot be {last - first} bytes of {dtype}")
    return Entry(path.name, dtype, shape, None), (first, last)


def _sizes(value: Any) -> tuple[int, ...] | None:
    """A list of sizes as a tuple; None if the value is anything else."""
    if not isinstance(value, list) or not all(type(n) is int and 0 <= n < 1 << 62 for n in value):
        return None
    return tuple(value)


def save(path: pathlib.Path, tensors: dict[str, np.ndarray]) -> None:
    """Writes a file. The same tensors give the same bytes; the library's metadata order differs between processes."""
    names = {np.dtype(name): key for key, name in DTYPES.items()}
    sums = json.dumps({name: _sum64(x) for name, x in sorted(tensors.items())})
    header: dict[str, Any] = {"__metadata__": {"format": "pt", _SUMS: sums}}
    # Wide dtypes come first, so that each tensor is aligned to its own width.
    order, end = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name)), 0
    for name in order:
        x = tensors[name]
        header[name] = {"dtype": names[x.dtype], "shape": list(x.shape), "data_offsets": [end, end + x.nbytes]}
        end += x.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            file.write(np.ascontiguousarray(tensors[name]).reshape(-1).view(np.uint8).data)


class Writer:
    """Writes one safetensors file per group of tensors, and finally the index.

    Args:
      files: number of groups.
    """

    def __init__(self, folder: pathlib.Path, files: int):
        self.folder, self.files = pathlib.Path(folder), files
        self._weight_map: dict[str, str] = {}
        self._bytes = 0

    def file_name(self, index: int) -> str:
        return f"model-{index + 1:05d}-of-{self.files:05d}.safetensors"

    def record(self, index: int, name: str, nbytes: int) -> None:
        """Records the file of a tensor for the index; every process records all tensors, and writes some."""
        self._weight_map[name] = self.file_name(index)
        self._bytes += nbytes

    def write(self, index: int, tensors: dict[str, np.ndarray]) -> None:
        try:
            save(self.folder / self.file_name(index), tensors)
        except OSError as error:
            raise UserError(f"cannot write {self.folder / self.file_name(index)} ({error}): free space") from error

    def finish(self) -> None:
        index = {"metadata": {"total_size": self._bytes}, "weight_map": dict(sorted(self._weight_map.items()))}
        write_json(self.folder / INDEX, index)
