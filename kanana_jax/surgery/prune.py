"""Width and depth pruning: the parts to keep, by importance."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Literal

import numpy as np

from kanana_jax.errors import ConfigError, UserError
from kanana_jax.models.architecture import Architecture, LayerKind
from kanana_jax.surgery.cuts import CutList
from kanana_jax.surgery.importance import Importance


@dataclasses.dataclass(frozen=True)
class PruneConfig:
    """The target shape; 0 leaves a size as it is.

    Attributes:
      embed_dim, mlp_dim, num_heads, num_kv_heads, num_layers: sizes of the result.
      tie_embeddings: average the two embeddings (Kanana: from 4.5B to 2.1B).
      align_groups: take the same number of query heads from every KV group, as Kanana does; without it heads are ranked
        over all groups and read keys that they were not trained with (Table 15's control, never a good idea).
      layers: which go. `scattered`: the least important; `contiguous`: the block that is least important together, as
        a block (`Importance.blocks`); `last`: those before the last.
      rescale_norms: multiply each gain by rms(kept channels) / rms(all), so that outputs keep their magnitude.
      layer_pattern: the layers' kinds (`Architecture.layer_pattern`), to introduce sliding windows before a
        distillation; empty: unchanged.
    """

    embed_dim: int = 0
    mlp_dim: int = 0
    num_heads: int = 0
    num_kv_heads: int = 0
    num_layers: int = 0
    tie_embeddings: bool = False
    align_groups: bool = True
    layers: Literal["scattered", "contiguous", "last"] = "contiguous"
    rescale_norms: bool = False
    layer_pattern: tuple[LayerKind, ...] = ()


def shape(before: Architecture, config: PruneConfig, key: str = "prune") -> Architecture:
    """The shape of the result.

    Args:
      key: key of the config's section, for messages.

    Raises:
      ConfigError: nothing would change, a size would grow, the heads do not divide into their groups, or the layers
        kept would not follow the model's pattern.
    """
    sizes = {}
    for name in ("embed_dim", "mlp_dim", "num_heads", "num_kv_heads", "num_layers"):
        wanted, old = getattr(config, name), getattr(before, name)
        if wanted < 0 or wanted > old:
            raise ConfigError(f"config '{key}.{name}' is {wanted}: it must be between 1 and the model's {old}")
        sizes[name] = wanted or old
    if sizes["num_heads"] % sizes["num_kv_heads"]:
        raise ConfigError(
            f"config '{key}.num_heads' is {sizes['num_heads']}, which the {sizes['num_kv_heads']} KV groups do not "
            "divide: every group must keep as many heads"
        )
    per_group = sizes["num_heads"] // sizes["num_kv_heads"]
    if per_group > before.group_size:
        raise ConfigError(
            f"config '{key}.num_heads' is {sizes['num_heads']} over {sizes['num_kv_heads']} KV groups: that is "
            f"{per_group} per group, but the model has {before.group_size}"
        )
    gone, whole = before.num_layers - sizes["num_layers"], len(before.period)
    if whole > 1 and gone and (gone % whole or config.layers == "scattered"):
        raise ConfigError(
            f"config '{key}.num_layers' is {sizes['num_layers']}: layers of this model differ in their attention and "
            f"repeat every {whole}: remove a multiple of {whole} of its {before.num_layers}, with layers = "
            "'contiguous' or 'last'"
        )
    if config.rescale_norms and before.norm_placement != "pre":
        raise ConfigError(
            f"config '{key}.rescale_norms': this model has norms after attention and MLP, for which no rule is known: "
            "set it to false"
        )
    if config.tie_embeddings and before.tied_embeddings:
        raise ConfigError(f"config '{key}.tie_embeddings': the embeddings are already tied: remove the key")
    after = dataclasses.replace(
        before,
        **sizes,
        tied_embeddings=before.tied_embeddings or config.tie_embeddings,
        layer_pattern=config.layer_pattern or before.layer_pattern,
    )
    if before.embedding_multiplier == math.sqrt(before.embed_dim):
        # Gemma's classes only know the root of the width: the embeddings absorb the difference (`CutList`).
        after = dataclasses.replace(after, embedding_multiplier=math.sqrt(after.embed_dim))
    if after == before:
        raise ConfigError(f"config '{key}' names nothing that differs from the model's shape: nothing would change")
    return after


def cut_list(before: Architecture, config: PruneConfig, importance: Importance, key: str = "prune") -> CutList:
    """The parts to keep, by importance.

    Args:
      key: key of the config's section, for messages.

    Raises:
      ConfigError: see `shape`.
      UserError: the scores are another model's, or lack blocks of this length.
    """
    after = shape(before, config, key)
    importance.check(before)
    layers = _layers(importance, after.num_layers, config.layers)
    channels = neurons = heads = kv_heads = scales = None
    if after.embed_dim < before.embed_dim:
        channels = _best(importance.channels, after.embed_dim)
    if after.mlp_dim < before.mlp_dim:
        neurons = tuple(_best(importance.neurons[i], after.mlp_dim) for i in layers)
    if after.num_kv_heads < before.num_kv_heads or after.num_heads < before.num_heads:
        both = [_heads(importance.heads[i], before, after, config.align_groups) for i in layers]
        heads = tuple(h for h, _ in both)
        if after.num_kv_heads < before.num_kv_heads:
            kv_heads = tuple(kv for _, kv in both)
    if channels is not None and config.rescale_norms:
        # With rms(all) = 1 by definition, rms(kept) is the root of the mean of the kept squares.
        kept = np.sqrt(importance.residual[:, list(channels)].mean(axis=1))
        rows = [*(2 * i + j for i in layers for j in (0, 1)), 2 * before.num_layers]
        scales = tuple(float(x) for x in kept[rows])
    return CutList(before, after, layers, (False,) * len(layers), channels, neurons, heads, kv_heads, scales)


def _best(scores: np.ndarray, count: int) -> tuple[int, ...]:
    """The indices of the `count` highest scores, ascending; the first among equals."""
    order = np.argsort(-scores, kind="stable")[:count]
    return tuple(sorted(int(i) for i in order))


def _heads(scores: np.ndarray, before: Architecture, after: Architecture, align: bool):
    """The query heads, in the order of their groups, and KV heads to keep in one layer."""
    groups = scores.reshape(before.num_kv_heads, before.group_size)
    kv_heads = _best(groups.sum(axis=1), after.num_kv_heads)
    if not align:
        return _best(scores, after.num_heads), kv_heads
    G = before.group_size
    heads = tuple(k * G + i for k in kv_heads for i in _best(groups[k], after.group_size))
    return heads, kv_heads


def block_lengths(before: Architecture, configs: Iterable[PruneConfig]) -> tuple[int, ...]:
    """The lengths of the blocks of layers whose scores these cuts need, ascending (`importance.score`)."""
    contiguous = [config for config in configs if config.layers == "contiguous"]
    gone = {before.num_layers - (config.num_layers or before.num_layers) for config in contiguous}
    return tuple(sorted(gone - {0, 1}))


def _layers(importance: Importance, count: int, how: str) -> tuple[int, ...]:
    """The layers to keep."""
    total = len(importance.layers)
    gone = total - count
    if how == "scattered" or not gone:
        return _best(importance.layers, count)
    if how == "last":
        return (*range(total - gone - 1), total - 1)
    # The last layer stays, and the first if possible: nothing else does their work (arXiv:2403.17887, §4;
    # arXiv:2408.11796, §4.2).
    first = min(1, count - 1)
    scores = importance.blocks[gone - 1, first : total - gone]
    if not np.isfinite(scores).all():
        raise UserError(f"importance has no scores of blocks of {gone} layers: score the model again for this shape")
    start = first + int(np.argmin(scores))
    return (*range(start), *range(start + gone, total))
