"""Reading and writing sharded safetensors, one tensor or one layer in memory at a time."""

import contextlib
import pathlib
from collections.abc import Generator
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from kanana_jax.errors import UserError
from kanana_jax.files import load_json, write_json
from kanana_jax.interop.families.family import Tensor

INDEX = "model.safetensors.index.json"


class Reader:
    """Tensors by name over one or many safetensors files; opened lazily, nothing is unpickled.

    Raises:
      UserError: no safetensors, an index that names a missing file, a truncated file.
    """

    def __init__(self, folder: pathlib.Path):
        self.folder = pathlib.Path(folder)
        index = self.folder / INDEX
        if index.is_file():
            self._file_of = load_json(index).get("weight_map")
            if not isinstance(self._file_of, dict) or not all(isinstance(f, str) for f in self._file_of.values()):
                raise UserError(f"{index} is not a safetensors index: fetch the folder again")
            for name in sorted(set(self._file_of.values())):
                if not (self.folder / name).is_file():
                    raise UserError(f"{index} names {name}, which is missing: fetch the folder again")
        else:
            files = sorted(self.folder.glob("*.safetensors"))
            if not files:
                pickled = list(self.folder.glob("*.bin")) + list(self.folder.glob("*.pt"))
                hint = "; pickled weights are never loaded: convert them to safetensors" if pickled else ""
                raise UserError(f"{self.folder} has no .safetensors file{hint}")
            self._file_of = {}
            for file in files:
                with self._open(file.name) as opened:
                    self._file_of |= dict.fromkeys(opened.keys(), file.name)
        self._current: tuple[str, Any] | None = None

    def names(self) -> set[str]:
        return set(self._file_of)

    def dtype(self) -> str:
        """`float32` or `bfloat16`: that of the first tensor."""
        name = min(self._file_of)
        with self._open(self._file_of[name]) as opened:
            return _DTYPES.get(opened.get_slice(name).get_dtype(), "float32")

    def read(self, tensor: Tensor) -> np.ndarray:
        """The tensor in Hugging Face's layout.

        Raises:
          UserError: missing, of another shape, or in a truncated file.
        """
        if tensor.name not in self._file_of:
            raise UserError(f"{self.folder} lacks the tensor {tensor.name} that its config.json asks for")
        file = self._file_of[tensor.name]
        with self._open(file) as opened:
            if tensor.name not in set(opened.keys()):
                raise UserError(f"{self.folder / file} lacks the tensor {tensor.name} that the index places there")
            shape = tuple(opened.get_slice(tensor.name).get_shape())
            if shape != tensor.shape:
                raise UserError(
                    f"{self.folder / file}: {tensor.name} has shape {shape}, its config.json asks for {tensor.shape}"
                )
            return opened.get_tensor(tensor.name)

    @contextlib.contextmanager
    def _open(self, file: str) -> Generator[Any]:
        path = self.folder / file
        try:
            with safe_open(path, framework="numpy") as opened:
                yield opened
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path} is truncated or not a safetensors file ({error}): fetch it again") from error


_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16", "F64": "float64"}


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
        contiguous = {name: np.ascontiguousarray(x) for name, x in tensors.items()}
        try:
            save_file(contiguous, str(self.folder / self.file_name(index)), metadata={"format": "pt"})
        except (SafetensorError, OSError) as error:
            raise UserError(f"cannot write {self.folder / self.file_name(index)} ({error}): free space") from error

    def finish(self) -> None:
        index = {"metadata": {"total_size": self._bytes}, "weight_map": dict(sorted(self._weight_map.items()))}
        write_json(self.folder / INDEX, index)
