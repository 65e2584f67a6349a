"""Merging from folder to folder, a layer of each model in memory at a time."""

import dataclasses
import hashlib
import json
import pathlib
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from flax import traverse_util

from kanana_jax.data.tokens import hugging_face
from kanana_jax.data.tokens.tokenizer import holds_tokenizer, load_tokenizer
from kanana_jax.errors import ConfigError
from kanana_jax.interop import model_folder
from kanana_jax.interop.card import Card
from kanana_jax.interop.families.family import canonical
from kanana_jax.interop.foreign import read_object
from kanana_jax.interop.model_folder import ModelFolder
from kanana_jax.models.architecture import Architecture
from kanana_jax.models.transformer import Params
from kanana_jax.parallel import multihost
from kanana_jax.surgery import merge
from kanana_jax.surgery.merge import MergeConfig

_TOKENIZING = ("model", "normalizer", "pre_tokenizer")  # parts of a tokenizer.json that decide the tokens of a text


def merge_folders(
    config: MergeConfig, base: ModelFolder, models: Sequence[ModelFolder], destination: pathlib.Path, card: Card
) -> dict[str, Any]:
    """Merges models into a folder, atomically; every process calls this, and layers are distributed among them.

    The result has the dtype of the merged models, or float32 if these differ.

    Args:
      base: the model whose tokenizer and special tokens are kept, and from which differences are taken.
      models: in the order of the config.

    Returns:
      For each layer, and for `outer` (embeddings and final norm): `moved`, the distance of each model from the base
      and of the result, relative to the base's length; and `cosines` of the models' differences, pair by pair.

    Raises:
      ConfigError: models that do not fit together.
      UserError: a model lacks a tensor, is truncated, or the disk is full.
    """
    check_alike(base, models)
    from_base = model_folder.open_weights(base)
    used = [model_folder.open_weights(models[i]) for i in config.used]
    heads = [weights.path for weights in used if weights.has_head]
    if heads:
        raise ConfigError(f"{heads[0]} is a reward model: only models that write text are merged")
    dtypes = {weights.dtype for weights in (*used, *([from_base] if config.from_base else ()))}
    found: dict[str, Any] = {}

    def merged(name: str, number: int, of_base: Params, of_models: list[Params]) -> Params:
        flat, others = traverse_util.flatten_dict(of_base), [traverse_util.flatten_dict(p) for p in of_models]
        measured, made = _Measured(len(others)), {}
        for path in sorted(flat):
            values = [params.pop(path) for params in others]
            draw = (number, zlib.crc32("/".join(path).encode()))
            made[path] = merge.merged(config, flat[path], values, draw)
            measured.add(flat[path], [*values, made[path]])
        found[name] = measured.figures()
        return traverse_util.unflatten_dict(made)

    def outer() -> Params:
        return merged("outer", 0, from_base.outer(), [weights.outer() for weights in used])

    def layer(i: int) -> Params:
        return merged(str(i), i + 1, from_base.layer(i), [weights.layer(i) for weights in used])

    dtype = dtypes.pop() if len(dtypes) == 1 else "float32"
    model_folder.write_layers(destination, base.architecture, outer, layer, card, from_base, dtype)
    return multihost.merge_states(found)


class _Measured:
    """Sums over tensors, in float64: of the base's squares, and of products of differences from the base."""

    def __init__(self, models: int):
        self._base, self._products = 0.0, np.zeros((models + 1, models + 1))

    def add(self, base: np.ndarray, values: Sequence[np.ndarray]) -> None:
        """Adds a tensor of the models and, as the last, of the result."""
        base = base.astype(np.float32).reshape(-1)
        tasks = [value.astype(np.float32).reshape(-1) - base for value in values]
        self._base += float(base @ base)
        self._products += [[float(a @ b) for a in tasks] for b in tasks]

    def figures(self) -> dict[str, Any]:
        lengths = np.sqrt(np.diag(self._products))
        pairs = [(i, j) for i in range(len(lengths) - 1) for j in range(i)]
        products = [lengths[i] * lengths[j] for i, j in pairs]
        return {
            "moved": (lengths / np.sqrt(self._base or 1.0)).tolist(),
            "cosines": [float(self._products[pair] / size) if size else None for pair, size in zip(pairs, products)],
        }


def check_alike(base: ModelFolder, models: Sequence[ModelFolder]) -> None:
    """Refuses models whose tensors or tokens do not correspond.

    Raises:
      ConfigError: another architecture, or another tokenizer.
      UserError: a damaged tokenizer.
    """
    wanted, own = canonical(base.architecture), _tokenizing(base)
    for model in models:
        found = canonical(model.architecture)
        for field in dataclasses.fields(Architecture):
            values = [getattr(a, field.name) for a in (found, wanted)]
            if values[0] != values[1]:
                raise ConfigError(
                    f"{model.path} cannot be merged with {base.path}: its {field.name} is {values[0]}, not "
                    f"{values[1]}: merge models with a common ancestor"
                )
        if own and (other := _tokenizing(model)) and not own & other:
            raise ConfigError(
                f"{model.path} cannot be merged with {base.path}: it has another tokenizer, so their tokens mean "
                "different texts: merge models with a common ancestor"
            )


def _tokenizing(model: ModelFolder) -> set[str]:
    """Names of a tokenizer: of two that are the same, one is shared, though tools write one vocabulary differently."""
    names = {noted} if (noted := model.card.get("tokenizer")) else set()
    if holds_tokenizer(model.path):
        names.add(load_tokenizer(model.path).fingerprint)
        file = model.path / hugging_face.FILE
        if file.is_file():
            parts = read_object(file)
            told = json.dumps([parts.get(key) for key in _TOKENIZING], sort_keys=True)
            names.add(hashlib.sha256(told.encode()).hexdigest())
    return names
