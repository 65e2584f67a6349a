"""A cut list: which parts of a model are kept, and how to apply it.

One cut list covers every surgery: each layer of the result names the layer it comes from and the parts of it that stay.
Indexing with it is all that happens to the weights, except that, where the list says so, norms are rescaled, embeddings
are averaged or get another multiplier, and output projections of identity layers are zeroed. An array is indexed by the
names of its axes (`models/axes.py`), so a new part of a model needs no change here.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from kanana_jax.models import counts
from kanana_jax.models.architecture import Architecture
from kanana_jax.models.axes import Axes
from kanana_jax.models.transformer import Params, logical_axes
from kanana_jax.parallel.sharding import tree_shardings

Indices = tuple[int, ...]
# A block's norms whose output is read from the residual stream, in the order of `norm_scales`.
NORMS = ("attention_norm", "mlp_norm")


@dataclasses.dataclass(frozen=True)
class CutList:
    """The parts of a model to keep; None keeps everything; all indices refer to the old model and ascend.

    Attributes:
      before, after: the two shapes. If their `embedding_multiplier` differs, the table absorbs the difference, so
        that the embedded tokens stay as they are; and if it is the output matrix too, the final norm's gain takes it
        back.
      layers: for each new layer, the old one that it is made from.
      identity: for each new layer, whether it adds nothing at first (`o` and `down` are zero).
      channels: channels of the residual stream, `D'` of them.
      neurons: for each new layer, its `F'` neurons.
      heads: for each new layer, its `H'` query heads in the order of their groups.
      kv_heads: for each new layer, its `K'` KV heads.
      norm_scales: factors on the gains of the 2·L' + 1 norms (attention and MLP of each layer; final).
    """

    before: Architecture
    after: Architecture
    layers: Indices
    identity: tuple[bool, ...]
    channels: Indices | None = None
    neurons: tuple[Indices, ...] | None = None
    heads: tuple[Indices, ...] | None = None
    kv_heads: tuple[Indices, ...] | None = None
    norm_scales: tuple[float, ...] | None = None

    def __post_init__(self):
        a, b = self.before, self.after
        if len(self.layers) != b.num_layers or len(self.identity) != b.num_layers:
            raise ValueError(f"a cut list for {b.num_layers} layers names {len(self.layers)}")
        if any(not 0 <= layer < a.num_layers for layer in self.layers):
            raise ValueError(f"layers must be in 0 … {a.num_layers - 1}: {self.layers}")
        if a.head_dim != b.head_dim or a.vocab_size != b.vocab_size:
            raise ValueError("surgery keeps head_dim and vocab_size")
        kinds, same = a.kinds, a.layer_pattern == b.layer_pattern  # a different pattern was requested
        if same and any(kinds[layer] != kind for layer, kind in zip(self.layers, b.kinds)):
            raise ValueError("surgery keeps the kind of each layer, so layers move by whole periods of their pattern")
        if b.tied_embeddings < a.tied_embeddings:
            raise ValueError("tied embeddings cannot be untied")
        for name, kept, old, new in (
            ("channels", (self.channels,), a.embed_dim, b.embed_dim),
            ("neurons", self.neurons, a.mlp_dim, b.mlp_dim),
            ("heads", self.heads, a.num_heads, b.num_heads),
            ("kv_heads", self.kv_heads, a.num_kv_heads, b.num_kv_heads),
        ):
            for indices in kept or (None,):
                if indices is None:
                    if old != new:
                        raise ValueError(f"{old} {name} must become {new}, but the cut list does not say which to keep")
                elif len(indices) != new or len(set(indices)) != new or not 0 <= min(indices) <= max(indices) < old:
                    raise ValueError(f"the cut list keeps {len(indices)} of {old} {name}, but the new shape has {new}")

    def kept(self, index: int | None = None) -> dict[str, Indices | None]:
        """The parts to keep, by axis: those of all layers, and those of new layer `index`."""
        found = dict.fromkeys(("embed", "norm"), self.channels)
        if index is not None:
            of_layers = {"heads": self.heads, "kv_heads": self.kv_heads, "mlp": self.neurons}
            found |= {axis: None if kept is None else kept[index] for axis, kept in of_layers.items()}
        return found

    def report(self) -> dict[str, Any]:
        """The content of `surgery.json`: the parts kept, copied and reset, with size and cost before and after."""
        a, b = self.before, self.after
        copied = [i for i, layer in enumerate(self.layers) if layer in self.layers[:i]]
        return {
            "before": a.to_dict(),
            "after": b.to_dict(),
            "parameters": [counts.parameters(a), counts.parameters(b)],
            "parameters_without_embedding": [
                counts.parameters(a) - counts.embedding_parameters(a),
                counts.parameters(b) - counts.embedding_parameters(b),
            ],
            "forward_flops_per_token": [counts.forward_flops_per_token(x, min(x.max_seq_len, 8192)) for x in (a, b)],
            "layers": list(self.layers),
            "channels": None if self.channels is None else list(self.channels),
            "copied_layers": copied,
            "identity_layers": [i for i, reset in enumerate(self.identity) if reset],
            "dropped_layers": sorted(set(range(a.num_layers)) - set(self.layers)),
            "kept": {
                "channels": [b.embed_dim, a.embed_dim],
                "neurons": [b.mlp_dim, a.mlp_dim],
                "heads": [b.num_heads, a.num_heads],
                "kv_heads": [b.num_kv_heads, a.num_kv_heads],
            },
            "tied_by_averaging": b.tied_embeddings and not a.tied_embeddings,
            "norms_rescaled": self.norm_scales is not None,
        }


def cut_outer(cuts: CutList, outer: Params) -> Params:
    """Embedding, final norm and output matrix of the result; NumPy or JAX arrays.

    Embeddings are tied by averaging (Kanana, arXiv:2502.18934, §2.3).
    """
    scale = 1.0 if cuts.norm_scales is None else cuts.norm_scales[-1]

    def leaf(axes: Axes, x):
        x = _indexed(x, axes, cuts.kept())
        return _times(x, scale) if "norm" in axes else x

    cut = _map_named(leaf, {k: v for k, v in logical_axes(cuts.before).items() if k != "blocks"}, outer)
    if cuts.after.tied_embeddings and not cuts.before.tied_embeddings:
        unembedding = cut.pop("unembedding")
        both = cut["embedding"].astype(np.float32) + unembedding.astype(np.float32)
        cut["embedding"] = (0.5 * both).astype(unembedding.dtype)
    factor = cuts.before.embedding_multiplier / cuts.after.embedding_multiplier
    cut["embedding"] = _times(cut["embedding"], factor)
    if cuts.after.tied_embeddings and factor != 1.0:
        offset = np.float32(cuts.after.norm_unit_offset)
        gain = cut["final_norm"]["scale"]
        scaled = (gain.astype(np.float32) + offset) / np.float32(factor) - offset
        cut["final_norm"] = {"scale": scaled.astype(gain.dtype)}
    return cut


def cut_layer(cuts: CutList, index: int, layer: Params) -> Params:
    """New layer `index` from the old layer that the list names; NumPy or JAX arrays of one layer."""
    axes = logical_axes(cuts.before)["blocks"]
    kept = cuts.kept(index)
    scales = (1.0,) * len(NORMS) if cuts.norm_scales is None else cuts.norm_scales[len(NORMS) * index :]

    def part(name: str) -> Params:
        def leaf(axes: Axes, x):
            own = axes[1:]  # without `layers`
            x = _indexed(x, own, kept)
            if "norm" in own and name in NORMS:
                return _times(x, scales[NORMS.index(name)])
            return _times(x, 0.0) if cuts.identity[index] and own[-1] == "embed" else x

        return _map_named(leaf, axes[name], layer[name])

    return {name: part(name) for name in axes}


def _map_named(leaf: Callable[[Axes, Any], Any], axes: Params, params: Params) -> Params:
    return jax.tree.map(leaf, axes, params, is_leaf=lambda x: isinstance(x, tuple))


def _indexed(x, axes: Axes, kept: dict[str, Indices | None]):
    """The part of an array to keep, axis by axis."""
    for i, axis in enumerate(axes):
        indices = kept.get(axis)
        if indices is not None:
            x = x[(slice(None),) * i + (np.array(indices),)]
    return x


def _times(x, factor: float):
    return x if factor == 1.0 else (x.astype(np.float32) * np.float32(factor)).astype(x.dtype)


def apply(cuts: CutList, params: Params, mesh: Mesh | None = None) -> Params:
    """The new model on the old one's mesh; nothing is gathered on one device."""
    shardings = None if mesh is None else tree_shardings(mesh, logical_axes(cuts.after))

    def cut(params: Params) -> Params:
        blocks = params["blocks"]
        layers = [
            cut_layer(cuts, i, jax.tree.map(lambda x, old=old: x[old], blocks)) for i, old in enumerate(cuts.layers)
        ]
        stacked = jax.tree.map(lambda *x: jax.numpy.stack(x), *layers)
        return {**cut_outer(cuts, {k: v for k, v in params.items() if k != "blocks"}), "blocks": stacked}

    return jax.jit(cut, out_shardings=shardings)(params)
