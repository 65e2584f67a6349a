"""Models on disk: a Hugging Face folder (`families/`) plus `model.json`, which records the model's history.

Other tools can therefore load a stage's result unchanged, and this library reads theirs.

    config.json · model-*.safetensors · model.safetensors.index.json · tokenizer files · model.json
"""

import dataclasses
import functools
import hashlib
import json
import logging
import math
import pathlib
import types
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from kanana_jax.data.tokens import conversion
from kanana_jax.data.tokens import tokenizer as tokenizer_files
from kanana_jax.errors import ConfigError, UserError
from kanana_jax.files import place, whole, write_json
from kanana_jax.interop import embedding_folder, families, sentence_transformers, shared_folder
from kanana_jax.interop.card import CARD, About, Card, card, read_card
from kanana_jax.interop.families.family import Family, Special, canonical
from kanana_jax.interop.families.names import Tensor
from kanana_jax.interop.foreign import read_object
from kanana_jax.interop.safetensors import Writer
from kanana_jax.interop.weights import HEAD, NUMPY, Weights, at, has_output, put
from kanana_jax.models import transformer
from kanana_jax.models.architecture import Architecture, Runtime
from kanana_jax.models.embedding import Embedding
from kanana_jax.parallel import multihost
from kanana_jax.parallel.sharding import tree_shardings

log = logging.getLogger("kanana")
# In a bucket, these files are written after all others, because readers take either as the sign of a complete folder.
LAST = ("config.json", CARD)


@dataclasses.dataclass(frozen=True)
class ModelFolder:
    """A model folder that `find` has located and whose configuration it has read.

    Attributes:
      path: the folder that holds config.json.
      architecture: architecture described by config.json.
      card: contents of model.json; {} for a folder that other tools have written.
      family: the Hugging Face family that names its tensors.
      embedding: settings for embedding texts, from model.json or the files of sentence-transformers; None: the model
        was not trained to embed.
    """

    path: pathlib.Path
    architecture: Architecture
    card: Card
    family: Family
    embedding: Embedding | None = None


def find(path: str | pathlib.Path) -> ModelFolder:
    """The model at `path`: a model folder, a stage folder (its `model/`), or a Hugging Face folder.

    Raises:
      UserError: there is no model, the stage is not finished, the family is unknown, or the folder embeds texts with
        modules that are not supported (`embedding_folder.read`).
    """
    path = place(path)
    if (path / "model" / "config.json").is_file():
        path = path / "model"
    file = path / "config.json"
    if (path / "checkpoints").is_dir() and not file.is_file():
        raise UserError(f"stage {path} has no model yet: let 'kanana run' finish it")
    if not file.is_file():
        raise UserError(f"{path} is not a model: it has no config.json (give a model, stage or Hugging Face folder)")
    config = read_object(file)
    if "config" in config:
        raise UserError(f"{path} is a workdir, not a model: name one of its stages: {path}/STAGE")
    card = read_card(path)
    foreign = None if card else embedding_folder.read(path, config)
    family, architecture = families.read(config if foreign is None else embedding_folder.as_family(config), str(file))
    if foreign is not None:
        family = embedding_folder.with_bare_names(family)
        if not has_output(path, architecture):
            architecture = dataclasses.replace(architecture, tied_embeddings=True)
    entry = card.get("embedding")
    return ModelFolder(path, architecture, card, family, foreign if entry is None else Embedding.of_card(entry))


def open_weights(folder: ModelFolder, headers_only: bool = False) -> Weights:
    """Opens the weights of a model folder; all code that reads weights goes through this function.

    Args:
      headers_only: whether to check the files' headers only, without access to values (`Weights`).

    Raises:
      UserError: the weights do not match config.json (`Weights`), or model.json describes another architecture.
    """
    weights = Weights(folder.path, folder.architecture, folder.family, headers_only)
    if weights.skipped:
        log.warning("%s: %d tensors of parts other than the text model are left out", folder.path, weights.skipped)
    noted = folder.card.get("architecture")
    if noted is not None:
        try:
            before = Architecture.from_dict(noted)
        except ConfigError as error:
            raise UserError(f"{folder.path / CARD}: its architecture is invalid ({error}): restore the file") from error
        found, before = canonical(folder.architecture), canonical(before)
        changed = [
            f"{field.name} {getattr(found, field.name)} and {getattr(before, field.name)}"
            for field in dataclasses.fields(Architecture)
            if getattr(found, field.name) != getattr(before, field.name)
        ]
        if changed:
            raise UserError(
                f"{folder.path}: config.json and {CARD} describe different models ({', '.join(changed)[:200]}): "
                "restore the one that was changed, or change both"
            )
    return weights


def fingerprint(folder: ModelFolder) -> str:
    """A hash of architecture and weights, independent of how they are split into files; reads all weights."""
    weights = open_weights(folder)
    digest = hashlib.blake2b(json.dumps(folder.architecture.to_dict(), sort_keys=True).encode(), digest_size=16)
    for group in families.family_of(folder.architecture).groups(folder.architecture):
        for tensor in group:
            value = np.ascontiguousarray(weights.read(tensor))
            digest.update(f"{tensor.name} {value.dtype} {value.shape}".encode())
            digest.update(value.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def load_params(folder: ModelFolder, runtime: Runtime, mesh: Mesh) -> transformer.Params:
    """Loads the parameters onto the mesh, in `runtime.param_dtype`; each host reads each tensor once.

    Raises:
      UserError: see `open_weights` and `Weights.read`.
    """
    a = folder.architecture
    dtype = NUMPY[runtime.param_dtype]
    weights = open_weights(folder)  # checks the sizes in config.json before arrays of those sizes are made
    shapes = transformer.abstract_params(a, runtime)
    shardings = tree_shardings(mesh, transformer.logical_axes(a))
    pieces: dict[tuple[str, ...], dict[Any, np.ndarray]] = {}
    for group in families.family_of(a).groups(a):
        for tensor in group:
            shape, sharding = at(shapes, tensor.path).shape, at(shardings, tensor.path)
            index_of = sharding.addressable_devices_indices_map(shape)
            value = tensor.to_ours(weights.read(tensor))
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
        shape, sharding = at(shapes, path).shape, at(shardings, path)
        arrays = [jax.device_put(x, device) for device, x in parts.items()]
        put(params, path, jax.make_array_from_single_device_arrays(shape, sharding, arrays))
    return params


def load_head(folder: ModelFolder, runtime: Runtime) -> np.ndarray:
    """The head of a reward model, `[D]`, in `runtime.param_dtype`.

    Raises:
      UserError: the model has no head.
    """
    return open_weights(folder).head()[0].astype(NUMPY[runtime.param_dtype])


def write(
    folder: pathlib.Path,
    a: Architecture,
    params: transformer.Params,
    card: Card,
    tokenizer: pathlib.Path | None,
    special: Special,
    head: jax.Array | None = None,
) -> None:
    """Writes a model folder completely or not at all. Every process must call it; each writes some of the layers.

    Args:
      folder: the result; replaced if it exists.
      a, params: the model; parameters may be sharded over hosts.
      card: contents of `model.json`.
      tokenizer: a folder whose tokenizer files are copied; None: none are.
      special: bos_token_id, eos_token_id, pad_token_id for config.json.
      head: head of a reward model, `[D]`.
    """
    dtype = str(jax.tree.leaves(params)[0].dtype)

    def tensors(index: int, mine: bool) -> dict[str, np.ndarray]:
        del mine  # gathering an array that is sharded over hosts takes all processes
        found = {}
        for tensor in _group(a, index):
            leaf = at(params, tensor.path)
            found[tensor.name] = tensor.to_theirs(on_host(leaf if tensor.layer is None else leaf[tensor.layer]))
        if head is not None and index == 0:
            found[HEAD] = on_host(head)[None]
        return found

    _write_folder(folder, a, dtype, tensors, card, tokenizer, special, {} if head is None else {HEAD: head.size})


def write_layers(
    folder: pathlib.Path,
    a: Architecture,
    outer: Callable[[], transformer.Params],
    layer: Callable[[int], transformer.Params],
    card: Card,
    parent: Weights,
    dtype: str = "",
) -> None:
    """Like `write`, for a model that is made layer by layer; a process requests only the layers that it writes.

    Args:
      outer: makes all parameters except the blocks', as NumPy arrays.
      layer: makes the parameters of block `i`, without the layer axis.
      parent: weights whose dtype, tokenizer and special tokens the new model takes over.
      dtype: dtype of the new model, if it is not the parent's.
    """
    dtype = dtype or parent.dtype

    def tensors(index: int, mine: bool) -> dict[str, np.ndarray]:
        if not mine:
            return {}
        made = {"blocks": layer(index - 1)} if index else outer()
        return {
            tensor.name: tensor.to_theirs(np.asarray(at(made, tensor.path)).astype(NUMPY[dtype], copy=False))
            for tensor in _group(a, index)
        }

    _write_folder(folder, a, dtype, tensors, card, parent.path, special_ids(parent.path))


def special_ids(folder: pathlib.Path) -> dict[str, Any]:
    """The ids of special tokens in a folder's config.json, unchanged."""
    return {key: value for key, value in read_object(folder / "config.json").items() if key.endswith("_token_id")}


def _group(a: Architecture, index: int) -> list[Tensor]:
    """The tensors of file `index`: 0 holds the outer tensors, each other file one layer."""
    family = families.family_of(a)
    return family.layer_tensors(a, index - 1) if index else family.outer_tensors(a)


def _write_folder(
    folder: pathlib.Path,
    a: Architecture,
    dtype: str,
    tensors: Callable[[int, bool], dict[str, np.ndarray]],
    card: Card,
    tokenizer: pathlib.Path | None,
    special: Special,
    more: Mapping[str, int] = types.MappingProxyType({}),
) -> None:
    """Writes the tensors of every group, spread over the processes, and the other files of a model folder.

    Args:
      tensors: makes group `index`; `mine` says whether this process writes it. All processes call it for all groups.
      more: number of elements of each tensor that the first group has in addition to the architecture's.
    """
    first = jax.process_index() == 0
    with shared_folder.opened(folder, LAST) as made:
        if first:
            made.begin()
        multihost.barrier("model folder begun")
        writer = _writer(made.own, a, dtype)
        for name, size in more.items():
            writer.record(0, name, size * NUMPY[dtype].itemsize)
        for index in range(a.num_layers + 1):
            mine = index % jax.process_count() == jax.process_index()
            found = tensors(index, mine)
            if mine:
                writer.write(index, found)
                made.written(writer.file_name(index))
        if first:
            _write_rest(writer, a, dtype, card, tokenizer, special)
        multihost.barrier("model folder written")
        if first:
            made.finish({writer.file_name(index) for index in range(a.num_layers + 1)})
        multihost.barrier("model folder in place")


def _writer(folder: pathlib.Path, a: Architecture, dtype: str) -> Writer:
    """A writer in which the file of every tensor is already recorded."""
    writer = Writer(folder, a.num_layers + 1)
    for index in range(a.num_layers + 1):
        for tensor in _group(a, index):
            writer.record(index, tensor.name, math.prod(tensor.shape) * NUMPY[dtype].itemsize)
    return writer


def _write_rest(
    writer: Writer, a: Architecture, dtype: str, card: Card, tokenizer: pathlib.Path | None, special: Special
) -> None:
    """Writes all files other than the weights."""
    writer.finish()
    write_json(writer.folder / "config.json", families.family_of(a).to_config(a, dtype, special))
    if tokenizer is not None:
        copy_tokenizer(tokenizer, writer.folder)
    write_json(writer.folder / CARD, card)


def transfer(
    source: pathlib.Path, destination: pathlib.Path, *, keep_card: bool, family_name: str = "", readme: str = ""
) -> ModelFolder:
    """Streams a model from one folder to another, checking every tensor against the architecture.

    An import (`keep_card=True`) writes `model.json` next to the weights. An export omits it, and for a model that was
    trained to embed adds the files of sentence-transformers. One layer is in memory at a time.

    Args:
      family_name: for an export, the `model_type` of the family to write; default: the first family whose class
        computes the same function.
      readme: for an export, the text of its model card (`model_card.text`).

    Returns:
      The new folder.

    Raises:
      UserError: something is missing, truncated or of another shape, or no class (or not the named one) computes the
        model; `destination` is then untouched.
      ConfigError: `destination` exists and is not empty, or there is no such family.
    """
    found = find(source)
    of = families.family_of if keep_card else functools.partial(families.export_family, name=family_name)
    try:
        family = of(found.architecture)
    except UserError as error:
        raise type(error)(f"{source}: {error}") from error
    if destination.exists() and any(destination.iterdir()):
        raise ConfigError(f"{destination} exists and is not empty: name another folder")
    embeds = None if keep_card else found.embedding
    more = {} if embeds is None else sentence_transformers.config_keys(embeds, found.architecture)
    weights = open_weights(found)
    with whole(destination, LAST) as partial:
        writer = Writer(partial, found.architecture.num_layers + 1)
        for index, group in enumerate(family.groups(found.architecture)):
            tensors = {tensor.name: weights.read(tensor) for tensor in group}
            if weights.has_head and index == 0:
                tensors[HEAD] = weights.head()
            for name, value in tensors.items():
                writer.record(index, name, value.nbytes)
            writer.write(index, tensors)
        writer.finish()
        config = family.to_config(found.architecture, weights.dtype, special_ids(found.path))
        write_json(partial / "config.json", config | more)
        copy_tokenizer(found.path, partial)
        if embeds is not None:
            sentence_transformers.write(partial, embeds, found.architecture)
        if keep_card:
            write_json(partial / CARD, found.card or _first_card(found, source))
        if readme:
            (partial / "README.md").write_text(readme, encoding="utf-8")
    return dataclasses.replace(found, path=destination, family=family)


def _first_card(found: ModelFolder, source: pathlib.Path) -> Card:
    """The first `model.json` of an imported model.

    It records the tokenizer's fingerprint, since other tokenizers of the same size would fit the model as well.
    """
    has_one = tokenizer_files.holds_tokenizer(found.path)
    tokenizer = tokenizer_files.load_tokenizer(found.path).fingerprint if has_one else None
    more: About = {} if found.embedding is None else {"embedding": found.embedding.to_dict()}
    return card(found.architecture, parent=str(source.resolve()), tokenizer=tokenizer, **more)


def copy_tokenizer(source: pathlib.Path, destination: pathlib.Path) -> None:
    """Copies a tokenizer's files, and adds those that other tools need to produce the same ids."""
    tokenizer_files.copy_files(source, destination)
    conversion.complete(destination)


def on_host(x: jax.Array) -> np.ndarray:
    """An array in host memory, gathered from all hosts if it is sharded over them; every process must call it."""
    if isinstance(x, jax.Array) and not x.is_fully_addressable:
        return np.asarray(multihost_utils.process_allgather(x, tiled=True))
    return np.asarray(x)
