"""Checked access to the weights of a model folder: the one place that decides whether they match its config.json."""

import pathlib
import re
from typing import Any

import ml_dtypes
import numpy as np

from kanana_jax.errors import UserError
from kanana_jax.files import stage_down
from kanana_jax.interop.families.family import Family
from kanana_jax.interop.families.names import Tensor
from kanana_jax.interop.foreign import plain
from kanana_jax.interop.safetensors import DTYPES, Reader, is_weights
from kanana_jax.models.architecture import Architecture
from kanana_jax.models.transformer import Params

NUMPY = {
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
}
_EMBEDDING, _OUTPUT = "model.embed_tokens.weight", "lm_head.weight"
# The head of a reward model, `[1, D]`, under the name that classes for sequence classification use.
HEAD = "score.weight"
# Masks of the exponent bits, which are all set in NaN and infinity.
_EXPONENTS = {"float32": np.uint32(0x7F800000), "bfloat16": np.uint16(0x7F80), "float16": np.uint16(0x7C00)}
_AT_ONCE = 1 << 20
# Early versions of transformers wrote these; they follow from config.json and no version reads them.
_DERIVED = re.compile(r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq")


class Weights:
    """Checked weights: exactly the tensors of the architecture, each with its shape and a floating-point dtype.

    A folder that would not compute the logits of its `config.json` is refused, whatever the caller wants to do with it:
    quantised weights and their scales, unexpected biases, adapters, surplus layers, or an output matrix that is tied to
    the embedding and yet differs from it.

    `read` accepts the tensors of any family: a parameter has the same layout in all families, only its name differs.

    Args:
      headers_only: for a folder in a bucket, whether to fetch only the headers of its files; `read` then fails.

    Attributes:
      dtype: `float32`, `bfloat16` or `float16`; float32 if the tensors have different dtypes.
      skipped: number of tensors that are ignored because they belong to other parts, such as a vision tower.
      has_head: whether it is a reward model.

    Raises:
      UserError: a check fails; the message names the tensor.
    """

    def __init__(self, path: pathlib.Path, architecture: Architecture, family: Family, headers_only: bool = False):
        self.path, self.architecture, self._family = path, architecture, family
        if (path / "adapter_config.json").is_file():
            raise UserError(
                f"{path} holds an adapter (adapter_config.json): merge it into the weights, or move it away"
            )
        self._reader = Reader(path if headers_only else stage_down(path, is_weights))
        self._places = self._named()
        self.skipped = len(self._reader.entries) - len(self._places)
        entries = {name: self._reader.entries[place] for name, place in self._places.items()}
        # If only the output matrix is stored, transformers ties the embedding to it.
        self._swapped = architecture.tied_embeddings and _EMBEDDING not in entries and _OUTPUT in entries
        found = set()
        for group in family.groups(architecture):  # fails at the first missing tensor, however many config.json claims
            found |= {self._checked(tensor) for tensor in group}
        self._twice = architecture.tied_embeddings and not self._swapped and _OUTPUT in entries
        if self._twice and entries[_OUTPUT][1:3] != entries[_EMBEDDING][1:3]:
            raise self._tied_to_another()
        self.has_head = HEAD in entries
        if self.has_head and entries[HEAD].shape != (1, architecture.embed_dim):
            raise UserError(
                f"{path}: {HEAD} has shape {entries[HEAD].shape}: a reward model gives one number, {HEAD} is of shape "
                f"(1, {architecture.embed_dim})"
            )
        known = found | ({_OUTPUT} if self._twice else set()) | ({HEAD} if self.has_head else set())
        foreign = sorted(name for name in entries.keys() - known if not _DERIVED.fullmatch(name))
        if foreign:
            raise UserError(
                f"{path} holds the tensor {plain(foreign[0])}, for which {family.class_name} with this "
                "config.json has no place"
            )
        kinds = {DTYPES[entries[name].dtype] for name in found}
        self.dtype = kinds.pop() if len(kinds) == 1 else "float32"

    def _named(self) -> dict[str, str]:
        """A map from the family's names of the text model's tensors to the names on disk."""
        found: dict[str, str] = {}
        for place in self._reader.entries:
            if place.startswith(self._family.skipped):
                continue
            old, new = next((pair for pair in self._family.aliases if place.startswith(pair[0])), ("", ""))
            name = new + place[len(old) :]
            if name in found:
                raise UserError(f"{self.path} holds both {plain(found[name])} and {plain(place)}: remove one")
            found[name] = place
        return found

    def _checked(self, tensor: Tensor) -> str:
        """Checks a tensor's shape and dtype, and returns the family's name for it."""
        name = self._name(tensor)
        entry = self._reader.entries.get(self._places.get(name, ""))
        if entry is None:
            raise UserError(f"{self.path} lacks the tensor {name} that its config.json asks for")
        if entry.shape != tensor.shape:
            raise UserError(
                f"{self.path / entry.file}: {name} has shape {entry.shape}, its config.json asks for {tensor.shape}"
            )
        if entry.dtype not in DTYPES:
            raise UserError(
                f"{self.path / entry.file}: {name} is of dtype {entry.dtype}, as quantised weights are: fetch or write "
                "the model in float32, bfloat16 or float16"
            )
        return name

    def _name(self, tensor: Tensor) -> str:
        name = self._family.name(tensor)
        return _OUTPUT if self._swapped and name == _EMBEDDING else name

    def read(self, tensor: Tensor) -> np.ndarray:
        """Reads a tensor, in Hugging Face's layout.

        Raises:
          UserError: the file was changed since it was opened, a value is not finite, or the output matrix differs from
            the embedding that it is tied to.
        """
        value = self._read(self._name(tensor))
        if self._twice and tensor.name == _EMBEDDING:
            other = self._reader.read(self._places[_OUTPUT])
            if not np.array_equal(value.view(np.uint8), other.view(np.uint8)):
                raise self._tied_to_another()
        return value

    def head(self) -> np.ndarray:
        """The head of a reward model, `[1, D]`.

        Raises:
          UserError: there is no head, or see `read`.
        """
        if not self.has_head:
            raise UserError(
                f"{self.path} is not a reward model: it holds no tensor {HEAD} (stages of kind 'reward' write it)"
            )
        return self._read(HEAD)

    def _read(self, name: str) -> np.ndarray:
        value = self._reader.read(self._places[name])
        if not _finite(value):
            file = self.path / self._reader.entries[self._places[name]].file
            raise UserError(
                f"{file}: {name} holds NaN or infinite values: fetch it again, or take an earlier checkpoint"
            )
        return value

    def _tied_to_another(self) -> UserError:
        return UserError(
            f"{self.path}: config.json ties {_EMBEDDING} and {_OUTPUT}, but both are there and differ: set "
            "tie_word_embeddings to false, or remove the wrong one"
        )

    def outer(self) -> Params:
        """Embedding, final norm and (untied) output matrix, as NumPy arrays in the folder's dtype."""
        return self._group(self._family.outer_tensors(self.architecture))

    def layer(self, layer: int) -> Params:
        """One block without the layer axis, as NumPy arrays in the folder's dtype."""
        return self._group(self._family.layer_tensors(self.architecture, layer))["blocks"]

    def _group(self, tensors: list[Tensor]) -> Params:
        params: Params = {}
        for tensor in tensors:
            put(params, tensor.path, tensor.to_ours(self.read(tensor)))
        return params


def has_output(path: pathlib.Path, architecture: Architecture) -> bool:
    """Whether a folder has the output matrix that its architecture needs; embedding models are stored without it."""
    return architecture.tied_embeddings or any(name.endswith(_OUTPUT) for name in Reader(path).entries)


def _finite(x: np.ndarray) -> bool:
    """Whether all values are finite; checked in parts to save memory, since an embedding can be a third of a model."""
    bits = _EXPONENTS[x.dtype.name]
    flat = np.ascontiguousarray(x).reshape(-1).view(bits.dtype)
    return not any(((flat[i : i + _AT_ONCE] & bits) == bits).any() for i in range(0, len(flat), _AT_ONCE))


def at(tree: Any, path: tuple[str, ...]) -> Any:
    """The leaf of a nested dict at a path of keys."""
    for key in path:
        tree = tree[key]
    return tree


def put(tree: Any, path: tuple[str, ...], value: Any) -> None:
    """Sets the leaf of a nested dict at a path of keys, creating the dicts on the way."""
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = value
