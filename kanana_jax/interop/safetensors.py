"""Reading and writing sharded safetensors, one tensor or one layer in memory at a time.

The format: https://huggingface.co/docs/safetensors. A file's header is checked before anything is made of it. Ours also
hold a sum of each tensor's bytes, in the part of the header that other tools carry along unread.
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
_MOST_HEADER = 32 << 20  # a tensor takes about a hundred bytes of it


def is_weights(name: str) -> bool:
    """Whether a file of a folder is one that `Reader` may read."""
    return "/" not in name and (name == INDEX or name.endswith(".safetensors"))


class Entry(NamedTuple):
    """A tensor as a header describes it.

    Attributes:
      dtype: safetensors' name.
      sum64: of its bytes, see `_sum64`; None in files of other tools.
    """

    file: str
    dtype: str
    shape: tuple[int, ...]
    sum64: int | None


class Reader:
    """Tensors by name over one or many safetensors files; headers are read at once, tensors when they are asked for.

    As in transformers, `model.safetensors` alone counts where it is there, else the files that the index names. Nothing
    is unpickled, and no file outside of the folder is read.

    Args:
      only: the name of the one file to read, whatever else lies there.

    Attributes:
      entries: every tensor of these files.

    Raises:
      UserError: no safetensors, a broken index or header, a missing or cut file, a tensor in two files.
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
        """The file of each tensor by the index; empty where there is a single file."""
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
        """The tensor.

        Raises:
          UserError: the file was changed, or cut meanwhile.
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
    """The sum of an array's bytes as 64-bit words, modulo 2⁶⁴: one changed byte changes it, and it takes one pass."""
    raw = np.ascontiguousarray(x).reshape(-1).view(np.uint8)
    whole = len(raw) // 8 * 8
    words = raw[:whole].view("<u8").sum(dtype=np.uint64)
    return (int(words) + int.from_bytes(raw[whole:].tobytes(), "little")) % 2**64


def _broken(path: pathlib.Path, what: str) -> UserError:
    reason = " ".join(what.split())[:200]
    return UserError(f"{path} is truncated or not a safetensors file ({reason}): fetch it again")


def _header(path: pathlib.Path) -> dict[str, Entry]:
    """The tensors of a file; every byte of its data belongs to one of them.

    Raises:
      UserError: cut, or no header that this format has.
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
    """The sums that `Writer` has noted, by tensor."""
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
    """A list of sizes as a tuple; None where it is something else."""
    if not isinstance(value, list) or not all(type(n) is int and 0 <= n < 1 << 62 for n in value):
        return None
    return tuple(value)


def save(path: pathlib.Path, tensors: dict[str, np.ndarray]) -> None:
    """Writes a file; the same tensors are the same bytes (the library orders its metadata anew in each process)."""
    names = {np.dtype(name): key for key, name in DTYPES.items()}
    sums = json.dumps({name: _sum64(x) for name, x in sorted(tensors.items())})
    header: dict[str, Any] = {"__metadata__": {"format": "pt", _SUMS: sums}}
    # Wide dtypes first, so that each tensor lies at a multiple of its own width.
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
    """Writes one safetensors file for each group of tensors and the index at the end."""

    def __init__(self, folder: pathlib.Path, files: int):
        self.folder, self.files = pathlib.Path(folder), files
        self._weight_map: dict[str, str] = {}
        self._bytes = 0

    def file_name(self, index: int) -> str:
        return f"model-{index + 1:05d}-of-{self.files:05d}.safetensors"

    def record(self, index: int, name: str, nbytes: int) -> None:
        """Notes where a tensor lies (every process notes all, each writes some)."""
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
