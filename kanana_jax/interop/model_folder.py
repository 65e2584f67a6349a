"""A model on disk: a Hugging Face folder (`families/`), and beside it `model.json` with its history.

A stage's result can so be loaded by any tool of that world as it stands; ours read the same files.

    config.json · model-*.safetensors · model.safetensors.index.json · tokenizer files · model.json
"""

import dataclasses
import hashlib
import json
import math
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import jax
import ml_dtypes
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from kanana_jax.data.tokens import conversion
from kanana_jax.data.tokens import tokenizer as tokenizer_files
from kanana_jax.errors import ConfigError, UserError
from kanana_jax.files import load_json, read_json, whole, write_json
from kanana_jax.interop import families
from kanana_jax.interop.card import CARD, Card, card
from kanana_jax.interop.families.family import Tensor
from kanana_jax.interop.safetensors import Reader, Writer
from kanana_jax.models import transformer
from kanana_jax.models.architecture import Architecture, Runtime
from kanana_jax.parallel import multihost
from kanana_jax.parallel.sharding import tree_shardings

_NUMPY = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}


@dataclasses.dataclass(frozen=True)
class ModelFolder:
    """A found model.

    Attributes:
      path: the folder that holds config.json.
      architecture: from config.json.
      card: model.json, or {} for a foreign folder.
    """

    path: pathlib.Path
    architecture: Architecture
    card: Card


def find(path: str | pathlib.Path) -> ModelFolder:
    """The model at `path`: a model folder, a stage folder (its `model/`), or a Hugging Face folder.

    Raises:
      UserError: nothing there, an unfinished stage, or a model of no known family.
    """
    path = pathlib.Path(path)
    if (path / "model" / "config.json").is_file():
        path = path / "model"
    file = path / "config.json"
    if (path / "checkpoints").is_dir() and not file.is_file():
        raise UserError(f"stage {path} has no model yet: let 'kanana run' finish it")
    if not file.is_file():
        raise UserError(f"{path} is not a model: it has no config.json (give a model, stage or Hugging Face folder)")
    config = load_json(file)
    if "config" in config:
        raise UserError(f"{path} is a workdir, not a model: name one of its stages, as {path}/STAGE")
    card: Card = read_json(path / CARD) or {}
    return ModelFolder(path, families.from_config(config, str(file)), card)


def fingerprint(folder: ModelFolder) -> str:
    """A hash of architecture and weights, the same however the weights lie in files; reads all of them."""
    reader = Reader(folder.path)
    digest = hashlib.blake2b(json.dumps(folder.architecture.to_dict(), sort_keys=True).encode(), digest_size=16)
    for group in families.family_of(folder.architecture).groups(folder.architecture):
        for tensor in group:
            value = np.ascontiguousarray(reader.read(tensor))
            digest.update(f"{tensor.name} {value.dtype} {value.shape}".encode())
            digest.update(value.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def lineage(folder: ModelFolder) -> Iterator[ModelFolder]:
    """The model and those that it was made from, as far as their folders are there, the nearest first.

    Raises:
      UserError: a model is its own ancestor.
    """
    seen: set[pathlib.Path] = set()
    while True:
        if folder.path.resolve() in seen:
            raise UserError(f"{folder.path / CARD}: the model is its own ancestor: mend 'parent' there")
        seen.add(folder.path.resolve())
        yield folder
        parent = folder.card.get("parent")
        # Relative to the model; older ones to the folder that `kanana` was called in.
        places = [folder.path / parent, pathlib.Path(parent)] if parent else []
        there = next((place for place in places if (place / "config.json").is_file()), None)
        if there is None:
            return
        folder = find(there)


def load_params(folder: ModelFolder, runtime: Runtime, mesh: Mesh) -> transformer.Params:
    """Parameters on the mesh, in `runtime.param_dtype`; each host reads each tensor once."""
    a = folder.architecture
    dtype = _NUMPY[runtime.param_dtype]
    shapes = transformer.abstract_params(a, runtime)
    shardings = tree_shardings(mesh, transformer.logical_axes(a))
    reader = Reader(folder.path)
    pieces: dict[tuple[str, ...], dict[Any, np.ndarray]] = {}
    for group in families.family_of(a).groups(a):
        for tensor in group:
            shape, sharding = _at(shapes, tensor.path).shape, _at(shardings, tensor.path)
            index_of = sharding.addressable_devices_indices_map(shape)
            value = tensor.to_ours(reader.read(tensor))
            parts = pieces.setdefault(tensor.path, {})
            for device, index in index_of.items():
                if tensor.layer is None:
                    parts[device] = value[index].astype(dtype)
                    continue
                if device not in parts:
                    local = sharding.shard_shape(shape)
                    parts[device] = np.empty(local, dtype)
                parts[device][tensor.layer] = value[index[1:]]
    params: transformer.Params = {}
    for path in list(pieces):
        parts = pieces.pop(path)
        shape, sharding = _at(shapes, path).shape, _at(shardings, path)
        arrays = [jax.device_put(x, device) for device, x in parts.items()]
        _set(params, path, jax.make_array_from_single_device_arrays(shape, sharding, arrays))
    return params


def write(
    folder: pathlib.Path,
    a: Architecture,
    params: transformer.Params,
    card: Card,
    tokenizer: pathlib.Path | None,
    special: dict[str, int | None],
) -> None:
    """Writes a model folder whole or not at all; every process calls it, layers are shared out.

    Args:
      folder: the result; replaced if it exists.
      a, params: the model; parameters may be sharded over hosts.
      card: `model.json`.
      tokenizer: a folder whose tokenizer files are carried along.
      special: bos_token_id, eos_token_id, pad_token_id for config.json.
    """
    dtype = str(jax.tree.leaves(params)[0].dtype)

    def tensors(index: int, mine: bool) -> dict[str, np.ndarray]:
        del mine  # arrays that are cut over hosts are brought together by all of them
        found = {}
        for tensor in _group(a, index):
            leaf = _at(params, tensor.path)
            found[tensor.name] = tensor.to_theirs(_on_host(leaf if tensor.layer is None else leaf[tensor.layer]))
        return found

    _write_folder(folder, a, dtype, tensors, card, tokenizer, special)


def write_layers(
    folder: pathlib.Path,
    a: Architecture,
    outer: Callable[[], transformer.Params],
    layer: Callable[[int], transformer.Params],
    card: Card,
    parent: ModelFolder,
) -> None:
    """As `write`, for a model that is made layer by layer; a process asks only for the layers that it writes.

    Args:
      outer: makes everything but the blocks; NumPy arrays.
      layer: makes block `i`, not stacked.
      parent: whose dtype, tokenizer and special tokens are carried along.
    """
    dtype = Reader(parent.path).dtype()

    def tensors(index: int, mine: bool) -> dict[str, np.ndarray]:
        if not mine:
            return {}
        made = {"blocks": layer(index - 1)} if index else outer()
        return {
            tensor.name: tensor.to_theirs(np.asarray(_at(made, tensor.path)).astype(_NUMPY[dtype], copy=False))
            for tensor in _group(a, index)
        }

    config = load_json(parent.path / "config.json")
    special = {k: v for k, v in config.items() if k.endswith("_token_id")}
    _write_folder(folder, a, dtype, tensors, card, parent.path, special)


def read_outer(folder: ModelFolder) -> transformer.Params:
    """Embedding, final norm and output matrix, NumPy arrays in the folder's dtype."""
    return _read_group(folder, 0)


def read_layer(folder: ModelFolder, layer: int) -> transformer.Params:
    """One block, not stacked, NumPy arrays in the folder's dtype."""
    return _read_group(folder, layer + 1)["blocks"]


def _read_group(folder: ModelFolder, index: int) -> transformer.Params:
    reader, params = Reader(folder.path), {}
    for tensor in _group(folder.architecture, index):
        _set(params, tensor.path, tensor.to_ours(reader.read(tensor)))
    return params


def _group(a: Architecture, index: int) -> list[Tensor]:
    """The contents of file `index`: the outer tensors, then a layer in each."""
    family = families.family_of(a)
    return family.layer_tensors(a, index - 1) if index else family.outer_tensors(a)


def _write_folder(
    folder: pathlib.Path,
    a: Architecture,
    dtype: str,
    tensors: Callable[[int, bool], dict[str, np.ndarray]],
    card: Card,
    tokenizer: pathlib.Path | None,
    special: dict[str, int | None],
) -> None:
    """Writes `tensors(index, mine)` of every group; those that are not this process's are dropped."""
    partial = folder.with_name(folder.name + ".partial")
    first = jax.process_index() == 0
    if first:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    multihost.barrier("model folder begun")
    writer = Writer(partial, a.num_layers + 1)
    for index in range(a.num_layers + 1):
        for tensor in _group(a, index):
            writer.record(index, tensor.name, math.prod(tensor.shape) * _NUMPY[dtype].itemsize)
        mine = index % jax.process_count() == jax.process_index()
        found = tensors(index, mine)
        if mine:
            writer.write(index, found)
    if first:
        writer.finish()
        write_json(partial / "config.json", families.family_of(a).to_config(a, dtype, special))
        if tokenizer is not None:
            copy_tokenizer(tokenizer, partial)
        write_json(partial / CARD, card)
    multihost.barrier("model folder written")
    if first:
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(partial, folder)
    multihost.barrier("model folder in place")


def transfer(source: pathlib.Path, destination: pathlib.Path, *, keep_card: bool) -> ModelFolder:
    """Streams a model from one folder to another, checking every tensor against the architecture.

    Import (`keep_card=True`) writes `model.json` beside the weights; export leaves it out. Memory is
    one layer.

    Raises:
      UserError: anything missing, truncated, or of another shape; `destination` is then untouched.
    """
    found = find(source)
    if destination.exists() and any(destination.iterdir()):
        raise ConfigError(f"{destination} exists and is not empty: name another folder")
    reader, family = Reader(found.path), families.family_of(found.architecture)
    known = {tensor.name for group in family.groups(found.architecture) for tensor in group}
    foreign = sorted(n for n in reader.names() - known if not n.endswith("rotary_emb.inv_freq"))
    if found.architecture.tied_embeddings:
        foreign = [n for n in foreign if n != "lm_head.weight"]
    if foreign:
        raise UserError(f"{found.path} holds the tensor {foreign[0]}, which {family.class_name} has no place for")
    with whole(destination) as partial:
        writer = Writer(partial, found.architecture.num_layers + 1)
        for index, group in enumerate(family.groups(found.architecture)):
            tensors = {tensor.name: reader.read(tensor) for tensor in group}
            for name, value in tensors.items():
                writer.record(index, name, value.nbytes)
            writer.write(index, tensors)
        writer.finish()
        config = load_json(found.path / "config.json")
        special = {k: v for k, v in config.items() if k.endswith("_token_id")}
        write_json(partial / "config.json", family.to_config(found.architecture, reader.dtype(), special))
        copy_tokenizer(found.path, partial)
        if keep_card:
            write_json(partial / CARD, found.card or card(found.architecture, parent=str(source.resolve())))
    return dataclasses.replace(found, path=destination)


def copy_tokenizer(source: pathlib.Path, destination: pathlib.Path) -> None:
    """Copies a tokenizer's files, and adds what other tools need to read the same ids."""
    for name in tokenizer_files.FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, destination / name)
    conversion.complete(destination)


def _at(tree: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def _set(tree: Any, path: tuple[str, ...], value: Any) -> None:
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = value


def _on_host(x: jax.Array) -> np.ndarray:
    if isinstance(x, jax.Array) and not x.is_fully_addressable:
        return np.asarray(multihost_utils.process_allgather(x, tiled=True))
    return np.asarray(x)
