"""What of a model stays, and carrying it out.

One plan covers every surgery: each layer of the result names the layer it comes from and the parts of it that stay.
Indexing with it is all that happens to the weights, but for norms that are rescaled, embeddings that are averaged and
output projections of identity layers that are zeroed, where the plan says so.
"""

import dataclasses
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from kanana_jax.models import counts
from kanana_jax.models.architecture import Architecture, Runtime
from kanana_jax.models.transformer import Params, logical_axes
from kanana_jax.parallel.sharding import tree_shardings

Indices = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What of a model stays; None keeps everything, all indices are those of the old model, ascending.

    Attributes:
      before, after: the two shapes.
      layers: for each new layer the old one that it is made of.
      identity: for each new layer whether it adds nothing at first (`o` and `down` are zero).
      channels: of the residual stream, `D'` of them.
      neurons: for each new layer, `F'` of them.
      heads: for each new layer its query heads in the order of their groups, `H'` of them.
      kv_heads: for each new layer, `K'` of them.
      norm_scales: what the gains of the 2·L' + 1 norms (attention, MLP of each layer; final) are multiplied by.
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
            raise ValueError(f"a plan for {b.num_layers} layers names {len(self.layers)}")
        if any(not 0 <= layer < a.num_layers for layer in self.layers):
            raise ValueError(f"layers must be in 0 … {a.num_layers - 1}: {self.layers}")
        if a.head_dim != b.head_dim or a.vocab_size != b.vocab_size:
            raise ValueError("surgery keeps head_dim and vocab_size")
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
                        raise ValueError(f"{old} {name} shall become {new}, but the plan does not say which stay")
                elif len(indices) != new or len(set(indices)) != new or not 0 <= min(indices) <= max(indices) < old:
                    raise ValueError(f"the plan keeps {len(indices)} of {old} {name}, the new shape has {new}")

    def report(self) -> dict[str, Any]:
        """What was kept, copied and reset, and what that does to size and cost; what `surgery.json` holds."""
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


def cut_outer(plan: Plan, outer: Params) -> Params:
    """Embedding, final norm and output matrix of the result; arrays of NumPy or JAX.

    Embeddings are tied by averaging (Kanana, arXiv:2502.18934, §2.3).
    """
    c = slice(None) if plan.channels is None else np.array(plan.channels)
    scale = 1.0 if plan.norm_scales is None else plan.norm_scales[-1]
    cut = {
        "embedding": outer["embedding"][:, c],
        "final_norm": {"scale": _times(outer["final_norm"]["scale"][c], scale)},
    }
    if not plan.before.tied_embeddings:
        unembedding = outer["unembedding"][:, c]
        if plan.after.tied_embeddings:
            dtype = unembedding.dtype
            both = cut["embedding"].astype(np.float32) + unembedding.astype(np.float32)
            cut["embedding"] = (0.5 * both).astype(dtype)
        else:
            cut["unembedding"] = unembedding
    return cut


def cut_layer(plan: Plan, index: int, layer: Params) -> Params:
    """New layer `index` from the old layer that the plan names; arrays of one layer, of NumPy or JAX."""

    def of(kept):
        return slice(None) if kept is None else np.array(kept[index])

    c = slice(None) if plan.channels is None else np.array(plan.channels)
    attention, mlp = layer["attention"], layer["mlp"]
    heads, kv_heads, neurons = of(plan.heads), of(plan.kv_heads), of(plan.neurons)
    scales = (1.0, 1.0) if plan.norm_scales is None else plan.norm_scales[2 * index : 2 * index + 2]
    reset = 0.0 if plan.identity[index] else 1.0
    return {
        "attention_norm": {"scale": _times(layer["attention_norm"]["scale"][c], scales[0])},
        "attention": {
            "q": attention["q"][c][:, heads],
            "k": attention["k"][c][:, kv_heads],
            "v": attention["v"][c][:, kv_heads],
            "o": _times(attention["o"][heads][..., c], reset),
        },
        "mlp_norm": {"scale": _times(layer["mlp_norm"]["scale"][c], scales[1])},
        "mlp": {
            "gate": mlp["gate"][c][:, neurons],
            "up": mlp["up"][c][:, neurons],
            "down": _times(mlp["down"][neurons][:, c], reset),
        },
    }


def _times(x, factor: float):
    return x if factor == 1.0 else (x.astype(np.float32) * np.float32(factor)).astype(x.dtype)


def apply(plan: Plan, params: Params, runtime: Runtime, mesh: Mesh | None = None) -> Params:
    """The new model on the mesh that the old one is on; nothing is gathered on one device."""
    shardings = None if mesh is None else tree_shardings(mesh, logical_axes(plan.after, runtime))

    def cut(params: Params) -> Params:
        blocks = params["blocks"]
        layers = [
            cut_layer(plan, i, jax.tree.map(lambda x, old=old: x[old], blocks)) for i, old in enumerate(plan.layers)
        ]
        stacked = jax.tree.map(lambda *x: jax.numpy.stack(x), *layers)
        return {**cut_outer(plan, {k: v for k, v in params.items() if k != "blocks"}), "blocks": stacked}

    return jax.jit(cut, out_shardings=shardings)(params)
